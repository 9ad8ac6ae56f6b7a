"""One step of a tensor core by exact fractions: the definition that numerics/reference/hopper.py is held equal to."""

import math
from collections.abc import Sequence
from fractions import Fraction

from hwmodels.formats import E4M3, FP32, Format
from numerics.reference.hopper import HOPPER, JOINS, TensorCore

NOTHING = -4096
"""Exponent given to zeros: below that of every product and accumulator."""


def step(a: Sequence[float], b: Sequence[float], c: float, core: TensorCore = HOPPER, fmt: Format = E4M3) -> float:
    """One step on Python numbers, exact: the definition. a, b: values of fmt, `core.products` each; c: FP32."""
    terms = [(Fraction(x) * Fraction(y), _exponent(x, fmt) + _exponent(y, fmt)) for x, y in zip(a, b, strict=True)]
    total = (Fraction(c), _exponent(c, FP32))
    if core.accumulator == JOINS:
        return _toward_zero(_aligned_sum([*terms, total], core), core)
    products = Fraction(_toward_zero(_aligned_sum(terms, core), core))
    return _toward_zero(_aligned_sum([(products, _exponent(products, FP32)), total], core), core)


def _exponent(x: float | Fraction, fmt: Format) -> int:
    """Exponent of a number in fmt: floor(log2 |x|), not below the smallest normal's; `NOTHING` for zero."""
    return max(math.frexp(float(x))[1] - 1, fmt.lowest_exponent) if x else NOTHING


def _aligned_sum(terms: list[tuple[Fraction, int]], core: TensorCore) -> Fraction:
    quantum = Fraction(2) ** (max(exponent for _, exponent in terms) - core.fraction_bits)
    return sum((math.trunc(value / quantum) for value, _ in terms), 0) * quantum


def _toward_zero(x: Fraction, core: TensorCore) -> float:
    """x cut to the register's format: FP32's exponents with `fraction_bits` of fraction."""
    if not x:
        return 0.0
    quantum = Fraction(2) ** (max(math.frexp(float(x))[1] - 1, FP32.lowest_exponent) - core.fraction_bits)
    return float(math.trunc(x / quantum) * quantum)
