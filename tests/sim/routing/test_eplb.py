"""The balancer of redundant experts: the published example, what any placement must satisfy, and its effect."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwmodels.refused import Refused
from sim.routing import eplb
from sim.routing.hosts import in_order
from sim.routing.popularity import sampled

EXAMPLE = [[90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86], [20, 107, 104, 64, 19, 197, 187, 157, 172, 86, 16, 27]]
"""EPLB-0: README of github.com/deepseek-ai/EPLB, two layers; 16 replicas, 4 groups, 2 nodes, 8 GPUs."""
PLACED = [
    [5, 6, 5, 7, 8, 4, 3, 4, 10, 9, 10, 2, 0, 1, 11, 1],
    [7, 10, 6, 8, 6, 11, 8, 9, 2, 4, 5, 1, 5, 0, 3, 1],
]
"""EPLB-1: what the README says of them."""


@pytest.mark.parametrize("layer", [0, 1])
def test_the_published_example(layer):
    assert eplb.place(EXAMPLE[layer], slots=16, groups=4, nodes=2, ranks=8).tolist() == PLACED[layer]


def test_groups_stay_on_their_node_only_when_they_divide():
    load = np.arange(24.0) + 1
    hierarchical = eplb.place(load, 32, groups=4, nodes=2, ranks=8)
    halves = [set(half // 6) for half in np.split(hierarchical, 2)]
    assert not halves[0] & halves[1]
    alone = eplb.place(load, 30, groups=3, nodes=2, ranks=10)
    assert (alone == eplb.place(load, 30, groups=1, nodes=1, ranks=10)).all()


def test_copies_go_to_the_busiest():
    assert eplb.replicated(np.array([4.0, 10.0, 1.0]), 6).tolist() == [0, 1, 2, 1, 1, 0]
    assert eplb.replicated(np.array([1.0, 1.0]), 3).tolist() == [0, 1, 0]


def test_packs_are_filled_alike():
    assert eplb.packed(np.array([5.0, 4.0, 3.0, 2.0]), 2).tolist() == [[0, 3], [1, 2]]
    assert eplb.packed(np.array([1.0, 5.0, 3.0]), 3).tolist() == [[0], [1], [2]]
    assert eplb.packed(np.array([9.0, 1.0, 1.0, 1.0]), 2).tolist() == [[0, 3], [1, 2]]


def imbalance(load, where):
    """Largest over mean tokens of a rank, copies sharing their expert's tokens alike."""
    each = (np.asarray(load, float) / where.copies)[where.expert].reshape(where.ranks, -1).sum(axis=1)
    return float(each.max() / each.mean())


layouts = st.tuples(
    st.sampled_from([(1, 1), (2, 1), (4, 2), (4, 4), (3, 2)]), st.integers(1, 4), st.integers(1, 3), st.integers(0, 3),
    st.integers(0, 10**6),
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(layouts)
def test_any_placement_is_whole(layout):
    """Every expert is somewhere, ranks hold as many slots, and no copy beats the bound of the mean."""
    (groups, nodes), size, gpus, copies, seed = layout
    ranks, experts = gpus * nodes, groups * size * gpus * nodes
    load = np.random.default_rng(seed).integers(1, 100, experts)
    where = eplb.hosts(load, copies * ranks, groups, ranks, gpus)
    assert len(where.expert) == experts + copies * ranks
    assert (np.bincount(where.expert, minlength=experts) >= 1).all()
    assert imbalance(load, where) >= 1 - 1e-12


def test_the_effect_on_v3s_ranks():
    """At the profile's spread 64 copies take the largest rank's excess from about 20 % to below 6 %."""
    for layer in sampled(0, 6, 256):
        before = imbalance(layer, in_order(256, 64, 8))
        after = imbalance(layer, eplb.hosts(layer, 64, 8, 64, 8))
        assert before > 1.1
        assert after < 1.065
        assert after - 1 < (before - 1) / 2


def test_more_copies_do_not_hurt_much():
    load = sampled(3, 1, 256, 0.5)[0]
    found = [imbalance(load, eplb.hosts(load, n, 8, 64, 8)) for n in (0, 64, 128, 192)]
    assert found[0] > found[1] > found[2] * 0.99 > found[3] * 0.98


def test_without_copies_experts_stay_in_order():
    assert (eplb.hosts(np.arange(8.0), 0, 2, 4, 2).expert == np.arange(8)).all()


@pytest.mark.parametrize(
    ("slots", "groups", "nodes", "ranks", "message"),
    [
        (9, 2, 1, 2, "slots 9 cannot be divided by ranks 2"), (3, 2, 1, 2, "8 experts need as many slots; got 3"),
        (8, 3, 1, 2, "experts 8 cannot be divided by groups 3"), (12, 2, 2, 3, "ranks 3 cannot be divided by nodes 2"),
    ],
)  # fmt: skip
def test_what_does_not_divide_is_said(slots, groups, nodes, ranks, message):
    with pytest.raises(Refused, match=message):
        eplb.place(np.ones(8), slots, groups, nodes, ranks)


def test_imbalance_by_hand():
    assert imbalance([1, 3], in_order(2, 2, 8)) == pytest.approx(1.5)
    assert imbalance([2, 6, 4, 4], in_order(4, 2, 8)) == pytest.approx(1.0)
