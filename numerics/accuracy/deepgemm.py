"""Rates that DeepGEMM's authors published for their FP8 kernels on an H800, to hold prices against; never an input.

Source: github.com/deepseek-ai/DeepGEMM README @a6d97a1 (2025-02-25), and @55ab91f (2025-03-25) for the updates. Each
kernel ran alone on all 132 SMs; the H800 tables come from another program, a training step on 112 of them.
"""

from collections.abc import Iterator
from typing import NamedTuple

from hwmodels.op import Gemm, GroupedGemm
from hwmodels.units import MICRO, TERA

FIRST, UPDATED = "2025-02-25", "2025-03-25"
TABLE_ROWS = 4096
"""Rows of M from which the dense shapes are those of the H800 tables."""
DENSE = {
    (2112, 7168): ((206, 352, 1058), 1009), (24576, 1536): ((289, 535, 990), 1125),
    (32768, 512): ((219, 358, 590), 751), (7168, 16384): ((336, 645, 1358), 1426),
    (4096, 7168): ((287, 533, 1304), 1265), (7168, 2048): ((295, 510, 1025), 1168),
}  # fmt: skip
"""(N, K) -> TFLOP/s at M = 64, 128 and 4096 in the first table, and at M = 4096 in the update."""
GROUPED = {
    (4, 8192): {(4096, 7168): (1297, 1346), (7168, 2048): (1099, 1214)},
    (8, 4096): {(4096, 7168): (1288, 1346), (7168, 2048): (1093, 1214)},
}  # fmt: skip
"""(groups, rows a group) -> (N, K) -> TFLOP/s of the contiguous layout, first and updated."""
MASKED = {(1, 1024): (1233, 925), (2, 512): (1040, 916), (4, 256): (932, 815)}
"""(groups, rows a group) -> TFLOP/s of the masked layout at N, K = 4096, 7168 and 7168, 2048, first table."""


class Published(NamedTuple):
    """One figure. regime: what it has in common with the tables; known: its N and K are measured there."""

    op: Gemm | GroupedGemm
    date: str
    tflops: float
    regime: str

    @property
    def us(self) -> float:
        return self.op.flop() / (self.tflops * TERA) / MICRO


def published() -> Iterator[Published]:
    """Every figure, dense first."""
    for (n, k), (first, updated) in DENSE.items():
        for m, rate in zip((64, 128, TABLE_ROWS), first, strict=True):
            regime = f"dense, M = {m}" if m < TABLE_ROWS else f"dense, M = {m}, first"
            yield Published(Gemm(m, n, k), FIRST, rate, regime)
        yield Published(Gemm(TABLE_ROWS, n, k), UPDATED, updated, f"dense, M = {TABLE_ROWS}, updated")
    for (groups, rows), shapes in GROUPED.items():
        for (n, k), rates in shapes.items():
            for date, rate, word in zip((FIRST, UPDATED), rates, ("first", "updated"), strict=True):
                yield Published(GroupedGemm(groups, groups * rows, n, k), date, rate, f"grouped, contiguous, {word}")
    for (groups, rows), rates in MASKED.items():
        for (n, k), rate in zip(((4096, 7168), (7168, 2048)), rates, strict=True):
            yield Published(GroupedGemm(groups, groups * rows, n, k), FIRST, rate, "grouped, masked")
