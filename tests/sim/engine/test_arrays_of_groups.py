"""Ranks that differ and meet several kinds of groups: arrays equal an actor a rank, the graph of a run is the run."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from hwmodels.document import DocumentError
from sim import assembly
from sim.analysis import graph as graphs
from sim.disturbances.durations import Durations
from sim.engine import arrays, events
from sim.engine.lowering import lower
from sim.layout import plan
from sim.layout.mesh import MEETING
from sim.routing.imbalance import loads_of
from sim.scenario import from_mapping
from sim.scenario.values import Fault
from sim.simulation import run
from tests.oracles import actor_per_rank as oracle

FAULTS = (Fault("gpu", 2, 1.5), Fault("thermal", 9, 1.4, 10**6, time_constant_ns=10**7))
LAYOUTS = {
    "tensor": {"tensor": 2},
    "context and tensor": {"tensor": 2, "context": 2},
    "tensor inside expert": {"tensor": 2, "expert": 4},
    "all": {"tensor": 2, "context": 2, "expert": 4},
    "shared experts": {"tensor": 2, "expert": 2, "expert_tensor": 2},
}


def scenario(layout, **more):
    model = {"base": "qwen3_30b_a3b", "layers": 4, "vocabulary": 4096}
    return from_mapping({
        "cluster": {"node": "h100x8", "nodes": 2}, "model": model, "precision": "bf16", "stack": "megatron",
        "parallel": {"pipeline": 2, **layout}, "schedule": "1f1b", "outputs": ["result"],
        "batch": {"micro_batches": 3, "sequence_length": 1024}, **more,
    })  # fmt: skip


@cache
def both(name):
    """Lowered, the run of the arrays, and that of an actor for each rank with the durations that the arrays found."""
    layout = LAYOUTS[name]
    routing = "balanced" if "expert_tensor" in layout else {"kind": "sampled", "spread": 0.3}
    laid = plan.lay_out(scenario(layout, routing=routing, jitter=0.02))
    machine = assembly.machine(laid)
    low = lower(laid, machine)
    times = Durations(laid, machine, low.kits, low.first_layer, loads_of(laid, machine), FAULTS, 0.02)
    many = arrays.run(low.parts, low.syncs, laid.mesh.columns(), times, times.wire)
    mesh = laid.mesh
    in_order = replace(many, columns=many.columns)
    actors = oracle.actors(low.parts, low.syncs, mesh.replicas, 1, *_by_replica(in_order))
    numbers = {kind: mesh._number(kind) for kind in MEETING}
    grouped = []
    for rank, actor in enumerate(actors):
        position, replica = divmod(rank, mesh.replicas)
        own = {kind: position * mesh.replicas + int(number[replica]) for kind, number in numbers.items()}
        grouped.append(replace(actor, groups=own))
    return laid, low, many, events.run(grouped), times


def _by_replica(many):
    """Durations and wires that a run found, by replica, not by column."""
    duration, wire = oracle.as_found(many)
    of = many.columns.of

    def each(position, step):
        found = duration(position, step)
        return lambda number, starts: np.asarray(found(number, np.zeros(len(of))))[of]

    return each, lambda *args: wire(*args)[of]


@pytest.mark.parametrize("name", LAYOUTS)
def test_arrays_equal_an_actor_a_rank(name):
    laid, low, many, one, _ = both(name)
    of = many.columns.of
    assert many.end == one.end
    for position, steps in enumerate(many.positions):
        for replica in range(laid.mesh.replicas):
            record = one.records[position * laid.mesh.replicas + replica]
            assert list(record.starts) == steps.starts[:, of[replica]].tolist()
            assert list(record.ends) == steps.ends[:, of[replica]].tolist()
    kinds = {kind for kind in MEETING if laid.mesh.groups(kind).shape[1] > 1}
    assert set(many.columns.groups) == kinds
    assert {s.meets for row in low.parts for job in row for s in job.template.segments} - {""} == kinds


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_graph_unchanged_is_the_run(name):
    _, low, many, _, times = both(name)
    graph = graphs.graph(low, many, times.pace)
    slopes = [np.zeros((1 + max(map(max, track.rows)), 3, 1)) for track in graph.tracks]
    ends = max(int(steps.ends[-1].max()) for steps in many.positions)
    assert graphs.ends(graph, slopes, np.zeros((1, 1)), np.ones(1)).tolist() == [ends]


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_slow_gpu_slows_its_groups_and_is_on_the_path(name):
    """The step is longer for a slow GPU, which the critical path names."""
    faults = [{"kind": "gpu", "at": 3, "slower": 1.5}]
    even, slow = (run(scenario(LAYOUTS[name], faults=given), interval=False).summary for given in ([], faults))
    assert slow["step_time_s"] > 1.05 * even["step_time_s"]
    assert slow["critical_ranks"][0]["rank"] == 3
    once = run(scenario(LAYOUTS[name], faults=[{"kind": "gpu", "at": 3, "slower": 1.0}]), interval=False).summary
    assert once["step_time_s"] == even["step_time_s"]


REFUSED = {
    "batch.lengths": {"batch": {"micro_batches": 3, "sequence_length": 1024,
                                "lengths": {"kind": "uniform", "from": 100, "to": 900}}},
    "faults": {"faults": [{"kind": "link", "at": 1, "slower": 2}]},
}  # fmt: skip


@pytest.mark.parametrize("key", REFUSED)
def test_what_is_not_built_beside_them_is_refused(key):
    with pytest.raises(DocumentError, match=f"{key}.*not built beside parallel.tensor"):
        scenario(LAYOUTS["tensor"], **REFUSED[key])
