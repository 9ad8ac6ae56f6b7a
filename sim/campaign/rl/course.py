"""What happens when in steps of reinforcement learning: who works, and who waits for what.

Rollouts of step k may begin when the weights after update k - stale are there. On the same GPUs all goes in turn.
Apart, updates follow rollouts in order; after each update weights go to the rollouts, which both sides do together:
answers under way wait and go on (in flight), or all that are under way are finished first.
"""

from collections.abc import Sequence
from math import inf
from typing import NamedTuple

ROLLOUTS, TRAINING, BOTH = "rollouts", "training", "all"
"""Lanes: GPUs that answer, GPUs that train, GPUs that do both in turn."""
ROLLOUT, TAIL, REWARD, CONTROLLER = "rollout", "waiting for the last answer", "reward", "controller"
OLD, CHANGE, REFERENCE = (
    "old log-probabilities", "change to the reference and back", "reference log-probabilities",
)  # fmt: skip
RELOAD, UPDATE, OFFLOAD = "optimizer states back", "update", "optimizer states to the host"
TRAINER, ANSWERER = "trainer's weights come, rollouts' go", "rollouts' weights come, trainer's go"
SYNC, SEND, WAIT = "weights to rollouts", "batches to workers", "waiting"
"""What they do, or wait for."""


class Work(NamedTuple):
    """Seconds of a step. rollout: until its last answer; judged: until its last reward. places: of weights that change
    places, once; back, away: of optimizer states. sent_old, sent_reference, sent_update: until workers have what these
    passes are over."""

    rollout: float
    judged: float
    controller: float
    old: float
    reference: float
    change: float
    back: float
    update: float
    away: float
    places: float
    sync: float
    sent_old: float = 0.0
    sent_reference: float = 0.0
    sent_update: float = 0.0

    @property
    def judges(self) -> tuple[tuple[str, float], ...]:
        """What training GPUs do for a step before its updates, in order."""
        return (
            (CONTROLLER, self.controller), (SEND, self.sent_old), (OLD, self.old), (SEND, self.sent_reference),
            (CHANGE, self.change), (REFERENCE, self.reference),
        )  # fmt: skip

    @property
    def learns(self) -> tuple[tuple[str, float], ...]:
        """And for its updates."""
        return (SEND, self.sent_update), (UPDATE, self.update)


class Period(NamedTuple):
    """lane: whose. what: one of the words above. step: of which. start_s, end_s: from the first prompt on."""

    lane: str
    what: str
    step: int
    start_s: float
    end_s: float


def in_turn(steps: Sequence[Work]) -> list[Period]:
    """All on the same GPUs."""
    periods, now = list[Period](), 0.0
    for number, work in enumerate(steps):
        parts = (
            (ROLLOUT, work.rollout), (REWARD, work.judged - work.rollout), (TRAINER, work.places), *work.judges,
            (RELOAD, work.back), *work.learns, (OFFLOAD, work.away), (ANSWERER, work.places), (SYNC, work.sync),
        )  # fmt: skip
        for what, seconds in parts:
            if seconds > 0:
                periods.append(Period(BOTH, what, number, now, now + seconds))
                now += seconds
    return periods


class Apart:
    """Rollouts and updates on GPUs of their own, event by event. now: seconds. version: updates whose weights rollouts
    have. begun: rollouts that are begun; judged: moments at which those that are done have their rewards."""

    def __init__(self, steps: Sequence[Work], stale: int, in_flight: bool) -> None:
        self.steps, self.stale, self.in_flight = steps, stale, in_flight
        self.now, self.version, self.begun = 0.0, 0, 0
        self.answering, self.training, self.syncing = inf, inf, inf
        self.since, self.owed = 0.0, 0.0
        self.judged, self.trained, self.wanted = list[float](), 0, False
        self.periods = list[Period]()

    def run(self) -> list[Period]:
        """Until the weights after the last update are there."""
        while self.version < len(self.steps):
            self._begin()
            self.now = min(self.answering, self.training, self.syncing, self._next_reward())
            assert self.now < inf, "nothing can happen"
            self._end()
        return self.periods

    def _next_reward(self) -> float:
        """The reward that training waits for."""
        waits = self.training == inf and self.syncing == inf and not self.wanted and self.trained < len(self.judged)
        return self.judged[self.trained] if waits else inf

    def _begin(self) -> None:
        """Whatever can."""
        if self.wanted and self.syncing == inf and (self.in_flight or self.answering == inf):
            self.wanted, self.syncing = False, self.now + self.steps[self.trained - 1].sync
            if self.answering < inf:
                self.owed += self.answering - self.now
                self._answered(self.now)
        calm = self.syncing == inf and not self.wanted
        if self.answering == inf and calm:
            if self.owed:
                self.since, self.answering, self.owed = self.now, self.now + self.owed, 0.0
            elif self.begun < len(self.steps) and self.begun - self.version <= self.stale:
                self.since, self.answering = self.now, self.now + self.steps[self.begun].rollout
                self.begun += 1
        ready = self.trained < len(self.judged) and self.judged[self.trained] <= self.now
        if self.training == inf and calm and ready:
            self._train()

    def _answered(self, end: float) -> None:
        self.periods.append(Period(ROLLOUTS, ROLLOUT, self.begun - 1, self.since, end))
        self.answering = inf

    def _train(self) -> None:
        at = self.now
        for what, seconds in (*self.steps[self.trained].judges, *self.steps[self.trained].learns):
            if seconds > 0:
                self.periods.append(Period(TRAINING, what, self.trained, at, at + seconds))
            at += seconds
        self.training = at

    def _end(self) -> None:
        """Whatever ends now."""
        if self.answering <= self.now:
            self._answered(self.now)
            work = self.steps[self.begun - 1]
            self.judged.append(self.now + work.judged - work.rollout)
        if self.training <= self.now:
            self.training, self.wanted, self.trained = inf, True, self.trained + 1
        if self.syncing <= self.now:
            begun = self.now - self.steps[self.trained - 1].sync
            for lane in (ROLLOUTS, TRAINING):
                self.periods.append(Period(lane, SYNC, self.trained - 1, begun, self.now))
            self.syncing, self.version = inf, self.version + 1


def ends(periods: Sequence[Period], steps: int) -> list[float]:
    """When each of the first steps is over: its weights are where rollouts are made."""
    over = [0.0] * steps
    for each in periods:
        if each.step < steps:
            over[each.step] = max(over[each.step], each.end_s)
    return over


def waits(periods: Sequence[Period], lane: str, start: float, end: float) -> list[Period]:
    """Gaps of a lane between two moments."""
    gaps, now = list[Period](), start
    for each in sorted((p for p in periods if p.lane == lane), key=lambda p: p.start_s):
        if each.end_s > start and each.start_s < end:
            if each.start_s > now:
                gaps.append(Period(lane, WAIT, each.step, now, each.start_s))
            now = max(now, each.end_s)
    return [*gaps, Period(lane, WAIT, 0, now, end)] if now < end else gaps
