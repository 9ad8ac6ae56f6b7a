"""Times on other memory: closed forms, limits and monotony."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwmodels.transfer import POWER, REACHED, at_bandwidth

TIMES = st.floats(0.1, 1e5)
SIZES = st.floats(1.0, 1e10)
RATES = st.floats(1e11, 1e13)


def test_a_right_angle() -> None:
    """3 us of bytes and 4 us of the rest take 5 us; with half the bandwidth 6 and 4."""
    size = 3e-6 * REACHED * 2e12
    assert at_bandwidth(5.0, size, 2e12, 1e12) == pytest.approx((36 + 16) ** 0.5)
    assert POWER == 2


def test_a_stream_at_full_bandwidth_goes_by_bandwidth() -> None:
    assert at_bandwidth(10.0, 10e-6 * 2e12, 2e12, 3e12) == pytest.approx(10 * 2 / 3)


def test_what_moves_nothing_stays() -> None:
    assert at_bandwidth(7.0, 0.0, 1e12, 9e12) == pytest.approx(7.0)


@given(TIMES, SIZES, RATES, RATES)
def test_between_no_gain_and_all_of_it(us: float, size: float, old: float, new: float) -> None:
    found = at_bandwidth(us, size, old, new)
    least, most = sorted((us, us * old / new))
    assert least * (1 - 1e-9) <= found <= most * (1 + 1e-9)


@given(TIMES, SIZES, RATES, RATES)
def test_there_and_back(us: float, size: float, old: float, new: float) -> None:
    assert at_bandwidth(at_bandwidth(us, size, old, new), size, new, old) == pytest.approx(us, rel=1e-6)
