"""Collectives that were measured one at a time, as a table of them says, and the links that they were measured on.

The table (CSV) has gpu, op, ranks, nodes, bytes, dtype, us and src; its sizes are those of nccl-tests: of the gathered
vector of an all-gather, of the vector that goes in otherwise.
"""

import csv
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import NamedTuple

from hwmodels import node
from hwmodels.collectives import Wires, wires
from hwmodels.nccl.library import known
from hwmodels.op import Collective
from hwmodels.units import MIB

KINDS = {name: name for name in ("all_reduce", "all_gather", "reduce_scatter")} | {"alltoall": "all_to_all"}
NODES = {
    "A100": "a100x8", "H100": "h100x8", "H200": "h200x8", "H20": "h20x8", "B200": "b200x8", "B300": "b300x8",
    "GB200": "gb200x72", "GB300": "gb300x72", "MI300X": "mi300xx8",
}  # fmt: skip
TRAY = 4
"""GPUs of what such tables call a node of a rack."""
SWEEP, LARGE, LARGE_BYTES = "n", "z", 256 * MIB
"""First letters of `src` of the rows that figures are fitted to, all inside a domain: sweeps to 512 MiB (nccl-tests of
NCCL 2.27.3 and 2.29.2, one process with a thread a GPU; NVIDIA aiconfigurator@095f58a51c4c), and from so many bytes on
what Azure measured of all-reduces up to 8 GiB (AI benchmarking guide@8fd0c6e1bd0f, 2a370be6de95). Azure's smaller ones,
with one process a GPU, take up to twice as long; they and all others are checked against."""
NIC = {"c2": 50e9, "c3": 12.5e9, "c4": 6.25e9, "f5": 25e9}
"""Bytes/s of a GPU's part of its node's NICs, where a source is of other nodes than NODES: H20s with eight NICs of
400 Gb/s, A100s with four of 200 Gb/s, with 400 Gb/s a node (EFA), and with eight of 200 Gb/s."""
FAR, SWEPT = Path(__file__).with_name("far.csv"), "f"
"""Sweeps of all-reduces over several domains, small vectors among them (nccl-tests, the lesser of both timings), and
the first letter of their `src`: f0 to f3 from NVIDIA/nccl-tests issue 309 (H100: qoofyk's two domains, bare metal, and
four, virtual; gj-aion's eight and two), f4 and f5 from the documentation of dstackai/dstack (H100 of Nebius, A100 of
Crusoe). Nothing is fitted to them."""


class Row(NamedTuple):
    """One measured collective on one kind of GPU. links: of a rank there. us: its time."""

    gpu: str
    architecture: str
    op: Collective
    links: Wires
    us: float
    source: str


def read(file: Path) -> list[Row]:
    """Rows of a table whose GPUs NCCL runs on."""
    with file.open(encoding="utf-8", newline="") as table:
        return [row for row in map(_row, csv.DictReader(table)) if known(row.architecture)]


def fitted(row: Row) -> bool:
    """Whether figures are fitted to a row."""
    return row.source.startswith(SWEEP) or (row.source.startswith(LARGE) and row.op.size >= LARGE_BYTES)


def _row(cells: dict[str, str]) -> Row:
    gpu, ranks, source = cells["gpu"], int(cells["ranks"]), cells["src"]
    server = _node(gpu)
    domains = int(cells["nodes"])
    if server.gpus > TRAY * 2:
        domains = -(-domains * TRAY // server.gpus)
    links = wires(server, None)
    if source in NIC:
        links = replace(links, nic=replace(links.nic, bandwidth=NIC[source]))
    op = Collective(KINDS[cells["op"]], float(cells["bytes"]), ranks, domains, form=cells["dtype"])
    return Row(gpu, server.device.architecture, op, links, float(cells["us"]), source)


@cache
def _node(gpu: str) -> node.Node:
    return node.load(NODES[gpu])
