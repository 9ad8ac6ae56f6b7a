"""Interleaved 1F1B against the closed forms of arXiv:2104.04473, section 2.2.2, and Megatron Core's order of groups."""

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hwmodels.refused import Refused
from sim.layout.batches import batches
from sim.layout.traffic import messages
from sim.schedules.program import Shape, build, check, home, in_flight, misfits

DURATION = st.integers(1, 9)
SHAPES = st.builds(
    lambda pipeline, chunks, larger, whole, rest: Shape(
        pipeline, whole * (pipeline + larger) + (pipeline + rest % larger if rest and larger else 0), chunks,
        group=pipeline + larger,
    ),
    st.integers(1, 6), st.integers(1, 5), st.integers(0, 5), st.integers(1, 3), st.integers(0, 5),
)  # fmt: skip
"""Groups of any size, the last one smaller or not."""


def warm_ups(shape):
    """Megatron Core's `get_pp_rank_microbatches` of each position: with chunks, and (one chunk is no interleaving)
    without."""
    ranks, total = range(shape.pipeline), shape.chunks * shape.micro_batches
    if shape.chunks == 1:
        return [min(shape.pipeline - rank - 1, total) for rank in ranks]
    return [min((shape.pipeline - rank - 1) * 2 + (shape.chunks - 1) * shape.group, total) for rank in ranks]


def schedule_table(count, chunks, group):
    """Micro-batch and chunk of each forward, as Megatron Core's `get_schedule_table` (@d98e8a6) lists them."""
    table = []
    for first in range(0, count, group):
        if first + group >= count:
            table += [(m, c) for c in range(chunks) for m in range(first, count)]
        else:
            table += [(m, c) for c in range(chunks) for m in range(first, first + group)]
    return table


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


@settings(max_examples=150)
@given(shape=SHAPES, f=DURATION, b=DURATION, w=DURATION)
def test_groups_of_any_size_leave_the_bubble_as_it_is(clock, shape, f, b, w):
    """(PP-1)(F+B)/chunks, and (PP-1)(F+B) of one chunk; every chunk runs once, and nobody waits for good, also where
    messages are waited for."""
    program = build("interleaved", shape)
    check(program)
    batches(program, messages(program))
    assert clock(program, f, b, w).idle == [(shape.pipeline - 1) * (f + b + w)] * shape.pipeline


@settings(max_examples=100)
@given(shape=SHAPES)
def test_positions_warm_up_and_hold_as_many_as_megatron_has_it(shape):
    program, total = build("interleaved", shape), shape.chunks * shape.micro_batches
    first = [[step.kind for step in steps].index("BW") for steps in program.steps]
    ahead = [min(each + 1, total) for each in warm_ups(shape)]  # a pair begins with its forward
    assert first == ahead == in_flight(program)


@settings(max_examples=100)
@given(shape=SHAPES)
def test_forwards_and_backwards_go_as_in_megatrons_table(shape):
    """And that table is the one in its comment: PP2 N3 M5 with VP2."""
    rows = list(zip(*schedule_table(5, 2, 3), strict=True))
    assert rows == [(0, 1, 2, 0, 1, 2, 3, 4, 3, 4), (0, 0, 0, 1, 1, 1, 0, 0, 1, 1)]
    table, last = schedule_table(shape.micro_batches, shape.chunks, shape.group), shape.chunks - 1
    for rank, steps in enumerate(build("interleaved", shape).steps):
        done = {kind: [(s.micro_batch, s.stage) for s in steps if s.kind == kind] for kind in ("F", "BW")}
        assert done["F"] == [(m, c * shape.pipeline + rank) for m, c in table]
        assert done["BW"] == [(m, (last - c) * shape.pipeline + rank) for m, c in table]


@settings(max_examples=60)
@given(shape=SHAPES, p2p=st.integers(0, 3), f=DURATION, b=DURATION)
def test_larger_groups_take_no_longer_with_slow_messages(clock, shape, p2p, f, b):
    """They leave messages that go round from the last position to the first more time."""
    assume(shape.chunks > 1 and shape.micro_batches % shape.pipeline == 0 and shape.micro_batches % shape.group == 0)
    small = build("interleaved", Shape(shape.pipeline, shape.micro_batches, shape.chunks))
    large = build("interleaved", shape)
    assert clock(large, f, b, 1, p2p=p2p).makespan <= clock(small, f, b, 1, p2p=p2p).makespan


def test_one_chunk_is_1f1b():
    for paired in (False, True):
        one = build("interleaved", Shape(4, 6, 1, paired))
        assert (one.schedule, one.steps) == ("interleaved", build("1f1b", Shape(4, 6, paired=paired)).steps)


@pytest.mark.parametrize("pipeline", [1, 2, 3, 4, 5])
def test_legal_shapes_are_megatrons(pipeline):
    """What its interleaved schedule raises on, and the nearest legal runs."""
    for group in range(1, 9):
        for count in range(1, 26):
            shape = Shape(pipeline, count, 2, group=group)
            wrong = group > count or group < pipeline or 0 < count % group < pipeline
            found = misfits("interleaved", shape)
            assert bool(found) == wrong
            if found and found[0].field == "micro_batches":
                legal = [n for n in range(group, 60) if not 0 < n % group < pipeline]
                distance = abs(found[0].nearest - count)
                assert found[0].nearest in legal and distance == min(abs(n - count) for n in legal)


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
            Shape(4, 8, group=3),
            "interleaved with pipeline 4 cannot run group 3; legal: 4 (the pipeline) or more, nearest 4",
        ),
        (
            Shape(4, 15, group=6),
            "interleaved with pipeline 4 cannot run micro_batches 15; legal: 6 or more, with 0 or 4 or more beyond "
            "multiples of 6, nearest 16",
        ),
    ],
)
def test_what_it_cannot_run(shape, message):
    with pytest.raises(Refused) as caught:
        build("interleaved", shape)
    assert str(caught.value) == message
