"""What the page says in words about cards holds in the tables."""

from itertools import pairwise

import pytest

from hwmodels import tables as calibration
from hwmodels.units import GIGA
from numerics.accuracy import cards_page
from sim.communication.exchange.roles import COPY

PROFILE, TWO = calibration.load(cards_page.PROFILED).contention, calibration.load(cards_page.WITH_TWO).contention


def lost(name, rate):
    return TWO[name]["beside_gb_per_s"][rate] - 1


def test_the_modelled_warp_is_the_models():
    assert COPY.rate / GIGA == cards_page.MODELLED


@pytest.mark.parametrize("name", cards_page.BOUND_BY_MEMORY)
def test_what_memory_binds_slows_as_in_the_profile_at_a_rate_that_was_tried(name):
    """And at more than the profile's own."""
    rate = cards_page.rate_like(calibration.load("h800"), calibration.load("h200"), name)
    below, above = (lost(name, r) for r in (("60", "120") if rate < 120 else ("120", "240")))
    assert 60 < rate < 240 and below < PROFILE[name]["factor"] - 1 < above


def test_a_push_hardly_waits_for_products():
    """And is beside none of them as slow as an exchange of the profile."""
    found = {row["beside"]: row["stretch"] for row in cards_page._rows("h200", "stretch")}
    least = min(row["stretch"] for row in calibration.load("h800").exchanges.values())
    assert all(1.0 < found[name] < 1.1 < least for name in cards_page.PRODUCTS)


@pytest.mark.parametrize("name", cards_page.BOUND_BY_MEMORY)
def test_at_the_profiles_own_rate_a_push_costs_less(name):
    assert 0.25 < lost(name, "60") / (PROFILE[name]["factor"] - 1) < 0.75


@pytest.mark.parametrize("name", ["gemm", "wgrad"])
def test_products_hardly_slow(name):
    assert all(abs(value - 1) < 0.015 for value in TWO[name]["beside_gb_per_s"].values())


@pytest.mark.parametrize("name", ["attention", "gemm_bf16"])
def test_what_runs_on_all_sms_loses_those_that_are_held(name):
    """And little more once memory moves."""
    held = lost(name, "0")
    assert 0.1 < held < 0.4 and lost(name, "240") - held < 0.06


def test_more_traffic_never_helps():
    for row in TWO.values():
        found = [row["beside_gb_per_s"][rate] for rate in ("0", "60", "120", "240")]
        assert all(b > a - 0.02 for a, b in pairwise(found)), row["class"]


def test_the_push_is_bound_by_warps_and_then_by_nvlink():
    """Time goes as one over SMs up to eight, and no more than NVLink's 450 GB/s ever leave."""
    rows = [r for r in cards_page._rows("h200", "push") if r.get("warps") == 8 and not r["both_ways"]]
    found = {r["sms"]: r["gb_per_s"] for r in rows}
    assert all(found[s] == pytest.approx(s * found[1], rel=0.05) for s in (2, 4, 8))
    assert all(r["gb_per_s"] < 450 for r in cards_page._rows("h200", "push"))
