"""NCCL's choice: rings, trees and NVSwitches where measured times show them, and never where a machine has none."""

from dataclasses import replace
from functools import cache

import pytest

from hwmodels import node
from hwmodels.collectives import Wires, wires
from hwmodels.nccl import tuner
from hwmodels.nccl.way import DIRECT, LL, LL128, NVLS, NVLS_TREE, PROTOCOLS, RING, SIMPLE, TREE, Way, far_steps, steps
from hwmodels.op import Collective
from hwmodels.units import GIB, KIB, MIB

SERVERS = ("a100x8", "h100x8", "h800x8", "h200x8", "h20x8", "b200x8", "b300x8", "gb200x72", "gb300x72")


@cache
def links(server: str) -> Wires:
    return wires(node.load(server), None)


@cache
def known(server: str) -> tuner.Generation:
    return tuner.GENERATIONS[node.load(server).device.architecture]


def choice(server: str, kind: str, size: float, ranks: int, domains: int = 1, form: str = "bf16") -> Way | None:
    return tuner.choice(known(server), Collective(kind, size, ranks, domains, form=form), links(server))


@pytest.mark.parametrize(
    ("server", "kind", "ranks", "form", "last", "before", "after"),
    [
        ("b200x8", "all_gather", 8, "bf16", 8, LL, SIMPLE), ("b200x8", "all_gather", 4, "bf16", 4, LL, SIMPLE),
        ("h100x8", "all_gather", 4, "bf16", 2, LL, SIMPLE), ("b200x8", "all_reduce", 8, "int8", 8, LL, LL128),
        ("b200x8", "all_reduce", 8, "int8", 16, LL128, SIMPLE), ("b200x8", "reduce_scatter", 8, "bf16", 8, LL, SIMPLE),
    ],
)  # fmt: skip
def test_protocols_change_where_measured_times_jump(
    server: str, kind: str, ranks: int, form: str, last: int, before: str, after: str
) -> None:
    """Eight B200s gather 8 MiB in 44 us and 16 MiB in 104, four 4 MiB in 25 and 8 MiB in 51; four H100s 2 MiB in 19 and
    4 MiB in 37; eight B200s add 8 and 16 MiB of int8 in 77 and 78 us, 32 MiB in 208 (aiconfigurator@095f58a51c4c)."""
    assert choice(server, kind, last * MIB, ranks, form=form) == Way(RING, before)
    assert choice(server, kind, 2 * last * MIB, ranks, form=form) == Way(RING, after)


def test_switches_reduce_where_measured_rates_are_above_the_links() -> None:
    """Eight H100s: 445 GB/s of bus bandwidth at 512 MiB in half, 353 in int8, and 349 of four (the same source)."""
    assert choice("h100x8", "all_reduce", 512 * MIB, 8) == Way(NVLS, SIMPLE)
    for form, ranks in (("int8", 8), ("bf16", 4), ("bf16", 2)):
        assert choice("h100x8", "all_reduce", 512 * MIB, ranks, form=form) == Way(RING, SIMPLE)
    assert choice("h100x8", "all_gather", 512 * MIB, 8) == Way(RING, SIMPLE)
    assert choice("h100x8", "all_reduce", GIB, 64, 8) == Way(NVLS_TREE, SIMPLE)


def test_no_switch_reduces_where_there_is_none() -> None:
    mesh = replace(links("h100x8"), nvlink=replace(links("h100x8").nvlink, peers=7))
    op = Collective("all_reduce", GIB, 8, 1)
    assert tuner.switched(known("h100x8"), op, links("h100x8"))
    assert not tuner.switched(known("h100x8"), op, mesh)
    assert not tuner.switched(known("a100x8"), op, links("a100x8"))
    assert not tuner.switched(known("h100x8"), op._replace(ranks=8, nodes=8), links("h100x8"))
    ways = {way for way, _ in tuner.estimates(known("a100x8"), op, links("a100x8"))}
    assert ways == {Way(a, p) for a in (RING, TREE) for p in PROTOCOLS}


@pytest.mark.parametrize("server", SERVERS)
def test_the_fastest_estimate_is_taken(server: str) -> None:
    for ranks, domains in ((2, 1), (8, 1), (16, 2), (64, 8), (16, 16)):
        for kind in ("all_reduce", "all_gather", "reduce_scatter"):
            for size in (KIB, MIB, 64 * MIB, GIB):
                op = Collective(kind, size, ranks, domains)
                held = dict(tuner.estimates(known(server), op, links(server)))
                assert held[choice(server, kind, size, ranks, domains)] == min(held.values()) > 0
                assert kind == "all_reduce" or {way.algorithm for way in held} == {RING}


def test_a_way_may_be_said() -> None:
    """As NCCL_ALGO and NCCL_PROTO do; what is not there is None."""
    op, wire = Collective("all_reduce", GIB, 8, 1), links("h100x8")
    assert tuner.choice(known("h100x8"), op, wire, algorithm=TREE) == Way(TREE, SIMPLE)
    assert tuner.choice(known("h100x8"), op, wire, protocol=LL) == Way(RING, LL)
    assert tuner.choice(known("h100x8"), op, wire, NVLS, LL) is None


def test_channels_are_those_that_nccl_tells() -> None:
    """ "24 coll channels" on eight A100s or H100s, "16 coll channels" on several nodes of H100s: twice a graph's."""
    one, several = Collective("all_reduce", GIB, 8, 1), Collective("all_reduce", GIB, 64, 8)
    assert tuner.graph(known("a100x8"), one, links("a100x8")) == tuner.Graph(12, 240)
    assert tuner.graph(known("h100x8"), one, links("h100x8")) == tuner.Graph(12, 360)
    assert tuner.graph(known("b200x8"), one, links("b200x8")) == tuner.Graph(16, 720)
    assert tuner.graph(known("h100x8"), several, links("h100x8")) == tuner.Graph(8, pytest.approx(360))
    assert tuner.graph(known("h800x8"), one, links("h800x8")).bandwidth == pytest.approx(160)


def test_small_messages_to_all_go_with_flags() -> None:
    assert choice("h100x8", "all_to_all", 8 * 16 * KIB, 8) == Way(DIRECT, LL)
    assert choice("h100x8", "all_to_all", 8 * 16 * KIB + 8, 8) == Way(DIRECT, SIMPLE)
    assert choice("h100x8", "all_to_all", KIB, 16, 2) == Way(DIRECT, SIMPLE)


def test_steps_of_rings() -> None:
    reduce, gather = Collective("all_reduce", 1, 16, 2), Collective("all_gather", 1, 16, 2)
    assert (steps(reduce), far_steps(reduce), steps(gather), far_steps(gather)) == (30, 2, 15, 1)
    assert far_steps(gather._replace(nodes=1)) == 0
