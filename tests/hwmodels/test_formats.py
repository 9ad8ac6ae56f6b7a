"""Number formats: closed forms for their limits, code points as the standards print them, bytes of rows by hand."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwmodels import formats
from hwmodels.formats import BF16, E4M3, E5M2, E5M6, FP32, UE8M0, Format, Layout

SIGNED = (E4M3, E5M2, E5M6, BF16, FP32)


def decode(form: Format, code: int) -> float:
    """Value of a positive finite code, from the definition of a binary format."""
    if form.kind == "scale":
        return math.ldexp(1, code - form.bias)
    exponent, fraction = divmod(code, 2**form.mantissa)
    if exponent == 0:
        return math.ldexp(fraction, form.lowest_exponent - form.mantissa)
    return math.ldexp(1 + fraction / 2**form.mantissa, exponent - form.bias)


@pytest.mark.parametrize("form", SIGNED, ids=str)
def test_a_sign_an_exponent_and_a_mantissa_fill_the_bits(form: Format) -> None:
    assert 1 + form.exponent + form.mantissa == form.bits


def test_the_scale_format_has_no_sign_and_no_mantissa() -> None:
    assert (UE8M0.bits, UE8M0.exponent, UE8M0.mantissa, UE8M0.kind) == (8, 8, 0, "scale")


@pytest.mark.parametrize("form", [*SIGNED, UE8M0], ids=str)
def test_the_largest_code_is_the_largest_value(form: Format) -> None:
    assert decode(form, form.max_code) == form.max_finite


@pytest.mark.parametrize(("form", "largest", "nan"), [
    (E4M3, 0x7E, 0x7F), (E5M2, 0x7B, 0x7E), (BF16, 0x7F7F, 0x7FC0), (FP32, 0x7F7FFFFF, 0x7FC00000), (UE8M0, 0xFE, 0xFF),
])  # fmt: skip
def test_codes_of_the_standards(form: Format, largest: int, nan: int) -> None:
    """OCP 8-bit floating point specification table 1, IEEE 754 binary32, OCP Microscaling table 7."""
    assert (form.max_code, form.nan_code) == (largest, nan)


@pytest.mark.parametrize(("form", "bias", "lowest"), [
    (E4M3, 7, -6), (E5M2, 15, -14), (E5M6, 15, -14), (BF16, 127, -126), (FP32, 127, -126), (UE8M0, 127, -127),
])  # fmt: skip
def test_exponents(form: Format, bias: int, lowest: int) -> None:
    assert (form.bias, form.lowest_exponent) == (bias, lowest)


def test_e5m6_is_the_top_of_half_precision() -> None:
    """12 of 16 bits: the largest finite half with its last four fraction bits cleared."""
    assert E5M6.max_finite == (2 - 2**-6) * 2.0**15
    assert E5M6.max_code == 0x7BFF >> 4


@pytest.mark.parametrize(("layout", "width", "expected"), [
    (formats.PLAIN_BF16, 7168, 14336), (formats.PLAIN_FP32, 7168, 28672), (formats.PLAIN_E4M3, 7168, 7168),
    (formats.E4M3_ROWS, 7168, 7168 + 56 * 4), (formats.E5M6_ROWS, 16384, 16384 * 12 // 8 + 128 * 4),
    (formats.E4M3_BLOCKS, 128 * 128, 128 * 128 + 4), (Layout(E4M3, 32, UE8M0), 7168, 7168 + 224),
])  # fmt: skip
def test_bytes_of_a_row(layout: Layout, width: int, expected: int) -> None:
    assert layout.row_bytes(width) == expected


@given(st.integers(1, 4096), st.integers(1, 4096))
def test_bytes_add_over_whole_blocks(one: int, two: int) -> None:
    row = formats.E4M3_ROWS.row_bytes
    assert row(128 * one) + row(128 * two) == row(128 * (one + two)) == 132 * (one + two)


def test_layouts_print_briefly() -> None:
    assert (str(formats.E4M3_ROWS), str(formats.PLAIN_BF16), str(E5M6)) == ("e4m3/128", "bf16", "e5m6")
