"""Regressions recover what made the data, and never give negative times."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from numerics.fits import fixed_effects, relative_least_squares

POSITIVE = st.floats(0.1, 100)


@given(a=POSITIVE, b=POSITIVE, points=st.lists(st.integers(1, 500), min_size=3, max_size=12, unique=True))
def test_exact_line(a, b, points):
    """t = a + b x without noise."""
    x = np.array(points, dtype=float)
    found, rms = relative_least_squares(np.stack([np.ones(len(x)), x], 1), a + b * x)
    assert found == pytest.approx([a, b], rel=1e-6)
    assert rms < 1e-9


@given(times=st.lists(POSITIVE, min_size=3, max_size=10), seed=st.integers(0, 99))
def test_never_negative_and_locally_best(times, seed):
    """No coefficient is below zero, and no small change of one makes the squared relative error smaller."""
    terms = np.random.default_rng(seed).uniform(0.1, 10, (len(times), 2))
    t = np.array(times)
    found, rms = relative_least_squares(terms, t)
    assert (found >= 0).all()
    error = np.sqrt(np.mean((terms @ found / t - 1) ** 2))
    assert rms == pytest.approx(error)
    for i in range(2):
        if found[i] > 0:
            for change in (0.99, 1.01):
                other = found.copy()
                other[i] *= change
                assert np.sqrt(np.mean((terms @ other / t - 1) ** 2)) >= error - 1e-9


def test_a_negative_intercept_is_dropped():
    """t = x - 1 would need a below zero: the best line through the origin instead, weighted by 1/t."""
    x = np.array([2.0, 3.0, 5.0])
    found, _ = relative_least_squares(np.stack([np.ones(3), x], 1), x - 1)
    r = x / (x - 1)
    assert found == pytest.approx([0.0, r.sum() / (r @ r)])


@given(
    levels=st.lists(POSITIVE, min_size=2, max_size=6), one=st.floats(0.8, 1.6), two=st.floats(0.8, 1.6),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_fixed_effects(levels, one, two, seed):
    """Multiplicative effects come back exactly, whatever each operation takes."""
    on = np.random.default_rng(seed).integers(0, 2, (len(levels), 4, 2)).astype(float)
    inner = on - on.mean(1, keepdims=True)
    assume(np.linalg.matrix_rank(inner.reshape(-1, 2)) == 2)
    times = np.array(levels)[:, None] * one ** on[:, :, 0] * two ** on[:, :, 1]
    effect, error = fixed_effects(times, on)
    assert effect == pytest.approx([one, two], rel=1e-9)
    assert (error < 1e-6).all()
