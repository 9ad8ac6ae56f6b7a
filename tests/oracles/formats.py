"""Number formats, a number at a time: the definition that numerics/reference/formats.py is held equal to.

A format is the sorted list of its values, and a number goes to the nearest one, by exact rational arithmetic.
"""

import math
from bisect import bisect_left
from fractions import Fraction
from functools import cache

from hwmodels.formats import Format

EVEN, UP = "even", "up"


@cache
def grid(fmt: Format) -> tuple[Fraction, ...]:
    """Values of codes 0 .. max_code + 1, the last as if the format went on (rounding to it is overflow)."""
    return tuple(magnitude(code, fmt) for code in range(fmt.max_code + 2))


def magnitude(code: int, fmt: Format) -> Fraction:
    """Exact value of a non-negative ordinary code."""
    exponent, fraction = divmod(code, 1 << fmt.mantissa)
    if fmt.kind == "scale":
        return Fraction(2) ** (exponent - fmt.bias)
    if exponent == 0:
        return fraction * Fraction(2) ** (fmt.lowest_exponent - fmt.mantissa)
    return (1 + Fraction(fraction, 1 << fmt.mantissa)) * Fraction(2) ** (exponent - fmt.bias)


def decode(code: int, fmt: Format) -> float:
    """The value of one code (every value of these formats is a Python float)."""
    body = code & ((1 << (fmt.exponent + fmt.mantissa)) - 1)
    sign = -1.0 if code != body else 1.0
    if body <= fmt.max_code:
        return math.copysign(float(magnitude(body, fmt)), sign)
    infinite = fmt.kind == "ieee" and body == fmt.max_code + 1
    return sign * math.inf if infinite else math.nan


def encode(value: float | Fraction, fmt: Format, saturate: bool = True, rounding: str = EVEN) -> int:
    """The code of one number. rounding: "even" (nearest) or "up" (UE8M0 only: the smallest value not below)."""
    if isinstance(value, float) and math.isnan(value):
        return fmt.nan_code
    negative = math.copysign(1.0, value) < 0 if isinstance(value, float) else value < 0
    if fmt.kind == "scale" and (negative or value == 0):
        return fmt.nan_code
    code = nearest(value, fmt, rounding)
    if saturate:
        code = min(code, fmt.max_code)
    if code > fmt.max_code and fmt.kind != "ieee":
        return fmt.nan_code
    return code | (int(negative) << (fmt.bits - 1))


def nearest(value: float | Fraction, fmt: Format, rounding: str) -> int:
    """Index into `grid` for the magnitude of `value`."""
    values = grid(fmt)
    if isinstance(value, float) and math.isinf(value):
        return len(values) - 1
    size = abs(Fraction(value))
    above = min(bisect_left(values, size), len(values) - 1)
    if above == 0 or rounding == UP:
        return above
    twice, middle = 2 * size, values[above - 1] + values[above]
    if twice == middle:  # ties: to the even code; UE8M0 has no fraction bit and goes up
        return above if fmt.mantissa == 0 or above % 2 == 0 else above - 1
    return above if twice > middle else above - 1
