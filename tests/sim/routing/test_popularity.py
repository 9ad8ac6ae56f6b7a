"""Popularity: its spread, its MaxVio, the profile's rows, and that tokens follow it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.routing.bias import max_violation
from sim.routing.gate import Gate, choose, draw
from sim.routing.hosts import in_order
from sim.routing.keyed import generator
from sim.routing.loads import loads
from sim.routing.popularity import of_tails, popularity, recorded, response, sampled, skewed
from sim.scenario import Routing
from sim.scenario.values import PROFILE_SPREAD

V3 = Gate(256, 8, 4, 8, 2)
PROFILE_ROWS = np.array([31104, 30976, 36864, 31104, 34688, 32512, 32896, 28416])
"""h800_dualpipe_trace: _meta.padded_routed_rows, forward and backward of four layers each."""
BALANCED_ROWS = 4096 * 8 + 4 * 64


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**63), spread=st.floats(0, 1), max_vio=st.floats(0, 20))
def test_every_layer_has_mean_one_and_nobody_is_below_zero(seed, spread, max_vio):
    for values in (sampled(seed, 3, 64, spread), skewed(seed, 3, 64, max_vio), recorded([[5, 0, 3]], 2)):
        assert values.mean(axis=1) == pytest.approx(1.0)
        assert (values > 0).all()


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**63), max_vio=st.floats(0, 25))
def test_a_skew_has_its_max_vio_in_every_layer(seed, max_vio):
    assert max_violation(skewed(seed, 4, 256, max_vio)) == pytest.approx(max_vio, abs=1e-6)


def test_the_spread_is_the_standard_deviation():
    """16,384 experts: a standard error of about 0.15 / sqrt(2 * 16384) = 0.0008 and more for the tail."""
    assert sampled(3, 64, 256, 0.15).std() == pytest.approx(0.15, abs=0.004)
    assert (sampled(3, 2, 256, 0.0) == 1.0).all()


def test_more_layers_change_none_before_and_seeds_differ():
    assert (sampled(5, 7, 64)[:4] == sampled(5, 4, 64)).all()
    assert (sampled(5, 4, 64) != sampled(6, 4, 64)).all()
    order = np.argsort(sampled(5, 2, 64), axis=1)
    assert (np.argsort(skewed(5, 2, 64, 1.0), axis=1) == order).all()  # paired: the same experts are popular


def test_the_profiles_spread_by_the_second_moment():
    """Of eight ranks of four experts about the known mean, less what sampling tokens and padding add."""
    total = ((PROFILE_ROWS / BALANCED_ROWS - 1) ** 2).mean()
    even = loads(V3, np.ones((1, 256)), [in_order(256, 64, 8)], 4096, 0, 400, 64).rows
    sampling_and_padding = (even / BALANCED_ROWS).var()
    assert sampling_and_padding**0.5 == pytest.approx(np.hypot(0.0054, 0.0022), rel=0.05)
    spread = ((total - sampling_and_padding) * 4 / (1 - 4 / 256)) ** 0.5
    assert spread == pytest.approx(PROFILE_SPREAD, abs=0.005)


def test_eight_layers_of_the_profiles_spread_look_like_the_profile():
    """The profile's range and its smallest and largest rows are ordinary for a rank in eight layers: within 5..95 %."""
    rows = loads(V3, sampled(0, 200, 256), [in_order(256, 64, 8)] * 200, 4096, 0, 1, 64).rows[:, 0]
    eights = rows.reshape(25, 8, 64)
    for figure in (lambda x, axis: np.ptp(x, axis=axis), np.max, np.min):
        low, high = np.quantile(figure(eights, axis=1), [0.05, 0.95])
        assert low < figure(PROFILE_ROWS, axis=0) < high


def load_of(gate, factors, blocks=64):
    load, random = np.zeros(gate.experts), generator(9, "tokens")
    for _ in range(blocks):
        load += np.bincount(choose(gate, draw(random, gate, 1000, factors)).ravel(), minlength=gate.experts)
    return load / load.mean()


@pytest.mark.parametrize(
    ("gate", "tolerance"), [(V3, 0.018), (Gate(160, 8, 3, 6, 1), 0.023), (Gate(64, 1, 1, 6, 1), 0.012)]
)
def test_tokens_follow_popularity(gate, tolerance):
    """Loads of whole groups within four standard errors: the gate's preference for liked groups is taken out."""
    asked = sampled(1, 1, gate.experts, 0.15)[0]
    got = load_of(gate, of_tails(gate, asked))
    groups = (8, -1)
    assert got.reshape(groups).mean(1) / asked.reshape(groups).mean(1) == pytest.approx(np.ones(8), abs=tolerance)
    assert (got / asked - 1).std() < 1.15 * np.sqrt(1 / (64_000 * gate.chosen / gate.experts))


@pytest.mark.parametrize(("max_vio", "tolerance"), [(0.5, 0.03), (2.0, 0.03), (7.0, 0.05)])
def test_tokens_meet_the_max_vio(max_vio, tolerance):
    asked = skewed(1, 1, 256, max_vio)[0]
    got = load_of(V3, of_tails(V3, asked))
    assert got[asked.argmax()] == pytest.approx(1 + max_vio, rel=tolerance)


def test_without_groups_there_is_no_response():
    assert response(Gate(64, 1, 1, 6, 1)) == (0.0, 0.0, 0.0)
    assert 0.3 < response(V3).load < 0.4


@pytest.mark.parametrize("times", [1, 7, 10**6, 10**13])
def test_only_shares_of_a_histogram_count(times):
    """Zeros take nothing from the others, few tokens or many: eight of 256 experts keep MaxVio 31 to 0.02 %."""
    row = np.array([1] * 8 + [0] * 248) * times
    found = recorded([row], 1)
    assert (found == recorded([row // times], 1)).all() and (found > 0).all()
    assert max_violation(found)[0] == pytest.approx(31, rel=1e-2 * 256 * 2**-14)
    mixed = np.array([3, 1] * 4 + [2] * 248)
    assert recorded([mixed * times], 1)[0] == pytest.approx(mixed / mixed.mean(), rel=1e-12)


def test_a_run_draws_what_was_recorded():
    """Eight experts get every token, the others almost none; nobody gets more tokens than there are."""
    drawn = loads(V3, recorded([[1] * 8 + [0] * 248], 1), [in_order(256, 64, 8)], 4096, 0, 10, 64)
    assert max_violation(drawn.experts)[0] == pytest.approx(31, rel=0.002)
    assert drawn.experts[0, :8].max() <= 10 * 64 * 4096
    assert drawn.experts[0, 8:].sum() < 2e-3 * drawn.experts[0, :8].sum()


def test_what_a_scenario_asks_for():
    assert (popularity(Routing("balanced"), 0, 2, 8) == 1).all()
    assert (popularity(Routing("sampled"), 4, 2, 8) == sampled(4, 2, 8, PROFILE_SPREAD)).all()
    assert (popularity(Routing("sampled", spread=0.3), 4, 2, 8) == sampled(4, 2, 8, 0.3)).all()
    assert (popularity(Routing("skewed", max_vio=0.5), 4, 2, 8) == skewed(4, 2, 8, 0.5)).all()
    found = popularity(Routing("recorded", histogram=((1, 3), (2, 2))), 4, 3, 2)
    assert found.tolist() == [[0.5, 1.5], [1.0, 1.0], [1.0, 1.0]]
