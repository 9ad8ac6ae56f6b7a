"""Folded runs equal unfolded ones, span for span; and in the unfolded ones all replicas really behave alike."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sim import plan
from sim.engine import events as engine
from sim.lower import lower
from sim.program import names
from tests.figures import flat

CLUSTERS = [
    (8, 1, 2, 2), (8, 1, 2, 4), (8, 1, 4, 2), (8, 2, 4, 2), (8, 2, 4, 4), (8, 2, 2, 8), (8, 1, 2, 1),
    (2, 8, 2, 4), (2, 8, 4, 4), (1, 8, 2, 4), (2, 16, 4, 8),
]  # fmt: skip
"""(GPUs of a node, nodes, pipeline ranks, expert group). In the last four exchanges meet messages on NICs."""


def settings_of(gpus, nodes, pipeline, expert, schedule):
    # 8 layers give 4 ranks with 2 stages each a layer a stage
    return (
        f"cluster.node.gpus={gpus}", f"cluster.nodes={nodes}", f"parallel.pipeline={pipeline}",
        f"parallel.expert={expert}", f"schedule={schedule}", "model.layers=8",
    )  # fmt: skip


def same(one, two, exact=True):
    """exact: also the figures, to the last digit; unfolded ones at layer detail are means over arrays."""
    for name in ("steps", "spans"):
        a, b = getattr(one, name), getattr(two, name)
        assert len(a) == len(b) > 0
        assert a.labels == b.labels and a.prices == b.prices
        for column in a.COLUMNS:
            np.testing.assert_array_equal(getattr(a, column), getattr(b, column), f"{name}.{column}")
    odd = {"events", "scenario_hash"}  # how it was computed, not what came out
    figures, others = ({k: v for k, v in each.summary.items() if k not in odd} for each in (one, two))
    if exact:
        assert figures == others and one.waterfall == two.waterfall
    for name, value in figures.items():
        assert flat(value) == pytest.approx(flat(others[name]), rel=1e-6, abs=1e-9), name


@pytest.mark.parametrize("schedule", names())
def test_every_schedule(small, schedule):
    chosen = settings_of(8, 1, 2, 2, schedule)
    same(small(*chosen, "detail=op"), small(*chosen, "detail=op", "fold=false"))


@pytest.mark.parametrize("schedule", names())
def test_every_schedule_where_exchanges_meet_messages(small, small_scenario, schedule):
    """Over nodes: messages and reductions take longer than alone, at every detail and folded or not alike."""
    chosen = (*settings_of(2, 8, 2, 4, schedule), "cluster.node.nic.bandwidth=5GB/s")
    fine = small(*chosen, "detail=op")
    same(fine, small(*chosen, "detail=op", "fold=false"))
    same(small(*chosen), small(*chosen, "fold=false"), exact=False)
    steps = {detail: small(*chosen, f"detail={detail}").summary["step_time_s"] for detail in ("op", "layer", "chunk")}
    assert len(set(steps.values())) == 1
    _, low = lowered(small_scenario(*chosen))
    alone = {kind: ns for row in low.jobs for job in row for kind, ns in job.sends}
    spans = fine.spans
    took = [int(spans.end[i] - spans.start[i]) for i in range(len(spans)) if spans.labels[spans.label[i]] in SENDS]
    assert min(took) >= min(alone.values()) and max(took) > 1.3 * max(alone.values())


SENDS = ("send activations", "send gradients")


@settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    cluster=st.sampled_from(CLUSTERS), schedule=st.sampled_from(names()), detail=st.sampled_from(["op", "layer"]),
    slow=st.sampled_from(["nic", "nvlink"]), speed=st.sampled_from([5, 40, 400]),
)  # fmt: skip
def test_any_cluster(small, cluster, schedule, detail, slow, speed):
    chosen = (*settings_of(*cluster, schedule), f"detail={detail}", f"cluster.node.{slow}.bandwidth={speed}GB/s")
    same(small(*chosen), small(*chosen, "fold=false"), exact=detail == "op")


def lowered(scenario):
    laid = plan.lay_out(scenario)
    return laid, lower(laid, plan.machine(laid))


@pytest.mark.parametrize("schedule", ["dualpipe", "zb1p", "interleaved"])
def test_unfolded_replicas_are_alike(small_scenario, schedule):
    """Every one of the 8 simulated GPUs records what the first replica of its pipeline position records."""
    laid, low = lowered(small_scenario(f"schedule={schedule}", "fold=false", "parallel.expert=4"))
    assert len(low.actors) == 8 and low.weights == (1,) * 8
    records = engine.run(low.actors).records
    for position in range(2):
        first, *others = records[position * laid.data : (position + 1) * laid.data]
        assert len(first.kernels[0]) > 100
        for other in others:
            assert other == first


def test_classes_stand_for_every_rank(small_scenario):
    """Folded: one actor for each position that differs; DualPipe's mirror images are one where stages allow it."""
    _, low = lowered(small_scenario("schedule=zb1p"))
    assert low.weights == (4, 4) and low.actor_of == (0, 1)
    assert sum(low.weights) == 8


def test_v3_has_eight_classes(v3_file):
    """2,048 ranks: 16 positions, of which r and 15-r hold the same two stages."""
    from sim.scenario import load

    laid, low = lowered(load(str(v3_file), ["detail=chunk"]))
    assert sum(low.weights) == 2048
    assert low.weights == (256,) * 8
    assert low.actor_of == tuple(min(p, laid.program.ranks - 1 - p) for p in range(16))
