"""Ranks that differ and meet several kinds of groups: arrays equal an actor a rank, the graph of a run is the run."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from sim import assembly
from sim.analysis import graph as graphs
from sim.disturbances.durations import Durations
from sim.engine import arrays, events
from sim.engine.lowering import lower
from sim.layout import plan
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
    "parameters sharded": {"zero": 3, "expert": 4},
    "shards and copies": {"zero": 3, "expert": 2, "shard": 4},
    "gradients sharded, tensor": {"zero": 2, "tensor": 2, "expert": 4},
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
    laid = plan.lay_out(scenario(layout, routing={"kind": "sampled", "spread": 0.3}, jitter=0.02))
    machine = assembly.machine(laid)
    low = lower(laid, machine)
    times = Durations(laid, machine, low.kits, low.first_layer, loads_of(laid, machine), FAULTS, 0.02)
    many = arrays.run(low.parts, low.syncs, laid.mesh.columns(meeting=laid.meeting), times, times.wire)
    mesh = laid.mesh
    in_order = replace(many, columns=many.columns)
    actors = oracle.actors(low.parts, low.syncs, mesh.replicas, 1, *_by_replica(in_order))
    numbers = {kind: mesh.number(kind) for kind in laid.meeting}
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
    kinds = {kind for kind in laid.meeting if laid.mesh.groups(kind).shape[1] > 1}
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


LINK = ({"kind": "link", "at": 3, "slower": 4},)
SHORT = {"micro_batches": 3, "sequence_length": 1024, "lengths": {"kind": "uniform", "from": 100, "to": 900}}
OVER_NODES = {"cluster": {"node": {"base": "h100x8", "gpus": 2}, "nodes": 8}}
"""All groups of more than two ranks lie on several nodes."""


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_slow_nic_slows_what_its_groups_send(name):
    """Groups over nodes; the path names the NIC, twice as slow is slower, one as fast as others costs nothing."""

    def ran(slower):
        faults = [{"kind": "link", "at": 3, "slower": slower}] if slower else []
        return run(scenario(LAYOUTS[name], **OVER_NODES, faults=faults), interval=False).summary

    even, same, slow, slower = (ran(factor) for factor in (0, 1.0, 4.0, 8.0))
    assert same["step_time_s"] == even["step_time_s"]
    assert even["step_time_s"] < slow["step_time_s"] < slower["step_time_s"]
    assert slow["critical_ranks"][0]["rank"] == 3


@pytest.mark.parametrize("name", LAYOUTS)
def test_folded_equals_unfolded(name):
    for more in ({}, {"faults": [{"kind": "gpu", "at": 3, "slower": 1.5}]}):
        both_ways = [run(scenario(LAYOUTS[name], **more, fold=fold), interval=False) for fold in (True, False)]
        folded, each = (ran.summary["step_time_s"] for ran in both_ways)
        assert folded == each, more


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_slow_node_never_speeds_up(name):
    times = [
        run(scenario(LAYOUTS[name], faults=[{"kind": "node", "at": 1, "slower": slower}]), False).summary["step_time_s"]
        for slower in (1.0, 1.1, 1.5, 3.0)
    ]
    assert times == sorted(times) and times[0] < times[-1] <= 3.0 * times[0] * (1 + 1e-5)


def test_ranks_that_share_sequences_have_the_same_documents():
    """Tensor and context groups wait for one document at a time; others have their own."""
    for layout in ("tensor", "context and tensor", "parameters sharded"):
        laid = plan.lay_out(scenario(LAYOUTS[layout], batch=SHORT))
        found = run(laid.scenario, interval=False).summary
        assert found["documents"]["imbalance_s"] > 0
    times = Durations(laid, assembly.machine(laid), (), (), None, (), 0.0)
    laid = plan.lay_out(scenario(LAYOUTS["context and tensor"]))
    times = Durations(laid, assembly.machine(laid), (), (), None, (), 0.0)
    drawn = np.arange(2.0)[None]
    assert times._attended(drawn)[0][times.columns.of].tolist() == [0, 0, 0, 0, 1, 1, 1, 1]


def test_documents_as_long_as_sequences_cost_what_those_do():
    """Whatever ranks share them: one document a sequence, drawn or not."""
    whole = {"kind": "uniform", "from": 1024, "to": 1025}
    for layout in ("tensor", "context and tensor"):
        given = [{"micro_batches": 3, "sequence_length": 1024}]
        given.append({**given[0], "lengths": whole, "packed": False})
        even, drawn = (run(scenario(LAYOUTS[layout], batch=batch), interval=False).summary for batch in given)
        assert drawn["step_time_s"] == pytest.approx(even["step_time_s"], rel=1e-3), layout


def test_ranks_that_share_columns_of_experts_have_each_others_rows():
    laid = plan.lay_out(scenario(LAYOUTS["shared experts"], routing={"kind": "sampled", "spread": 0.3}))
    drawn = loads_of(laid, assembly.machine(laid))
    pairs = laid.mesh.groups("expert_tensor")
    assert (drawn.rows[..., pairs[:, 0]] == drawn.rows[..., pairs[:, 1]]).all()
    assert (drawn.received[..., pairs[:, 0]] != drawn.received[..., pairs[:, 1]]).any()


def test_loads_are_of_the_ranks_that_hold_experts_whatever_the_order():
    """With data parallelism inside, an expert group is every other rank."""
    even = {"tensor": 1, "expert": 4, "order": "tp-cp-dp-ep-pp"}
    laid = plan.lay_out(scenario(even, routing={"kind": "sampled", "spread": 0.3}))
    drawn = loads_of(laid, assembly.machine(laid))
    other = plan.lay_out(scenario({"expert": 4}, routing={"kind": "sampled", "spread": 0.3}))
    usual = loads_of(other, assembly.machine(other))
    assert (drawn.rows[..., laid.mesh.groups("expert")] == usual.rows[..., other.mesh.groups("expert")]).all()
    assert (drawn.rows != usual.rows).any()
