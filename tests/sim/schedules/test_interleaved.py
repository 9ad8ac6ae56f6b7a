"""Interleaved 1F1B against the closed forms of arXiv:2104.04473, section 2.2.2."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwmodels.refused import Refused
from sim.schedules.program import Shape, build, home, in_flight

DURATION = st.integers(1, 9)


@pytest.mark.parametrize("ranks", [2, 4, 8, 16])
@pytest.mark.parametrize("chunks", [2, 3, 4])
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_bubble(clock, ranks, chunks, groups):
    """(PP-1)(F+B)/chunks, where a rank's F and B are `chunks` times those of one stage."""
    times = clock(build("interleaved", Shape(ranks, groups * ranks, chunks)), f=1, b=1, w=1)
    of_rank = chunks * (1 + 2)
    assert [idle * chunks for idle in times.idle] == [(ranks - 1) * of_rank] * ranks


@given(ranks=st.integers(1, 5), groups=st.integers(1, 3), chunks=st.integers(2, 4), f=DURATION, b=DURATION, w=DURATION)
def test_bubble_holds_for_any_durations(clock, ranks, groups, chunks, f, b, w):
    idle = clock(build("interleaved", Shape(ranks, groups * ranks, chunks)), f, b, w).idle
    assert idle == [(ranks - 1) * (f + b + w)] * ranks


@given(ranks=st.integers(1, 6), groups=st.integers(1, 4), chunks=st.integers(2, 4))
def test_activations(ranks, groups, chunks):
    peaks = in_flight(build("interleaved", Shape(ranks, groups * ranks, chunks)))
    warm_up = [2 * (ranks - 1 - rank) + (chunks - 1) * ranks for rank in range(ranks)]
    assert peaks == [min(each + 1, groups * ranks * chunks) for each in warm_up]


@given(
    ranks=st.integers(1, 5), groups=st.integers(1, 4), chunks=st.integers(2, 4), f=DURATION, b=DURATION, w=DURATION,
    saved=st.integers(0, 9),
)  # fmt: skip
def test_pairs_take_the_place_of_a_forward_and_a_backward(clock, ranks, groups, chunks, f, b, w, saved):
    """One rank's forwards and backwards by themselves fill and drain the pipeline; what is between are pairs."""
    pair = max(f + b + w - saved, f, b + w)
    times = clock(build("interleaved", Shape(ranks, groups * ranks, chunks, paired=True)), f, b, w, fb=pair)
    pairs = chunks * groups * ranks - (chunks - 1) * ranks - 1
    assert times.makespan == chunks * ranks * (f + b + w) + pairs * pair


@given(ranks=st.integers(1, 6), groups=st.integers(1, 4), chunks=st.integers(2, 4))
def test_pairs_hold_one_chunk_more(ranks, groups, chunks):
    plain, paired = (in_flight(build("interleaved", Shape(ranks, groups * ranks, chunks, p))) for p in (False, True))
    assert paired == [min(each + 1, groups * ranks * chunks) for each in plain]


def test_stages_go_round_the_ranks():
    homes = home(build("interleaved", Shape(4, 8, 3)))
    assert {stage: rank for (stage, _), rank in homes.items()} == {stage: stage % 4 for stage in range(12)}


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (Shape(4, 10), "interleaved with pipeline 4 cannot run micro_batches 10; legal: multiples of 4, nearest 12"),
        (Shape(4, 1), "interleaved with pipeline 4 cannot run micro_batches 1; legal: multiples of 4, nearest 4"),
        (
            Shape(4, 8, 1),
            "interleaved with pipeline 4 cannot run chunks 1; legal: 2 or more (1f1b is for 1), nearest 2",
        ),
    ],
)
def test_what_it_cannot_run(shape, message):
    with pytest.raises(Refused) as caught:
        build("interleaved", shape)
    assert str(caught.value) == message
