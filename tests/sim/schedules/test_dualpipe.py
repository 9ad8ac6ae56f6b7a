"""DualPipe against figure 5, section 3.2.1 and table 2 of the DeepSeek-V3 report (arXiv:2412.19437)."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwmodels.refused import Refused
from sim.schedules.dualpipe import eight_parts
from sim.schedules.program import Shape, Step, build, home, in_flight

LEGAL = st.integers(1, 6).flatmap(
    lambda half: st.builds(lambda extra: Shape(2 * half, 4 * half + 2 * extra), st.integers(0, 9))
)


@pytest.mark.parametrize("ranks", [2, 4, 8, 16])
@pytest.mark.parametrize("extra", [0, 2, 4, 34, 88])
def test_bubble(clock, ranks, extra):
    """(PP/2-1)(F&B+B-3W) = (PP/2-1)(3+2-3), on every rank."""
    times = clock(build("dualpipe", Shape(ranks, 2 * ranks + extra)), f=1, b=1, w=1, fb=3)
    assert times.idle == [(ranks // 2 - 1) * (3 + 2 - 3)] * ranks


def test_published_example(clock):
    """8 ranks and 20 micro-batches: 6 F of bubble."""
    times = clock(build("dualpipe", Shape(8, 20)), f=1, b=1, w=1, fb=3)
    assert times.idle == [6] * 8
    assert times.makespan == 20 * 3 + 6


@given(shape=LEGAL, w=st.integers(1, 6), longer=st.integers(0, 5))
def test_bubble_holds_for_short_weight_gradients(clock, shape, w, longer):
    """Exact wherever W <= F = B - W and F&B = F + B."""
    f = w + longer
    full, pair = f + w, 2 * f + w
    idle = clock(build("dualpipe", shape), f, f, w, pair).idle
    assert idle == [(shape.pipeline // 2 - 1) * (pair + full - 3 * w)] * shape.pipeline


@given(shape=LEGAL, w=st.integers(1, 6), longer=st.integers(0, 5), more=st.integers(0, 5))
def test_bubble_where_input_gradients_are_shorter_than_forwards(clock, shape, w, longer, more):
    """Longer than the published form by what a forward takes more: (PP/2-1)(2F+(B-W)-W)."""
    bi = w + longer
    f, full = bi + more, bi + w
    idle = clock(build("dualpipe", shape), f, bi, w, f + full).idle
    published = (shape.pipeline // 2 - 1) * (f + full + full - 3 * w)
    assert idle == [published + (shape.pipeline // 2 - 1) * more] * shape.pipeline


@given(shape=LEGAL)
def test_activations(shape):
    """Published: PP + 1, here on every rank."""
    assert in_flight(build("dualpipe", shape)) == [shape.pipeline + 1] * shape.pipeline


@given(shape=LEGAL)
def test_halves_mirror_each_other(shape):
    """Swapping the halves of micro-batches and rank r with PP-1-r gives the same program."""
    program = build("dualpipe", shape)
    half = shape.micro_batches // 2

    def swap(step: Step) -> Step:
        other = (step.micro_batch + half) % shape.micro_batches
        other_b = (step.micro_batch_b + half) % shape.micro_batches if "+" in step.kind else -1
        return step._replace(micro_batch=other, micro_batch_b=other_b)

    assert tuple(tuple(map(swap, steps)) for steps in reversed(program.steps)) == program.steps


@given(shape=LEGAL)
def test_each_half_enters_at_its_own_end(shape):
    last, half = shape.pipeline - 1, shape.micro_batches // 2
    homes = home(build("dualpipe", shape))
    assert homes == {(s, m): s if m < half else last - s for s in range(last + 1) for m in range(2 * half)}
    assert build("dualpipe", shape).weight_copies == 2


@given(shape=LEGAL)
def test_pairs_overlap_opposite_directions(shape):
    half = shape.micro_batches // 2
    pairs = [step for steps in build("dualpipe", shape).steps for step in steps if "+" in step.kind]
    assert pairs
    assert all((step.micro_batch < half) != (step.micro_batch_b < half) for step in pairs)


def test_parts_as_published():
    """Figure 5's outermost rank: 6 F0, F0 F1, 3 of B1 W F1, 3 of the main part, 3 of B1 F1B0, B1B0, 3 of W B0, W."""
    shortened = [(times, pattern) for times, pattern in eight_parts(0, 4, 10) if times]
    assert shortened == [
        (6, "F0"),
        (1, "F0 F1"),
        (3, "B1 W F1"),
        (1, "F0+BW1 F1+BW0"),
        (2, "F0+BW1 F1+BW0"),
        (3, "BW1 F1+BW0"),
        (1, "BW1 B0"),
        (3, "W B0"),
        (1, "W"),
    ]


@pytest.mark.parametrize(("rank", "pairs"), [(0, 9), (1, 10), (2, 11), (3, 11), (4, 11), (7, 9)])
def test_how_much_overlaps(rank, pairs):
    """2 x main + (PP/2-1-depth) pairs, one fewer on the middle ranks, which run their first pair apart."""
    kinds = Counter(step.kind for step in build("dualpipe", Shape(8, 20)).steps[rank])
    assert kinds["F+BW"] == pairs


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (
            Shape(16, 30),
            "dualpipe with pipeline 16 cannot run micro_batches 30; legal: even numbers from 32 on, nearest 32",
        ),
        (
            Shape(8, 21),
            "dualpipe with pipeline 8 cannot run micro_batches 21; legal: even numbers from 16 on, nearest 22",
        ),
        (Shape(7, 20), "dualpipe cannot run pipeline 7; legal: even numbers (its ranks mirror each other), nearest 8"),
    ],
)
def test_what_it_cannot_run(shape, message):
    with pytest.raises(Refused) as caught:
        build("dualpipe", shape)
    assert str(caught.value) == message
