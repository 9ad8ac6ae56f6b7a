"""What stands in for compiled parts when the host is timed on a library's own Python."""

import pytest

torch = pytest.importorskip("torch")

from numerics.card import host_extension  # noqa: E402
from numerics.card.host_extension import TOP, Clock, Extension  # noqa: E402
from numerics.card.host_library import TOKENS  # noqa: E402


def test_what_is_apart_is_counted_once(monkeypatch):
    """A collective within a call of the extension is the extension's time, and a call of each."""
    clock, ticks = Clock(), iter([0.0, 1.0, 10.0])
    monkeypatch.setattr(host_extension, "NOW", lambda: next(ticks))
    inner = clock.apart("inner", lambda: "done")
    assert clock.apart("outer", inner)() == "done"
    assert clock.spent == {"outer": 10.0} and clock.calls == {"outer": 1, "inner": 1}
    clock.clear()
    assert not clock.spent and not clock.calls


def test_time_is_kept_where_a_call_fails(monkeypatch):
    clock, ticks = Clock(), iter([0.0, 2.0])
    monkeypatch.setattr(host_extension, "NOW", lambda: next(ticks))
    with pytest.raises(ZeroDivisionError):
        clock.apart("failing", lambda: 1 / 0)()
    assert clock.spent == {"failing": 2.0} and clock.depth == 0


@pytest.mark.parametrize("experts", [8, 32, 128])
def test_each_expert_gets_as_many_tokens(experts):
    chosen = host_extension.balanced(torch.empty(TOKENS, 1, experts))
    assert chosen.sum(1).eq(TOP).all()
    assert chosen.sum(0).eq(TOKENS * TOP // experts).all()


def test_a_product_has_the_shape_of_theirs():
    """A is [out, in] and turned forward; a weight's gradient has both turned the other way round."""
    weight, rows, down = torch.empty(6, 4), torch.empty(5, 1, 4), torch.empty(5, 6)
    made = Extension().generic_gemm(weight, True, rows, False, None)
    assert made[0].shape == (5, 1, 6) and made[0].dtype == torch.bfloat16
    assert Extension().generic_gemm(weight, False, down, False, None)[0].shape == (5, 4)
    assert Extension().generic_gemm(torch.empty(5, 4), False, down, True, None)[0].shape == (6, 4)
    kept = torch.empty(5, 6)
    assert Extension().generic_gemm(weight, True, rows, False, kept)[0] is kept


def test_what_the_extension_has_not_is_refused_when_it_is_called():
    missing = Extension().thd_read_half_tensor
    with pytest.raises(NotImplementedError, match="thd_read_half_tensor"):
        missing()
