"""Answers: intervals follow the value through units and inverses; independent causes add in quadrature."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwmodels.price import Price
from sim.validation.answer import NINETY, Answer, headline, moved, timed

SIZES = st.floats(1e-3, 1e6)


def test_ninety_per_cent_of_a_normal_distribution():
    """1.645 standard deviations: any table of the normal distribution."""
    assert pytest.approx(1.6449, abs=1e-4) == NINETY


@given(SIZES, st.floats(0, 0.5), SIZES)
def test_units_keep_relative_widths(value, spread, factor):
    before = timed(Price(value, value, "measured", "", spread, "gemm"))
    after = before.times(factor)
    assert after.low / after.value == pytest.approx(before.low / before.value)
    assert after.high / after.value == pytest.approx(before.high / before.value)


@given(SIZES, st.floats(0, 0.5))
def test_the_inverse_of_an_interval_holds_the_inverse_of_its_middle(value, spread):
    rate = timed(Price(value, value, "measured", "", spread, "gemm")).inverse
    assert rate.low <= rate.value * (1 + 1e-12) and rate.value <= rate.high * (1 + 1e-12)
    assert rate.inverse.value == pytest.approx(value)


def test_an_interval_that_reaches_zero_has_no_inverse():
    assert Answer(2.0, -1.0, 5.0).inverse == Answer(0.5)


def test_causes_add_in_quadrature():
    answer = moved(10.0, [3.0, -4.0])
    assert answer.high - 10 == pytest.approx(5 * NINETY)
    assert 10 - answer.low == pytest.approx(5 * NINETY)


def test_nothing_moves_what_rests_on_no_price():
    assert moved(10.0, [0.0, 0.0]) == Answer(10.0) == moved(10.0, [])


def test_headlines_bring_their_interval():
    summary = {"a": {"b": 2.0}, "c": 3.0, "intervals_90": {"a": {"b": [1.0, 4.0]}}}
    assert headline(summary, "a", "b") == Answer(2.0, 1.0, 4.0)
    assert headline(summary, "c") == Answer(3.0)
