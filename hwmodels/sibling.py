"""Prices by a sibling's tables on a card that is not of its kind: what they become, and how far they may be off.

A product or attention kernel is priced by the rate of an SM. On a card of the same architecture whose tensor cores do
less in a cycle, the rest of it (loads, stores, synchronisation) does not get slower with them: the two overlap, so
their times add as the sides of a right angle, as a memory-bound kernel's do (`hwmodels.transfer`). On faster ones the
held rate is nearer, since their kernels are others.

Spreads are root mean squares of the logarithm of such prices over published times of one kernel each: products of 1,024
rows and more, attention forward of 4,096 tokens and more, casts to FP8 (NVIDIA aiconfigurator@095f58a51c4c for
Blackwell, with casts inside its FP8 rows taken out; alibaba/InferSim@f2293dab6d23 for the H20). docs/MACHINES.md has
them by card, with the ratios: what is off is a bias more than noise, and nothing is corrected for it.
"""

import math
from functools import cache

from hwmodels.device import Device, load
from hwmodels.op import AllToAll, Attention, Gemm, GroupedGemm, Memory, Op
from hwmodels.tables import Tables
from hwmodels.units import MICRO, NS_PER_S

REACHED = 0.9
"""Part of their peak that slow tensor cores reach. Chosen on one card, the H20: its 292 products come back at 1.05
times the published time in the median (1.73 with the rate held), its 26 attention kernels at 1.00 (1.32)."""
OTHER_ARCHITECTURE = {"bf16": 0.15, "fp8": 0.45, "attention": 0.55, "memory": 0.55}
"""Hopper's kernels on Blackwell: products in BF16 and in FP8 (by block; by tensor 0.2), attention, casts."""
OTHER_RATE = {"bf16": 0.15, "fp8": 0.15, "attention": 0.2}
"""The H800's kernels on an H20, with `REACHED`: no BF16 product was published, so it takes FP8's."""
BOUNDS = {"cdna3": {"fp8": 2.45}, "cdna4": {"fp8": 1.44}}
"""Where nothing is known but peaks: how much longer published products take, in the median of 277 on an MI300X (by
block; 1 / 0.29) and of 416 on an MI355X (by row; 1 / 0.41), ROCm/aiter@e4048607a535. Others (0.3 on an A100, 1.0 in
BF16 on an MI355X) are within what the roofline says of itself."""
EXCHANGE = 0.25
"""An exchange beside compute, stretched as on another architecture: a judgement, as no such profile was published."""
ALIKE = 0.05
"""Relative difference of an SM's rate up to which two cards compute alike (the H100 and the H800 are equal)."""

_load = cache(load)


def paced(device: Device, tables: Tables | None, op: Op, us: float, sms: int) -> float:
    """Microseconds of an operation on `sms` SMs of `device`, from `us`, which holds the rate of the tables' SMs."""
    if tables is None or not isinstance(op, Gemm | GroupedGemm | Attention) or _stranger(device, tables):
        return us
    form = "bf16" if isinstance(op, Attention) else op.precision
    own = device.peak_flops[form] / device.sms / device.clock_hz
    faster = _rate(tables, form) / _load(tables.device).clock_hz / own
    if faster <= 1 + 1 / NS_PER_S:
        return us
    there, tensor = us / faster, op.flop() / (REACHED * device.peak_flops[form] * sms / device.sms) / MICRO
    rest = max(0.0, there**2 - (tensor / faster) ** 2)
    return math.sqrt(rest + tensor**2)


def judged(device: Device, tables: Tables | None, op: Op, rung: str, spread: float) -> tuple[str, float]:
    """Rung and spread of a price that `tables` gave, on `device`."""
    if tables is None and rung == "roofline":
        return rung, max(spread, BOUNDS.get(device.architecture, {}).get(_kind(op), 0.0))
    if tables is None or tables.device == device.tables or rung == "roofline":
        return rung, spread
    stranger = _stranger(device, tables)
    if isinstance(op, AllToAll):
        return ("transferred", max(spread, EXCHANGE)) if stranger and rung == "interpolated" else (rung, spread)
    alike = abs(_rate(tables, "bf16") * device.sms / device.peak_flops["bf16"] - 1) < ALIKE
    known = OTHER_ARCHITECTURE if stranger else {} if alike else OTHER_RATE
    return rung, max(spread, known.get(_kind(op), 0.0))


def _stranger(device: Device, tables: Tables) -> bool:
    """Whether the tables are of another architecture."""
    return _load(tables.device).architecture != device.architecture


def _rate(tables: Tables, form: str) -> float:
    """FLOP/s of one SM of the card of the tables."""
    return tables.reference[f"{form}_flops"] / tables.reference["sms"]


def _kind(op: Op) -> str:
    if isinstance(op, Gemm | GroupedGemm):
        return op.precision
    return "attention" if isinstance(op, Attention) else "memory" if isinstance(op, Memory) else ""
