"""What the memory hierarchy asks of a kernel: bytes of HBM, the rate at which they come, and the wait for the first."""

import math

from hwmodels.device import Device, load_once
from hwmodels.library import ACCUMULATE
from hwmodels.op import Gemm, GroupedGemm, Op
from hwmodels.tables import Tables
from hwmodels.units import MICRO

ADDED = {"fp32": 6.0, "added_bf16": 2.0}
"""Bytes more of an element of a gradient that is added to FP32 or BF16 (read and written) than of one that is written
in BF16, as grouped products were measured. On a B200 those of TransformerEngine that add to FP32 take longer than
forward by 0.83 of the time that 8 bytes need at HBM's bandwidth (20 shapes of SimuMax v1.2, 6 % off in the median)."""


def streaming(device: Device) -> float:
    """Bytes/s at which memory is read: what comes from HBM passes the caches before it."""
    rates = device.hbm.bandwidth_bytes_per_s, device.cache.bandwidth_bytes_per_s, device.l2.bandwidth_bytes_per_s
    return min(rates)


def traffic(device: Device, op: Op) -> float:
    """Bytes of HBM at least: each operand once, and a product's more often where too little of it fits in the last
    cache before HBM (an L3 cache where there is one: the L2 cache of one die says nothing of HBM).

    No order of the steps of [m, k] x [k, n] moves less than 2 m n k / sqrt(S) - 2 S elements through a cache of S
    (Smith et al., A tight I/O lower bound for matrix multiplication, arXiv:1702.02017).
    """
    if not isinstance(op, Gemm | GroupedGemm):
        return op.bytes()
    cache, element = device.cache.capacity_bytes, 1.0 if op.precision == "fp8" else 2.0
    return max(op.bytes(), element * op.flop() / math.sqrt(cache / element) - 2 * cache)


def first_bytes_us(device: Device, known: Tables | None, op: Op) -> float:
    """Microseconds that waiting for the first bytes from memory adds to an operation, once a kernel: the latency of
    HBM, or what it is longer than that of the card of the tables, whose times contain it."""
    there = load_once(known.device).hbm.latency_s if known else 0.0
    return op.kernels * (device.hbm.latency_s - there) / MICRO


def without_sums(device: Device, op: Op) -> tuple[Op, float]:
    """A grouped product that writes gradients, as they were measured, and what adding them takes more, us."""
    if not isinstance(op, GroupedGemm) or op.role != "wgrad" or op.result not in ADDED:
        return op, 0.0
    more = ADDED[op.result] * op.groups * op.n * op.k
    return op._replace(result="bf16"), more / (ACCUMULATE * streaming(device)) / MICRO
