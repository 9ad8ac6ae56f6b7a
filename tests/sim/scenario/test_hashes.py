"""Hashed ways: the measured collisions of random ECMP, and hashes that are fair and repeatable."""

import numpy as np
import pytest

from sim.scenario.hashes import hashes
from tests.oracles.multipath import throughput


@pytest.mark.parametrize(("flows", "measured"), [(32, 0.28), (64, 0.37), (256, 0.56), (1024, 0.72), (7168, 0.88)])
def test_random_ecmp_of_equal_flows_on_32_uplinks(flows: int, measured: float) -> None:
    """Monte Carlo figures of the project's network notes, to their two digits."""
    assert throughput(flows, 32) == pytest.approx(measured, abs=0.01)


def test_one_uplink_or_a_single_flow() -> None:
    assert throughput(5, 1) == 1.0
    assert throughput(1, 32) == pytest.approx(1 / 32)


def test_two_flows_on_two_uplinks_collide_half_the_time() -> None:
    """Mean largest load 1.5 of a mean load of 1."""
    assert throughput(2, 2, draws=20_000) == pytest.approx(1 / 1.5, abs=0.005)


def test_hashes_are_fair_and_depend_on_every_column_and_the_seed() -> None:
    row, zero = np.arange(64_000), np.zeros(64_000, dtype=np.int64)
    first = hashes(7, row, zero)
    assert len(np.unique(first)) == len(row) and (first == hashes(7, row, zero)).all()
    for other in (hashes(8, row, zero), hashes(7, row, zero + 1), hashes(7, zero, row)):
        assert (first[1:] != other[1:]).all()
    counts = np.bincount((first % np.uint64(32)).astype(np.int64), minlength=32)
    assert ((counts - 2000) ** 2 / 2000).sum() < 62  # chi-square of 31 degrees of freedom, 0.1 %


def test_the_mixer_is_splitmix64() -> None:
    """Its first outputs for the seed 1234567, as published with Java's and many other implementations."""
    state, outputs = 1234567, []
    for _ in range(3):
        outputs.append(int(hashes(state, np.zeros(1, dtype=np.int64))[0]))
        state += 0x9E3779B97F4A7C15
    assert outputs == [6457827717110365317, 3203168211198807973, 9817491932198370423]
