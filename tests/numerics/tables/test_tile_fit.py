"""Fits of products: they find what made the times, tell a burst's clock from the tiles, and agree with prices."""

import numpy as np
import pytest

from hwmodels.op import Gemm
from hwmodels.tiles import Card, Tiles, product_us, shape
from numerics.tables.published import times
from numerics.tables.tile_fit import Burst, Range, Times, fitted, left_out, searched, times_us

CARD = Card(132, 7.5e12, 3.35e12)
MADE = Tiles(3.0, 0.75, 0.05, 0.5, 0.4, 0.6)
SIDES = [(m, n, k) for m in (1024, 4096, 16384) for n in (1024, 5120, 16384) for k in (1024, 7168)]


def made(burst: Burst, sides: list[tuple[int, int, int]] = SIDES) -> Times:
    rows = times([(*each, 1.0) for each in sides], "bf16")
    return rows._replace(us=times_us(MADE, rows, CARD, burst))


def test_many_are_priced_as_one_is() -> None:
    rows = made(Burst(0.0, 500.0))
    for m, n, k, us in zip(rows.m, rows.n, rows.k, rows.us, strict=True):
        work = shape(Gemm(int(m), int(n), int(k), precision="bf16"))
        assert product_us(MADE, work, CARD) == pytest.approx(us, rel=1e-12)


def test_a_fit_finds_the_times_and_not_the_limit_in_them() -> None:
    """Long bursts at the power limit: the tiles come out as of a rested card."""
    rows = made(Burst(0.2, 400.0))
    tiles, burst = fitted(rows, CARD)
    assert np.abs(times_us(tiles, rows, CARD, burst) / rows.us - 1).max() < 0.03
    assert burst.slower == pytest.approx(0.2, abs=0.05) and tiles.part == pytest.approx(0.75, rel=0.06)
    rested = fitted(rows, CARD, limited=False)[0]
    assert times_us(rested, rows, CARD).max() < rows.us.max()


def test_what_is_left_out_has_no_say() -> None:
    """Products of one pair of weights take twice as long: they come back at half, all others as they are."""
    rows = made(
        Burst(0.0, 500.0), [(m, n, k) for m, _, _ in SIDES for n in (1024, 5120, 9216) for k in (1024, 3072, 7168)]
    )
    odd = (rows.n == 5120) & (rows.k == 7168)
    offs = np.array(left_out(rows._replace(us=np.where(odd, 2 * rows.us, rows.us)), CARD, limited=False))
    assert len(offs) == rows.count and np.sum(offs < -0.6) == odd.sum() and np.median(np.abs(offs)) < 0.02


def test_the_search_ends_at_a_minimum_within_bounds() -> None:
    free, bound = Range(0.0, -5.0, 5.0, 1.0), Range(0.0, -1.0, 1.0, 1.0)
    x, y = searched(lambda at: (at[0] - 2.7) ** 2 + (at[1] - 3.0) ** 2, (free, bound))
    assert x == pytest.approx(2.7, abs=0.01) and y == 1.0
