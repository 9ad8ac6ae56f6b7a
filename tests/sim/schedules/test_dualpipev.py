"""DualPipeV against the DualPipe README: the bubble and activations of DualPipe with PP = 2P stages on P ranks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwmodels.refused import Refused
from sim.schedules.program import Shape, build, home, in_flight

LEGAL = st.integers(1, 7).flatmap(lambda ranks: st.builds(Shape, st.just(ranks), st.integers(2 * ranks, 4 * ranks)))


@pytest.mark.parametrize("ranks", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("extra", [0, 1, 2, 33])
def test_bubble(clock, ranks, extra):
    """(PP/2-1)(F&B+B-3W) with PP = 2P stages."""
    times = clock(build("dualpipev", Shape(ranks, 2 * ranks + extra)), f=1, b=1, w=1, fb=3)
    assert times.idle == [(2 * ranks // 2 - 1) * (3 + 2 - 3)] * ranks


@given(shape=LEGAL, w=st.integers(1, 6), longer=st.integers(0, 5))
def test_bubble_holds_for_short_weight_gradients(clock, shape, w, longer):
    f = w + longer
    full, pair = f + w, 2 * f + w
    idle = clock(build("dualpipev", shape), f, f, w, pair).idle
    assert idle == [(shape.pipeline - 1) * (pair + full - 3 * w)] * shape.pipeline


@given(shape=LEGAL)
def test_activations(shape):
    """Published: PP + 1 of PP = 2P chunks."""
    assert in_flight(build("dualpipev", shape)) == [2 * shape.pipeline + 1] * shape.pipeline


@given(shape=LEGAL)
def test_the_pipeline_is_a_v(shape):
    program = build("dualpipev", shape)
    ranks = shape.pipeline
    assert (program.stages, program.weight_copies) == (2 * ranks, 1)
    assert {stage: rank for (stage, _), rank in home(program).items()} == {
        stage: min(stage, 2 * ranks - 1 - stage) for stage in range(2 * ranks)
    }


@given(half=st.integers(1, 6), extra=st.integers(0, 9))
def test_is_half_of_dualpipe(half, extra):
    """Rank r does what DualPipe's rank r does, with the other direction's stage as its way back up."""
    each_way = 2 * half + extra
    whole = build("dualpipe", Shape(2 * half, 2 * each_way))
    cut = build("dualpipev", Shape(half, each_way))
    for mine, theirs in zip(cut.steps, whole.steps, strict=False):
        fields = [(a.kind, a.stage, a.micro_batch % each_way, a.stage_b, a.micro_batch_b % each_way) for a in theirs]
        assert [(a.kind, a.stage, a.micro_batch, a.stage_b, a.micro_batch_b % each_way) for a in mine] == fields


def test_what_it_cannot_run():
    with pytest.raises(Refused) as caught:
        build("dualpipev", Shape(8, 15))
    assert str(caught.value) == "dualpipev with pipeline 8 cannot run micro_batches 15; legal: 16 or more, nearest 16"
