"""Kernels of serving as they were measured one by one (kernels/*.csv), and what others take by them.

As `hwmodels.library` does: a time is a bound (a fixed cost, and the larger of FLOP at the dense peak and bytes at HBM's
bandwidth) times how much longer than it the nearest measured rows took, weighted by distance in octaves. A card without
rows of a kind holds the ratios of a card that has them: its own peaks, bandwidths and links make its bounds.
"""

import csv
import math
from functools import cache, lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from hwmodels import fabric, node
from hwmodels.collectives import Wires, wires
from hwmodels.device import Device
from hwmodels.library import BLUNT, FIXED_US, NEAR, NEAREST
from hwmodels.memory import streaming
from hwmodels.op import Collective, Gemm, GroupedGemm, Memory
from hwmodels.units import MICRO
from sim.communication.exchange.direct import Decode, seconds
from sim.serving.cached import BF16, MASKED, TILE, Block, Cached, Notify, PerHead
from sim.serving.values import SGLANG, SGLANG_0_4_6, TENSORRT_LLM

FOLDER = Path(__file__).parent / "kernels"
GRAPH = "_graph"
"""Ends the names of files whose rows were measured in replayed CUDA graphs: the gap before a kernel is in its time."""
FILES = (
    f"h200{GRAPH}", f"h200_deepgemm{GRAPH}", "h800", "h20", "h100", f"h100{GRAPH}", f"b200{GRAPH}", f"b300{GRAPH}",
    f"gb200{GRAPH}", f"gb300{GRAPH}", "mi300x", "mi355x",
)  # fmt: skip
"""Files, each of its card; a card's own that come first are asked first."""
OF_ENGINES: dict[str, tuple[str, ...]] = {
    TENSORRT_LLM: (f"h200_trtllm{GRAPH}", f"b200_trtllm{GRAPH}"), SGLANG_0_4_6: (f"h200_sglang_0_4_6{GRAPH}",),
}  # fmt: skip
"""Engine -> files of kernels that it runs and others do not: asked before all others where it serves."""
RACK = "gb"
"""Begins the names of cards of which a node has 72."""
DONORS = ("h800", "h100", f"h100{GRAPH}", f"h200_deepgemm{GRAPH}", f"h200_sglang_0_4_6{GRAPH}")
"""Whose rows stand for cards without rows of a kind, an engine's own first: DeepGEMM's and FlashMLA's of an H800,
exchanges of H100s in a DGX on 400 Gb/s InfiniBand, the rest of an H100 in graphs, DeepGEMM's masked products of an
H200, and its other ones of the version in SGLang 0.4.6."""
DISPATCH_ROW, COMBINE_ROW, CHOSEN, GPUS = 7168 + 224 + 16, 14336, 8, 8
"""Of exchanges: bytes of a row (values, scales and metadata; BF16), experts of a token, GPUs of a node."""
MLA, GQA = (576, 512), (128, 128)
"""Widths of a head's key and value in the rows of attention."""

FP8_ATTENTION = 1.7
"""How many times as fast FlashMLA is that multiplies latents in FP8, cache and all, as that in BF16 (Hopper:
deepseek-ai/FlashMLA pull request 82, by lm-sys/lm-sys.github.io@2896b37 blog/2025-09-26-sglang-ant-group.md)."""

Op = Gemm | GroupedGemm | PerHead | Block | Cached | Decode | Notify | Collective | Memory


def engines(device: str) -> bool:
    """Whether an engine's own kernels were measured on a device."""
    return any(card(file).device.name == device for files in OF_ENGINES.values() for file in files)


def whole_experts(device: str, engine: str) -> bool:
    """Whether an engine's experts were measured as a whole on a device."""
    return any("experts" in _rows(file) for file in OF_ENGINES.get(engine, ()) if card(file).device.name == device)


class Card(NamedTuple):
    """A device with its links, as bounds see it. sms: that compute may use. engine: whose kernels run."""

    device: Device
    links: Wires
    sms: int
    engine: str = SGLANG


class Reading(NamedTuple):
    """Microseconds; whether measured rows are near; the file that they are of; and whether the gap is among them."""

    us: float
    near: bool
    file: str

    @property
    def whole(self) -> bool:
        """Whether the gap before the kernel is in its time."""
        return self.file.endswith(GRAPH)


def read_us(op: Op, where: Card) -> Reading:
    """What an operation takes on a card, by the nearest rows."""
    if isinstance(op, Cached) and op.fp8:
        plain = read_us(op._replace(fp8=False, element=BF16), where)
        return plain._replace(us=plain.us / FP8_ATTENTION)
    op = _masked(op, where)
    file = _file(where.device.name, _kind(op), where.engine)
    over, distance = _over(file, op)
    return Reading(bound_us(op, where) * over, distance <= NEAR * NEAR, file)


def _masked(op: Op, where: Card) -> Op:
    """A masked product as a grouped one on a card that has rows of those, measured in that layout, and none apart."""
    if not isinstance(op, GroupedGemm) or op.role != MASKED:
        return op
    own = {kind for file in _own(where.device.name, where.engine) for kind in _rows(file)}
    return op._replace(role="fprop") if MASKED not in own and "grouped" in own else op


def bound_us(op: Op, where: Card) -> float:
    """Microseconds that peaks, bandwidths and links allow, after a fixed cost."""
    if isinstance(op, Decode):
        return seconds(op, where.links, where.device.sms) / MICRO
    if isinstance(op, Collective):
        return FIXED_US + op.bytes() / where.links.nvlink.between(op.ranks) / MICRO
    flops = op.flop() / (where.device.peak_flops[_form(op)] * where.sms / where.device.sms)
    return FIXED_US + max(flops, op.bytes() / streaming(where.device)) / MICRO


def _form(op: object) -> str:
    """Format of the products of an operation."""
    if isinstance(op, Block):
        return "fp8"
    return op.precision if isinstance(op, Gemm | GroupedGemm) else "bf16"


def multiplies(op: object, where: Card) -> bool:
    """Whether an operation is a product that takes what it multiplies, not what it reads."""
    if not isinstance(op, Gemm | GroupedGemm | PerHead | Block):
        return False
    rate = where.device.peak_flops[_form(op)] * where.sms / where.device.sms
    return op.flop() / rate > op.bytes() / streaming(where.device)


@lru_cache(maxsize=1 << 16)
def _over(file: str, op: Op) -> tuple[float, float]:
    """How many times its bound an operation takes, and the square of the distance to the nearest row, in octaves. The
    number format is no part of either, but for products by torch: utilisation is held."""
    rows = _rows(file)[_kind(op)]
    distances: npt.NDArray[np.float64] = ((rows.at - np.array(_place(op))) ** 2).sum(axis=1)
    near = np.argsort(distances, kind="stable")[:NEAREST]
    weights = 1 / (distances[near] + BLUNT)
    return math.exp(float(weights @ rows.over[near] / weights.sum())), float(distances[near[0]])


def _kind(op: Op) -> str:
    if isinstance(op, Cached):
        return "mla" if op.latent else "gqa"
    if isinstance(op, Decode):
        return "combine" if op.combine else "dispatch"
    if isinstance(op, Notify):
        return "notify_combine" if op.combine else "notify_dispatch"
    if isinstance(op, Gemm):
        return "plain" if op.precision == "bf16" else "gemm"
    if isinstance(op, GroupedGemm):
        return MASKED if op.role == MASKED else "grouped"
    return {PerHead: "heads", Block: "experts", Collective: "allreduce", Memory: "stream"}[type(op)]


def _place(op: Op) -> tuple[float, ...]:
    """Where an operation lies among its kind, in octaves; products of fewer rows than a tile take as long as it, and
    exchanges that use NICs alone lie among those that do for the most part."""
    if isinstance(op, Cached):
        return _octaves(op.sequences * op.shared, op.keys, op.tiles)
    if isinstance(op, Decode):
        return _octaves(op.ranks if op.nvlink else max(op.ranks, 2 * op.gpus_per_node), op.tokens)
    if isinstance(op, Notify):
        return _octaves(op.ranks, op.tokens)
    if isinstance(op, Collective):
        return _octaves(op.ranks, op.size)
    if isinstance(op, Memory):
        return _octaves(op.bytes())
    if isinstance(op, Block):
        return _octaves(op.hits, op.rows / op.hits, op.width)
    if isinstance(op, Gemm):
        return _octaves(max(op.m, TILE), op.n, op.k)
    if isinstance(op, PerHead):
        return _octaves(op.heads, max(op.tokens, TILE), op.n, op.k)
    return _octaves(op.groups, max(op.rows / op.groups, TILE), op.n, op.k)


def _octaves(*sizes: float) -> tuple[float, ...]:
    return tuple(math.log2(max(size, 1.0)) for size in sizes)


def class_of(op: Op, where: Card) -> tuple[str, float]:
    """Rows that an operation's price rests on, by file and kind, and how wrong such prices are."""
    kind = _kind(_masked(op, where))
    file = _file(where.device.name, kind, where.engine)
    return f"{file}: {kind}", spread(file, kind)


@cache
def spread(file: str, kind: str) -> float:
    """How wrong the nearest rows are: the root of the mean square of the logarithms by which rows of a kind are missed
    by the others of their file."""
    rows = _rows(file)[kind]
    if len(rows.over) < 2:
        return 0.0
    distances = ((rows.at[:, None] - rows.at) ** 2).sum(axis=2)
    np.fill_diagonal(distances, np.inf)
    near = np.argsort(distances, axis=1, kind="stable")[:, : min(NEAREST, len(rows.over) - 1)]
    weights = 1 / (np.take_along_axis(distances, near, axis=1) + BLUNT)
    missed = (weights * rows.over[near]).sum(axis=1) / weights.sum(axis=1) - rows.over
    return float(np.sqrt((missed**2).mean()))


@cache
def _file(device: str, kind: str, engine: str) -> str:
    """The file that tells a kind on a device: its own, or a donor's, of which the engine's comes first."""
    donors = sorted(DONORS, key=lambda file: file not in OF_ENGINES.get(engine, ()))
    return next(file for file in (*_own(device, engine), *donors) if kind in _rows(file))


@cache
def _own(device: str, engine: str) -> tuple[str, ...]:
    """Files of a device."""
    every: tuple[str, ...] = (*OF_ENGINES.get(engine, ()), *FILES)
    return tuple(file for file in every if card(file).device.name == device)


@cache
def card(file: str) -> Card:
    """The card of a file."""
    machine = node.load(f"{file.split('_')[0]}x{72 if file.startswith(RACK) else GPUS}")
    engine = next((name for name, files in OF_ENGINES.items() if file in files), SGLANG)
    return Card(machine.device, wires(machine, fabric.load("ndr")), machine.device.sms, engine)


class Rows(NamedTuple):
    """Measured kernels of a kind. at [rows, sides]: their places; over [rows]: logarithms of times over bounds."""

    at: npt.NDArray[np.float64]
    over: npt.NDArray[np.float64]


@cache
def _rows(file: str) -> dict[str, Rows]:
    """Kind -> rows of a file."""
    kinds: dict[str, list[tuple[Op, float]]] = {}
    for op, us in lines(file):
        kinds.setdefault(_kind(op), []).append((op, math.log(us / bound_us(op, card(file)))))
    return {kind: Rows(np.array([_place(op) for op, _ in each]), np.array([over for _, over in each]))
            for kind, each in kinds.items()}  # fmt: skip


def lines(file: str) -> list[tuple[Op, float]]:
    """Operations of a file, each with its microseconds."""
    with (FOLDER / f"{file}.csv").open(encoding="utf-8", newline="") as text:
        read = list(csv.DictReader(line for line in text if not line.startswith("#")))
    return [(_operation(line["kind"], *(int(line[key] or 0) for key in "abcd")), float(line["us"])) for line in read]


def _operation(kind: str, a: int, b: int, c: int, d: int) -> Op:
    """The operation of a row."""
    if kind in ("gemm", "plain"):
        return Gemm(a, b, c, precision="fp8" if kind == "gemm" else "bf16")
    if kind in ("grouped", MASKED):
        return GroupedGemm(a, a * b, c, d, role=MASKED if kind == MASKED else "fprop")
    if kind == "experts":
        return Block(a, b, c, d)
    if kind == "heads":
        return PerHead(a, b, c, d)
    if kind in ("mla", "gqa"):
        qk, v = MLA if kind == "mla" else GQA
        return Cached(a, b, 1, c, d or 1, qk, v, latent=kind == "mla")
    if kind == "allreduce":
        return Collective("all_reduce", b, a, 1)
    if kind == "stream":
        return Memory("cast", 1, a * 2 / 3, a / 3)
    combine = kind.endswith("combine")
    if kind.startswith("notify"):
        return Notify(combine, b, a)
    return Decode(combine, b, CHOSEN, COMBINE_ROW if combine else DISPATCH_ROW, a, GPUS)
