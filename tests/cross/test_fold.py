"""Folded runs equal unfolded ones, span for span; and all replicas behave alike where each is simulated for itself."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from sim import assembly
from sim.engine import events
from sim.engine.lowering import lower
from sim.layout import plan
from sim.scenario import load
from sim.schedules.program import names
from sim.simulation import simulated
from tests.examples import examples
from tests.oracles.timelines import crossings, of_every_rank

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


def flat(tree, path=()):
    """(path, number) of each leaf of a tree of mappings and lists."""
    if not isinstance(tree, dict | list | tuple):
        return [(path, tree)]
    branches = tree.items() if isinstance(tree, dict) else enumerate(tree)
    return [leaf for name, branch in branches for leaf in flat(branch, (*path, name))]


def same(one, two):
    """Spans, steps and figures."""
    for name in ("steps", "spans"):
        a, b = getattr(one, name), getattr(two, name)
        assert len(a) == len(b) > 0
        assert a.labels == b.labels and a.prices == b.prices
        for column in a.COLUMNS:
            np.testing.assert_array_equal(getattr(a, column), getattr(b, column), f"{name}.{column}")
    alike = one.summary | {key: two.summary[key] for key in ("scenario_hash", "overrides")}
    told = dict(flat(alike.pop("intervals_90", {})))  # sums in another order
    assert told == pytest.approx(dict(flat(two.summary.get("intervals_90", {}))), rel=1e-12)
    assert alike == {name: two.summary[name] for name in alike}
    assert one.waterfall == two.waterfall
    assert two.summary["waiting_for_peers_s"] == 0 and two.summary["critical_ranks"] == []


@pytest.mark.parametrize("schedule", names())
def test_every_schedule(small, schedule):
    chosen = settings_of(8, 1, 2, 2, schedule)
    same(*(small(*chosen, "detail=op", f"fold={fold}", interval=True) for fold in ("true", "false")))


@pytest.mark.parametrize("schedule", names())
def test_every_schedule_where_exchanges_meet_messages(small, small_scenario, schedule):
    """Over nodes: messages and reductions take longer than alone, at every detail and folded or not alike."""
    chosen = (*settings_of(2, 8, 2, 4, schedule), "cluster.node.nic.bandwidth=5GB/s")
    fine = small(*chosen, "detail=op", interval=True)
    same(fine, small(*chosen, "detail=op", "fold=false", interval=True))
    coarse, chunks = (small(*chosen, f"detail={detail}") for detail in ("layer", "chunk"))
    same(coarse, small(*chosen, "detail=layer", "fold=false"))
    assert len({each.summary["step_time_s"] for each in (fine, coarse, chunks)}) == 1
    _, low = lowered(small_scenario(*chosen))
    alone = {kind: ns for row in low.jobs for job in row for kind, ns in job.sends}
    spans = fine.spans
    took = [int(spans.end[i] - spans.start[i]) for i in range(len(spans)) if spans.labels[spans.label[i]] in SENDS]
    assert min(took) >= min(alone.values()) and max(took) > 1.3 * max(alone.values())


@pytest.mark.parametrize("schedule", names())
def test_every_schedule_where_ranks_wait_for_their_messages(small, schedule):
    chosen = (*settings_of(2, 8, 2, 4, schedule), "cluster.node.nic.bandwidth=5GB/s", "comm.messages=waited")
    for reduce in ("in_drain", "after"):
        words = (*chosen, f"optimizer.reduce={reduce}")
        same(*(small(*words, f"fold={fold}", interval=True) for fold in ("true", "false")))


SENDS = ("send activations", "send gradients")


@examples(6, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    cluster=st.sampled_from(CLUSTERS), schedule=st.sampled_from(names()), detail=st.sampled_from(["op", "layer"]),
    slow=st.sampled_from(["nic", "nvlink"]), speed=st.sampled_from([5, 40, 400]),
)  # fmt: skip
def test_any_cluster(small, cluster, schedule, detail, slow, speed):
    chosen = (*settings_of(*cluster, schedule), f"detail={detail}", f"cluster.node.{slow}.bandwidth={speed}GB/s")
    same(small(*chosen, interval=True), small(*chosen, "fold=false", interval=True))


def lowered(scenario):
    laid = plan.lay_out(scenario)
    return laid, lower(laid, assembly.machine(laid))


@pytest.mark.parametrize("schedule", ["dualpipe", "zb1p", "interleaved"])
def test_replicas_are_alike_where_each_is_simulated(small_scenario, schedule):
    """Every one of 8 GPUs that SimPy runs kernel by kernel does what the first replica of its pipeline position does,
    and begins and ends its steps as the one rank a position does that is simulated for it."""
    laid, low = lowered(small_scenario(f"schedule={schedule}", "parallel.expert=4"))
    actors = of_every_rank(low, laid.mesh)
    assert [actor.groups["expert"] for actor in actors] == [0] * 4 + [1] * 4
    records = events.run(actors).records
    alike = simulated(laid, assembly.machine(laid)).alike
    for position, steps in enumerate(alike.positions):
        first, *others = records[position * laid.data : (position + 1) * laid.data]
        assert len(first.kernels[0]) > 100
        assert (list(first.starts), list(first.ends)) == (steps.starts[:, 0].tolist(), steps.ends[:, 0].tolist())
        for other in others:
            assert other == first


def test_one_rank_a_position_is_simulated_and_columns_stand_for_all(small_scenario):
    """4 replicas of 2 positions: in one column where they are alike, apart where the scenario does not fold."""
    for fold, columns in (("true", 1), ("false", 4)):
        laid, low = lowered(small_scenario("schedule=zb1p", f"fold={fold}"))
        ran = simulated(laid, assembly.machine(laid))
        assert len(low.actors) == len(ran.timeline.positions) == 2
        assert ran.alike.columns.columns == 1 and ran.timeline.columns.columns == columns
        assert all(row.starts.shape[1] == columns for row in ran.timeline.positions)
    assert ran.timeline.columns.weight.sum() * 2 == laid.mesh.ranks == 8


def test_v3_is_its_own_mirror_image(v3_file):
    """2,048 ranks: 16 positions, of which r and 15-r hold the same two stages under DualPipe, and do the same."""
    laid, low = lowered(load(str(v3_file), ["detail=chunk"]))
    assert laid.mesh.ranks == 2048 and len(low.actors) == 16
    rows = crossings(simulated(laid, assembly.machine(laid)).alike)
    for position in range(8):
        for one, other in zip(rows[position], rows[15 - position], strict=True):
            assert all((a == b).all() for a, b in zip(one[:5], other[:5], strict=True))
