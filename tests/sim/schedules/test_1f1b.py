"""1F1B against its closed forms (arXiv:2104.04473, section 2.2.1; arXiv:2412.19437, table 2)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.schedules.program import Shape, build, check, in_flight
from tests.oracles.programs import text

DURATION = st.integers(1, 9)


@pytest.mark.parametrize("ranks", [2, 4, 8, 16])
@pytest.mark.parametrize("micro_batches", [1, 5, 24, 60])
def test_bubble(clock, ranks, micro_batches):
    times = clock(build("1f1b", Shape(ranks, micro_batches)), f=1, b=1, w=1)
    assert times.idle == [(ranks - 1) * (1 + 2)] * ranks


@given(ranks=st.integers(1, 6), micro_batches=st.integers(1, 12), f=DURATION, b=DURATION, w=DURATION)
def test_bubble_holds_for_any_durations(clock, ranks, micro_batches, f, b, w):
    idle = clock(build("1f1b", Shape(ranks, micro_batches)), f, b, w).idle
    assert idle == [(ranks - 1) * (f + b + w)] * ranks


@given(ranks=st.integers(1, 8), f=DURATION, b=DURATION, w=DURATION, p2p=DURATION)
def test_one_micro_batch_pays_every_hop_twice(clock, ranks, f, b, w, p2p):
    """There and back: one micro-batch alone crosses PP-1 boundaries each way."""
    times = clock(build("1f1b", Shape(ranks, 1)), f, b, w, p2p=p2p)
    assert times.makespan == ranks * (f + b + w) + 2 * (ranks - 1) * p2p


@given(ranks=st.integers(1, 10), micro_batches=st.integers(1, 30))
def test_activations(ranks, micro_batches):
    """Published: PP, on the first rank."""
    peaks = in_flight(build("1f1b", Shape(ranks, micro_batches)))
    assert peaks == [min(ranks - rank, micro_batches) for rank in range(ranks)]


@given(ranks=st.integers(1, 6), more=st.integers(0, 9), f=DURATION, b=DURATION, w=DURATION, saved=st.integers(0, 9))
def test_pairs_take_the_place_of_a_forward_and_a_backward(clock, ranks, more, f, b, w, saved):
    """Every micro-batch but the first adds a pair, as soon as the pipeline is full."""
    pair = max(f + b + w - saved, f, b + w)
    micro_batches = 2 * ranks + more
    times = clock(build("1f1b", Shape(ranks, micro_batches, paired=True)), f, b, w, fb=pair)
    assert times.makespan == ranks * (f + b + w) + (micro_batches - 1) * pair


@given(ranks=st.integers(1, 8), micro_batches=st.integers(1, 30))
def test_activations_of_pairs(ranks, micro_batches):
    """Twice as many as without, and no more than there are micro-batches."""
    peaks = in_flight(build("1f1b", Shape(ranks, micro_batches, paired=True)))
    assert peaks == [min(2 * (ranks - rank), micro_batches) for rank in range(ranks)]


def test_pairs_are_of_different_micro_batches():
    program = build("1f1b", Shape(2, 5, paired=True))
    check(program)
    assert text(program).splitlines()[1:] == [
        "rank 0: F0.0 F0.1 F0.2 F0.3+BW0.0 F0.4+BW0.1 BW0.2 BW0.3 BW0.4",
        "rank 1: F1.0 F1.1+BW1.0 F1.2+BW1.1 F1.3+BW1.2 F1.4+BW1.3 BW1.4",
    ]
