"""Encoding and decoding of number formats with torch.

A format is the sorted list of its values, and a number goes to the nearest one (tests/oracles/formats.py says so by
exact rational arithmetic). It is rounded once (no double rounding through float32). Sources of the encodings:
`hwmodels.formats`; rounding as in IEEE 754-2019 sec 4.3.1 (nearest, ties to even) and, for UE8M0, as ml_dtypes and
torch cast to it (nearest, ties up; both err on float32 subnormals below 1.5 * 2^-127) or upward (PTX `cvt.rp`), as a
scale that must not overflow needs.

Special values:
    NaN         -> `Format.nan_code` (positive, quiet); the sign and payload of a NaN are not kept
    too large   -> saturate=True: the largest finite value, infinities too (PTX satfinite);
                   saturate=False: infinity, or NaN where the format has none
    signed zero -> kept, also when a negative number rounds to zero; subnormals are kept, never flushed
    UE8M0       -> zero and negative numbers are NaN; below 2^-127 gives 2^-127
"""

import math

import torch
from torch import Tensor

from hwmodels.formats import Format

EVEN, UP = "even", "up"


def _check(fmt: Format, rounding: str) -> None:
    if rounding not in (EVEN, UP):
        raise ValueError(f"rounding is {EVEN!r} or {UP!r}; got {rounding!r}")
    if rounding == UP and fmt.kind != "scale":
        raise ValueError(f"rounding up is for scales (ue8m0); {fmt} rounds to nearest even")


def encode(x: Tensor, fmt: Format, saturate: bool = True, rounding: str = EVEN) -> Tensor:
    """Codes (int32, the shape of x) of a floating tensor. rounding: "even" (nearest) or "up" (UE8M0 only: the smallest
    value not below).

    In float64 every step is exact but the rounding: a magnitude is n quanta, n <= 2^(mantissa+1), and the code of n
    quanta at exponent e is n + (e - lowest) * 2^mantissa, carries and subnormals included.
    """
    _check(fmt, rounding)
    magnitude = x.double().abs()
    finite = torch.isfinite(magnitude)
    ordinary = torch.where(finite, magnitude, 0.0)
    exponent = (torch.frexp(ordinary).exponent - 1).clamp(min=fmt.lowest_exponent, max=fmt.bias + 1)
    exponent = torch.where(ordinary == 0, fmt.lowest_exponent, exponent)
    quanta = ordinary * power_of_two(fmt.mantissa - exponent)
    quanta = torch.ceil(quanta) if rounding == UP else torch.round(quanta)
    code = quanta.clamp(max=2.0 ** (fmt.mantissa + 1)).int() + (exponent - fmt.lowest_exponent) * (1 << fmt.mantissa)
    if fmt.kind == "scale":
        code = (code - 1).clamp(min=0)
    code = torch.where(finite, code, fmt.max_code + 1).clamp(max=fmt.max_code + (0 if saturate else 1))
    return _specials(x, code, fmt)


def _specials(x: Tensor, code: Tensor, fmt: Format) -> Tensor:
    """Signs and NaNs put on the codes of magnitudes."""
    invalid = torch.isnan(x)
    if fmt.kind == "scale":
        invalid = invalid | (x <= 0)
    elif fmt.kind == "fn":
        invalid = invalid | (code > fmt.max_code)
    if fmt.kind != "scale":
        code = code + torch.signbit(x).int() * (1 << (fmt.bits - 1))
    return torch.where(invalid, fmt.nan_code, code)


def decode(codes: Tensor, fmt: Format) -> Tensor:
    """float32 values of integer codes (exact)."""
    codes = codes.int()
    body = codes & ((1 << (fmt.exponent + fmt.mantissa)) - 1)
    exponent, fraction = body >> fmt.mantissa, (body & ((1 << fmt.mantissa) - 1)).double()
    implicit = torch.ones_like(exponent) if fmt.kind == "scale" else (exponent > 0).int()
    power = torch.where(implicit > 0, exponent - fmt.bias, fmt.lowest_exponent)
    value = (fraction + implicit * float(1 << fmt.mantissa)) * power_of_two(power - fmt.mantissa)
    value = torch.where(body > fmt.max_code, math.nan, value)
    if fmt.kind == "ieee":
        value = torch.where(body == fmt.max_code + 1, math.inf, value)
    return torch.where(codes != body, -value, value).float()


def power_of_two(exponent: Tensor) -> Tensor:
    """2^exponent as float64, exact, for integer exponents of -1022 to 1023.

    (torch.ldexp makes the power in float32, which overflows at 2^128.)
    """
    return ((exponent.long() + 1023) << 52).view(torch.float64)
