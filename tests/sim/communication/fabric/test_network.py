"""The network of the V3 step: what travels adds up to what the ops say, packed groups stay under their leaf."""

from functools import cache
from typing import Any

import numpy as np
import pytest

from hwmodels.collectives import UNHINDERED
from hwmodels.units import NS_PER_S
from sim import assembly, simulation
from sim.analysis import utilisation
from sim.analysis.links import links
from sim.analysis.utilisation import of_network
from sim.communication.fabric.flows import KINDS
from sim.communication.fabric.layers import crossings
from sim.communication.fabric.network import Network, network
from sim.communication.fabric.routes import NONE
from sim.layout import plan as plans
from sim.layout.machine import Machine
from sim.layout.plan import Plan
from sim.result import Utilisation
from sim.scenario import Scenario, load

V3 = "scenarios/v3_2048gpu.yaml"


@cache
def scenario(*overrides: str) -> Scenario:
    return load(V3, list(overrides))


@cache
def laid(*overrides: str) -> tuple[Plan, Machine]:
    plan = plans.lay_out(scenario(*overrides))
    return plan, assembly.machine(plan)


@cache
def v3(placement: str = "packed", routing: str = "adaptive") -> Network:
    return network(*laid(), placement, routing)


def test_bytes_of_the_step_are_those_of_its_ops() -> None:
    plan, machine = laid()
    sent = {kind: float(v3().flows.size[v3().flows.kind == i].sum()) for i, kind in enumerate(KINDS)}
    ranks, layers = plan.data, sum(unit.kind == "moe" for unit in machine.units)
    found = [each for direction in "FBW" for each in crossings(machine, machine.routed[0], direction)]
    each = sum(crossing.wire for crossing in found)
    assert len(found) == 4
    assert sent["expert"] == pytest.approx(each * layers * plan.micro_batches * ranks)
    message = machine.site.tokens * machine.recipe.boundary.row_bytes(machine.site.shape.hidden)
    sends = 2 * (plan.program.stages - 1) * plan.micro_batches
    assert sent["pipeline"] == pytest.approx(message * sends * ranks)
    assert sent["gradients"] > 0
    # ZeRO-1: FP32 gradients are reduced, BF16 parameters are gathered
    assert sent["gradients"] == pytest.approx(2 * sent["parameters"])


def test_packed_expert_groups_never_leave_their_leaf() -> None:
    for routing in ("static", "ecmp", "adaptive"):
        found = v3("packed", routing).hindrances()
        assert (found.exchanges, found.beside_messages) == (1.0, 1.0)
        assert len(found.messages) == 2 * 15 and len(found.rings) == 2 * 2 * 16
        for other in (*found.messages.values(), *found.rings.values()):
            assert other.exchanges == 0 and other.slower >= 1
        slowest = max(other.slower for other in found.messages.values())
        assert (slowest > 1.5) == (routing == "ecmp") and (slowest == 1.0 or routing == "ecmp")


def test_messages_under_a_leaf_are_as_fast_as_their_nics() -> None:
    """A leaf of the planes has 32 nodes: two pipeline positions of 16. Every second boundary crosses."""
    found = v3("packed", "ecmp").hindrances().messages
    assert all((found[p, p + 1].slower > 1) == bool(p % 2) for p in range(15))
    assert all(found[p, q] == UNHINDERED for p, q in found if p // 2 == q // 2)


def test_scattered_nodes_need_adaptive_routing() -> None:
    expert = {routing: v3("scattered", routing).hindrances() for routing in ("static", "ecmp", "adaptive")}
    assert expert["adaptive"].exchanges == pytest.approx(1.0, abs=0.05)
    assert expert["ecmp"].exchanges > 1.5 and expert["static"].exchanges > 1.5
    assert max(each.exchanges for each in expert["adaptive"].messages.values()) > 0.5


@cache
def used() -> tuple[Utilisation, dict[str, Any]]:
    return links(*laid(), simulation.run(scenario("outputs=[result,events]"), False).spans)


def test_bytes_over_links_are_bytes_of_flows_times_their_hops() -> None:
    use, network_ = used()[0], v3()
    hops = (network_.ways != NONE).sum(axis=1)
    for number, kind in enumerate(KINDS):
        mine = network_.flows.kind == number
        expected = float((network_.flows.size * hops)[mine].sum())
        assert use.size[:, number].sum() == pytest.approx(expected), kind
    for number in (0, 1):  # every flow leaves by one NIC and comes in by one
        assert use.size[use.of == number].sum() == pytest.approx(network_.flows.size.sum())


def test_the_step_keeps_nics_busy_and_spines_idle() -> None:
    use, said = used()
    classes = said["classes"]
    assert list(classes) == list(use.classes) == ["NIC out", "NIC in", "leaf up", "spine down"]
    assert classes["NIC out"]["mean"] == classes["NIC in"]["mean"] and 0.2 < classes["NIC out"]["mean"] < 1.0
    assert classes["leaf up"]["mean"] < 0.3 * classes["NIC out"]["mean"]
    assert classes["leaf up"]["bytes"]["expert"] == 0  # groups are packed under a leaf
    assert use.peak.max() <= 1.02 and use.busiest[:, :-40].max() <= 1.0  # reductions, at the end, begin one by one


@pytest.mark.parametrize(("placement", "routing"), [
    ("packed", "adaptive"), ("packed", "ecmp"), ("scattered", "static"), ("scattered", "ecmp"),
    ("scattered", "adaptive"),
])  # fmt: skip
def test_no_link_is_asked_for_more_than_it_has(routing: str, placement: str) -> None:
    """Kinds of traffic share links, and what they lose makes the step longer: at the bins of the report's curves no
    link passes its bandwidth but by what rings of several stages do that begin at other moments. Packed, static routes
    hinder as little as adaptive ones (above)."""
    choices = [f"cluster.routing={routing}", f"cluster.placement={placement}"]
    found = simulation.run(scenario("outputs=[result,links]", *choices), False).links
    assert found is not None
    before = found.busiest[:, : int(0.85 * found.busiest.shape[1])]
    assert 0.5 < before.max() <= 1.03 and found.peak.max() < 1.1


def test_a_dragonflys_few_cables_carry_no_more_than_they_can() -> None:
    """Messages between groups take static ways over few cables, 32 NICs to one: they fill these, and the step waits."""
    found = simulation.run(
        scenario("outputs=[result,links]", "cluster.fabric=dragonfly", "cluster.routing=static"), False
    )
    assert found.links is not None
    between = found.links.of == found.links.classes.index("between groups")
    assert 0.95 < found.links.peak[between].max() <= 1.0 + 1e-6
    assert found.summary["step_time_s"] > 40


def test_a_message_asks_for_more_than_a_nic_has_for_moments() -> None:
    """Exchanges lose what others take on average, not at the moment; finer bins show what the curves average."""
    fine = of_network(v3(), simulation.run(scenario("outputs=[result,events]"), False).spans, bins=6400)
    assert 1.0 < fine.peak[fine.of <= 1].max() < 2.0
    assert (fine.busiest[:2] > 1.0).mean() < 0.05


def test_the_mean_curve_holds_the_bytes_of_its_class() -> None:
    use = used()[0]
    seconds = np.diff(use.edges) / NS_PER_S
    for number in range(len(use.classes)):
        mine = use.of == number
        moved = (use.mean[number] @ seconds) * mine.sum() * v3().cabling.rates.nic
        assert moved == pytest.approx(use.size[mine].sum(axis=0))


def test_where_nothing_is_known_of_the_fabric_it_says_why() -> None:
    plan, machine = laid("cluster.fabric=slimfly")
    spans = simulation.run(scenario("outputs=[result]"), False).spans
    use, said = links(plan, machine, spans)
    assert use is None and "can be counted but not wired" in said["left_out"]
    found = simulation.run(scenario("outputs=[result,links]", "cluster.fabric=null"), False)
    assert found.links is None and "name a cluster.fabric" in found.summary["links"]["left_out"]
    assert "links" not in simulation.run(load("scenarios/zb_chunk_times.yaml"), False).summary


def test_a_run_for_figures_alone_pays_for_no_links(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a sweep does; it has the same figures otherwise, and a network that prices need is built once."""
    asked = simulation.run(scenario("outputs=[result,links]", "cluster.routing=ecmp"), False)
    said = asked.summary["links"]
    assert asked.links is not None and (said["routing"], said["blocking_priced"]) == ("ecmp", True)
    monkeypatch.setattr("sim.analysis.links.links", None)  # not called, else it fails
    quiet = simulation.run(scenario("outputs=[result]", "cluster.routing=ecmp"), False)
    assert quiet.links is None
    same = {key: value for key, value in asked.summary.items() if key != "links"}
    assert quiet.summary == same | {"overrides": quiet.summary["overrides"]}


def test_a_network_that_prices_need_is_not_built_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sim.analysis.links.network", None)
    assert simulation.run(scenario("outputs=[result,links]", "cluster.routing=ecmp"), False).links is not None


def test_a_curve_is_worked_out_over_few_bursts_at_a_time() -> None:
    """What makes links cheap: a block of neighbours carries a small part of all bursts (16 of 140 on average)."""
    stops = np.cumsum([len(burst.flows) for burst in v3().bursts])[:-1]
    carried = utilisation._carried(v3().bursts, np.split(v3().ways, stops), v3().cabling)[2]
    blocks = np.split(carried, range(utilisation.BLOCK, carried.shape[1], utilisation.BLOCK), axis=1)
    assert np.mean([block.any(axis=1).sum() for block in blocks]) < len(v3().bursts) / 6


@pytest.mark.parametrize("overrides", [("routing=sampled",), ("faults=[{kind: link, at: 700, slower: 2}]",)])
def test_ranks_that_differ_show_the_last_replica(overrides: tuple[str, ...]) -> None:
    """Bytes are those of balanced routing, whoever is slow; a longer step makes links less busy."""
    found = simulation.run(scenario("outputs=[result,links]", *overrides), False)
    assert found.links is not None and found.links.even == ()
    assert found.links.size == pytest.approx(used()[0].size)
    longer = found.summary["step_time_s"] / (used()[0].edges[-1] / NS_PER_S)
    assert longer > 1.0 and found.links.average * longer == pytest.approx(used()[0].average, rel=1e-6)


def test_exchanges_without_spans_are_spread_over_the_step() -> None:
    said = simulation.run(scenario("outputs=[result,links]", "detail=chunk"), False).summary["links"]
    assert said["evenly_spread"] == ["expert"]
    assert (
        simulation.run(scenario("outputs=[result,links]", "detail=op"), False).summary["links"]["evenly_spread"] == []
    )


def test_every_burst_finds_its_spans_at_layer_detail() -> None:
    spans = simulation.run(scenario(), False).spans
    for burst in v3().bursts:
        labels = {spans.labels[i] for i in set(spans.label[spans.position == burst.position].tolist())}
        assert set(burst.shares) <= labels


def test_other_schedules_and_groups_have_networks_too() -> None:
    for overrides in (("schedule=1f1b",), ("schedule=dualpipev",), ("parallel.expert=8",), ("cluster.nodes=128",)):
        found = network(*laid(*overrides))
        kinds = [KINDS[kind] for kind in np.unique(found.flows.kind)]
        assert kinds == (list(KINDS[1:4]) if overrides == ("parallel.expert=8",) else list(KINDS[:4]))
        assert found.hindrances(1.0).exchanges >= 1 and found.hindrances().rings


def test_the_seed_scatters_and_hashes() -> None:
    assert (v3("packed", "ecmp").ways == network(*laid(), "packed", "ecmp").ways).all()
    other = network(*laid("seed=1"), "packed", "ecmp")
    assert (v3("packed", "ecmp").ways != other.ways).any()
