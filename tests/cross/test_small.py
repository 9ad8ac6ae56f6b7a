"""The smallest clusters run: from one GPU to two nodes, on every fabric, in every layout that divides."""

from itertools import product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwmodels import fabric
from hwmodels.refused import Refused
from sim import simulation
from sim.scenario import load
from sim.schedules import program
from tests.examples import examples

LITE = str(Path(__file__).parents[2] / "scenarios" / "v2_lite.yaml")
NODES, GPUS, MICRO_BATCHES = (1, 2), (1, 2, 3, 4, 8), 8
ONE = ("cluster.nodes=1", "parallel.pipeline=1", "schedule=1f1b")


def layouts():
    """Nodes, GPUs a node, pipeline and expert ranks, of all layouts of a model with 64 experts."""
    for nodes, gpus in product(NODES, GPUS):
        total = nodes * gpus
        for pipeline in (n for n in (1, 2, 4, 8) if total % n == 0):
            for expert in (1, 2, 4, 8, 16):
                straddles = expert % gpus and gpus % expert
                if total // pipeline % expert == 0 and not straddles:
                    yield nodes, gpus, pipeline, expert


def words(nodes, gpus, pipeline, expert, *more):
    sequences = nodes * gpus // pipeline * MICRO_BATCHES
    return [
        f"cluster.nodes={nodes}", f"cluster.node.gpus={gpus}", f"parallel.pipeline={pipeline}",
        f"parallel.expert={expert}", f"batch.sequences={sequences}", "model.layers=8", *more,
    ]  # fmt: skip


@pytest.mark.parametrize("name", fabric.available())
@pytest.mark.parametrize("routing", [None, "ecmp"])
def test_one_node_on_a_wired_fabric_runs(name, routing):
    """No byte leaves the node, so links between switches carry nothing and slow nothing."""
    if routing and name == "slimfly":  # counted, not wired: refused for that, whatever the size
        return
    chosen = [*ONE, "parallel.expert=8", "batch.sequences=64", f"cluster.fabric={name}"]
    wired = simulation.run(load(LITE, chosen + ([f"cluster.routing={routing}"] if routing else [])), False)
    bare = simulation.run(load(LITE, [*chosen, "cluster.fabric=null"]), False)
    assert wired.summary["step_time_s"] == bare.summary["step_time_s"]
    assert wired.links is None or not wired.links.size.any()


@examples(8)
@given(
    st.sampled_from(sorted(layouts())), st.sampled_from(sorted(program.names())),
    st.sampled_from([None, *fabric.available()]), st.sampled_from([None, "static", "ecmp", "adaptive"]),
    st.sampled_from(["routing=balanced", "routing=sampled", "fold=false"]),
)  # fmt: skip
def test_small_clusters_run(layout, schedule, name, routing, other):
    """Only what a schedule itself cannot do at that size is refused, never the cluster."""
    routed = [f"cluster.routing={routing}"] if routing and name not in (None, "slimfly") else []
    try:
        scenario = load(
            LITE, words(*layout, f"schedule={schedule}", f"cluster.fabric={name or 'null'}", other, *routed)
        )
        result = simulation.run(scenario, False)
    except Refused as refused:
        assert schedule in str(refused), refused
        return
    assert result.summary["step_time_s"] > 0
