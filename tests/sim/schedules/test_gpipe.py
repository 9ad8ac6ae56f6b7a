"""GPipe against its closed forms (arXiv:1811.06965) and a hand-drawn case."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.schedules.program import Shape, build, in_flight

DURATION = st.integers(1, 9)


@pytest.mark.parametrize("ranks", [2, 4, 8, 16])
@pytest.mark.parametrize("micro_batches", [1, 5, 24])
def test_bubble(clock, ranks, micro_batches):
    times = clock(build("gpipe", Shape(ranks, micro_batches)), f=1, b=1, w=1)
    assert times.idle == [(ranks - 1) * (1 + 2)] * ranks
    assert times.makespan == (micro_batches + ranks - 1) * 3


@given(ranks=st.integers(1, 6), micro_batches=st.integers(1, 12), f=DURATION, b=DURATION, w=DURATION)
def test_bubble_holds_for_any_durations(clock, ranks, micro_batches, f, b, w):
    idle = clock(build("gpipe", Shape(ranks, micro_batches)), f, b, w).idle
    assert idle == [(ranks - 1) * (f + b + w)] * ranks


def test_every_rank_holds_every_micro_batch():
    assert in_flight(build("gpipe", Shape(4, 7))) == [7] * 4


def test_backwards_run_newest_first():
    assert " ".join(map(str, build("gpipe", Shape(2, 3)).steps[1])) == "F1.0 F1.1 F1.2 BW1.2 BW1.1 BW1.0"
