"""A vendor library's kernels on a card that they were not measured on here, fitted to published times of single ones.

`tables/<device>/<library>/kernels.json`, written by `python -m numerics tables`. Products have a model of their own
(`hwmodels.tiles`). Attention and memory-bound kernels are those of another card's tables (`of`), carried over:
attention by peaks and a ratio that depends on its widths and its work, memory-bound kernels by the part of HBM's
bandwidth that their like reach here. Every kind has the spread that its rows showed when they were left out.
"""

import json
import math
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

from hwmodels import attention, library, power
from hwmodels import tables as calibration
from hwmodels.device import Device
from hwmodels.library import Reading
from hwmodels.memory import streaming
from hwmodels.op import BY_BLOCK, Attention, Gemm, GroupedGemm, Memory, Op
from hwmodels.tables import FOLDER, Tables
from hwmodels.tiles import Card, Shape, Tiles, product_us, shape
from hwmodels.transfer import REACHED
from hwmodels.units import TERA

FILE = "kernels.json"
CASTS = ("cast", "convert", "recast", "dequantize", "store", "amax")
"""How kinds of memory-bound kernels begin that go by published casts."""
OTHERS = "others"
GROUPED = 0.95
"""Part of a dense product's rate that a grouped one has from 1,024 rows a group on (SimuMax's B200, TensorRT-LLM's
blocks of one rank on five cards: docs/PRICES.md); fewer rows fill fewer tiles, which the model counts."""
OCTAVE = 2.0
"""How far beyond the fitted sizes a product still counts as between them, as a factor."""


class Product(NamedTuple):
    """Products in a number format. clock: how many times as long the SMs take as on a
    rested card. low, high: least and most rows and widths that were fitted. spread, held: within those, and beyond.
    rung: of a price within."""

    precision: str
    tiles: Tiles
    clock: float
    low: int
    high: int
    spread: float
    held: float
    rung: str
    source: str


class Heads(NamedTuple):
    """Attention of two widths. How many times as long as carried over, by forward's work in TFLOP: `times` at one, its
    logarithm along a parabola of the work's (slope, bend). low, high: work that was fitted, beyond which it stays."""

    qk: int
    v: int
    times: float
    slope: float
    bend: float
    low: float
    high: float
    spread: float


class Stream(NamedTuple):
    """Memory-bound kernels that begin with `kind`, or all others. part: of HBM's bandwidth that they reach."""

    kind: str
    part: float
    spread: float


class Kernels(NamedTuple):
    """A library on cards of these names. device: a document of them. of: folder of the tables that stand for what has
    no model. backward: of attention, how many times its share of forward's time on the card of those. accumulate: see
    `product_us`."""

    device: str
    devices: tuple[str, ...]
    library: str
    of: str
    accumulate: float
    backward: float
    products: Mapping[str, Product]
    heads: tuple[Heads, ...]
    streams: Mapping[str, Stream]


@cache
def known() -> tuple[Kernels, ...]:
    """All that are shipped."""
    return tuple(read(json.loads(file.read_text(encoding="utf-8"))) for file in sorted(FOLDER.glob(f"*/*/{FILE}")))


def read(table: Mapping[str, Any]) -> Kernels:
    """What a file says."""
    by_kind: dict[str, list[dict[str, Any]]] = {"product": [], "attention": [], "memory": []}
    for row in table["rows"]:
        by_kind[row["op"]].append({key: value for key, value in row.items() if key not in ("op", "errors")})
    products = [Product(**{**row, "tiles": Tiles(**row["tiles"])}) for row in by_kind["product"]]
    return Kernels(
        table["device"], tuple(table["devices"]), table["library"], table["of"],
        table["fit"]["accumulate"], table["fit"]["backward"],
        {each.precision: each for each in products}, tuple(Heads(**row) for row in by_kind["attention"]),
        {row["kind"]: Stream(**row) for row in by_kind["memory"]},
    )  # fmt: skip


def kernels(device: Device, called: str) -> Kernels | None:
    """Of a library on a device, where kernels of it were published."""
    return next((each for each in known() if each.library == called and device.name in each.devices), None)


def shelf(device: Device, called: str) -> tuple[Tables, ...]:
    """Tables in the order they are asked: a library's on the device, its siblings or the card that stands for it,
    before the project's own on the device and its siblings."""
    names = list(dict.fromkeys(([device.tables] if device.tables else []) + list(device.siblings)))
    theirs = [f"{name}/{called}" for name in names if called in calibration.libraries(name)]
    own = kernels(device, called)
    return tuple(calibration.load(name) for name in dict.fromkeys([*theirs, *([own.of] if own else []), *names]))


# --- products ---------------------------------------------------------------------------------------------------------


def quote(
    own: Kernels | None,
    device: Device,
    tables: Tables | None,
    op: Op,
    exact: bool,
    sms: int,
    kernel: str,
    clock: float = 0.0,
) -> Reading | None:
    """The time of a library's operation: on the device itself where its kernels were published, or on that of the
    tables, as `hwmodels.library.quote` has it, for the device to scale. kernel: of attention. clock: how many times as
    long as rested the SMs of a device take whose kernels were published; 0: as alone. None where neither knows a
    library."""
    if own and (product := fitted(own, tables, op)):
        reading = _of_tiles(own, product._replace(clock=clock or product.clock), device, op, sms)
        return reading._replace(spread=math.hypot(reading.spread, _by_block(own, tables, op)))
    if tables is None or tables.library is None:
        return None
    plain = op._replace(precision=attention.BF16) if isinstance(op, Attention) else op
    reading = library.quote(tables.library, plain, exact, sms)
    longer = times(own, op) if own and stands(own, tables) else 1.0
    return reading._replace(us=reading.us * longer * otherwise(device, tables, op, kernel)[0])


def _by_block(own: Kernels, tables: Tables | None, op: Op) -> float:
    """What scales by block may make of a product, as far as they do on the card whose tables stand for this one. H20's
    and MI300X's published products have such scales; Blackwell's tensor cores know none in FP32 and take them as MXFP8
    (nvidia.github.io/TransformerEngine, Float8BlockScaling), so a centre moves nowhere."""
    if not isinstance(op, Gemm) or not op.role.endswith(BY_BLOCK) or tables is None or not stands(own, tables):
        return 0.0
    assert tables.library is not None
    one = op._replace(role=op.role.removesuffix(BY_BLOCK))
    every = round(tables.library.reference["sms"])
    blocks, whole = (library.quote(tables.library, each, False, every).us for each in (op, one))
    return abs(math.log(blocks / whole))


def _of_tiles(own: Kernels, product: Product, device: Device, op: Op, sms: int) -> Reading:
    assert isinstance(op, Gemm | GroupedGemm)
    work = shape(op)
    card = Card(sms, device.peak_flops[product.precision] / device.sms, streaming(device))
    us = product_us(product.tiles, work, card, product.clock, own.accumulate)
    us /= GROUPED if isinstance(op, GroupedGemm) else 1.0
    between = _between(product, work)
    rung = product.rung if between or product.rung == "transferred" else "held"
    return Reading(us, rung, product.source, product.spread if between else product.held, "")


def fitted(own: Kernels | None, tables: Tables | None, op: Op) -> Product | None:
    """The model that an operation goes by, if any; a job's own tables come before it."""
    if own is None or not isinstance(op, Gemm | GroupedGemm) or (tables and tables.sparse):
        return None
    return own.products.get(op.precision)


def stands(own: Kernels | None, tables: Tables | None) -> bool:
    """Whether tables are those that stand for what has no model."""
    return bool(own and tables and tables.library and tables.library.folder == own.of)


def _between(product: Product, work: Shape) -> bool:
    """Whether a product's sides are within an octave of those that were fitted."""
    sides = work.m, work.n, work.k
    return product.low / OCTAVE <= min(sides) and max(sides) <= product.high * OCTAVE


# --- what is carried over ---------------------------------------------------------------------------------------------


def otherwise(device: Device, tables: Tables | None, op: Op, kernel: str) -> tuple[float, float]:
    """How many times as long as a library's tables say, and the spread of that, where another kernel of attention runs,
    or the power limit is another than their card's; a job's own tables have both as they were."""
    if tables is None or not tables.library or tables.sparse or isinstance(op, Memory):
        return 1.0, 0.0
    other = attention.off(device, kernel, op) if isinstance(op, Attention) else attention.SAME
    limit = power.off(device, tables.device)
    return other.ratio * limit.ratio, math.hypot(other.spread, limit.spread)


def at(clock: float, own: Kernels | None, device: Device, tables: Tables | None, op: Op) -> float:
    """How many times as long as by a library's tables a product or attention takes at a clock, which says the same over
    a rested card: tables have the middle of that and the hungriest company, and a power limit's part is in both. What
    stands for published attention is a rested card's, and a published product is at its clock already. 0 where there is
    no clock or tables say no rested card's."""
    if not clock or tables is None or tables.library is None:
        return 0.0
    if stands(own, tables):
        return 1.0 if fitted(own, tables, op) else clock
    return clock / (library.loaded(tables.library, op) * power.off(device, tables.device).ratio)


def times(own: Kernels, op: Op) -> float:
    """How many times as long an operation takes as the tables that stand for the card say, by peaks."""
    if not isinstance(op, Attention) or not own.heads:
        return 1.0
    return ratio(nearest(own.heads, op), op) * (1.0 if op.direction == "forward" else own.backward)


def nearest(heads: Sequence[Heads], op: Attention) -> Heads:
    """Of the nearest widths."""
    return min(heads, key=lambda each: abs(math.log((each.qk + each.v) / (op.qk + op.v))))


def ratio(heads: Heads, op: Attention) -> float:
    """Of an operation's forward."""
    work = math.log(min(max(op._replace(direction="forward").flop() / TERA, heads.low), heads.high))
    return heads.times * math.exp(work * (heads.slope + work * heads.bend))


def reached(own: Kernels | None, tables: Tables | None, op: Op) -> float:
    """The part of HBM's bandwidth at which the bytes of a memory-bound kernel of a library's tables come."""
    stream = _stream(own, tables, op)
    return stream.part if stream else REACHED


def _stream(own: Kernels | None, tables: Tables | None, op: Op) -> Stream | None:
    if not isinstance(op, Memory) or own is None or not stands(own, tables):
        return None
    name = "casts" if op.kind.startswith(CASTS) else OTHERS
    return own.streams.get(name) or own.streams.get(OTHERS)


def spread(own: Kernels | None, tables: Tables | None, op: Op) -> float:
    """How far what is carried over from a library's tables may be off; 0 where no row says."""
    if isinstance(op, Attention):
        return nearest(own.heads, op).spread if own and own.heads and stands(own, tables) else 0.0
    stream = _stream(own, tables, op)
    return stream.spread if stream else 0.0
