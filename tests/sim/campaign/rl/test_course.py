"""Who works when, against closed forms and a recursion of its own."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reports import rl
from sim.campaign.rl import course
from sim.campaign.rl.course import Apart, Period, Work, ends, in_turn, waits
from sim.experiments import learnings

STEP = Work(10.0, 11.0, 0.5, 1.0, 1.0, 0.5, 0.5, 4.0, 2.0, 0.75, 3.0, 0.25, 0.5, 1.25)
seconds = st.integers(1, 20).map(float)
works = st.builds(
    lambda rollout, extra, update, sync: Work(rollout, rollout + extra, 0, 0, 0, 0, 0, update, 0, 0, sync),
    seconds, st.integers(0, 5).map(float), seconds, st.integers(0, 5).map(float),
)  # fmt: skip


def test_in_turn_a_step_is_the_sum_of_its_parts() -> None:
    periods = in_turn([STEP] * 3)
    step = 11 + 0.75 + 0.5 + 0.25 + 1 + 0.5 + 1 + 0.5 + 0.5 + 1.25 + 4 + 2 + 0.75 + 3
    assert ends(periods, 3) == pytest.approx([step, 2 * step, 3 * step]) and step == 27
    assert waits(periods, course.BOTH, 0, 81) == []


def test_whatever_gpus_do_has_a_colour_on_the_page_and_a_group_in_a_comparison() -> None:
    words = {each.what for each in in_turn([STEP])}
    assert len(words) == 13 and words <= rl.COLOURS.keys() and words <= learnings.GROUPS.keys()


@pytest.mark.parametrize("in_flight", [True, False])
def test_apart_on_policy_all_goes_in_turn_too(in_flight: bool) -> None:
    """Without optimizer states to move: what rollouts wait for is the update, and the other way round."""
    over = ends(Apart([STEP] * 3, 0, in_flight).run(), 3)
    assert over == pytest.approx([23.0, 46.0, 69.0])  # 11 + 7 + 2 + 3


@pytest.mark.parametrize(("rollout", "update"), [(30.0, 5.0), (5.0, 30.0), (10.0, 10.0)])
@pytest.mark.parametrize("in_flight", [True, False])
def test_one_step_off_takes_the_slower_side_and_the_weights(rollout: float, update: float, in_flight: bool) -> None:
    work = Work(rollout, rollout, 0, 0, 0, 0, 0, update, 0, 0, 2.0)
    over = ends(Apart([work] * 8, 1, in_flight).run(), 8)
    assert over[-2] - over[-3] == pytest.approx(max(rollout, update) + 2.0)


def recursion(steps: list[Work], stale: int) -> list[float]:
    """Ends of steps whose answers go on with new weights, step by step."""
    begun, ready, trained, synced = 0.0, list[float](), 0.0, list[tuple[float, float]]()
    weights = [0.0]
    for k, work in enumerate(steps):
        start = max(begun, weights[max(0, k - stale)])
        left, now = work.rollout, start
        for at, until in synced:
            if at <= now < until:
                now = until
            elif now < at < now + left:
                left -= at - now
                now = until
        begun = now + left
        ready.append(begun + work.judged - work.rollout)
        trained = max(ready[-1], synced[-1][1] if synced else 0.0) + work.update
        synced.append((trained, trained + work.sync))
        weights.append(trained + work.sync)
    return weights[1:]


@settings(max_examples=200, deadline=None)
@given(st.lists(works, min_size=1, max_size=6), st.integers(0, 3))
def test_events_are_what_a_recursion_says(steps: list[Work], stale: int) -> None:
    periods = Apart(steps, stale, True).run()
    over = [max(each.end_s for each in periods if each.what == course.UPDATE and each.step == k) + work.sync
            for k, work in enumerate(steps)]  # fmt: skip
    assert over == pytest.approx(recursion(steps, stale))


@settings(max_examples=200, deadline=None)
@given(st.lists(works, min_size=1, max_size=6), st.integers(0, 3), st.booleans())
def test_nobody_does_two_things_at_once_and_all_is_done(steps: list[Work], stale: int, in_flight: bool) -> None:
    periods = Apart(steps, stale, in_flight).run()
    for lane in (course.ROLLOUTS, course.TRAINING):
        own = sorted((each for each in periods if each.lane == lane), key=lambda each: (each.start_s, each.end_s))
        for one, other in pairwise(own):
            assert one.end_s <= other.start_s + 1e-9
        last = own[-1].end_s
        gaps = sum(each.end_s - each.start_s for each in waits(periods, lane, 0, last))
        assert gaps + sum(each.end_s - each.start_s for each in own) == pytest.approx(last)
    for k, work in enumerate(steps):
        answered = [each for each in periods if each.what == course.ROLLOUT and each.step == k]
        assert sum(each.end_s - each.start_s for each in answered) == pytest.approx(work.rollout)
        assert in_flight or len(answered) == 1


def test_gaps_of_a_lane() -> None:
    periods = [Period("a", "x", 0, 1.0, 2.0), Period("b", "x", 0, 0.0, 9.0), Period("a", "x", 1, 3.0, 4.0)]
    assert [(each.start_s, each.end_s) for each in waits(periods, "a", 0.0, 5.0)] == [(0, 1), (2, 3), (4, 5)]
