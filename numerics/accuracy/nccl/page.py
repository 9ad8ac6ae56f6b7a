"""The page on collectives (docs/COLLECTIVES.md), and the figures behind it (hwmodels/nccl/figures.json).

`python -m numerics collectives FILE.csv --write` makes the page again, `--fit` the figures first.
"""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from hwmodels import node
from hwmodels.collectives import wires
from hwmodels.nccl import figures, timing, tuner
from hwmodels.nccl.library import sms
from hwmodels.nccl.way import RING, SIMPLE, TREE, Way
from hwmodels.op import Collective
from hwmodels.units import GIB, GIGA, MIB, MICRO
from numerics.accuracy.markdown import percent, prose, table
from numerics.accuracy.nccl import fit, scores, torch_rows
from numerics.accuracy.nccl.rows import SWEPT, Row, fitted
from numerics.accuracy.nccl.scores import BANDS, GAPS, Figures, Miss, band, misses, rival, score

PAGE = Path(__file__).resolve().parents[3] / "docs" / "COLLECTIVES.md"
SOURCE = (
    "written by python -m numerics collectives FILE.csv --fit: fitted to collectives measured one at a time inside an "
    "NVLink domain, by nccl-tests of NCCL 2.27.3 and 2.29.2 (NVIDIA aiconfigurator@095f58a51c4c, Apache-2.0, Copyright "
    "(c) 2025-2026 NVIDIA CORPORATION & AFFILIATES) and, from 256 MiB on, Azure AI benchmarking guide@8fd0c6e1bd0f, "
    "2a370be6de95 (MIT)"
)
HEAD = """
Made by `python -m numerics collectives FILE.csv --write` from {rows:,} collectives that others measured one at a time
(single figures only): a table that is not part of the project, and numerics/accuracy/nccl/far.csv, which is.

`comm.collectives: nccl` prices all-reduces, all-gathers, reduce-scatters and messages as NCCL does them. Which way NCCL
takes (ring, tree, NVLS; protocol LL, LL128 or Simple) is what NCCL's own table says is the fastest, with the constants
of its source (`hwmodels.nccl.tuner`); none of them is fitted. How long that way takes is a latency, steps and bytes
(`hwmodels.nccl.timing`), with up to {most} figures a generation of GPUs, fitted to the rows inside an NVLink domain.
NCCL's own estimate of a way is not always right: on eight B200s an all-gather that grows from 8 to 16 MiB takes twice
as long (44 and 104 us), because NCCL leaves LL there. The model has that step where it was measured.

Errors are predicted / measured - 1: the median and 95th percentile of their size, and their median ("bias"). *ring* is
the rival and the default (`comm.collectives: ring`): bytes over the document's effective bandwidth and a hop latency a
step.
"""
OUT = """
Fits made again without all rows of one GPU, one operation, one number of ranks or one band of sizes, and those rows
priced. (A GPU is left out where its generation has another; a way that no other row shows is passed over.) The root
mean square of these, by generation and way, is the spread that a price carries.
"""
ALONE = """
Rows that nothing was fitted to. Azure's small vectors run with one process a GPU, and take up to twice as long on
Hopper and Ampere as with one thread a GPU in one process; on GB200 they agree. torch: two H200s, multicast off, sizes
that take longer than the call from Python (that of a message takes 45 us, which tells at 16 and 64 MiB).
"""
FAR = """
Only all-reduces were published, {rows} of them, by ten people on their own clusters, some with faults (two A100
clusters on EFA, one of H200s told as unstable). Nothing is fitted to them: steps have NCCL's latencies, bytes pass the
slowest of NVLink, NICs at 96 % of their rate and NCCL's bandwidths of trees, and a tree's first chunk goes its whole
way before the rest; how many GPUs of a rack count for that (all), NVLS trees' fill, NCCL's ratio for deep ones and that
trees with LL128 fill before they run were chosen knowing these rows: no blind check. What is off by 30 % or more is one
H20 cluster with NCCL 2.21.5, A100s on EFA, which gave less than 400 Gb/s a node, A100s' trees with LL128 from 4 MiB
on, and two rows else. **All-gathers, reduce-scatters, all-to-alls and messages across domains were not published for
any GPU**: there the model stands on the ring's arithmetic alone. All of them carry a spread of {spread:.0%} (root mean
square of the logarithms here: {rms:.0%}). One blind check: rings of 12 and 24 GB200s, four and eight of each of three
racks, have all their NICs (197 and 394 GB/s of bus bandwidth at 16 GiB, here {rings}; NVIDIA/nccl issue 1801), and NCCL
takes them there without NVLS, as here; trees that are asked for reach 234 and 486 GB/s (here {trees}).

A *domain* is what NVLink joins: 8 GPUs, or the 72 of a rack. *SMs*: channels of the collective, which it holds while it
runs.
"""


def renew(rows: Sequence[Row]) -> None:
    """Fit the figures again and write them."""
    held = {}
    for architecture in tuner.GENERATIONS:
        own = [row for row in rows if row.architecture == architecture and fitted(row)]
        spreads = scores.spreads(miss for _, miss in scores.left_out(own))
        held[architecture] = {"figures": fit.fit(own), "spreads": spreads}
    text = json.dumps({"source": SOURCE, "generations": held}, indent=1)
    figures.FILE.write_text(text + "\n", encoding="utf-8")


def page(rows: Sequence[Row]) -> str:
    """The page, from a table's rows."""
    held: Figures = {name: dict(figures.load(name).figures) for name in tuner.GENERATIONS}
    near = list(misses(filter(fitted, rows), held))
    alone = [miss for miss in misses(rows, held) if not fitted(miss.row) and miss.row.op.nodes == 1]
    far = [miss for miss in misses(rows, held) if miss.row.op.nodes > 1]
    rms = math.sqrt(float(np.mean([math.log(miss.ratio) ** 2 for miss in far])))
    racks = {"rings": _racks(RING), "trees": _racks(TREE)}
    return "\n\n".join([
        "# How good collectives are", prose(HEAD, rows=len(rows), most=max(map(len, held.values()))),
        "## Inside an NVLink domain", *_by(near), "## Left out of the fit", prose(OUT), _out(rows),
        "## Nothing fitted", prose(ALONE), _alone(alone), _torch(),
        "## Across NVLink domains", prose(FAR, rows=len(far), spread=figures.FAR_SPREAD, rms=rms, **racks), _swept(far),
        _far(far),
        "## Bus bandwidth of eight GPUs", _curves(near), "## Figures", _figures(held),
    ]) + "\n"  # fmt: skip


def _racks(algorithm: str) -> str:
    """GB/s of bus bandwidth of 16 GiB over four and eight GPUs of each of three racks."""
    rack, rates = node.load("gb200x72"), []
    links, known = wires(rack, None), tuner.GENERATIONS[rack.device.architecture]
    for ranks in (12, 24):
        op = Collective("all_reduce", 16 * GIB, ranks, 3)
        own = figures.load(rack.device.architecture).figures
        seconds = timing.seconds(Way(algorithm, SIMPLE), op, links, known, own)
        rates.append(f"{2 * (ranks - 1) / ranks * op.size / seconds / GIGA:.0f}")
    return " and ".join(rates)


def _by(near: Sequence[Miss]) -> Iterator[str]:
    order = [name for _, name in BANDS]
    keys: dict[str, tuple[Callable[[Miss], object], Callable[[object], object]]] = {
        "GPU": (lambda miss: miss.row.gpu, str),
        "operation": (lambda miss: miss.row.op.kind, str),
        "ranks": (lambda miss: miss.row.op.ranks, lambda value: value),
        "size": (lambda miss: band(miss.row), lambda value: order.index(str(value))),
        "way": (lambda miss: str(miss.way), str),
    }
    for name, (of, place) in keys.items():
        groups = sorted({of(miss) for miss in near}, key=place)  # type: ignore[arg-type]
        lines = [[value, *_both([miss for miss in near if of(miss) == value])] for value in groups]
        total = [["all", *_both(near)]] if name == "GPU" else []
        yield table(f"{name} | rows | median | p95 | bias | ring: median | ring: p95 | ring: bias", [*lines, *total])


def _both(group: Sequence[Miss]) -> list[str]:
    return [*_cells(miss.ratio for miss in group), *_cells(rival(miss.row) for miss in group)[1:]]


def _cells(ratios: Iterator[float]) -> list[str]:
    off = score(ratios)
    return [str(off.rows), percent(off.median), percent(off.p95), percent(off.bias, sign=True)]


def _out(rows: Sequence[Row]) -> str:
    lines = []
    for architecture in tuner.GENERATIONS:
        own = [row for row in rows if row.architecture == architecture and fitted(row)]
        out = list(scores.left_out(own))
        for gap in GAPS:
            group = [miss.ratio for name, miss in out if name == gap]
            if group:
                lines.append([f"{architecture}: one {gap}", *_cells(iter(group))])
    return table("left out | rows | median | p95 | bias", lines)


def _alone(alone: Sequence[Miss]) -> str:
    sources = {"z": "Azure", "c": "others"}
    groups = sorted({(miss.row.gpu, sources[miss.row.source[0]], band(miss.row)) for miss in alone})
    return table(
        "GPU, source, size | rows | median | p95 | bias",
        ([", ".join(key), *_cells(miss.ratio for miss in alone
          if (miss.row.gpu, sources[miss.row.source[0]], band(miss.row)) == key)] for key in groups),
    )  # fmt: skip


def _torch() -> str:
    head = " | ".join(["torch, 2 x H200", *(f"{size / MIB:.0f} MiB" for size in torch_rows.SIZES)])
    return table(
        head, ([kind, *(percent(r - 1, sign=True) for r in ratios)] for kind, ratios in torch_rows.ratios().items())
    )


def _far(far: Sequence[Miss]) -> str:
    lines = []
    single = [miss for miss in far if not miss.row.source.startswith(SWEPT)]
    for row, way, ratio in sorted(single, key=lambda m: (m.row.gpu, m.row.source, m.row.op.ranks, m.row.op.size)):
        us, held = row.us * ratio, sms(way, row.op, row.links, tuner.GENERATIONS[row.architecture])
        lines.append([
            f"{row.gpu}, {row.source}", row.op.ranks, row.op.nodes, f"{row.op.size / MIB:,.0f}", way, held,
            f"{row.us:,.0f}", f"{us:,.0f}", percent(ratio - 1, sign=True), percent(rival(row) - 1, sign=True),
        ])  # fmt: skip
    return table("GPU, source | ranks | domains | MiB | way | SMs | measured us | model us | model | ring", lines)


def _swept(far: Sequence[Miss]) -> str:
    order = [name for _, name in BANDS]
    swept = [miss for miss in far if miss.row.source.startswith(SWEPT)]
    keys = sorted({(m.row.gpu, m.row.source, m.row.op.nodes, order.index(band(m.row))) for m in swept})
    lines = []
    for gpu, source, domains, place in keys:
        group = [m for m in swept if m.row.source == source and band(m.row) == order[place]]
        lines.append([f"{gpu}, {source}", domains, order[place], *_both(group)])
    return table(
        "GPU, source | domains | size | rows | median | p95 | bias | ring: median | ring: p95 | ring: bias", lines
    )


def _curves(near: Sequence[Miss]) -> str:
    lines = []
    for gpu, kind in (("H100", "all_gather"), ("H100", "all_reduce"), ("B200", "all_gather"), ("B200", "all_to_all")):
        for miss in near:
            row, op = miss.row, miss.row.op
            chosen = op.size in (MIB, 8 * MIB, 16 * MIB, 64 * MIB, GIB / 2) and op.form == "fp16" and op.ranks == 8
            if (row.gpu, op.kind) == (gpu, kind) and chosen:
                bus = op.bytes() / row.us / MICRO / GIGA
                lines.append(
                    [f"{gpu}, {kind}", f"{op.size / MIB:.0f}", miss.way, f"{bus:.0f}", f"{bus / miss.ratio:.0f}"]
                )
    return table("operation | MiB | way | measured GB/s | model GB/s", lines)


def _figures(held: Figures) -> str:
    names = sorted({name for own in held.values() for name in own})
    head = " | ".join(["figure", *held])
    return table(head, ([name, *(own.get(name, "–") for own in held.values())] for name in names))
