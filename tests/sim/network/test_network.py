"""The network of the V3 step: what travels adds up to what the ops say, packed groups stay under their leaf."""

from functools import cache

import numpy as np
import pytest

import sim
from sim import plan as plans
from sim.network.bursts import wire_bytes
from sim.network.flows import KINDS
from sim.network.network import Network, network
from sim.plan import Machine, Plan
from sim.scenario import Scenario, load

V3 = "scenarios/v3_2048gpu.yaml"


@cache
def scenario(*overrides: str) -> Scenario:
    return load(V3, list(overrides))


@cache
def laid(*overrides: str) -> tuple[Plan, Machine]:
    plan = plans.lay_out(scenario(*overrides))
    return plan, plans.machine(plan)


@cache
def v3(placement: str = "packed", routing: str = "adaptive") -> Network:
    return network(*laid(), placement, routing)


def test_bytes_of_the_step_are_those_of_its_ops() -> None:
    plan, machine = laid()
    sent = {kind: float(v3().flows.size[v3().flows.kind == i].sum()) for i, kind in enumerate(KINDS)}
    ranks, layers = plan.data, sum(unit.kind == "moe" for unit in machine.units)
    each = sum(wire_bytes(machine).values())
    assert len(wire_bytes(machine)) == 4
    assert sent["expert"] == pytest.approx(each * layers * plan.micro_batches * ranks)
    message = machine.site.tokens * machine.recipe.boundary.row_bytes(machine.site.shape.hidden)
    sends = 2 * (plan.program.stages - 1) * plan.micro_batches
    assert sent["pipeline"] == pytest.approx(message * sends * ranks)
    assert sent["data"] > 0


def test_packed_expert_groups_never_leave_their_leaf() -> None:
    for routing in ("static", "ecmp", "adaptive"):
        expert, pipeline, data = v3("packed", routing).slowdowns
        assert (expert.alone, expert.together, expert.crossing, expert.largest) == (1.0, 1.0, 0.0, 0.0)
        assert 0 < pipeline.crossing < 1 and 0 < data.crossing < 1
        assert (pipeline.alone > 1.5) == (routing == "ecmp")
        assert data.alone == 1.0 or routing == "ecmp"


def test_scattered_nodes_need_adaptive_routing() -> None:
    expert = {routing: v3("scattered", routing).slowdowns[0] for routing in ("static", "ecmp", "adaptive")}
    assert expert["static"].crossing > 0.8
    assert expert["adaptive"].alone == pytest.approx(1.0, abs=0.05)
    assert expert["ecmp"].alone > 1.5 and expert["static"].alone > 1.5


def test_the_step_keeps_nics_busy_and_spines_idle() -> None:
    result = sim.run(scenario())
    found = v3().utilisation(result.spans)
    by_class = dict(zip(found.classes, found.mean, strict=True))
    step = np.diff(found.edges) / found.edges[-1]
    mean = {name: float(curve @ step) for name, curve in by_class.items()}
    assert set(mean) == {"NIC out", "NIC in", "leaf up", "spine down"}
    assert mean["NIC out"] == pytest.approx(mean["NIC in"]) and 0.2 < mean["NIC out"] < 1.0
    assert mean["leaf up"] < 0.3 * mean["NIC out"]
    # priced as on a non-blocking fabric: NICs have room, a spine may see rings of several stages at once
    assert found.peak[found.of <= 1].max() < 1.0 and found.peak.max() < 1.2
    assert found.size[found.of == 0].sum() == pytest.approx(v3().flows.size.sum())


def test_every_burst_finds_its_spans_at_layer_detail() -> None:
    spans = sim.run(scenario()).spans
    for burst in v3().bursts:
        labels = {spans.labels[i] for i in set(spans.label[spans.rank == burst.position].tolist())}
        assert set(burst.shares) <= labels


def test_other_schedules_and_groups_have_networks_too() -> None:
    for overrides in (("schedule=1f1b",), ("schedule=dualpipev",), ("parallel.expert=8",), ("cluster.nodes=128",)):
        found = network(*laid(*overrides))
        kinds = [one.kind for one in found.slowdowns]
        assert kinds == (["pipeline", "data"] if overrides == ("parallel.expert=8",) else list(KINDS))


def test_the_seed_scatters_and_hashes() -> None:
    assert (v3("packed", "ecmp").ways == network(*laid(), "packed", "ecmp").ways).all()
    other = network(*laid("seed=1"), "packed", "ecmp")
    assert (v3("packed", "ecmp").ways != other.ways).any()
