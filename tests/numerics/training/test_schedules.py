"""Schedules at the points where their closed forms are known."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from numerics.training.schedules import Ramp, Rate, Switch

RATE = Rate(peak=2.2e-4, floor=2.2e-5, warmup=20, constant=0.5, end=0.9)
STEPS = 1000


def test_the_rate_rises_stays_falls_and_stays():
    assert RATE.at(0, STEPS) == pytest.approx(2.2e-4 / 20)
    assert RATE.at(9, STEPS) == pytest.approx(2.2e-4 / 2)
    assert {RATE.at(step, STEPS) for step in range(19, 500)} == {2.2e-4}
    assert RATE.at(700, STEPS) == pytest.approx((2.2e-4 + 2.2e-5) / 2)  # half way down a cosine is the mean
    assert RATE.at(600, STEPS) == pytest.approx(2.2e-5 + 1.98e-4 * (1 + 2**-0.5) / 2)
    assert {RATE.at(step, STEPS) for step in range(900, 1000)} == {2.2e-5}


@given(st.integers(0, 999))
def test_the_rate_never_leaves_its_bounds_nor_rises_again(step):
    assert 0 < RATE.at(step, STEPS) <= RATE.peak
    if step >= 20:
        assert RATE.floor <= RATE.at(step, STEPS) <= RATE.at(step - 1, STEPS)


def test_the_batch_grows_linearly():
    ramp = Ramp(2, 10, 80)
    assert [ramp.at(step) for step in (0, 9, 10, 40, 79, 80, 500)] == [2, 2, 3, 6, 9, 10, 10]
    assert Ramp(3, 3).at(0) == 3


def test_a_switch_happens_once():
    gamma = Switch(1e-3, 0.0, 0.967)
    assert [gamma.at(step, 1000) for step in (0, 966, 967, 999)] == [1e-3, 1e-3, 0.0, 0.0]
