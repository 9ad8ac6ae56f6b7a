"""How many nodes and ranks a token reaches: published values, closed forms without groups, and bounds."""

from math import comb

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sim.models import deepseek
from sim.routing import balanced
from sim.scenario import from_mapping


def distinct(experts, chosen, places):
    """Expected number of distinct places of `chosen` of `experts` at random, `places` equal ones (hypergeometric)."""
    size = experts // places
    return places * (1 - comb(experts - size, chosen) / comb(experts, chosen))


def model(name):
    return from_mapping(
        {
            "cluster": {"node": "h800x8", "nodes": 16}, "model": name, "schedule": "1f1b", "precision": "bf16",
            "batch": {"micro_batches": 1},
        }
    ).model  # fmt: skip


def test_v3():
    """3.96 nodes and 7.49 ranks a token (h800_dualpipe_trace: 3.964 and 7.488); standard errors 0.002 and 0.007."""
    nodes, ranks = balanced.spread(256, 8, 4, 8, "sigmoid", 64, 8)
    assert nodes == pytest.approx(3.964, abs=4 * 0.002)
    assert ranks == pytest.approx(7.488, abs=4 * 0.007)


@settings(max_examples=20, deadline=None)
@given(
    experts=st.sampled_from([16, 32, 64]), chosen=st.integers(1, 8), ranks=st.sampled_from([1, 2, 4, 8, 16]),
    gpus=st.sampled_from([2, 4, 8]),
)  # fmt: skip
def test_without_groups(experts, chosen, ranks, gpus):
    """Choosing at random has a closed form; 8,192 samples of at most 8 places are within 4 x sqrt(8/4/8192) = 0.06."""
    nodes_found, ranks_found = balanced.spread(experts, 1, 1, chosen, "softmax", ranks, gpus)
    assert ranks_found == pytest.approx(distinct(experts, chosen, ranks), abs=0.06)
    assert nodes_found == pytest.approx(distinct(experts, chosen, max(1, ranks // gpus)), abs=0.06)


def test_exact_cases():
    assert balanced.spread(16, 1, 1, 1, "sigmoid", 16, 8) == (1.0, 1.0)
    assert balanced.spread(16, 1, 1, 16, "sigmoid", 16, 8) == (2.0, 16.0)
    assert balanced.spread(16, 4, 1, 4, "sigmoid", 4, 1) == (1.0, 1.0)  # one group is one rank is one node
    assert balanced.spread(16, 4, 1, 2, "softmax", 16, 4)[1] == 2.0
    assert balanced.spread(16, 1, 1, 16, "sigmoid", 6, 2) == (3.0, 6.0)  # ranks that do not divide experts


@settings(max_examples=25, deadline=None)
@given(
    groups=st.sampled_from([2, 4, 8]), few=st.integers(1, 8), chosen=st.integers(1, 8),
    ranks=st.sampled_from([8, 16, 32]), score=st.sampled_from(["sigmoid", "softmax"]),
)  # fmt: skip
@example(groups=8, few=2, chosen=5, ranks=32, score="softmax")
def test_bounds(groups, few, chosen, ranks, score):
    """Nodes <= ranks <= experts chosen, and no more nodes than the groups a token may use lie on."""
    few = min(few, groups)
    nodes, reached = balanced.spread(64, groups, few, chosen, score, ranks, 4)
    assert 1 <= nodes <= reached <= min(chosen, ranks)
    assert nodes <= few * max(1, ranks // 4 // groups)


def test_load_of_v3():
    load = balanced.balanced(deepseek.mixture(model("deepseek_v3")), 4096, 64, 8)
    assert load.rows == 4096 * 8 + 4 * 64  # each of 4 local experts ends in a tile that is half full on average
    assert load.received == round(4096 * load.ranks_reached)
    assert 30_500 < load.received < 30_850


@pytest.mark.parametrize("group", [1, 2, 8, 64])
def test_rows_do_not_depend_on_the_group_but_for_padding(group):
    load = balanced.balanced(deepseek.mixture(model("deepseek_v2_lite")), 1000, group, 8)
    assert load.rows == 6000 + 64 // group * 64
    assert load.received <= 6000


@pytest.mark.parametrize("sharing", [1, 2, 4])
def test_ranks_that_share_columns_pad_the_rows_of_all_of_them_once(sharing):
    mixture = deepseek.mixture(model("deepseek_v2_lite"))
    load = balanced.balanced(mixture, 1000, 8, 8, sharing)
    assert load.rows * sharing == 6000 * sharing + 8 * 64


def test_same_every_time():
    balanced.spread.cache_clear()
    first = balanced.spread(64, 8, 3, 6, "softmax", 8, 8)
    balanced.spread.cache_clear()
    assert balanced.spread(64, 8, 3, 6, "softmax", 8, 8) == first
