"""The gate: the same choice as a plain loop over its definition, exact limits, bias, and draws that are named."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.models import deepseek
from sim.routing.gate import Gate, affinity, choose, draw, gate_of
from sim.routing.keyed import generator
from sim.scenario import from_mapping

V3 = Gate(experts=256, groups=8, chosen_groups=4, chosen=8, best=2)


def model(name):
    return from_mapping(
        {
            "cluster": {"node": "h800x8", "nodes": 16}, "model": name, "schedule": "1f1b", "precision": "bf16",
            "batch": {"micro_batches": 1},
        }
    ).model  # fmt: skip


def by_definition(gate, affinities, bias):
    """Experts of one token: arXiv 2412.19437 eq. 12 to 16 and the group limit of sec 2.1.2, one step at a time."""
    choice = affinities + bias
    size = gate.experts // gate.groups
    groups = sorted(range(gate.groups), key=lambda g: -sum(sorted(choice[g * size : (g + 1) * size])[-gate.best :]))
    legal = [e for g in groups[: gate.chosen_groups] for e in range(g * size, (g + 1) * size)]
    return set(sorted(legal, key=lambda e: -choice[e])[: gate.chosen])


gates = st.builds(
    lambda size, groups, few, chosen, best: Gate(
        size * groups, groups, min(few, groups), min(chosen, size * min(few, groups)), min(best, size)
    ),
    size=st.integers(1, 12), groups=st.integers(1, 8), few=st.integers(1, 8), chosen=st.integers(1, 8),
    best=st.sampled_from([1, 2]),
)  # fmt: skip


def far_apart(values):
    """Whether all values of a row differ by more than the gate's rounding of an affinity."""
    return bool(np.diff(np.sort(values)).min(initial=1.0) > 5e-4)


@settings(max_examples=60, deadline=None)
@given(gate=gates, seed=st.integers(0, 2**32), biased=st.booleans())
def test_it_chooses_as_defined(gate, seed, biased):
    random = np.random.default_rng(seed)
    tails = random.random((40, gate.experts), dtype=np.float32) * 0.98 + 0.01
    bias = random.uniform(-0.1, 0.1, gate.experts) if biased else None
    picks = choose(gate, tails, bias)
    assert picks.shape == (40, gate.chosen)
    exact = affinity(tails).astype(float)
    for token in range(40):
        choice = exact[token] + (0 if bias is None else bias)
        size = gate.experts // gate.groups
        sums = np.sort(choice.reshape(gate.groups, size), axis=1)[:, -gate.best :].sum(1)
        if far_apart(choice) and (far_apart(sums) or not gate.limited):
            assert set(picks[token]) == by_definition(gate, exact[token], 0 if bias is None else bias)


@settings(max_examples=40, deadline=None)
@given(gate=gates, seed=st.integers(0, 2**32))
def test_every_choice_is_legal(gate, seed):
    """Exactly `chosen` different experts from at most `chosen_groups` groups, whatever the ties."""
    tails = np.random.default_rng(seed).integers(1, 4, (50, gate.experts)).astype(np.float32) / 4
    picks = choose(gate, tails)
    assert ((picks >= 0) & (picks < gate.experts)).all()
    assert all(len(set(row)) == gate.chosen for row in picks.tolist())
    assert all(len(set(row)) <= gate.chosen_groups for row in (picks // (gate.experts // gate.groups)).tolist())


def test_affinities_are_sigmoids_of_normal_logits():
    """Against the exact quantile: Winitzki's form is within 0.002 of a normal in the tails that are chosen."""
    from statistics import NormalDist

    tails = np.array([0.5, 0.3, 0.1, 0.031, 0.01, 1e-3, 1e-4, 0.9], dtype=np.float32)
    exact = [1 / (1 + np.exp(-NormalDist().inv_cdf(1 - float(tail)))) for tail in tails]
    assert affinity(tails) == pytest.approx(exact, abs=1.5e-3)
    fine = np.geomspace(1e-6, 0.999, 5000).astype(np.float32)
    assert (np.diff(affinity(fine)) <= 0).all()


def test_a_group_of_v3_is_as_good_as_its_two_best_and_of_v2_as_its_best():
    tails = np.full((1, 8), 0.5, dtype=np.float32)
    tails[0, 0] = 0.001  # the best expert, in a group with a bad second
    tails[0, 1] = 0.9
    tails[0, 4:6] = 0.02
    two = Gate(experts=8, groups=2, chosen_groups=1, chosen=2, best=2)
    assert set(choose(two, tails)[0]) == {4, 5}
    assert 0 in choose(two._replace(best=1), tails)[0]


def test_a_bias_moves_the_choice():
    tails = draw(generator(0, "tokens"), V3, 256, np.ones(256))
    bias = np.zeros(256)
    bias[7] = 2.0
    bias[9] = -2.0
    picks = choose(V3, tails, bias)
    assert (picks == 7).any(axis=1).all()
    assert not (picks == 9).any()
    plain, zero = choose(V3, tails), choose(V3, tails, np.zeros(256))
    same = [set(a) == set(b) for a, b in zip(plain.tolist(), zero.tolist(), strict=True)]
    assert np.mean(same) > 0.97  # all but those whose affinities the rounding cannot tell apart


def test_the_gates_of_the_models():
    assert gate_of(deepseek.mixture(model("deepseek_v3"))) == V3
    assert gate_of(deepseek.mixture(model("deepseek_v2"))) == Gate(160, 8, 3, 6, 1)
    assert not gate_of(deepseek.mixture(model("deepseek_v2_lite"))).limited


def test_popular_experts_are_chosen_in_proportion_without_groups():
    gate = Gate(64, 1, 1, 6, 2)
    liked = np.ones(64)
    liked[3], liked[5] = 2.0, 0.5
    random, load = generator(1, "tokens"), np.zeros(64)
    for _ in range(40):
        load += np.bincount(choose(gate, draw(random, gate, 1000, liked)).ravel(), minlength=64)
    mean = np.delete(load, [3, 5]).mean()
    assert load[[3, 5]] / mean == pytest.approx([2.0, 0.5], rel=0.05)  # 4 standard errors


def test_the_reference_of_the_numerics_chooses_alike():
    torch = pytest.importorskip("torch")
    from numerics.reference.gate import gate as reference

    tails = draw(generator(2, "tokens"), V3, 500, np.ones(256))
    a = np.clip(affinity(tails).astype(np.float64), 1e-6, 1 - 1e-6)
    idx, _ = reference(torch.from_numpy(np.log(a / (1 - a))), None, 8, 4, 8)
    alike = [set(x) == set(y) for x, y in zip(idx.tolist(), choose(V3, tails).tolist(), strict=True)]
    assert np.mean(alike) > 0.97


def test_draws_are_named():
    """Every part of a name matters, and nothing else does."""
    names = [(0, "tokens", 1, 2, 3), (1, "tokens", 1, 2, 3), (0, "bias", 1, 2, 3), (0, "tokens", 2, 2, 3),
             (0, "tokens", 1, 3, 3), (0, "tokens", 1, 2, 4), (0, "tokens", 2, 1, 3)]  # fmt: skip
    first = [generator(*name).random(8).tolist() for name in names]
    assert len({tuple(row) for row in first}) == len(names)
    assert [generator(*name).random(8).tolist() for name in reversed(names)] == first[::-1]
    assert generator(2**64 + 5, "tokens").random() == generator(5, "tokens").random()
