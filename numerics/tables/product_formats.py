"""Products in MXFP8 and NVFP4 over those in FP8 with a scale a tensor, and how long a B300's take without a pause, from
times that TransformerEngine's own guide published of its products on one card.

Its benchmark multiplies the linear layers of a model both ways, operands quantised before: 100 products of each shape
behind 10 others, all behind five seconds of products, operands random normal numbers, timed by events. Each call puts
the scales of both sides of a block format in the order of tensor cores first, by a kernel each: these are taken out.
Azure's products in NVFP4 (`published.csv`) are not of training's operands: a byte holds one element there and is read
as two, so half of them are zeros, and the others are 0, 0.5 or 1 (github.com/gitaumark/superbenchmark
cublaslt_gemm.cu, random numbers of -1 to 1 as __nv_fp4_e2m1). They reach 7.5 PFLOP/s on a GB200; others' best products
in FP4 of those sizes reach 4.2 to 5.7 there and on a B200.
"""

from collections.abc import Iterator

import numpy as np

from hwmodels.tiles import Tiles
from numerics.tables import published
from numerics.tables.published import Card
from numerics.tables.tile_fit import Times, times_us

SOURCE = (
    "NVIDIA/TransformerEngine @d0067d0da (Apache-2.0), docs/examples/gemm_profiling/gemm_profiling.rst: per-layer "
    "times of a B300 SXM6 AC, pre-quantized, and BF16 of both runs; benchmarks/gemm/benchmark_gemm.py"
)
CARD = "B300"
TOKENS, HIDDEN, INNER = 15872, 4096, 16384
MS = {
    "bf16": ((4.196, 4.290, 4.272), (4.250, 4.434, 4.418)),
    "fp8": ((2.158, 2.329, 2.325),),
    "mxfp8": ((2.365, 2.397, 2.400),),
    "nvfp4": ((1.254, 1.305, 1.205),),
}
"""Format -> milliseconds of a layer's four products forward, of their inputs' gradients and their weights', by run."""
ORDER_US, ORDER_PART = 2.0, 0.6
"""Of a kernel that orders scales: its fixed cost, and the part of HBM's bandwidth at which it reads and writes them, as
other kernels of Blackwell reach (docs/PRICES.md)."""
SCALES = {"mxfp8": 32, "nvfp4": 16}
"""Elements of a scale, of a byte."""


def sides() -> Iterator[tuple[int, int, int]]:
    """Rows, columns and depth of the products of a layer: queries, keys and values as one, output, both of the
    feed-forward part; forward, and both gradients."""
    for wide, deep in ((3 * HIDDEN, HIDDEN), (HIDDEN, HIDDEN), (INNER, HIDDEN), (HIDDEN, INNER)):
        yield TOKENS, wide, deep
        yield TOKENS, deep, wide
        yield deep, wide, TOKENS


def products(precision: str) -> Times:
    """All of them, as long as all together took on average."""
    ms = sum(map(sum, MS[precision])) / len(MS[precision])
    every = list(sides())
    return published.times([(*each, 1e3 * ms / len(every)) for each in every], precision)


def over_fp8(card: Card, precision: str) -> float:
    """How many times as long as FP8's with a scale a tensor a block format's products take. card: that published."""
    m, n, k = np.array(list(sides()), float).T
    ordered = 2 * (m * k + n * k) / SCALES[precision] / (ORDER_PART * card.device.hbm.bandwidth_bytes_per_s) * 1e6
    without = products(precision).us.sum() - (ordered + 2 * ORDER_US).sum()
    return float(without / products("fp8").us.sum())


def rested_us(card: Card, precision: str, tiles: Tiles) -> float:
    """What they take all together on a rested card."""
    return float(times_us(tiles, products(precision), card.used(precision)).sum())


def clock(card: Card, precision: str, tiles: Tiles) -> float:
    """How many times as long as on a rested card they took."""
    return float(products(precision).us.sum()) / rested_us(card, precision, tiles)
