"""What the tiles of a kernel read again, how much of it the last cache before HBM can serve, and what a kernel takes
with another cache than the one that it was timed with."""

import math
from typing import NamedTuple

from hwmodels.device import Device
from hwmodels.memory import streaming, traffic
from hwmodels.op import OPERAND, Attention, Gemm, GroupedGemm, Op
from hwmodels.transfer import OTHER_MEMORY, REACHED, Quote
from hwmodels.units import MIB, MICRO

TILE = 128
"""Rows and columns of a tile of DeepGEMM's and cuBLAS's products; rows of a block of attention's queries."""
GROUP = 8
"""Tiles of rows that products go through together before the next columns' (DeepGEMM's choice on 112 and 132 SMs of 8
or 16, csrc/jit_kernels/heuristics; Triton's tutorial of matrix products has 8)."""
STEPS = 4 * 128.0
"""Bytes of a row that tiles which run together may be apart: four steps of 128 in FP8, which a product's shared memory
holds (DeepGEMM's stages)."""


class Reuse(NamedTuple):
    """Bytes that the last cache keeps from being asked of HBM twice, of an operation; needs: bytes of the cache for all
    of them."""

    saved: float
    needs: float


def reuses(device: Device, op: Gemm | GroupedGemm | Attention) -> tuple[Reuse, ...]:
    """What tiles that run on the SMs, and those after them, have in common.

    Tiles of a product go group by group, GROUP tiles of its rows at a time. At one moment so many run as there are SMs:
    neighbours share rows and columns, of which the cache holds a few steps. Those of the next columns need the group's
    rows again, all of them; the next group all columns. Blocks of attention's queries go through the keys of their head
    from their own place on down (FlashAttention's), so those that run at once are spread over all of them.
    """
    if isinstance(op, Attention):
        return _of_attention(device, op)
    groups, rows = (op.groups, op.rows / op.groups) if isinstance(op, GroupedGemm) else (1, float(op.m))
    element = OPERAND[op.precision]
    if isinstance(op, GroupedGemm) and op.role == "wgrad":  # each group's [k, rows] x [rows, n]
        return _of_product(device, float(op.k), float(op.n), rows, element, groups)
    return _of_product(device, rows, float(op.n), float(op.k), element, groups)


def _of_product(device: Device, m: float, n: float, k: float, element: float, groups: int) -> tuple[Reuse, ...]:
    down, across = math.ceil(m / TILE), math.ceil(n / TILE)
    high = min(GROUP, down)
    wide = min(across, max(1, round(device.sms / high)))
    left, right = element * m * k, element * k * n
    turns, bands = math.ceil(across / wide), math.ceil(down / high)
    beside = max(1.0, device.sms / (down * across))  # groups that run at once, where one has few tiles
    front = element * TILE * (high + wide)
    return (
        Reuse(groups * ((across - turns) * left + (down - bands) * right), beside * front * min(k, STEPS / element)),
        Reuse(groups * (turns - 1) * left, beside * front * k),
        Reuse(groups * (bands - 1) * right, beside * (right + element * TILE * high * k)),
    )


def _of_attention(device: Device, op: Attention) -> tuple[Reuse, ...]:
    """Backward, blocks of keys go through queries and their gradients, as wide together as keys and values."""
    blocks = math.ceil(op.sequence / TILE)
    heads = op.batch * op.heads
    keys, width = op.keys or op.sequence, op.qk + op.v
    own = OPERAND["bf16"] * keys * width
    seen = op.flop() / (2.0 * heads * op.sequence * keys * (width if op.direction == "forward" else 2 * width + op.qk))
    kept = op.batch * (op.kv_heads or op.heads)
    once = kept if op.direction == "forward" else heads
    at_once = min(once, math.ceil(device.sms / blocks / (heads / once)))
    return (Reuse(max(0.0, heads * blocks * seen - once) * own, at_once * own),)


def from_hbm(device: Device, op: Gemm | GroupedGemm | Attention, cache: float) -> float:
    """Bytes of HBM with a last cache of so many bytes: all that is needed once, and what is asked again and has no
    room. Of what needs more than there is, the part that fits is kept: a cache that replaces at random does so, one
    that forgets the oldest keeps less."""
    again = sum(each.saved * (1 - min(1.0, cache / each.needs)) for each in reuses(device, op))
    return max(op.bytes() + again, traffic(device, op))


def hits(device: Device, op: Gemm | GroupedGemm | Attention) -> float:
    """Part of the operands' bytes that tiles ask the last cache for and that need not come from HBM."""
    asked = op.bytes() + sum(each.saved for each in reuses(device, op))
    return max(0.0, 1 - from_hbm(device, op, device.cache.capacity_bytes) / asked)


def reread(device: Device, op: Op, quote: Quote, us: float) -> Quote:
    """A quote that takes so many microseconds on the card as it ships, on a device whose last cache may be another: its
    bytes of HBM are others then, and overlap with the rest as those of kernels that memory binds (`hwmodels.transfer`):
    t^2 = bytes^2 + rest^2. A roofline has no kernel that was timed."""
    cache = device.cache.capacity_bytes
    same = not device.timed_cache or cache == device.timed_cache
    if same or not isinstance(op, Gemm | GroupedGemm | Attention) or quote.rung == "roofline":
        return quote if us == quote.us else quote._replace(us=us)
    rate = REACHED * streaming(device) * MICRO
    old, new = (from_hbm(device, op, each) / rate for each in (device.timed_cache, cache))
    us = us * new / old if us <= old else math.sqrt(us**2 + new**2 - old**2)
    source = f"{quote.source}, with a cache of {cache / MIB:g} MiB"
    return quote._replace(us=us, rung="transferred", source=source, spread=max(quote.spread, OTHER_MEMORY))
