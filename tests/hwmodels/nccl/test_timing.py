"""How long ways take: closed forms where they must hold, and what others measured."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwmodels import node
from hwmodels.collectives import Wires, wires
from hwmodels.nccl import figures, timing, tuner
from hwmodels.nccl.library import Library
from hwmodels.nccl.way import LL, LL128, NVLS, PROTOCOLS, RING, SHARP, SIMPLE, TREE, Way
from hwmodels.op import Collective, Send
from hwmodels.units import GIB, GIGA, KIB, MIB, MICRO

SERVERS = ("a100x8", "h100x8", "h800x8", "b200x8", "gb200x72")
KINDS = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all")
HUGE = 1e13
"""Bytes beside which no latency counts."""


def setting(server: str) -> tuple[Wires, tuner.Generation, timing.Figures]:
    held = node.load(server)
    name = held.device.architecture
    return wires(held, None), tuner.GENERATIONS[name], figures.load(name).figures


def seconds(server: str, way: Way, op: Collective) -> float:
    links, generation, own = setting(server)
    return timing.seconds(way, op, links, generation, own)


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("ranks", [2, 4, 8])
def test_large_vectors_take_their_steps_bytes(server: str, ranks: int) -> None:
    """2 (n - 1) / n and (n - 1) / n of the vector at the rate of the links, and what a rank keeps beside it."""
    links, _, own = setting(server)
    rate = links.nvlink.bandwidth * own["ring.Simple.part"]
    for kind, times in (("all_reduce", 2), ("all_gather", 1), ("reduce_scatter", 1)):
        share = (times * (ranks - 1) + own["own"]) / ranks
        assert seconds(server, Way(RING, SIMPLE), Collective(kind, HUGE, ranks, 1)) == pytest.approx(
            share * HUGE / rate, rel=1e-3
        )


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_small_vectors_take_their_steps_latencies(server: str, protocol: str) -> None:
    _, _, own = setting(server)
    base, hop = own[f"ring.{protocol}.base_us"], own[f"ring.{protocol}.hop_us"]
    for ranks in (2, 8):
        op = Collective("all_reduce", 4, ranks, 1)
        assert seconds(server, Way(RING, protocol), op) / MICRO == pytest.approx(base + 2 * (ranks - 1) * hop, rel=1e-3)
    inside = Collective("all_gather", 4, 16, 2)
    far, near = tuner.FAR_US[RING][protocol], max(hop, 3.0 if protocol == SIMPLE else 1.0)
    assert seconds(server, Way(RING, protocol), inside) / MICRO == pytest.approx(base + 14 * near + far, rel=1e-3)


@pytest.mark.parametrize("server", SERVERS)
def test_large_vectors_across_domains_pass_the_nics(server: str) -> None:
    """At their rate where that is the slower: a ring once around, a tree twice down inside it or as fast as NCCL's
    source lets its channels be."""
    links, generation, own = setting(server)
    ranks, domains = (8, 8), (2, 8)
    nic = links.nic.bandwidth * links.nics * tuner.NIC_REACHED
    for per, nodes in zip(ranks, domains, strict=True):
        op = Collective("all_gather", HUGE, per * nodes, nodes)
        slower = min(nic * per, links.nvlink.bandwidth * own["ring.Simple.part"])
        assert seconds(server, Way(RING, SIMPLE), op) == pytest.approx(op.bytes() / slower, rel=1e-3)
    single = Collective("all_reduce", HUGE, 16, 16)
    assert seconds(server, Way(RING, SIMPLE), single) == pytest.approx(single.bytes() / nic, rel=1e-3)
    channels = tuner.graph(generation, single, links)
    most = min(channels.channels * generation.tree[2], 0.92 * channels.bandwidth) * 1e9 / 2
    longer = max(2 * HUGE / nic, HUGE / most)
    assert seconds(server, Way(TREE, SIMPLE), single) == pytest.approx(longer, rel=1e-3)


def test_switches_pass_the_vector_once() -> None:
    links, _, own = setting("h100x8")
    rate = links.nvlink.bandwidth * own["NVLS.part"]
    op = Collective("all_reduce", HUGE, 8, 1)
    assert seconds("h100x8", Way(NVLS, SIMPLE), op) == pytest.approx(HUGE / rate, rel=1e-3)


def test_a_rank_by_itself_waits_for_nobody() -> None:
    for kind in KINDS:
        assert Library("hopper").take(Collective(kind, GIB, 1, 1), setting("h100x8")[0])[:1] == (0.0,)
        assert Library("hopper").take(Collective(kind, 0, 8, 1), setting("h100x8")[0])[:1] == (0.0,)


@given(
    st.sampled_from(SERVERS), st.sampled_from(KINDS), st.sampled_from([(2, 1), (8, 1), (16, 2), (64, 8), (8, 8)]),
    st.floats(1, 1e12), st.floats(1, 2),
)  # fmt: skip
def test_more_bytes_take_no_less_on_a_way(
    server: str, kind: str, ranks: tuple[int, int], size: float, more: float
) -> None:
    links, generation, own = setting(server)
    op = Collective(kind, size, *ranks)
    for way, _ in tuner.estimates(generation, op, links):
        larger = timing.seconds(way, op._replace(size=size * more), links, generation, own)
        assert larger >= timing.seconds(way, op, links, generation, own)


@given(
    st.sampled_from(SERVERS), st.sampled_from(KINDS), st.sampled_from([(2, 1), (8, 1), (16, 2), (64, 8), (8, 8)]),
    st.floats(1, 1e12), st.floats(1, 4),
)  # fmt: skip
def test_nothing_beats_the_links(server: str, kind: str, ranks: tuple[int, int], size: float, slower: float) -> None:
    """All bytes that a rank sends over NVLink or the NICs of its domain, at all that they have; NVSwitches and trees
    send the vector once where a ring sends it twice, less a part."""
    links = setting(server)[0]
    op = Collective(kind, size, *ranks, slower=slower)
    taken = Library(node.load(server).device.architecture).take(op, links)
    least = op.bytes() if taken.way.algorithm == RING else op.bytes() / 2
    outside = least * op.nodes / op.ranks / (links.nic.bandwidth * links.nics / slower) if op.nodes > 1 else 0.0
    inside = least / links.nvlink.bandwidth if op.ranks > op.nodes and kind != "all_to_all" else 0.0
    assert taken.seconds >= max(outside if kind != "all_to_all" else 0.0, inside)


@given(st.sampled_from(SERVERS), st.sampled_from(KINDS), st.floats(1, 1e11), st.floats(1, 8))
def test_slower_links_take_no_less(server: str, kind: str, size: float, slower: float) -> None:
    library, links = Library(node.load(server).device.architecture), setting(server)[0]
    op = Collective(kind, size, 64, 8)
    way = library.way(op, links)
    _, generation, own = setting(server)
    for changed in (op._replace(slower=slower), op):
        other = links if changed is not op else links.slowed(slower)
        assert timing.seconds(way, changed, other, generation, own) >= timing.seconds(way, op, links, generation, own)


def test_a_rack_reduces_over_nvlink_what_nodes_of_eight_send_over_nics() -> None:
    rack = Library("blackwell").take(Collective("all_reduce", GIB, 64, 1), setting("gb200x72")[0])
    nodes = Library("blackwell").take(Collective("all_reduce", GIB, 64, 8), setting("b200x8")[0])
    assert rack.way.algorithm == NVLS and nodes.way.algorithm == "NVLS tree"
    assert rack.seconds < 0.5 * nodes.seconds
    faster = replace(setting("gb200x72")[0], nic=replace(setting("gb200x72")[0].nic, bandwidth=1e9))
    assert Library("blackwell").take(Collective("all_reduce", GIB, 64, 1), faster) == rack


def test_messages() -> None:
    links, _, own = setting("h100x8")
    base = own["direct.Simple.base_us"] * MICRO
    inside = timing.send_seconds(Send(HUGE, False, False), links, own)
    assert inside == pytest.approx(HUGE / (450e9 * own["ring.Simple.part"]), rel=1e-3)
    assert timing.send_seconds(Send(HUGE, True, False), links, own) == pytest.approx(HUGE / 48e9, rel=1e-3)
    assert timing.send_seconds(Send(HUGE, True, False, slower=2.0), links, own) == pytest.approx(HUGE / 24e9, rel=1e-3)
    far = replace(links, far_latency_s=links.latency_s + 1e-6)
    assert timing.send_seconds(Send(1, True, True), far, own) == pytest.approx(base + 15e-6, rel=1e-3)
    assert timing.send_seconds(Send(1, True, False), far, own) == pytest.approx(base + 14e-6, rel=1e-3)


@pytest.mark.parametrize(
    ("server", "kind", "ranks", "domains", "size", "us"),
    [
        ("h100x8", "all_reduce", 8, 1, 512 * MIB, 2112), ("h100x8", "all_gather", 2, 1, 512 * MIB, 1040),
        ("h100x8", "reduce_scatter", 8, 1, 64 * MIB, 200), ("h100x8", "all_to_all", 8, 1, 512 * MIB, 1480),
        ("h100x8", "all_reduce", 2, 1, 64 * KIB, 7.3), ("b200x8", "all_gather", 8, 1, 8 * MIB, 44),
        ("b200x8", "all_gather", 8, 1, 16 * MIB, 104), ("b200x8", "all_reduce", 8, 1, 512 * MIB, 1335),
        ("a100x8", "all_reduce", 8, 1, 512 * MIB, 4226), ("a100x8", "all_reduce", 8, 1, 8 * GIB, 64912),
        ("gb200x72", "all_reduce", 4, 1, 8 * GIB, 18959), ("gb200x72", "all_reduce", 72, 1, 8 * GIB, 20299),
        ("gb200x72", "all_reduce", 144, 2, 16 * GIB, 42067), ("gb200x72", "all_reduce", 1440, 20, 2 * GIB, 14980),
        ("h100x8", "all_reduce", 64, 8, 8 * GIB, 43980), ("b200x8", "all_reduce", 16, 2, 8 * GIB, 23340),
        ("h100x8", "all_reduce", 16, 2, 64 * KIB, 33.1), ("h100x8", "all_reduce", 16, 2, MIB, 71.5),
        ("h100x8", "all_reduce", 16, 2, 16 * MIB, 183.8), ("h100x8", "all_reduce", 32, 4, MIB, 82.2),
        ("h100x8", "all_reduce", 32, 4, 64 * MIB, 574.4), ("h100x8", "all_reduce", 16, 2, 4 * MIB, 110.1),
    ],
)  # fmt: skip
def test_published_times(server: str, kind: str, ranks: int, domains: int, size: float, us: float) -> None:
    """aiconfigurator@095f58a51c4c; Azure AI benchmarking guide@8fd0c6e1bd0f; coreweave/nccl-tests@0120901ac7a1 and its
    pull request 92; NVIDIA/nccl-tests issue 309; dstack's documentation (H100 of Nebius)."""
    library, links = Library(node.load(server).device.architecture), setting(server)[0]
    taken = library.take(Collective(kind, size, ranks, domains), links)
    assert taken.seconds / MICRO == pytest.approx(us, rel=0.15)


def test_a_trees_first_chunk_goes_its_whole_way() -> None:
    """With LL128 over two domains of eight H100s: 1 MiB on 16 channels in chunks of 18,000 bytes (a slot halved five
    times), 16 steps at half of 36.7 GB/s; then all at NCCL's bandwidth, of which a vector so long has 0.6."""
    links, generation, own = setting("h100x8")
    op = Collective("all_reduce", MIB, 16, 2)
    channels = tuner.graph(generation, op, links)
    chunk = tuner.tree_chunk(op, 2 * channels.channels)
    assert chunk == 18000
    latency = 2 * (7 * own["ring.LL128.hop_us"] * 1.25 / 1.9 + 8.5)
    bus = min(0.92 * channels.bandwidth * 120 / 128, 36.7 * channels.channels)
    us = own["ring.LL128.base_us"] + latency + 16 * chunk / 18350 + MIB / (bus * 1000 / 2) / 0.6
    assert seconds("h100x8", Way(TREE, LL128), op) / MICRO == pytest.approx(us, rel=0.01)
    assert tuner.tree_chunk(op._replace(size=GIB), 32) == 576000
    assert tuner.tree_chunk(op._replace(size=16 * MIB), 32) < 576000


def test_a_step_of_a_ring_across_domains_is_posted() -> None:
    op = Collective("all_reduce", 4, 16, 2)
    assert tuner.ring_latency_us(op, LL, 0.6) == 28 * 1.0 + 2 * 2.7
    assert tuner.ring_latency_us(op, SIMPLE, 0.6) == 28 * 3.0 + 2 * 14.0
    assert tuner.ring_latency_us(op._replace(ranks=8, nodes=1), LL, 0.6) == 14 * 0.6


def test_switches_of_the_fabric_reduce_across_domains() -> None:
    links, generation, own = setting("h100x8")
    op, fabric = Collective("all_reduce", 8 * GIB, 256, 32), replace(links, sharp=0.9)
    taken = Library("hopper").take(op, fabric)
    assert taken.way == Way(SHARP, SIMPLE) and taken.seconds < Library("hopper").take(op, links).seconds
    assert Library("hopper", RING).take(op, fabric).way == Way(RING, SIMPLE)
    assert Library("hopper").take(op._replace(kind="all_gather"), fabric).way.algorithm == RING
    assert timing.seconds(Way(RING, LL128), op, links, generation, own) > 0 and LL in PROTOCOLS


@pytest.mark.parametrize("ranks, ring_gb_s", [(12, 196.8), (24, 393.7)])
def test_rings_of_few_gpus_of_three_racks_have_all_their_nics(ranks: int, ring_gb_s: float) -> None:
    """GB200s, four and eight of each of three racks, 16 GiB, NCCL_NVLS_ENABLE=0: rings are what NCCL 2.27.3 takes, and
    their bus bandwidths are those of NVIDIA/nccl issue 1801, which was found after the model was made."""
    op, (links, generation, _) = Collective("all_reduce", 16 * GIB, ranks, 3), setting("gb200x72")
    ways = dict(tuner.estimates(generation, op, links))
    assert min((way for way in ways if way.algorithm in (RING, TREE)), key=ways.__getitem__) == Way(RING, SIMPLE)
    bus = 2 * (ranks - 1) / ranks * op.size / seconds("gb200x72", Way(RING, SIMPLE), op)
    assert bus / GIGA == pytest.approx(ring_gb_s, rel=0.03)
