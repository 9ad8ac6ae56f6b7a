"""Products of a vendor's library on a card, as published times of single kernels have them: rounds of tiles, or bytes.

A library picks among tiles of many sizes, and its kernels overlap the start of a tile with the end of another. So a
product takes the least over `TILES` of its rounds of tiles, in which a round that is not full counts in part. What
that leaves of its bytes at the rate that memory reaches adds with power four (the longer of both, rounded where they
are alike), and a launch's fixed cost comes on top. Six numbers a card and number format, fitted by `python -m numerics
tables`; docs/PRICES.md has what they are worth with rows left out.
"""

import math
from typing import NamedTuple

from hwmodels.op import Gemm, GroupedGemm
from hwmodels.units import MICRO

TILES = ((256, 256), (256, 128), (128, 256), (128, 128), (128, 64), (64, 128), (64, 64))
"""Sides of the tiles of an output; those of cuBLAS and CUTLASS on Ampere, Hopper and Blackwell, where two SMs may share
the largest."""
FULL = 128
"""Side from which a tile reads each operand as seldom as the fit counts."""
ACCUMULATED = 8.0
"""Bytes of an element of FP32 gradients that are read and written again."""


class Tiles(NamedTuple):
    """A library's products in one number format on a card. fixed_us: of a launch. part: of the dense peak inside a
    tile. edge: how much longer it takes for its edges (`longer`). tile_us: start and end of a tile. whole: how much of
    a round that is not full counts, 0 to 1. hbm: part of HBM's bandwidth that it reaches at most."""

    fixed_us: float
    part: float
    edge: float
    tile_us: float
    whole: float
    hbm: float


class Card(NamedTuple):
    """What a product may use: SMs, FLOP/s of one of them, bytes/s of memory."""

    sms: int
    flops: float
    bytes_per_s: float


class Shape(NamedTuple):
    """`groups` products of [m, k] by [k, n] in one launch, which read and write so many bytes in all; accumulated:
    elements of FP32 gradients that it adds to besides."""

    groups: int
    m: float
    n: int
    k: float
    size: float
    accumulated: float = 0.0


def shape(op: Gemm | GroupedGemm) -> Shape:
    """What a product multiplies: an input's gradient is the product of the transposed weights; a weight's gradient that
    of its sides over the tokens, written in BF16 or added to FP32 (of grouped ones without what adds them:
    `hwmodels.memory.without_sums`)."""
    if isinstance(op, Gemm):
        added = op.role == "wgrad" and op.result == "fp32"
        return Shape(1, op.m, op.n, op.k, op._replace(role="fprop").bytes(), float(op.m * op.n) * added)
    rows = op.rows / op.groups
    if op.role == "wgrad":
        return Shape(op.groups, op.k, op.n, rows, op._replace(result="bf16").bytes())
    return Shape(op.groups, rows, op.n, op.k, op.bytes())


def longer(edge: float, high: int, wide: int) -> float:
    """How many times as long the inside of a tile takes for reading its operands more often than a large one: none for
    one of `FULL` by twice that."""
    return 1 + edge * (FULL / high + FULL / wide - 1)


def product_us(tiles: Tiles, work: Shape, card: Card, slower: float = 1.0, accumulate: float = 1.0) -> float:
    """Microseconds of a product. slower: what the clock of training takes off a rested card's, of what the SMs do.
    accumulate: bytes of gradients that are added to, over those that HBM's bandwidth would allow."""
    rate, best = tiles.part * card.flops * MICRO, math.inf
    for high, wide in TILES:
        rounds = work.groups * math.ceil(work.m / high) * math.ceil(work.n / wide) / card.sms
        rounds = (1 - tiles.whole) * max(1.0, rounds) + tiles.whole * math.ceil(rounds)
        inside = 2 * high * wide * work.k * longer(tiles.edge, high, wide) / rate
        best = min(best, rounds * (inside + tiles.tile_us))
    added = accumulate * ACCUMULATED * work.accumulated / card.bytes_per_s / MICRO
    return tiles.fixed_us + either(slower * best, work.size / (tiles.hbm * card.bytes_per_s) / MICRO) + added


def either(one: float, other: float) -> float:
    """The longer of two times that overlap, and a little more where they are alike."""
    return math.sqrt(math.sqrt(one**4 + other**4))
