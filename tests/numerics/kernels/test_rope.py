"""Rotary embedding and YaRN: the reference against complex numbers, the kernels against the reference."""

import math

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

from numerics.kernels import rope as kernels  # noqa: E402
from numerics.reference import compare  # noqa: E402
from numerics.reference import rope as reference  # noqa: E402
from tests.numerics import interpreter  # noqa: E402

interpreter.install()
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def tables(length: int, d: int, factor: float = 40.0) -> tuple:
    return reference.rope_tables(torch.arange(length), reference.yarn_frequencies(d, factor=factor))


def test_reference_turns_complex_numbers() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 5, 3, 16)
    frequency = reference.yarn_frequencies(16)
    cos, sin = reference.rope_tables(torch.arange(5), frequency)
    turn = torch.polar(torch.ones(5, 8).double(), torch.arange(5)[:, None] * frequency.double())
    expected = torch.view_as_real(torch.view_as_complex(x.double().unflatten(-1, (-1, 2))) * turn[:, None]).flatten(-2)
    torch.testing.assert_close(reference.rope(x, cos, sin), expected.float(), rtol=1e-5, atol=1e-6)


def test_relative_position_is_what_counts() -> None:
    torch.manual_seed(0)
    q, k = torch.randn(2, 1, 1, 1, 32)
    cos, sin = tables(20, 32, 1.0)
    at = lambda x, p: reference.rope(x, cos[p : p + 1], sin[p : p + 1]).flatten()
    assert math.isclose(float(at(q, 9) @ at(k, 4)), float(at(q, 17) @ at(k, 12)), rel_tol=1e-4, abs_tol=1e-4)


def test_backward_is_the_transpose() -> None:
    torch.manual_seed(0)
    x, dy = torch.randn(1, 6, 2, 8), torch.randn(1, 6, 2, 8)
    cos, sin = tables(6, 8)
    leaf = x.clone().requires_grad_()
    reference.rope(leaf, cos, sin).backward(dy)
    torch.testing.assert_close(reference.rope_backward(dy, cos, sin), leaf.grad)


def test_yarn_keeps_fast_pairs_and_stretches_slow_ones() -> None:
    """DeepSeek-V3: 64 rotary elements, base 10,000, factor 40 from 4,096 positions; pairs 10 to 23 lie on the ramp."""
    plain, yarn = reference.yarn_frequencies(64), reference.yarn_frequencies(64, factor=40.0)
    assert torch.equal(plain, 1 / 10000.0 ** (torch.arange(0, 64, 2) / 64))
    assert torch.equal(yarn[:11], plain[:11])
    torch.testing.assert_close(yarn[23:], plain[23:] / 40)
    assert ((yarn[11:23] < plain[11:23]) & (yarn[11:23] > plain[11:23] / 40)).all()


def test_yarn_temperature() -> None:
    assert reference.yarn_temperature(1.0) == 1.0
    assert math.isclose(reference.yarn_temperature(40.0), 0.1 * math.log(40) + 1)
    cos, _ = reference.rope_tables(torch.zeros(1), torch.ones(4), magnitude=2.0)
    assert torch.equal(cos, torch.full((1, 4), 2.0))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("shape", [(2, 9, 3, 16), (1, 40, 1, 64), (1, 1, 128, 64), (1, 3, 2, 2)])
def test_kernel(shape: tuple[int, ...], dtype: "torch.dtype") -> None:
    torch.manual_seed(0)
    x = torch.randn(shape).to(dtype)
    cos, sin = tables(shape[1], shape[3])
    moved = (x.to(DEVICE), cos.to(DEVICE), sin.to(DEVICE))
    # A device may fuse a product into the sum: half an ulp of the larger term, which cancellation can magnify.
    tolerance = {"rtol": 2.0**-8, "atol": 1e-3} if dtype == torch.bfloat16 else {"rtol": 1e-6, "atol": 1e-6}
    torch.testing.assert_close(kernels.rope(*moved).cpu(), reference.rope(x, cos, sin), **tolerance)
    torch.testing.assert_close(kernels.rope_backward(*moved).cpu(), reference.rope_backward(x, cos, sin), **tolerance)


def test_a_slice_of_the_projection() -> None:
    """The rotary part of 192 elements a head, in place of a copy."""
    torch.manual_seed(0)
    x = torch.randn(2, 5, 3, 192).bfloat16()
    cos, sin = tables(5, 64)
    actual = kernels.rope(x.to(DEVICE)[..., 128:], cos.to(DEVICE), sin.to(DEVICE))
    torch.testing.assert_close(actual.cpu(), reference.rope(x[..., 128:], cos, sin), rtol=2.0**-8, atol=1e-3)


def test_a_swapped_sign_does_not_pass() -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 8, 2, 32)
    cos, sin = tables(8, 32)
    with pytest.raises(compare.GateError):
        compare.gate(reference.rope(x, cos, -sin), reference.rope(x, cos, sin))


def test_errors() -> None:
    cos, sin = tables(4, 8)
    with pytest.raises(ValueError, match=r"got x \[1, 5, 2, 8\], cos \[4, 4\]"):
        reference.rope(torch.zeros(1, 5, 2, 8), cos, sin)
    with pytest.raises(ValueError, match="power of two of rotary elements; got 6"):
        kernels.rope(torch.zeros(1, 4, 2, 6, device=DEVICE), *[t.to(DEVICE) for t in tables(4, 6)])
    assert kernels.rope(torch.zeros(0, 4, 2, 8, device=DEVICE), cos, sin).shape == (0, 4, 2, 8)
