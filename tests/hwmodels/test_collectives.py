"""Communication alone: closed forms, published bandwidths, and never below what the links can carry."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwmodels import fabric, node
from hwmodels.collectives import (
    ENOUGH_SMS,
    Wires,
    collective_seconds,
    exchange_bound_seconds,
    exchange_seconds,
    host_seconds,
    send_seconds,
    wires,
)
from hwmodels.document import Document
from hwmodels.node import Link
from hwmodels.op import AllToAll, Collective, HostCopy, Send

FABRIC = fabric.load("mpft")
V3 = wires(node.load("h800x8"), FABRIC)
NVLINK, NIC = 160e9, 40e9
NEAR, FAR, INSIDE = 2.8e-6, 3.7e-6, 3.33e-6
DISPATCH = AllToAll("dispatch", "dispatch(F)", 4096, 7168 + 224 + 72, 3.96, 7.49, 64, 8)
COMBINE = AllToAll("combine", "combine(F)", 4096, 14336 + 40, 3.96, 7.49, 64, 8)

SPEED = st.floats(1e9, 1e12)
LINKS = st.builds(
    lambda nvlink, nic, nics: Wires(Link(nvlink, 0.8, INSIDE), Link(nic, 0.8, NEAR), nics, V3.pcie, NEAR, FAR),
    SPEED, SPEED, st.integers(1, 8),
)  # fmt: skip


@st.composite
def exchanges(draw: st.DrawFn) -> AllToAll:
    nodes, gpus = draw(st.integers(1, 32)), draw(st.integers(1, 8))
    ranks = draw(st.floats(1, nodes * gpus))
    reached = draw(st.floats(1, min(nodes, ranks)))
    tokens, row = draw(st.integers(1, 65536)), draw(st.floats(1, 1e5))
    return AllToAll("dispatch", "dispatch(F)", tokens, row, reached, ranks, nodes * gpus, nodes)


@st.composite
def collectives(draw: st.DrawFn) -> Collective:
    nodes, gpus = draw(st.integers(1, 256)), draw(st.integers(1, 8))
    kind = draw(st.sampled_from(["reduce_scatter", "all_gather", "all_reduce"]))
    return Collective(kind, draw(st.floats(1, 1e11)), nodes * gpus, nodes)


def test_effective_rates_are_the_published_ones() -> None:
    assert (V3.network, V3.nvlink.effective) == pytest.approx((NIC, NVLINK))


def test_nothing_slows_links_that_nobody_is_said_to_share() -> None:
    for links in (V3, wires(node.load("h800x8"), None)):
        assert links.alone == links.shared == links
        assert links.slowed(2).network == links.network / 2


@pytest.mark.parametrize(("op", "ms"), [(DISPATCH, 2.6), (COMBINE, 5.1)], ids=["dispatch", "combine"])
def test_the_exchanges_of_v3_alone(op: AllToAll, ms: float) -> None:
    """EP64 beside nothing: 2.6 ms for FP8 rows, 5.1 ms for BF16 rows."""
    assert exchange_seconds(op, V3, 20) == pytest.approx(ms * 1e-3, rel=0.025)


def test_the_network_binds_across_nodes() -> None:
    bound = 4096 * 3.96 * 7464 * (7 / 8) / NIC
    assert exchange_bound_seconds(DISPATCH, V3) == pytest.approx(bound)
    assert exchange_seconds(DISPATCH, V3, 20) == pytest.approx(bound + NEAR + INSIDE)


def test_inside_a_node_only_nvlink_counts() -> None:
    inside = DISPATCH._replace(group=8, group_nodes=1, nodes_reached=1.0, ranks_reached=5.3)
    assert exchange_seconds(inside, V3, 20) == pytest.approx(4096 * 5.3 * 7464 * (7 / 8) / NVLINK + INSIDE)


@given(exchanges(), LINKS, st.integers(1, 132))
def test_an_exchange_is_never_below_the_bandwidth_bound(op: AllToAll, links: Wires, sms: int) -> None:
    bound = max(op.wire_bytes() / links.network, op.nvlink_bytes() / links.nvlink.effective)
    assert exchange_seconds(op, links, sms) >= bound
    assert op.nodes_reached * op.tokens * op.row_bytes >= op.wire_bytes()


@given(exchanges(), LINKS, st.integers(1, 131))
def test_more_sms_never_slow_an_exchange(op: AllToAll, links: Wires, sms: int) -> None:
    assert exchange_seconds(op, links, sms + 1) <= exchange_seconds(op, links, sms)


def test_twenty_sms_are_enough_and_ten_take_twice_as_long() -> None:
    bound = exchange_bound_seconds(DISPATCH, V3)
    assert exchange_seconds(DISPATCH, V3, 60) == exchange_seconds(DISPATCH, V3, ENOUGH_SMS)
    assert exchange_seconds(DISPATCH, V3, 10) - exchange_seconds(DISPATCH, V3, 20) == pytest.approx(bound)


@pytest.mark.parametrize(("leaves_node", "leaves_leaf", "rate", "latency"), [
    (False, False, NVLINK, INSIDE), (True, False, NIC, NEAR), (True, True, NIC, FAR),
])  # fmt: skip
def test_a_send_takes_the_link_it_must(leaves_node: bool, leaves_leaf: bool, rate: float, latency: float) -> None:
    size = 4096 * 7168 * 2
    assert send_seconds(Send(size, leaves_node, leaves_leaf), V3) == pytest.approx(size / rate + latency)


@given(collectives(), LINKS)
def test_a_ring_is_never_below_the_bandwidth_bound(op: Collective, links: Wires) -> None:
    """Each node must take in what it lacks through its NICs, each GPU what it lacks over NVLink."""
    per_node, passes = op.ranks // op.nodes, 2 if op.kind == "all_reduce" else 1
    network = op.size * (1 - 1 / op.nodes) / (links.network * per_node)
    nvlink = op.size * (1 - 1 / per_node) / links.nvlink.effective
    assert collective_seconds(op, links) >= passes * max(network, nvlink) * (1 - 1e-12)


def test_rings_of_large_vectors() -> None:
    """8 GPUs a node: their eight NICs together outrun one GPU's NVLink; one GPU a node: its NIC is the ring's rate."""
    size = 1e10
    inside, wide = Collective("reduce_scatter", size, 8, 1), Collective("reduce_scatter", size, 2048, 256)
    alone = Collective("reduce_scatter", size, 4, 4)
    assert collective_seconds(inside, V3) == pytest.approx(size * 7 / 8 / NVLINK + 7 * INSIDE)
    assert collective_seconds(wide, V3) == pytest.approx(size * 2047 / 2048 / NVLINK + 1792 * INSIDE + 256 * FAR)
    assert collective_seconds(alone, V3) == pytest.approx(size * 3 / 4 / NIC + 4 * FAR)


@given(st.floats(1, 1e11), st.integers(1, 256), LINKS)
def test_gathering_costs_what_scattering_does_and_reducing_at_most_twice(size: float, nodes: int, links: Wires) -> None:
    scatter, gather, both = (
        collective_seconds(Collective(kind, size, 8 * nodes, nodes), links)
        for kind in ("reduce_scatter", "all_gather", "all_reduce")
    )
    assert scatter == gather
    assert both <= 2 * scatter * (1 + 1e-12)


def test_a_scalar_goes_through_a_tree() -> None:
    """4 bytes over 2,048 GPUs: three NVLink hops and eight network hops, up and down."""
    found = collective_seconds(Collective("all_reduce", 4.0, 2048, 256), V3)
    assert found == pytest.approx(2 * (3 * INSIDE + 8 * FAR), rel=1e-6)


def test_nobody_to_talk_to_costs_nothing() -> None:
    for kind in ("reduce_scatter", "all_gather", "all_reduce"):
        assert collective_seconds(Collective(kind, 1e9, 1, 1), V3) == 0.0
        assert collective_seconds(Collective(kind, 0.0, 2048, 256), V3) == 0.0  # and nothing to send


def test_host_copies_take_pcie() -> None:
    for seconds in (1.0, 0.25):
        assert host_seconds(HostCopy(64e9 * 0.91 * seconds), V3) == pytest.approx(seconds + 1e-6)


@pytest.mark.parametrize(("network", "rate"), [
    ({}, 40e9), ({"link": {"efficiency": 0.4}}, 20e9), ({"link": {"bandwidth": "25 GB/s"}}, 20e9),
    ({"link": {"bandwidth": "25 GB/s", "efficiency": 0.4}}, 10e9), ({"link": {"efficiency": 0.9}}, 40e9),
])  # fmt: skip
def test_a_nic_is_no_faster_than_the_port_that_a_scenario_states(network: dict[str, object], rate: float) -> None:
    """Bandwidth and efficiency count alike, as a product; ports of a shipped fabric follow the NICs."""
    plugged = fabric.build(Document({"base": "mpft", **network}))
    assert wires(node.load("h800x8"), plugged).network == pytest.approx(rate)
    faster = node.build(Document({"base": "h800x8", "nic": {"bandwidth": "100 GB/s"}}))
    assert wires(faster, fabric.load("mpft")).network == pytest.approx(80e9)


@pytest.mark.parametrize(("nic", "network", "expected"), [
    ({}, {}, (2.8, 3.7)), ({"latency": "10 us"}, {}, (10, 10.9)), ({"latency": "1 us"}, {}, (1, 1.9)),
    ({"latency": "10 us"}, {"latency_same_leaf": "5 us"}, (5, 3.7)),
    ({"latency": "10 us"}, {"latency_cross_leaf": "20 us"}, (10, 20)),
])  # fmt: skip
def test_the_latency_of_a_nic_counts_beside_a_fabric(
    nic: dict[str, str], network: dict[str, str], expected: tuple[float, float]
) -> None:
    plugged = fabric.build(Document({"base": "mpft", **network}))
    links = wires(node.build(Document({"base": "h800x8", "nic": nic})), plugged)
    assert (links.latency_s, links.far_latency_s) == pytest.approx([us * 1e-6 for us in expected])


def test_host_memory_slower_than_pcie_binds() -> None:
    slow = node.build(Document({"base": "h800x8", "device": {"host": {"bandwidth": "32 GB/s", "latency": "5 us"}}}))
    assert host_seconds(HostCopy(32e9 * 0.91), wires(slow, None)) == pytest.approx(1 + 5e-6)
