"""What was not understood: shares are of the time it is about, and nothing counts twice."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from numerics.traces import rules
from numerics.traces.importer import Analysis, analyse
from numerics.traces.trace import read_trace
from numerics.traces.unknowns import CATCH_ALL, NO_RULE, UNJOINED, shares, unknown
from tests.numerics.traces.made import Event, kernel, launch, launched, span, write

GEMM, STRANGE = "my_bf16_gemm", "strange_thing"


def analysed(folder: Path, events: list[Event]) -> Analysis:
    return analyse(read_trace(write(folder, events)), rules.load("torch"))


def test_the_share_of_kernels_without_launch_is_that_of_their_time(tmp_path: Path) -> None:
    events = launched(GEMM, 100, 10, 1) + [kernel(GEMM, 200 + 100 * i, 30, 5 + 4 * i) for i in range(3)]
    (line,) = unknown(analysed(tmp_path, events))
    assert (line.what, line.kernels, line.share) == (UNJOINED, 3, pytest.approx(0.9))
    assert "(3 times, 90.00% of kernel time)" in str(line)
    assert shares(analysed(tmp_path, events)) == pytest.approx((0.9, 0, 0))
    twice = [*launched(GEMM, 100, 10, 1), launch(5, 1), *launched(GEMM, 200, 30, 2)]
    assert shares(analysed(tmp_path, twice)).unknown == pytest.approx(0.25), "two launches with one id"


def test_a_kernel_that_is_strange_and_has_no_launch_counts_once(tmp_path: Path) -> None:
    found = analysed(tmp_path, [kernel(STRANGE, 100, 60, 9), *launched(GEMM, 200, 40, 1)])
    assert {u.what: u.share for u in unknown(found)} == pytest.approx({NO_RULE: 0.6, UNJOINED: 0.6})
    assert shares(found) == pytest.approx((0.6, 0.6, 0))


def test_a_catch_all_is_told_apart_from_what_is_understood(tmp_path: Path) -> None:
    host = [
        span("cpu_op", "aten::my_custom_thing", 0, 900),
        span("cpu_op", "aten::mm", 1000, 90),
        span("cpu_op", "own", 1100, 10),
    ]
    found = analysed(tmp_path, host)
    assert {u.what: u.name for u in unknown(found)} == {CATCH_ALL: "aten::my_custom_thing", NO_RULE: "own"}
    assert shares(found) == pytest.approx((0.01, 0.01, 0.9))


def test_what_only_a_catch_all_knows_is_opened(tmp_path: Path) -> None:
    """The product inside counts, not the unknown operator around it."""
    host = [span("cpu_op", "aten::my_custom_thing", 0, 900), span("cpu_op", "aten::mm", 100, 90)]
    assert {op.kernel: op.us for op in analysed(tmp_path, host).operations} == {"aten::mm": (90.0,)}


names = st.sampled_from((GEMM, STRANGE, "nvfuser_7", "softmax"))
pieces = st.lists(st.tuples(names, st.integers(1, 50), st.booleans()), min_size=1, max_size=12)


@settings(max_examples=50, deadline=None)
@given(pieces)
def test_shares_are_counted_piece_by_piece(
    tmp_path_factory: pytest.TempPathFactory, chosen: list[tuple[str, int, bool]]
) -> None:
    events: list[Event] = []
    for i, (name, dur, joined) in enumerate(chosen):
        events += launched(name, 1000 + 100 * i, dur, i) if joined else [kernel(name, 1000 + 100 * i, dur, i)]
    found = shares(analysed(tmp_path_factory.mktemp("shares"), events))
    total = sum(dur for _, dur, _ in chosen)
    strange = sum(dur for name, dur, joined in chosen if name == STRANGE or not joined)
    general = sum(dur for name, dur, joined in chosen if name == "nvfuser_7" and joined)
    no_rule = sum(dur for name, dur, _ in chosen if name == STRANGE)
    assert found == pytest.approx((strange / total, no_rule / total, general / total))
