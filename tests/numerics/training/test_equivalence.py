"""The equivalence test against closed forms, against scipy where it is there, and against drawing."""

import math
import random

import pytest

from numerics.training.equivalence import (
    DIFFERENT,
    EQUIVALENT,
    UNDECIDED,
    Paired,
    distribution,
    power,
    prediction,
    quantile,
)


def test_students_t_has_closed_forms_at_one_and_two_degrees():
    for t in (-3.0, -0.5, 0.0, 0.1, 2.0, 40.0):
        assert distribution(t, 1) == pytest.approx(0.5 + math.atan(t) / math.pi, abs=1e-12)
        assert distribution(t, 2) == pytest.approx(0.5 + t / (2 * math.sqrt(2 + t * t)), abs=1e-12)
    assert quantile(0.95, 3) == pytest.approx(2.3533634348, abs=1e-8)  # printed tables of Student's t
    assert quantile(0.975, 3) == pytest.approx(3.1824463053, abs=1e-8)


def test_students_t_is_scipys():
    stats = pytest.importorskip("scipy.stats")
    for freedom in (1, 3, 7, 30):
        for t in (-5.0, -1.0, 0.3, 2.5, 9.0):
            assert distribution(t, freedom) == pytest.approx(stats.t.cdf(t, freedom), abs=1e-10)
        for p in (0.01, 0.5, 0.9, 0.975):
            assert quantile(p, freedom) == pytest.approx(stats.t.ppf(p, freedom), abs=1e-8)


def test_the_two_one_sided_tests_are_scipys():
    stats = pytest.importorskip("scipy.stats")
    differences, margin = (0.02, -0.05, 0.11, 0.04), 0.25
    lower = stats.ttest_1samp(differences, -margin, alternative="greater").pvalue
    upper = stats.ttest_1samp(differences, margin, alternative="less").pvalue
    assert Paired(differences).p(margin) == pytest.approx(max(lower, upper), rel=1e-8)


@pytest.mark.parametrize("differences, verdict", [
    ((0.01, -0.02, 0.03, 0.0), EQUIVALENT), ((0.5, 0.52, 0.55, 0.49), DIFFERENT),
    ((-0.5, -0.52, -0.55, -0.49), DIFFERENT),
    ((0.2, 0.1, 0.3, 0.25), UNDECIDED), ((-0.6, 0.6, -0.5, 0.5), UNDECIDED),
])  # fmt: skip
def test_verdicts(differences, verdict):
    paired = Paired(differences)
    assert paired.verdict(0.25) == verdict
    assert (paired.p(0.25) < 0.05) == (verdict == EQUIVALENT)


def test_an_interval_is_the_mean_and_t_errors():
    low, high = Paired((1.0, 2.0, 3.0, 4.0)).interval(0.9)
    half = 2.3533634348 * math.sqrt(5 / 3) / 2
    assert (low, high) == pytest.approx((2.5 - half, 2.5 + half), abs=1e-8)


@pytest.mark.parametrize("deviation", [0.05, 0.12, 0.2])
def test_power_is_how_often_it_is_found(deviation):
    draw = random.Random(0)
    trials = 2000
    hits = sum(
        Paired(tuple(draw.gauss(0, deviation) for _ in range(4))).verdict(0.25) == EQUIVALENT for _ in range(trials)
    )
    assert power(deviation, 4, 0.25) == pytest.approx(hits / trials, abs=3 * 0.5 / math.sqrt(trials))


def test_more_pairs_and_less_noise_give_more_power():
    assert power(0.1, 4, 0.25) < power(0.1, 8, 0.25) and power(0.2, 4, 0.25) < power(0.1, 4, 0.25)
    assert power(1e-3, 4, 0.25) == pytest.approx(1.0, abs=1e-6)


def test_a_further_difference_of_the_same_kind():
    assert prediction((0.1, -0.1, 0.1, -0.1)) == pytest.approx(0.1 * quantile(0.975, 4))
