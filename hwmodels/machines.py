"""The page of machines: every device, node and fabric that ships, with each figure's kind and source.

`python -m hwmodels.machines` writes docs/MACHINES.md.
"""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from hwmodels import device, fabric, node
from hwmodels.device import Device
from hwmodels.document import Document
from hwmodels.fabric import Fabric
from hwmodels.figure import Figure
from hwmodels.node import Link, Node
from hwmodels.shelf import Shelf, expand
from hwmodels.topologies.fat_tree import FatTree
from hwmodels.units import GIGA, MIB, MICRO, TERA

PAGE = Path("docs/MACHINES.md")

HEAD = """# Machines

Written by `python -m hwmodels.machines` from the documents in `hwmodels/devices`, `hwmodels/nodes` and
`hwmodels/fabrics`. Any figure can be overridden (`cluster.node.nic.bandwidth=100GB/s`), and a document of your own says
`base:` and what differs. Bandwidths are of one direction. Peaks are dense.
"""

DEVICES = """
## Devices

`priced by` names the tables that prices come from: a card's own first, then its siblings', transferred and graded so.
Cards without either are priced by the roofline, which is a bound: on AMD's cards published products take two to four
times as long (below). So an AMD card looks faster here than it is, also beside one with tables. The idle time between
kernels is the H800's everywhere. All this is of the project's own kernels; those of a vendor's library (the stacks
torch and megatron) were published of most cards, AMD's too, and are priced by that (PRICES.md, "A vendor's kernels").
"""

NODES = """
## Nodes

A node is an NVLink domain, so a GB200 or GB300 NVL72 is a node of 72 GPUs. 72 is no power of two: expert groups must
be divisors or multiples of a node's GPUs, so EP64 in a rack is 64 of its GPUs, the other eight being spares:
`'cluster.node={base: gb200x72, gpus: 64}'`. The link between GPUs is `nvlink` in every document, and has a name where
it is another; AMD's is a full mesh, where two GPUs that talk to each other have one link in seven. The host's link is
`pcie`, also where it is NVLink-C2C.
"""

FABRICS = """
## Fabrics

`ndr` goes with 400 Gb/s NICs, `xdr` and `eth800` with 800 Gb/s ones; a port is as fast as the NIC plugged into it.
`cluster.fabric.oversubscription=3` gives three ports of a leaf to endpoints for one that looks up: flows are then
routed (adaptive, unless `cluster.routing` says otherwise) and feel it. `cluster.fabric.sharp=49%` says that switches
reduce, at that part of the NICs' rate; only all-reduces go faster, for a rank of a reduce-scatter still sends all and
one of an all-gather still receives all. ZeRO-1's step has one all-reduce, of the gradient norm.
"""

TRUST = """
## How far prices by a sibling are off

Price over published time, one kernel each: products of 1,024 rows and more, attention forward of 4,096 tokens and more
(serving kernels, with a paged cache), casts to FP8. Blackwell and Hopper: NVIDIA aiconfigurator@095f58a51c4c, the casts
inside its FP8 rows taken out; H20: alibaba/InferSim@f2293dab6d23; AMD: ROCm/aiter@e4048607a535. Inputs are the spreads
of prices (`hwmodels/sibling.py`: the root mean squares on Blackwell), and one number chosen on the H20's rows; nothing
is corrected for the ratios.

| card | kernels | rows | median ratio | 5 % to 95 % | rms of log |
|---|---|--:|--:|--:|--:|
| B200 | products, BF16 | 498 | 0.96 | 0.83 to 1.08 | 0.11 |
| B200 | products, FP8 by tensor | 305 | 1.08 | 0.81 to 1.27 | 0.16 |
| B200 | products, FP8 by block | 299 | 0.99 | 0.38 to 1.15 | 0.42 |
| B200 | attention | 313 | 0.69 | 0.37 to 0.85 | 0.56 |
| B200 | casts | 63 | 1.72 | 1.47 to 1.99 | 0.53 |
| B300 | products, BF16 | 498 | 1.07 | 0.86 to 1.21 | 0.13 |
| B300 | products, FP8 by block | 284 | 0.87 | 0.34 to 1.12 | 0.48 |
| B300 | attention | 293 | 0.81 | 0.42 to 1.02 | 0.42 |
| GB200 | products, BF16 | 498 | 0.95 | 0.75 to 1.10 | 0.15 |
| GB200 | products, FP8 by block | 303 | 0.91 | 0.37 to 1.09 | 0.43 |
| GB200 | attention | 293 | 0.65 | 0.35 to 0.84 | 0.58 |
| GB300 | products, BF16 | 502 | 1.07 | 0.91 to 1.18 | 0.11 |
| GB300 | products, FP8 by block | 303 | 1.04 | 0.40 to 1.22 | 0.40 |
| GB300 | attention | 293 | 0.80 | 0.43 to 1.03 | 0.41 |
| H20 | products, FP8 by block | 184 | 1.06 | 0.93 to 1.10 | 0.07 |
| H20 | attention | 20 | 1.02 | 0.94 to 1.09 | 0.05 |
| A100 | products, BF16 (roofline) | 504 | 0.79 | 0.60 to 0.83 | 0.30 |
| A100 | attention (roofline) | 234 | 0.59 | 0.43 to 0.65 | 0.60 |
| MI300X | products, FP8 by block (roofline) | 277 | 0.29 | 0.17 to 0.35 | 1.34 |
| MI355X | products, BF16 (roofline) | 378 | 0.51 | 0.23 to 0.61 | 0.90 |
| MI355X | products, FP8 by row (roofline) | 416 | 0.41 | 0.22 to 0.56 | 1.01 |

An H20 reaches a larger part of its small peak than an H800 of its large one: what its tensor cores do not do takes no
longer than there. With the H800's part of the peak its products would be priced 1.67 times too long, attention 1.35.
Published rows are short bursts: under sustained load large products on B200 and GB200 take 1.13 times as long (BF16,
the same library metered for 0.3 s and more).
"""

FORMATS = ("bf16", "fp8", "mxfp8", "nvfp4", "tf32", "fp32")


def page() -> str:
    """The whole page, Markdown."""
    parts = [
        HEAD, DEVICES,
        _table("device|SMs|clock GHz|BF16 TFLOP/s|FP8|TF32|FP32|HBM GB|TB/s|L2 MiB|L3 MiB|dies|priced by", _devices()),
        NODES, _table("node|device|GPUs|between GPUs|GB/s|reached|NICs a GPU|GB/s|reached|host GB/s", _nodes()),
        FABRICS, _table("fabric|kind|planes|ports|Gb/s|NICs|switches|under a leaf|across|SHARP", _fabrics()),
        TRUST, "\n## Figures and their sources\n\nWhat each document states itself; the rest is its base's.\n",
    ]  # fmt: skip
    return "\n".join([*parts, *_sources()])


def _table(head: str, rows: Iterable[Sequence[str]]) -> str:
    names = head.split("|")
    lines = [names, ["---"] * len(names), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _devices() -> Iterator[list[str]]:
    for name in device.available():
        d: Device = device.load(name)
        peaks = [f"{d.peak_flops[form] / TERA:,.0f}" if form in d.peak_flops else "–" for form in FORMATS]
        order = dict.fromkeys(([d.tables] if d.tables else []) + list(d.siblings))
        yield [
            name, f"{d.sms}", f"{d.clock_hz / GIGA:.3g}", *peaks, f"{d.hbm.capacity_bytes / GIGA:.0f}",
            f"{d.hbm.bandwidth_bytes_per_s / TERA:.3g}", f"{d.l2.capacity_bytes / MIB:.0f}",
            f"{d.l3.capacity_bytes / MIB:.0f}" if d.l3 else "–", f"{d.dies}",
            ", ".join(order) or "roofline",
        ]  # fmt: skip


def _nodes() -> Iterator[list[str]]:
    for name in node.available():
        n: Node = node.load(name)
        mesh = f", mesh of {n.nvlink.peers + 1}" if n.nvlink.peers else ""
        yield [
            name, n.device.name, f"{n.gpus}", n.nvlink.name + mesh, *_link(n.nvlink), f"{n.nics_per_gpu}",
            *_link(n.nic), f"{n.pcie.bandwidth / GIGA:.0f}",
        ]  # fmt: skip


def _link(link: Link) -> list[str]:
    return [f"{link.bandwidth / GIGA:.0f}", f"{link.efficiency:.0%}"]


def _fabrics() -> Iterator[list[str]]:
    for name in fabric.available():
        f: Fabric = fabric.load(name)
        layers = f"{f.kind}, {f.layers} layers" if isinstance(f.topology, FatTree) else f.kind
        yield [
            name, layers, f"{f.planes}", f"{f.radix}", f"{f.link.bandwidth * 8 / GIGA:.0f}", f"{f.endpoints:,}",
            f"{f.switches:,}", f"{f.latency_same_leaf_s / MICRO:.1f} us", f"{f.latency_cross_leaf_s / MICRO:.1f} us",
            f"{f.sharp:.0%}" if f.sharp else "–",
        ]  # fmt: skip


def _sources() -> Iterator[str]:
    for kind, shelf, names, figures in (
        ("devices", device.SHELF, device.available(), lambda name: device.load(name).figures),
        ("nodes", node.SHELF, node.available(), lambda name: node.load(name).figures),
        ("fabrics", fabric.SHELF, fabric.available(), lambda name: fabric.load(name).figures),
    ):
        for name in names:
            yield f"\n### {kind}/{name}\n"
            yield _table("figure|value|kind|source", _own(name, shelf, figures))


def _own(name: str, shelf: Shelf, figures: Callable[[str], Mapping[str, Figure]]) -> Iterator[list[str]]:
    whole = expand(Document(name), shelf)
    for key, figure in figures(name).items():
        if whole.place(tuple(key.split("."))).file == f"{shelf.shown}/{name}.yaml":
            yield [key, figure.text, figure.kind, figure.source.replace("|", "/")]


if __name__ == "__main__":
    if not PAGE.is_file():
        sys.exit(f"{PAGE}: is not here; this renews it in a checkout")
    PAGE.write_text(page() + "\n", encoding="utf-8")
