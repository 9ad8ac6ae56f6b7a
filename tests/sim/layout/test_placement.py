"""Layers on stages: nothing lost, order kept, and `balanced` as good as trying everything."""

from itertools import product

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hwmodels.refused import Refused
from sim.layout.placement import REACH, _moves, place
from sim.models.layer import Unit
from sim.scenario.stages import layout


def model(layers, dense=1, prediction=0):
    body = [Unit("dense" if i < dense else "moe", i, block=True) for i in range(layers)]
    units = [Unit("embedding", -1), *body, Unit("head", -1)]
    for depth in range(prediction):
        kinds = ("projection", "moe", "head")
        units += [Unit(kind, layers + depth, block=kind == "moe", beside=True) for kind in kinds]
    return tuple(units)


def flat(forward, backward):
    """Pairs that all take the same time, so that only the loads decide."""
    return 1


def layers(stages, main):
    """Layers of the main model a stage."""
    return [sum(u.block and u.layer < main for u in stage) for stage in stages]


def counts(units, costs, stages, rule, main, mirrored=False):
    return layers(place(units, costs, stages, rule, mirrored, flat), main)


@given(
    size=st.integers(2, 40), stages=st.integers(1, 12), prediction=st.integers(0, 2),
    rule=st.sampled_from(["even", "balanced"]), mirrored=st.booleans(),
)  # fmt: skip
def test_nothing_is_lost(size, stages, prediction, rule, mirrored):
    """Stages joined are the model; the embedding is on the first, the head and what follows it on the last."""
    assume(size >= stages and (not mirrored or stages % 2 == 0))
    units = model(size, prediction=prediction)
    found = place(units, [1.0] * len(units), stages, rule, mirrored, flat)
    assert len(found) == stages
    assert sum(found, ()) == units
    assert found[0][0].kind == "embedding"
    assert [u.kind for u in found[-1]].count("head") == 1 + prediction


@given(size=st.integers(1, 60), stages=st.integers(1, 16))
def test_even(size, stages):
    """Numbers differ by one at most, and the last stage, which has the head, is among the smallest."""
    assume(size >= stages)
    units = model(size)
    found = counts(units, [1.0] * len(units), stages, "even", size)
    assert sum(found) == size and max(found) - min(found) <= 1 and found[-1] == min(found)


def test_a_list_is_taken_as_it_is():
    units = model(61, 3, 1)
    given_ = [4] * 15 + [1]
    assert counts(units, [1.0] * len(units), 16, given_, 61) == given_
    first = place(units, [1.0] * len(units), 16, given_, True, flat)[0]
    assert [u.kind for u in first] == ["embedding", "dense", "dense", "dense", "moe"]


def letters(stages):
    """Kinds of units of each stage; those of prediction modules in brackets."""
    return [[f"({u.kind})" if u.beside else u.kind for u in stage] for stage in stages]


def test_a_layout_says_where_everything_is():
    """The heads of prediction modules are with the model's, for Megatron works them out with the loss."""
    units = model(3, dense=1, prediction=2)
    found = letters(place(units, [1.0] * len(units), 4, layout("E|t*2|tm*2|L"), False, flat))
    module = ["(projection)", "(moe)"]
    assert found == [["embedding"], ["dense", "moe"], ["moe", *module, *module], ["head", "(head)", "(head)"]]
    apart = letters(place(units, [1.0] * len(units), 4, layout("Et*3|m|m|L"), False, flat))
    assert apart == [["embedding", "dense", "moe", "moe"], module, module, ["head", "(head)", "(head)"]]
    as_usual = place(units, [1.0] * len(units), 2, layout("Ett|tmmL"), False, flat)
    assert as_usual == place(units, [1.0] * len(units), 2, [2, 1], False, flat)


@given(size=st.integers(1, 40), prediction=st.integers(0, 2), cuts=st.sets(st.integers(1, 43)))
def test_a_layout_loses_nothing(size, prediction, cuts):
    units, text = model(size, prediction=prediction), f"E{'t' * size}{'m' * prediction}L"
    text = "".join("|" * (i in cuts) + letter for i, letter in enumerate(text))
    found = place(units, [1.0] * len(units), text.count("|") + 1, layout(text), False, flat)
    assert sorted(sum(found, ())) == sorted(units) and layers(found, size) == [s.count("t") for s in text.split("|")]


@pytest.mark.parametrize("rule", ["even", "balanced"])
@pytest.mark.parametrize("mirrored", [False, True])
def test_more_stages_than_layers_leave_the_ends_to_themselves(rule, mirrored):
    """The head first, which weighs more."""
    units = model(6)
    ends = [counts(units, [1.0] * len(units), stages, rule, 6, mirrored) for stages in (6, 7, 8)]
    if rule == "even":
        assert ends[0] == [1] * 6
    assert ends[1:] == [[*[1] * 6, 0], [0, *[1] * 6, 0]]


def best(costs, head, tail, stages):
    """Smallest possible largest load, by trying every cut (each stage a layer, but for the last)."""
    size, found = len(costs), float("inf")
    for lengths in product(range(size + 1), repeat=stages - 1):
        last = size - sum(lengths)
        if last < 0 or 0 in lengths:
            continue
        loads, at = [], 0
        for length in (*lengths, last):
            loads.append(sum(costs[at : at + length]))
            at += length
        loads[0] += head
        loads[-1] += tail
        found = min(found, max(loads))
    return found


@settings(max_examples=60, deadline=None)
@given(
    costs=st.lists(st.integers(1, 9), min_size=3, max_size=8), head=st.integers(0, 9), tail=st.integers(0, 20),
    stages=st.sampled_from([2, 4]),
)  # fmt: skip
def test_balanced_is_optimal(costs, head, tail, stages):
    assume(len(costs) > stages)
    units = model(len(costs))
    found = place(units, [head, *costs, tail], stages, "balanced", False, flat)
    of = dict(zip(units, [head, *costs, tail], strict=True))
    assert max(sum(of[u] for u in stage) for stage in found) == best(costs, head, tail, stages)


def lightest(costs, head, tail, stages):
    """The same for many stages, cut by cut from the left."""
    loads = {at: head + sum(costs[:at]) for at in range(1, len(costs) + 1)}
    for _ in range(stages - 2):
        loads = {
            at: min(max(load, sum(costs[begin:at])) for begin, load in loads.items() if begin < at)
            for at in range(min(loads) + 1, len(costs) + 1)
        }
    return min(max(load, sum(costs[begin:]) + tail) for begin, load in loads.items())


@settings(max_examples=60, deadline=None)
@given(
    costs=st.lists(st.integers(4, 6), min_size=16, max_size=64), head=st.integers(0, 4), tail=st.integers(0, 12),
    stages=st.integers(3, 16),
)  # fmt: skip
def test_balanced_is_optimal_for_many_stages(costs, head, tail, stages):
    units = model(len(costs))
    found = place(units, [head, *costs, tail], stages, "balanced", False, flat)
    of = dict(zip(units, [head, *costs, tail], strict=True))
    assert max(sum(of[u] for u in stage) for stage in found) == lightest(costs, head, tail, stages)


@settings(max_examples=60, deadline=None)
@given(
    costs=st.lists(st.integers(4, 6), min_size=16, max_size=48), head=st.integers(0, 4), tail=st.integers(0, 12),
    ranks=st.integers(2, 6), chunks=st.integers(2, 3),
)  # fmt: skip
def test_ranks_of_several_stages_are_no_heavier_than_without_knowing_of_them(costs, head, tail, ranks, chunks):
    """And no single layer moved makes the heaviest lighter."""
    stages, units = ranks * chunks, model(len(costs))
    holds = [tuple(range(rank, stages, ranks)) for rank in range(ranks)]
    of = dict(zip(units, [head, *costs, tail], strict=True))

    def heaviest(placed):
        return max(sum(of[u] for stage in held for u in placed[stage]) for held in holds)

    assume(len(costs) >= stages)
    args = units, [head, *costs, tail], stages
    alone, known = (place(*args, "balanced", False, flat, holds=h) for h in ((), holds))
    assert heaviest(known) <= heaviest(alone)
    numbers = [sum(u.block for u in stage) for stage in known]
    moved = [place(*args, move, False, flat) for move in _moves(numbers)]
    assert heaviest(known) <= min(map(heaviest, moved), default=float("inf"))


def test_interleaved_v3_spares_the_stage_that_shares_a_rank_with_the_head():
    """Rank 15 of 16 holds stage 15 and the last, with the head and the prediction module (two layers' worth)."""
    units = model(61, 3, 1)
    holds = [(rank, rank + 16) for rank in range(16)]
    cost = {"embedding": 0.0, "dense": 0.8, "moe": 1.0, "projection": 0.2, "head": 0.4}
    costs = [cost[u.kind] for u in units]
    found = place(units, costs, 32, "balanced", False, flat, holds=holds)
    numbers = [sum(u.block and not u.beside for u in stage) for stage in found]
    assert numbers[15] + numbers[31] == 2 and set(numbers[:15] + numbers[16:31]) <= {1, 2}


def test_balanced_looks_no_further_than_its_reach():
    """Light layers, and four of ten times their cost: no stage of two has more than 4 layers over a mean of 10."""
    for size in (20, 21):
        units, costs = model(size), [*[1.0] * (size - 4), *[10.0] * 4]
        for order in (1, -1):
            found = counts(units, [0.0, *costs[::order], 0.0], 2, "balanced", size)
            assert found[::order] == [10 + REACH, size - 10 - REACH]


def test_balanced_by_hand():
    """Six layers of 2, an embedding of 1, a head of 5 on 3 stages: 17 in all, 7 + 4 + ... the head stage takes one."""
    units = model(6)
    assert counts(units, [1.0, *[2.0] * 6, 5.0], 4, "balanced", 6) == [2, 2, 2, 0]
    assert counts(units, [1.0, *[2.0] * 6, 1.0], 2, "balanced", 6) == [3, 3]


def test_mirrored_stages_share_a_rank():
    """Ranks hold stages 0 and 3, 1 and 2: with a head of 4 layers' cost the outer pair gets fewer layers."""
    units = model(12)
    costs = [0.0, *[1.0] * 12, 4.0]
    found = counts(units, costs, 4, "balanced", 12, mirrored=True)
    assert found[0] + found[3] == 4 and found[1] + found[2] == 8
    assert sum(found) == 12


def test_mirrored_ends_are_split_by_their_pairs():
    """Of the layers that first and last stage share, the split is the one whose two overlapped pairs are shortest."""
    units = model(12)

    def pair(forward, backward):
        # forward costs 1 a layer, backward 3, the head 6: prefers a long first stage
        return len(forward) * len(forward) + 3 * len(backward) * len(backward)

    found = place(units, [0.0, *[1.0] * 12, 4.0], 4, "balanced", True, pair)
    split = [len(found[0]), len(found[-1])]
    total = sum(split)
    worth = {a: a * a + 3 * (total - a) ** 2 + (total - a) ** 2 + 3 * a * a for a in range(2, total)}
    assert worth[split[0]] == min(worth.values())


def test_too_few_layers():
    units = model(3)
    with pytest.raises(Refused) as caught:
        place(units, [1.0] * len(units), 6, "even", False, flat)
    assert str(caught.value) == "3 layers cannot fill 6 stages; use at most 5"
