"""Compute beside communication: the classes of operations that are slowed alike."""

from hwmodels.op import AllToAll, Attention, Gemm, GroupedGemm, Memory, Op

SMALL_US = 20.0
"""Kernels shorter than this are bound by latency; see the contention table."""
BF16 = "bf16"


def contention_family(op: Op, us: float) -> str:
    """Class of the contention table an operation belongs to."""
    if isinstance(op, AllToAll):
        return "network" if op.collective else "exchange"
    if isinstance(op, Attention):
        return "attention"
    if isinstance(op, Gemm | GroupedGemm):
        if op.precision == BF16:
            return "gemm_bf16"
        return "wgrad" if op.role == "wgrad" else "gemm"
    if not isinstance(op, Memory):
        return "network"
    if op.kernels > 1:
        return "routing"
    if us < SMALL_US:
        return "small"
    return "norm" if op.kind.startswith("norm") else "memory"
