"""What the memory hierarchy asks of a kernel: bytes of HBM, the rate at which they come, and the wait for the first."""

import math

from hwmodels.device import Device, load_once
from hwmodels.op import Gemm, GroupedGemm, Op
from hwmodels.tables import Tables
from hwmodels.units import MICRO


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
