"""Cabling, flows, ways, loads: nothing is lost at a switch, no factor is below 1, adaptive is no worse than ECMP."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwmodels import fabric, node
from hwmodels.collectives import UNHINDERED, Hindrance
from hwmodels.document import Document
from hwmodels.refused import Refused
from sim.communication.fabric.cabling import NIC_CLASSES, Cabling, Rates, cabling
from sim.communication.fabric.flows import (
    EXPERT,
    GRADIENTS,
    PARAMETERS,
    PIPELINE,
    Flows,
    between,
    exchange,
    joined,
    rings,
)
from sim.communication.fabric.links import exchanges_alone, hindrances, loads, ways_by_moment
from sim.communication.fabric.paths import WORDS, paths
from sim.communication.fabric.routes import NONE, links
from sim.scenario import Cluster
from tests.examples import examples
from tests.oracles.multipath import throughput

FABRICS = {
    "planes": {"base": "mpft", "radix": 8, "planes": 4},
    "rails": {"base": "mrft", "radix": 16},
    "three layers": {"base": "ft3", "radix": 8, "nics_per_leaf": 4},
    "oversubscribed": {"base": "mrft", "radix": 16, "oversubscription": 3},
    "slim fly": {"base": "slimfly", "order": 5, "hosts_per_switch": 4},
    "dragonfly": {"base": "dragonfly", "groups": 9, "switches_per_group": 4, "global_ports": 2, "hosts_per_switch": 2},
}
"""Fabrics for nodes of 4 GPUs; the smallest joins 18."""
BUILT = {name: fabric.build(Document(form)) for name, form in FABRICS.items()}
NODES = 16


def wired(name: str, nodes: int = NODES, slots: tuple[int, ...] = (), nics: int = 1, port: float = 1.0) -> Cabling:
    """NICs carry 1 byte/s, so that seconds are bytes."""
    return Cabling(BUILT[name], 4, nics, slots or tuple(range(nodes)), Rates(1.0, port))


def by_kind(flows: Flows, found: Cabling, routing: str, seed: int = 0, busy_s: float = 0.0) -> dict[int, Hindrance]:
    """Of each kind of traffic, taken as one part."""
    ways = ways_by_moment(flows, found, routing, seed)
    kinds, of = np.unique(flows.kind, return_inverse=True)
    return dict(zip(kinds.tolist(), hindrances(flows, of, ways, found, busy_s), strict=True))


@st.composite
def cases(draw: st.DrawFn) -> tuple[Cabling, Flows, int]:
    name, nics = draw(st.sampled_from(list(FABRICS))), draw(st.sampled_from([1, 1, 2]))
    nodes = NODES // 2 if nics == 2 else NODES
    found = wired(name, nodes, tuple(draw(st.permutations(range(nodes)))), nics, draw(st.sampled_from([1.0, 0.5, 2.0])))
    rank = st.integers(0, 4 * nodes - 1)
    rows = draw(st.lists(st.tuples(rank, rank, st.integers(1, 9), st.integers(0, 3)), min_size=1, max_size=60))
    source, target, size, kind = np.array(rows).T
    flows = joined(
        between(found, source[kind == k], target[kind == k], size[kind == k].astype(float), k) for k in range(4)
    )
    return found, flows, draw(st.integers(0, 99))


@given(cases(), st.sampled_from(WORDS))
@examples(60)
def test_bytes_are_conserved_at_every_switch(case: tuple[Cabling, Flows, int], routing: str) -> None:
    found, flows, seed = case
    load = loads(flows, paths(flows, found, routing, seed), found)
    balance: dict[str, float] = {}
    for link in np.flatnonzero(load).tolist():
        start, end = found.ends(np.array([link]))[0]
        balance[start] = balance.get(start, 0.0) - load[link]
        balance[end] = balance.get(end, 0.0) + load[link]
    sent = {name: value for name, value in balance.items() if name.startswith("node")}
    assert {name: value for name, value in balance.items() if name not in sent and abs(value) > 1e-9} == {}
    expected: dict[str, float] = {}
    for i in range(len(flows)):
        for sign, end, nic in ((-1, flows.source, flows.nic_out), (1, flows.target, flows.nic_in)):
            name = f"node{end[i]}.nic{nic[i]}"
            expected[name] = expected.get(name, 0.0) + sign * flows.size[i]
    assert sent == pytest.approx(expected)


@given(cases(), st.sampled_from(WORDS))
@examples(60)
def test_flows_go_link_by_link_from_nic_to_nic(case: tuple[Cabling, Flows, int], routing: str) -> None:
    found, flows, seed = case
    for i, way in enumerate(paths(flows, found, routing, seed)):
        hops = found.ends(way[way != NONE])
        assert all(a[1] == b[0] for a, b in pairwise(hops))
        assert hops[0][0] == f"node{flows.source[i]}.nic{flows.nic_out[i]}"
        assert hops[-1][1] == f"node{flows.target[i]}.nic{flows.nic_in[i]}"
        assert len({link for link in way.tolist() if link != NONE}) == len(hops)


@given(cases(), st.sampled_from(WORDS))
@examples(60)
def test_no_fabric_is_faster_than_a_non_blocking_one(case: tuple[Cabling, Flows, int], routing: str) -> None:
    found, flows, seed = case
    alone = exchanges_alone(flows, ways_by_moment(flows, found, routing, seed), found)
    for kind, one in by_kind(flows, found, routing, seed).items():
        assert one.slower >= 1 and one.exchanges >= 0
        if kind == EXPERT:
            assert alone <= one.slower <= 2 * alone + 1e-12 and one.exchanges == 0
    assert alone >= 1


@given(cases())
@examples(100)
def test_adaptive_is_never_worse_than_ecmp(case: tuple[Cabling, Flows, int]) -> None:
    found, flows, seed = case
    largest = {
        routing: loads(flows, paths(flows, found, routing, seed), found)[2 * found.ports :].max(initial=0.0)
        for routing in ("ecmp", "adaptive")
    }
    assert largest["adaptive"] <= largest["ecmp"] * (1 + 1e-9)
    hashed, moved = (by_kind(flows, found, routing, seed) for routing in ("ecmp", "adaptive"))
    assert all(moved[kind].slower <= hashed[kind].slower * (1 + 1e-9) for kind in hashed if kind != EXPERT)
    hashed_ways, moved_ways = (ways_by_moment(flows, found, routing, seed) for routing in ("ecmp", "adaptive"))
    assert exchanges_alone(flows, moved_ways, found) <= exchanges_alone(flows, hashed_ways, found) * (1 + 1e-9)


def test_links_have_classes_and_capacities() -> None:
    for name in FABRICS:
        found = wired(name, port=2.0)
        assert sum(count for _, count in found.classes) == found.links
        assert found.links == 2 * found.ports + found.fabric.planes * links(found.routes)
        numbers = np.arange(found.links)
        of = found.class_of(numbers)
        assert np.bincount(of).tolist() == [count for _, count in found.classes]
        assert ((found.capacity(numbers) == 1.0) == (of < len(NIC_CLASSES))).all()
    names = [class_name for class_name, _ in wired("planes").classes]
    assert names == ["NIC out", "NIC in", "leaf up", "spine down"]
    for link, class_name in ((2 * 64, "leaf"), (2 * 64 + 32, "spine")):  # one plane has 8 leaves x 4 ports up
        assert wired("planes").ends(np.array([link]))[0][0].startswith(f"plane0.{class_name}")


def test_endpoints_of_nics_are_distinct_and_on_their_leaves() -> None:
    for name in FABRICS:
        found = wired(name)
        where, nic = (grid.ravel() for grid in np.indices((NODES, 4)))
        plane = nic % found.fabric.planes
        ends = found.endpoint(where, nic)
        assert len(set(zip(plane.tolist(), ends.tolist(), strict=True))) == NODES * 4
        assert (ends // found.fabric.down == found.leaf(where, nic)).all()
        assert ends.max() < found.fabric.topology.endpoints


def test_an_exchange_under_one_leaf_is_not_slowed() -> None:
    """The V3 case in small: an expert group on the nodes of a leaf never leaves it; scattered it does."""
    sizes = np.full((4, 4), 8.0)
    packed = wired("planes")
    flows = exchange(packed, np.arange(64).reshape(-1, 16), sizes)
    assert flows.size.sum() == 4 * 4 * 3 * 8.0
    for routing in WORDS:
        assert by_kind(flows, packed, routing) == {EXPERT: UNHINDERED}
    apart = wired("planes", slots=tuple(4 * (i % 4) + i // 4 for i in range(16)))
    assert by_kind(exchange(apart, np.arange(64).reshape(-1, 16), sizes), apart, "ecmp", 1)[EXPERT].slower > 1.0


def test_exchange_sends_what_each_node_pair_is_said_to() -> None:
    """Two groups with different tables; the diagonal stays inside; NIC i talks to NIC i."""
    sizes = np.arange(18, dtype=float).reshape(2, 3, 3)
    found = wired("planes")
    flows = exchange(found, np.arange(8, 32).reshape(-1, 12), sizes)
    table = np.zeros((NODES, NODES))
    np.add.at(table, (flows.source, flows.target), flows.size)
    for group in range(2):
        nodes = slice(2 + 3 * group, 5 + 3 * group)
        assert table[nodes, nodes] == pytest.approx(sizes[group] * (1 - np.eye(3)))
    assert table.sum() == pytest.approx(sum((s * (1 - np.eye(3))).sum() for s in sizes))
    assert (flows.nic_in == flows.nic_out).all() and set(flows.kind.tolist()) == {EXPERT}


def test_exchange_inside_a_node_sends_nothing() -> None:
    assert len(exchange(wired("planes"), np.arange(64).reshape(-1, 4), np.zeros((1, 1)))) == 0


@pytest.mark.parametrize(("members", "nodes", "each"), [
    (np.arange(16)[None], 4, 2.0), (np.arange(0, 64, 16)[None], 4, 8.0), (np.arange(10)[None], 3, None),
])  # fmt: skip
def test_rings_pass_everything_to_the_next_node(members: np.ndarray, nodes: int, each: float | None) -> None:
    """8 bytes a node, over as many NICs as it has ranks in the ring."""
    flows = rings(wired("planes"), members, 8.0)
    out, into = (np.bincount(end, flows.size, minlength=NODES) for end in (flows.source, flows.target))
    assert sorted(out.tolist())[-nodes:] == [8.0] * nodes and (out == into).all()
    assert set(flows.kind.tolist()) == {GRADIENTS}
    if each:
        assert set(flows.size.tolist()) == {each}


def test_a_ring_on_one_node_needs_no_network() -> None:
    assert len(rings(wired("planes"), np.arange(4)[None], 8.0)) == 0


def test_messages_use_the_nics_that_planes_allow() -> None:
    """From GPU 1 to GPU 2: in planes and rails over NIC 2 at both ends; in a tree without rails from the own NIC."""
    ends = np.array([1]), np.array([4 + 2])
    aligned = between(wired("planes"), *ends, 6.0, PIPELINE)
    plain = between(wired("three layers"), *ends, 6.0, PIPELINE)
    assert (aligned.nic_out.tolist(), aligned.nic_in.tolist()) == ([2], [2])
    assert (plain.nic_out.tolist(), plain.nic_in.tolist()) == ([1], [2])
    two = between(wired("planes", 8, nics=2), *ends, 6.0, PIPELINE)
    assert (two.nic_out.tolist(), two.size.tolist()) == ([4, 5], [3.0, 3.0])


def test_static_ways_of_a_shift_do_not_collide() -> None:
    """By destination: every host of a leaf sends to its like on another leaf, each over a spine of its own."""
    found = wired("planes")
    ranks = np.arange(64)
    flows = between(found, ranks, (ranks + 16) % 64, 1.0, PIPELINE)
    assert by_kind(flows, found, "static") == {PIPELINE: UNHINDERED}
    assert by_kind(flows, found, "ecmp", 3)[PIPELINE].slower > 1.0


def test_ecmp_between_leaves_collides_as_the_closed_form_says() -> None:
    """32 hosts of a leaf send one flow each to another leaf over 32 uplinks, on 8 planes, many seeds."""
    found = Cabling(fabric.load("mpft"), 8, 1, tuple(range(64)), Rates(1.0, 1.0))
    ranks = np.arange(256)
    flows = between(found, ranks, ranks + 256, 1.0, PIPELINE)
    down_too = []
    for seed in range(40):
        load = loads(flows, paths(flows, found, "ecmp", seed), found)[2 * found.ports :].reshape(8, 2, 64, 32)
        down_too.extend(load[:, 0, 0].max(axis=1).tolist())
    assert 1 / np.mean(down_too) == pytest.approx(throughput(32, 32), rel=0.04)
    assert by_kind(flows, found, "adaptive")[PIPELINE].slower <= 2.0


def of_kinds(found: Cabling, *sizes: float) -> Flows:
    """Each of `sizes`, by kind, from every GPU of a leaf to its like on the next."""
    ranks = np.arange(16)
    return joined(between(found, ranks, ranks + 16, size, kind) for kind, size in enumerate(sizes))


@pytest.mark.parametrize(("busy", "lasts"), [(0.0, 6.0), (6.0, 6.0), (30.0, 30.0)])
def test_kinds_share_the_links_between_switches(busy: float, lasts: float) -> None:
    """Ports as fast as NICs, a way for each flow: a link up carries 4 s of exchanges, 2 of messages.

    Exchanges find free what messages leave of the time that steps take: 6 s at least. The rest is as fast as alone, and
    told that exchanges need as much of its links as of NICs.
    """
    found = by_kind(of_kinds(wired("planes"), 4.0, 2.0, 1.0, 8.0), wired("planes"), "static", busy_s=busy)
    assert found.pop(EXPERT) == Hindrance(pytest.approx(1 / (1 - 2 / lasts)))
    assert found == dict.fromkeys((PIPELINE, GRADIENTS, PARAMETERS), Hindrance(1.0, 1.0))


def test_no_kind_is_left_less_than_a_fair_part() -> None:
    found = by_kind(of_kinds(wired("planes"), 1.0, 9.0), wired("planes"), "static")
    assert found == {EXPERT: Hindrance(2.0), PIPELINE: Hindrance(1.0, 1.0)}


def test_links_that_exchanges_do_not_use_are_not_shared() -> None:
    """Packed groups stay under a leaf: NICs are all that messages share with them."""
    found = wired("planes")
    inside = exchange(found, np.arange(64).reshape(-1, 16), np.full((4, 4), 8.0))
    across = between(found, np.arange(16), np.arange(16) + 16, 1.0, PIPELINE)
    assert by_kind(joined([inside, across]), found, "static") == {EXPERT: UNHINDERED, PIPELINE: UNHINDERED}


def parts(found: Cabling, *flows: Flows) -> tuple[Hindrance, ...]:
    """Each of `flows` as a part of its own, routes static."""
    whole, of = joined(flows), np.repeat(np.arange(len(flows)), [len(each) for each in flows])
    return hindrances(whole, of, ways_by_moment(whole, found, "static"), found)


def slow_up() -> Cabling:
    """Ports of half a NIC: whatever crosses takes twice as long, alone on its link."""
    return wired("planes", port=0.5)


def test_what_stays_under_a_leaf_is_not_slowed_by_what_crosses() -> None:
    found = slow_up()
    inside = between(found, np.arange(4), np.arange(4) + 4, 1.0, PIPELINE)
    across = between(found, np.arange(4), np.arange(4) + 16, 1.0, PIPELINE)
    assert parts(found, inside, across) == (UNHINDERED, Hindrance(2.0))


def test_a_nic_sends_one_thing_after_another() -> None:
    """Two messages of one NIC over one link are not there at once; those of two NICs are, and each is twice as slow."""
    found = slow_up()
    one, two = (between(found, np.array([rank]), np.array([16]), 1.0, PIPELINE) for rank in (0, 4))
    assert parts(found, one, one) == (Hindrance(2.0), Hindrance(2.0))
    assert parts(found, one, two) == (Hindrance(4.0), Hindrance(4.0))


def test_what_passes_at_other_moments_is_not_in_the_way() -> None:
    """Forward and backward outputs, and other kinds."""
    found = slow_up()
    ends = np.array([0]), np.array([16])
    forward, backward = (between(found, *ends, 1.0, PIPELINE, moment=moment) for moment in (0, 1))
    ring = between(found, *ends, 1.0, GRADIENTS)
    assert parts(found, forward, backward, ring) == (Hindrance(2.0),) * 3


def test_the_link_that_counts_is_the_slowest_beside_exchanges() -> None:
    """Messages need two links as long; exchanges need three quarters of one of them: that one is told."""
    found = wired("planes")
    rank = np.arange(1)
    message = between(found, rank, rank + 16, 4.0, PIPELINE)
    busy = between(found, rank + 4, rank + 16, 3.0, EXPERT)  # another way up, the same way down
    also = between(found, rank + 8, rank + 24, 4.0, EXPERT)  # none of its links
    (hindered, *_) = parts(found, message, busy, also)
    assert hindered == Hindrance(1.0, 0.75)


def test_slow_ports_slow_what_crosses() -> None:
    found = wired("planes", port=0.25)
    ranks = np.arange(16)
    assert by_kind(between(found, ranks, ranks + 16, 1.0, PIPELINE), found, "static") == {PIPELINE: Hindrance(4.0)}


def test_a_word_that_is_no_routing() -> None:
    found = wired("planes")
    with pytest.raises(Refused) as caught:
        paths(between(found, np.array([0]), np.array([9]), 1.0, PARAMETERS), found, "ecpm")
    assert str(caught.value) == "unknown routing 'ecpm', did you mean 'ecmp'? legal: static, ecmp, adaptive"


def test_cabling_of_a_cluster() -> None:
    """Ports are as fast as the NICs, unless the scenario says how fast they are."""
    built = node.load("h800x8")
    plain = cabling(Cluster(built, 256, fabric.load("mpft")))
    assert (plain.nodes, plain.nics) == (256, 8)
    assert plain.rates == (built.nic.effective, built.nic.effective)
    for speed, of_nic in (("25 GB/s", 25e9), ("100 GB/s", 50e9)):
        stated = fabric.build(Document({"base": "mpft", "link": {"bandwidth": speed}}))
        rates = cabling(Cluster(built, 256, stated)).rates
        share = built.nic.efficiency
        assert rates == pytest.approx((of_nic * share, float(speed.split()[0]) * 1e9 * share))
    with pytest.raises(Refused) as caught:
        cabling(Cluster(built, 256, None))
    assert str(caught.value) == "cluster.fabric: nothing is said about switches; name a fabric"
    with pytest.raises(Refused, match="the fabric has slots 0 to 2047; found 2048"):
        cabling(Cluster(built, 1, fabric.load("mpft")), (2048,))


def test_a_fabric_that_cannot_be_wired_says_so() -> None:
    found = cabling(Cluster(node.load("h800x8"), 64, fabric.load("slimfly")))
    with pytest.raises(Refused, match="a slim fly of order 28 can be counted but not wired"):
        _ = found.links
