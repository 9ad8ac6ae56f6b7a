"""Tokens of an exchange: nothing is lost, V3's published reach, and what-ifs that stay paired."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.routing import eplb
from sim.routing.balanced import spread
from sim.routing.gate import Gate
from sim.routing.hosts import Hosts, in_order
from sim.routing.popularity import of_tails, sampled, skewed
from sim.routing.traffic import Lookup, padded, reached, traffic

V3 = Gate(256, 8, 4, 8, 2)


@pytest.fixture(scope="module")
def v3():
    return traffic(V3, np.ones(256), in_order(256, 64, 8), 512, seed=0, layer=0, micro_batch=0)


def test_v3_reaches_as_published(v3):
    """3.96 nodes and 7.49 ranks a token (h800_dualpipe_trace: 3.964, 7.488), from 32,768 tokens."""
    assert v3.nodes_reached.mean() == pytest.approx(3.964, abs=4 * 0.001)
    assert v3.ranks_reached.mean() == pytest.approx(7.488, abs=4 * 0.0035)
    assert (v3.nodes_reached.mean(), v3.ranks_reached.mean()) == pytest.approx(
        spread(256, 8, 4, 8, "sigmoid", 64, 8), abs=0.03
    )


def test_no_token_is_lost(v3):
    assert v3.slots.sum() == 64 * 512 * 8
    assert v3.received.sum() == v3.to_ranks.sum()
    assert (v3.slots.reshape(64, 4).sum(1) >= v3.received).all()
    assert (v3.rows >= v3.slots.reshape(64, 4).sum(1)).all()
    assert (v3.rows % 128 == 0).all()
    assert (v3.rows < v3.slots.reshape(64, 4).sum(1) + 4 * 128).all()
    assert v3.to_nodes.shape == (64, 8) and (v3.to_nodes <= 512).all()
    # a node is reached when one of its ranks is, and by no more tokens than its ranks together
    per_node = v3.to_ranks.reshape(64, 8, 8)
    assert (per_node.max(2) <= v3.to_nodes).all() and (v3.to_nodes <= per_node.sum(2)).all()


def test_loads_are_the_columns(v3):
    loads = v3.loads()
    assert [load.received for load in loads] == v3.received.tolist()
    assert [load.rows for load in loads] == v3.rows.tolist()
    assert loads[3].nodes_reached == v3.nodes_reached[3] and loads[3].ranks_reached == v3.ranks_reached[3]


@settings(max_examples=25, deadline=None)
@given(
    size=st.integers(1, 4), groups=st.sampled_from([1, 2, 4]), chosen=st.integers(1, 4), tokens=st.integers(1, 60),
    ranks=st.sampled_from([1, 2, 4]), gpus=st.sampled_from([1, 2, 8]), copies=st.integers(0, 2),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_sums_hold_for_any_layout(size, groups, chosen, tokens, ranks, gpus, copies, seed):
    gate = Gate(size * 4 * groups, groups, max(1, groups // 2), chosen, 2)
    hosts = eplb.hosts(np.arange(gate.experts) + 1.0, copies * ranks, groups, ranks, gpus)
    found = traffic(gate, sampled(seed, 1, gate.experts, 0.3)[0], hosts, tokens, seed, 0, 0)
    assert found.slots.sum() == ranks * tokens * chosen
    assert (found.to_ranks.sum(1) <= tokens * min(chosen, ranks)).all()
    assert (found.to_ranks.sum(1) >= tokens).all() and (found.to_nodes.sum(1) >= tokens).all()
    assert (found.ranks_reached >= found.nodes_reached).all()


def test_one_rank_gets_every_token_once():
    found = traffic(V3, np.ones(256), in_order(256, 1, 8), 300, 0, 0, 0)
    assert found.received.tolist() == [300]
    assert found.slots.sum() == 2400


def test_copies_share_the_tokens_of_their_expert():
    liked = skewed(2, 1, 256, 3.0)[0]
    plain = traffic(V3, liked, in_order(256, 32, 8), 512, 0, 0, 0)
    hosts = eplb.hosts(liked, 32, 8, 32, 8)
    copied = traffic(V3, liked, hosts, 512, 0, 0, 0)
    assert (np.bincount(hosts.expert, copied.slots) == plain.slots).all()  # the same tokens choose the same experts
    share = copied.slots / (plain.slots / hosts.copies)[hosts.expert]
    assert share == pytest.approx(np.ones(288), abs=0.25)
    assert copied.slots.reshape(32, 9).sum(1).max() < 0.8 * plain.slots.reshape(32, 8).sum(1).max()


def test_draws_belong_to_their_place():
    hosts, ones = in_order(256, 4, 8), np.ones(256)

    def sent(**place):
        return traffic(V3, ones, hosts, 64, **({"seed": 1, "layer": 2, "micro_batch": 3} | place)).to_ranks

    base = sent()
    assert (sent() == base).all()
    for change in ({"seed": 2}, {"layer": 3}, {"micro_batch": 4}, {"first_rank": 4}):
        assert (sent(**change) != base).any(), change
    assert (sent(first_rank=1)[:3] == base[1:]).all()  # the tokens are the rank's, whichever group it is counted in
    nudged = traffic(V3, np.where(np.arange(256) == 0, 1.05, 1.0), hosts, 64, 1, 2, 3).to_ranks
    assert np.abs(nudged - base).sum() <= 12  # paired: one expert's popularity moves few tokens


def test_padding():
    assert padded(np.array([0, 1, 128, 129])).tolist() == [0, 128, 128, 256]


def test_reached_counts_places_once():
    assert reached(np.array([[0, 0, 2], [1, 1, 1]]), 3).tolist() == [[True, False, True], [False, True, False]]


def test_turns():
    where = Lookup(Hosts(np.array([0, 1, 0]), 3, 3))
    assert where.slot_of(np.array([[0, 1]] * 3, dtype=np.int32), 1).tolist() == [[2, 1], [0, 1], [2, 1]]


def test_factors_of_even_popularity_are_even():
    assert of_tails(V3, np.ones(256)) == pytest.approx(np.ones(256))
