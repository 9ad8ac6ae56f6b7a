"""Quantities in and out: closed forms, messages word for word, and round trips."""

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwmodels.refused import Refused
from hwmodels.units import (
    EXAMPLES,
    GB,
    GIB,
    LARGEST_BYTES,
    LONGEST_NS,
    format_quantity,
    ns_to_seconds,
    parse,
    seconds_to_ns,
    units,
    whole_bytes,
)


@pytest.mark.parametrize(("text", "dimension", "value"), [
    ("80 GB", "data", 80e9), ("80GiB", "data", 80 * 2**30), ("1 b", "data", 1 / 8), ("3 kB", "data", 3000),
    ("400 Gb/s", "data/time", 50e9), ("50 GB/s", "data/time", 50e9), ("400 Gbit/s", "data/time", 50e9),
    ("1 GiB/s", "data/time", 2**30), ("3.35 TB/s", "data/time", 3.35e12), ("2.8 us", "time", 2.8e-6),
    ("2.8 µs", "time", 2.8e-6), ("1.5 h", "time", 5400), ("2 days", "time", 172800), ("1e3 ms", "time", 1.0),
    (".5 s", "time", 0.5), ("989 TFLOP/s", "FLOP/time", 989e12), ("1.83 GHz", "frequency", 1.83e9),
    ("2 USD", "money", 2.0), ("2 USD/h", "money/time", 2 / 3600), ("80 %", "ratio", 0.8), (0.8, "ratio", 0.8),
    (0, "time", 0.0), ("0", "data", 0.0), ("+5 s", "time", 5.0),
])  # fmt: skip
def test_parse(text: str | float, dimension: str, value: float) -> None:
    assert parse(text, dimension) == pytest.approx(value, rel=1e-15)


@pytest.mark.parametrize(("text", "dimension", "message"), [
    ("400 Gb/sec", "data/time", "unknown unit 'Gb/sec', did you mean 'Gb/s'?"),
    ("400 Gbps", "data/time", "unknown unit 'Gbps', did you mean 'Gb/s'?"),
    ("5 gb", "data", "unknown unit 'gb', did you mean 'Gb' (bits) or 'GB' (bytes)?"),
    ("400gb/s", "data/time", "unknown unit 'gb/s', did you mean 'Gb/s' (bits) or 'GB/s' (bytes)?"),
    ("400 gbps", "data/time", "unknown unit 'gbps', did you mean 'Gb/s' (bits) or 'GB/s' (bytes)?"),
    ("50 GBps", "data/time", "unknown unit 'GBps', did you mean 'GB/s'?"),
    ("400 gbit/s", "data/time", "unknown unit 'gbit/s', did you mean 'Gbit/s'?"),
    ("50 gib/s", "data/time", "unknown unit 'gib/s', did you mean 'Gib/s' (bits) or 'GiB/s' (bytes)?"),
    ("5 TFLOPS", "FLOP/time", "unknown unit 'TFLOPS', did you mean 'TFLOP/s'?"),
    ("3 furlong", "time", "unknown unit 'furlong'; units of time are like 'us'"),
    (2.8, "time", 'number 2.8 needs a unit, e.g. "2.8 us"'),
    ("50", "data/time", 'number 50 needs a unit, e.g. "50 GB/s"'),
    ("141 GiB/s", "data", "'141 GiB/s' is data/time, expected data (e.g. \"80 GB\")"),
    ("5 s", "frequency", "'5 s' is time, expected frequency (e.g. \"1.83 GHz\")"),
    ("fast", "data/time", "'fast' is not a number with a unit, expected data/time (e.g. \"50 GB/s\")"),
    ("nan s", "time", "'nan s' is not a number with a unit, expected time (e.g. \"2.8 us\")"),
    ("", "time", "'' is not a number with a unit, expected time (e.g. \"2.8 us\")"),
    (True, "time", 'True is not a quantity, expected time (e.g. "2.8 us")'),
    (None, "time", 'None is not a quantity, expected time (e.g. "2.8 us")'),
    ("-3 ms", "time", "'-3 ms' is below zero, expected time (e.g. \"2.8 us\")"),
    ("1e999 s", "time", "'1e999 s' is too large"),
])  # fmt: skip
def test_a_quantity_that_cannot_be_read_says_what_to_write(text: object, dimension: str, message: str) -> None:
    with pytest.raises(Refused) as caught:
        parse(text, dimension)  # type: ignore[arg-type]
    assert str(caught.value) == message


@pytest.mark.parametrize("dimension", EXAMPLES)
def test_every_example_reads_and_every_dimension_prints(dimension: str) -> None:
    value = parse(EXAMPLES[dimension], dimension)
    assert parse(format_quantity(value, dimension), dimension) == pytest.approx(value)


def test_each_unit_reads_in_its_own_dimension_only() -> None:
    for unit, (dimension, value) in units().items():
        assert parse(f"1 {unit}", dimension) == pytest.approx(value)
        for other in set(EXAMPLES) - {dimension}:
            with pytest.raises(Refused):
                parse(f"1 {unit}", other)


@pytest.mark.parametrize(("value", "dimension", "text"), [
    (50e9, "data/time", "50 GB/s"), (0.129, "time", "129.0 ms"), (2.8e-6, "time", "2.800 us"), (80e9, "data", "80 GB"),
    (989e12, "FLOP/time", "989 TFLOP/s"), (0.125, "ratio", "12.5 %"), (0, "time", "0 ns"),
    (12.34567, "time", "12.35 s"),
    (5000.0, "time", "5000 s"), (0.99999, "time", "1.000 s"), (3.35e12, "data/time", "3.35 TB/s"),
    (1.83e9, "frequency", "1.83 GHz"), (2 / 3600, "money/time", "2 USD/h"), (512, "data", "512 B"),
])  # fmt: skip
def test_format_quantity(value: float, dimension: str, text: str) -> None:
    assert format_quantity(value, dimension) == text


@given(st.floats(1e-9, 1e6), st.sampled_from(["time", "data/time", "FLOP/time", "data"]))
def test_printed_quantities_read_back_to_four_digits(value: float, dimension: str) -> None:
    value = value if dimension == "time" else value * GB
    read = parse(format_quantity(value, dimension), dimension)
    assert read == pytest.approx(value, rel=5.1e-4, abs=1e-9 / 2 if dimension == "time" else 0)


@pytest.mark.parametrize(("seconds", "ns"), [
    (0.0, 0), (1e-9, 1), (1.1e-9, 2), (1e-12, 1), (18.5e-3, 18_500_000), (0.1 + 0.2, 300_000_000), (1.0, 10**9),
    (3.35e-6, 3350), (86_400.0, 86_400 * 10**9),
])  # fmt: skip
def test_seconds_round_up_but_not_for_float_dust(seconds: float, ns: int) -> None:
    assert seconds_to_ns(seconds) == ns


@given(st.integers(0, 10**15))
def test_whole_nanoseconds_survive(ns: int) -> None:
    assert seconds_to_ns(ns_to_seconds(ns)) == ns


@given(st.floats(0, 1e6))
def test_rounding_up_adds_less_than_a_nanosecond_and_drops_no_more_than_dust(seconds: float) -> None:
    exact, ns = Fraction(seconds) * 10**9, seconds_to_ns(seconds)
    assert exact * (1 - Fraction(1, 2**49)) <= ns < exact + 1 + exact / 2**49


@given(st.floats(0, 1e6), st.floats(0, 1e6))
def test_rounding_keeps_order(a: float, b: float) -> None:
    assert (seconds_to_ns(a) <= seconds_to_ns(b)) or a > b


@pytest.mark.parametrize("seconds", [-1e-9, math.nan])
def test_a_negative_duration_is_a_bug(seconds: float) -> None:
    with pytest.raises(ValueError, match="a duration is a number of seconds, 0 or more"):
        seconds_to_ns(seconds)


@pytest.mark.parametrize("seconds", [9007200.0, 1e300, math.inf])
def test_what_is_too_long_to_count_is_refused(seconds: float) -> None:
    assert seconds_to_ns(9e6) == pytest.approx(9e15) and LONGEST_NS > 9e15
    with pytest.raises(Refused, match=r"a time or a size is too large to count \(found .* s; legal: up to 9007199 s\)"):
        seconds_to_ns(seconds)


def test_bytes_that_are_too_many_to_count_are_refused() -> None:
    assert whole_bytes(1.6) == 2 and whole_bytes(LARGEST_BYTES) == 2**60
    with pytest.raises(Refused, match=r"too large to count \(found 1e\+30 bytes; legal: up to 1152921504606846976\)"):
        whole_bytes(1e30)


def test_binary_and_decimal_bytes_differ() -> None:
    assert (GB, GIB) == (10**9, 2**30)
    assert parse("1 GiB", "data") / parse("1 GB", "data") == 2**30 / 10**9
