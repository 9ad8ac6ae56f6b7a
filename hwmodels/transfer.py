"""What a time measured on one device becomes on another, or on the same one with other memory.

A product goes by the rate of an SM. A memory-bound kernel has two parts: its bytes at the bandwidth that the best
kernels reach, and the rest (launches, latencies, arithmetic), which other memory does not change. They overlap, so
their times add as the sides of a right angle: t^2 = (bytes / (REACHED x bandwidth))^2 + rest^2, of which a measurement
gives the rest. The angle was chosen on memory-bound operations of this repository's kernels, each timed on an H100 and
on an H200, which differ in memory alone; docs/PRICES.md scores it, and fits that had no say in a kind.
"""

from collections.abc import Mapping
from typing import NamedTuple

from hwmodels.device import Device
from hwmodels.memory import streaming
from hwmodels.tables import Tables
from hwmodels.units import MICRO, NS_PER_S

REACHED = 0.88
"""Part of a data sheet's bandwidth that is reached: a copy of 1 GiB reaches 0.90 of an H100's and 0.88 of an H200's
(docs/KERNELS.md)."""
POWER = 2.0
"""1: the parts add; a large one: the longer part counts. With this one the signed median error is 0.3 % or less both
ways; fits that are free in rate and power take 0.96 and 1 or 0.86 and 4, and come back about 1 % closer."""
SAME_CHIP = 0.08
"""Relative spread of a product carried over to a chip that computes alike: other SMs and versions of kernels (18
published rates of DeepGEMM against the H800 tables, docs/PRICES.md). The same kernels on an H100 and an H200 differ by
1 % in the median, 6 % at the 95th percentile."""
OTHER_MEMORY = 0.07
"""Spread of a memory-bound kernel: 90 % of those operations (which chose the power) come back within 10 to 13 %."""
OTHER_CHIP = 0.15
"""Spread where SMs compute at another rate: a judgement, since no two such cards were measured."""


def at_bandwidth(
    us: float, size: float, old: float, new: float, reached: float = REACHED, power: float = POWER
) -> float:
    """Microseconds on memory of `new` bytes/s of what took `us` and moved `size` bytes on memory of `old`."""
    streaming = size / (reached * old) / MICRO
    if us <= streaming:
        return us * old / new
    return float((us**power + streaming**power * ((old / new) ** power - 1)) ** (1 / power))


class Quote(NamedTuple):
    """Microseconds on the device of the table. bound: what they scale by on another one: "memory", a number format
    whose peak counts, or "" when the quote is for this device already."""

    us: float
    rung: str
    source: str
    spread: float
    bound: str = ""


def scaled(d: Device, tables: Tables | None, quote: Quote, size: float, reached: float = REACHED) -> Quote:
    """A quote from another device's table (or for overridden hardware). size: bytes. reached: part of the device's
    bandwidth at which they come."""
    if tables is None or not quote.bound:
        return quote
    ref, new = tables.reference, streaming(d)
    if quote.bound == "memory":
        old = ref["hbm_bytes_per_s"]
        us, spread = at_bandwidth(quote.us, size, old, new * reached / REACHED), OTHER_MEMORY
        same = abs(ref["hbm_bytes_per_s"] / new - 1) < 1 / NS_PER_S
    else:
        ratio = (ref[f"{quote.bound}_flops"] / ref["sms"]) / (d.peak_flops[quote.bound] / d.sms)
        same = abs(ratio - 1) < 1 / NS_PER_S
        us, spread = quote.us * ratio, SAME_CHIP if same else OTHER_CHIP
    if same and (tables.device == d.tables or (tables.library and _itself(d, ref))):
        return quote
    source = f"{quote.source}, from {tables.device} by {quote.bound} rate"
    if quote.rung in ("measured", "interpolated", "held"):
        return quote._replace(us=us, rung="transferred", source=source, spread=max(quote.spread, spread))
    return quote._replace(us=us, source=source)


def _itself(d: Device, reference: Mapping[str, float]) -> bool:
    """Whether a device is the one that a reference describes: as many SMs, as fast, with its memory."""
    peaks = reference["sms"] == d.sms and reference["bf16_flops"] == d.peak_flops["bf16"]
    return peaks and reference["hbm_bytes_per_s"] == streaming(d)
