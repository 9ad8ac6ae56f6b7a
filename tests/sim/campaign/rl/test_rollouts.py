"""Rollouts against loops of their own."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from hwmodels.document import Document
from hwmodels.units import NS_PER_S
from sim.campaign.rl import hosts, lengths, update
from sim.campaign.rl.files import resolved
from sim.campaign.rl.rollouts import rollouts
from sim.campaign.rl.values import Answers, Reward
from sim.scenario.overrides import merged
from sim.scenario.values import Lengths
from sim.serving.deployment import deployed
from tests.sim.campaign.rl.learnings import PLAN, learning


def token_by_token(tokens: list[int], prompt: int, own: object) -> int:
    """When the last of some answers ends on one instance of one attention group, ns: the first prompt alone, then all
    others together, then a token of each in every step."""
    grid = own.grid  # type: ignore[attr-defined]
    now = round(grid.prefill_ns(prompt, prompt / 2, 1.0))
    rest = prompt * (len(tokens) - 1)
    if rest:
        now += round(grid.prefill_ns(rest, prompt / 2, 1.0))
    alive = [[prompt, each - 1] for each in tokens if each > 1]
    while alive:
        keys = sum(context for context, _ in alive) / len(alive) + 1
        now += int(np.rint(grid.decode_ns(len(alive), np.array([keys]))[0]))
        alive = [[context + 1, left - 1] for context, left in alive if left > 1]
    return now


@pytest.mark.parametrize("sigma", [0.0, 0.5, 1.0])
def test_the_last_answer_ends_when_a_loop_says(sigma: float) -> None:
    own = learning(response__sigma=sigma)
    (made,) = rollouts(own, [0])
    expected = token_by_token(made.tokens.tolist(), own.answers.prompt, deployed(own.serve, own.serve.pools[0]))
    assert made.seconds * NS_PER_S == pytest.approx(expected, abs=1)
    assert made.seconds == made.ends_s[made.tokens.argmax()]


def test_instances_share_answers_and_wait_for_the_last() -> None:
    (made,) = rollouts(learning(rollout__tensor=4), [0])
    assert len(made.instances_s) == 2
    assert made.instances_s.max() == made.seconds and made.tail_s == pytest.approx(np.ptp(made.instances_s) / 2)
    (alone,) = rollouts(learning(rollout__tensor=8), [0])
    assert alone.tail_s == 0


def test_steps_are_drawn_anew_and_the_same_each_time() -> None:
    own = learning()
    one, two = rollouts(own, [0, 1])
    assert (one.tokens != two.tokens).any() and (one.tokens <= own.answers.most).all()
    again, _ = rollouts(learning(kl=0.1), [0, 1])
    assert (again.tokens == one.tokens).all() and again.seconds == one.seconds


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_longest_answer_equals_brute_force(count: int) -> None:
    """Every combination of equally likely lengths."""
    own = Answers(1, count, 1, Lengths("uniform", low=1, high=6), 5)
    every = [max(min(each, 5) for each in drawn) for drawn in product(range(1, 7), repeat=count)]
    assert lengths.longest(own) == pytest.approx(sum(every) / len(every), rel=0.01)


def test_rewards_queue_for_workers() -> None:
    (made,) = rollouts(learning(), [0])
    made = replace(made, ends_s=np.array([1.0, 1.0, 1.0, 5.0]))
    assert made.judged_s(Reward(0.0, 1)) == 5.0
    assert made.judged_s(Reward(1.0, 1)) == 6.0  # 2, 3, 4, then 6
    assert made.judged_s(Reward(3.0, 1)) == 13.0  # one after another from 1 on
    assert made.judged_s(Reward(3.0, 2)) == 8.0  # 4 and 4, then 7; the last comes at 5, to the other worker


def test_steps_that_flow_have_no_tail_and_take_no_longer() -> None:
    turns = rollouts(learning(rollout__nodes=1, stale=1), range(4))
    flowing = rollouts(learning(rollout__nodes=1, stale=2), range(4))
    assert sum(each.seconds for each in flowing) <= sum(each.seconds for each in turns)
    assert all(each.tail_s == pytest.approx(0) for each in flowing)


def test_ray_takes_its_time_of_each_step() -> None:
    """0.2 ms, 0.03 of a rank and 0.6 of a further node, on top of the host's; one rank needs nobody."""
    plain, ray = (learning(rollout__host="5 ms", rollout__executor=how) for how in ("processes", "ray"))
    assert plain.serve.pools[0].host == 5_000_000 and ray.serve.pools[0].host == 5_440_000
    assert hosts.ray_s(32, 8) == pytest.approx(2.96e-3) and hosts.ray_s(1, 8) == 0.0
    assert hosts.ray_s(32, 72) == pytest.approx(0.2e-3 + 32 * 0.03e-3 + 7 * 0.6e-3)  # eight trays of a rack
    alone = learning(rollout__tensor=1, rollout__executor="ray")
    assert alone.serve.pools[0].host == 0
    assert "rl.rollout.executor changes nothing: a rank schedules for itself" in alone.unfelt


def test_experts_that_are_liked_unalike_are_so_for_answers_and_for_updates() -> None:
    """Fewer of them are read by a step of few answers; the rank that has them works longer in an update."""
    liked = [[60] * 8 + [1] * 56] * 26
    plain = learning()
    uneven = resolved(merged(Document(PLAN), Document({"routing": {"kind": "recorded", "histogram": liked}})), (), None)
    assert uneven.serve.routing.histogram and plain.serve.routing.kind == "balanced"
    fast, slow = (rollouts(each, [0])[0].seconds for each in (uneven, plain))
    assert fast < 0.9 * slow
    batch = update.batches(plain, np.full(32, 200))[0]
    assert update.step(uneven, batch).seconds > 1.2 * update.step(plain, batch).seconds
