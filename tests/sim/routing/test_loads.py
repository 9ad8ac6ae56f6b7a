"""Loads without tokens: means and covariances of tokens through the gate, closed forms, speed of thought."""

import numpy as np
import pytest

from sim.routing import eplb
from sim.routing.bias import max_violation
from sim.routing.gate import Gate
from sim.routing.hosts import in_order
from sim.routing.loads import loads
from sim.routing.popularity import even, sampled, skewed
from sim.routing.traffic import padded, traffic

V3 = Gate(256, 8, 4, 8, 2)
V2 = Gate(160, 8, 3, 6, 1)
LITE = Gate(64, 1, 1, 6, 1)
TOKENS, MICRO_BATCHES, DRAWS = 16_384, 16, 400
"""Of a group; micro-batches through the gate; micro-batches without tokens."""


def both(gate, liked, hosts):
    """(received, rows) by tokens [micro-batches, ranks], and the same without tokens."""
    by_token = [traffic(gate, liked, hosts, TOKENS // hosts.ranks, 0, 0, m) for m in range(MICRO_BATCHES)]
    drawn = loads(gate, liked[None], [hosts], TOKENS // hosts.ranks, 0, DRAWS, hosts.ranks)
    exact = np.array([[t.received for t in by_token], [t.rows for t in by_token]])
    return exact, np.array([drawn.received[0], drawn.rows[0]])


@pytest.mark.parametrize(
    ("gate", "ranks"), [(V3, 64), (V3, 8), (V3, 4), (V2, 40), (LITE, 8)],
    ids=["v3-64", "v3-8", "v3-4", "v2-40", "lite-8"],
)  # fmt: skip
@pytest.mark.parametrize("skew", [None, 2.0], ids=["sampled", "skewed"])
def test_means_and_spreads_are_those_of_tokens(gate, ranks, skew):
    """Per rank: the mean within 5 standard errors and the stated error; over ranks: the spread within a tenth."""
    liked = (skewed(1, 1, gate.experts, skew) if skew else sampled(1, 1, gate.experts))[0]
    exact, drawn = both(gate, liked, in_order(gate.experts, ranks, 8))
    allowed = 0.002 if skew is None else 0.02
    for tokens, ours in zip(exact, drawn, strict=True):
        error = np.abs(tokens.mean(0) - ours.mean(0))
        noise = ours.std(0) * (1 / MICRO_BATCHES + 1 / DRAWS) ** 0.5
        assert (error < 5 * noise + (allowed + (ranks < gate.groups) * 0.003) * ours.mean(0)).all()
        assert abs(tokens.mean() - ours.mean()) < 5 * noise.mean() / ranks**0.5 + 0.002 * ours.mean()
        # rms over ranks of a standard deviation from 16 draws: its own error is 1 / sqrt(2 * 15 * ranks)
        wide = 0.1 + 4 / np.sqrt(30 * ranks)
        assert tokens.var(0, ddof=1).mean() ** 0.5 == pytest.approx(ours.var(0).mean() ** 0.5, rel=wide)


def test_ranks_vary_together_as_tokens_do():
    """Ranks of a group of experts rise and fall together, others against them: mean correlations within 0.03."""
    exact, drawn = both(V3, np.ones(256), in_order(256, 64, 8))
    same = (np.arange(64)[:, None] // 8 == np.arange(64) // 8) & ~np.eye(64, dtype=bool)
    other = np.arange(64)[:, None] // 8 != np.arange(64) // 8
    for tokens, ours in zip(exact, drawn, strict=True):
        found, expected = np.corrcoef(tokens.T), np.corrcoef(ours.T)
        assert found[same].mean() == pytest.approx(expected[same].mean(), abs=0.03)
        assert found[other].mean() == pytest.approx(expected[other].mean(), abs=0.03)
        assert expected[same].mean() > 0.02 > 0 > expected[other].mean()


def test_copies_are_loaded_as_tokens_load_them():
    liked = skewed(4, 1, 256, 1.0)[0]
    exact, drawn = both(V3, liked, eplb.hosts(liked, 32, 8, 32, 8))
    for tokens, ours in zip(exact, drawn, strict=True):
        noise = ours.std(0) * (1 / MICRO_BATCHES + 1 / DRAWS) ** 0.5
        assert (np.abs(tokens.mean(0) - ours.mean(0)) < 5 * noise + 0.02 * ours.mean(0)).all()


def test_closed_forms_without_groups():
    """Choosing c of E at random: tokens of an expert are binomial but for the fixed sum, a rank's hypergeometric."""
    tokens, ranks = 4096, 64
    found = loads(LITE, np.ones((1, 64)), [in_order(64, ranks, 8)], tokens, 3, 2000, ranks).received[0]
    chance = 6 / 64
    assert found.mean() == pytest.approx(tokens * ranks * chance, rel=1e-3)
    expected = (tokens * ranks * chance * (1 - chance)) ** 0.5
    assert found.std(axis=0).mean() == pytest.approx(expected, rel=0.02)


def test_one_rank_receives_every_token():
    found = loads(V3, sampled(0, 2, 256), [in_order(256, 1, 8)] * 2, 100, 0, 3, 2)
    assert (found.received == 100).all()
    assert (found.rows >= 800).all()


def test_rows_are_padded_and_hold_the_tokens():
    found = loads(V3, sampled(0, 3, 256), [in_order(256, 64, 8)] * 3, 4096, 0, 4, 128)
    assert found.rows.shape == found.received.shape == (3, 4, 128)
    assert (found.rows % 128 == 0).all()
    assert found.rows.mean() == pytest.approx(4096 * 8 + 4 * 64, rel=0.005)
    assert (found.rows > found.received).all()


def test_tokens_of_experts_are_those_of_rows():
    """An expert a rank, its rows are its tokens in whole tiles; with copies, those of each expert's slots together."""
    found = loads(LITE, sampled(3, 4, 64, 0.5), [in_order(64, 64, 8)] * 4, 512, 1, 1, 64)
    assert found.experts.dtype == np.int64 and (found.rows[:, 0] == padded(found.experts)).all()
    liked = skewed(4, 1, 256, 1.0)
    copied = loads(V3, liked, [eplb.hosts(liked[0], 32, 8, 32, 8)], 512, 1, 3, 64)
    assert (copied.experts.sum(1) <= copied.rows.sum((1, 2))).all()
    assert copied.experts.sum() == pytest.approx(512 * 64 * 3 * 8, abs=288 * 6 / 2), "half a token a slot by rounding"


@pytest.mark.parametrize(("gate", "skew", "tokens"), [(V3, 0, 256), (V3, 0, 2048), (V3, 1, 256), (LITE, 0, 256),
                                                      (LITE, 1, 64)])  # fmt: skip
def test_max_vio_is_that_of_tokens_counted(gate, skew, tokens):
    """Tokens of 8 ranks, chosen through the gate and counted, beside those drawn without: mean over 40 layers within
    2 standard errors and 1 % of the largest expert. With experts alike all of it is chance."""
    layers, hosts = 40, in_order(gate.experts, 8, 8)
    liked = skewed(2, layers, gate.experts, skew) if skew else even(layers, gate.experts)
    drawn = max_violation(loads(gate, liked, [hosts] * layers, tokens, 0, 1, 8).experts)
    counted = max_violation([traffic(gate, liked[i], hosts, tokens, 0, i, 0).slots for i in range(layers)])
    error = ((drawn.var() + counted.var()) / layers) ** 0.5
    assert abs(drawn.mean() - counted.mean()) < 2 * error + 0.01 * (1 + counted.mean())
    assert skew or counted.mean() > 10 * error


def test_popular_ranks_stay_popular():
    """Popularity belongs to the layer: a rank's mean over micro-batches spreads far more than its micro-batches do."""
    found = loads(V3, sampled(0, 1, 256), [in_order(256, 64, 8)], 4096, 0, 50, 64).rows[0]
    assert found.mean(axis=0).std() > 8 * found.std(axis=0).mean()


def test_draws_are_paired():
    hosts = [in_order(256, 64, 8)]
    liked = sampled(0, 2, 256)
    base = loads(V3, liked, hosts * 2, 1024, 7, 6, 192)
    assert (loads(V3, liked, hosts * 2, 1024, 7, 6, 192).rows == base.rows).all()
    assert (loads(V3, liked, hosts * 2, 1024, 7, 4, 192).rows == base.rows[:, :4]).all()
    assert (loads(V3, liked, hosts * 2, 1024, 7, 6, 64).received == base.received[..., :64]).all()
    assert (loads(V3, liked[:1], hosts, 1024, 7, 6, 192).rows == base.rows[:1]).all()
    assert (loads(V3, liked, hosts * 2, 1024, 8, 6, 192).rows != base.rows).any()


@pytest.mark.parametrize("copies", [0, 32])
def test_a_capacity_drops_what_is_more(copies):
    """No expert takes more than its capacity; a looser one drops less, down to nothing; ranks that are not above it
    keep their loads."""
    liked = skewed(1, 1, 256, 2.0)
    hosts = (
        eplb.hosts(np.round(liked[0] * 10_000).astype(np.int64), copies, 8, 32, 8) if copies else in_order(256, 32, 8)
    )
    free = loads(V3, liked, [hosts], 4096, 0, 4, 32)
    mean = 4096 * 32 * 8 / 256
    before = None
    for capacity in (1.0, 1.5, 2.0, 4.0):
        drawn = loads(V3, liked, [hosts], 4096, 0, 4, 32, capacity)
        assert (drawn.experts <= 4 * np.ceil(capacity * mean)).all()
        assert (drawn.rows <= free.rows).all() and (drawn.received <= free.received).all()
        if before is not None:
            assert (drawn.rows >= before.rows).all() and (drawn.received >= before.received).all()
        before = drawn
    assert before is not None and (before.rows == free.rows).all() and (before.received == free.received).all()
    tight = loads(V3, liked, [hosts], 4096, 0, 4, 32, 1.0)
    assert tight.experts.sum() < 0.95 * free.experts.sum()
    assert tight.received.sum() < 0.97 * free.received.sum()


def test_without_a_capacity_nothing_is_dropped():
    liked = sampled(1, 1, 64)
    one, two = (loads(LITE, liked, [in_order(64, 8, 8)], 4096, 0, 2, 8, each) for each in (0.0, 64.0))
    assert (one.rows == two.rows).all() and (one.received == two.received).all()
