"""Steps of reinforcement learning simulated, and what they say: the content of result.json."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sim.campaign.rl import course, lengths, update, weights
from sim.campaign.rl.course import Period, Work
from sim.campaign.rl.rollouts import Rollouts, rollouts
from sim.campaign.rl.update import Batch, Step
from sim.campaign.rl.values import DEVICE, Learning
from sim.campaign.rl.weights import Moved
from sim.result import SCHEMA_VERSION
from sim.serving.deployment import deployed

MOST = 64
"""Steps that are reported, at most (sim.campaign.rl.form)."""
QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}


@dataclass(frozen=True)
class Answer:
    """summary: the content of result.json. scenario: the document as plain values."""

    summary: dict[str, Any]
    scenario: dict[str, Any]


@dataclass(frozen=True)
class Done:
    """A step before it is put in time. updates: batches with the step simulator's answer."""

    rollouts: Rollouts
    updates: tuple[tuple[Batch, Step], ...]
    work: Work


def run(learning: Learning) -> Answer:
    """Simulate steps. Raises Refused where one cannot be."""
    moves = weights.moved(learning)
    before = learning.stale + 1 if learning.apart else 0
    steps = [_step(learning, moves, made) for made in rollouts(learning, _numbers(learning.steps, before))]
    works = [each.work for each in steps]
    periods = (
        course.Apart(works, learning.stale, learning.sync.in_flight).run() if learning.apart else course.in_turn(works)
    )
    infeasible = list(dict.fromkeys(line for each in steps for _, own in each.updates for line in own.infeasible))
    infeasible += _reference_fits(learning, steps)
    summary = {
        "schema_version": SCHEMA_VERSION, "scenario": learning.name, "scenario_hash": learning.scenario_hash,
        "overrides": list(learning.overrides), "gpus": learning.gpus, "feasible": not infeasible,
        "infeasible": infeasible, "unfelt": list(learning.unfelt),
        "rl": _figures(learning, steps[: before + learning.steps], periods, before, moves),
    }  # fmt: skip
    return Answer(summary, learning.resolved)


def _numbers(steps: int, before: int) -> list[int]:
    """Of the steps that run: those that are reported are the same whatever runs before and after them."""
    return [*range(MOST, MOST + before), *range(steps), *range(MOST + before, MOST + 2 * before)]


def _step(learning: Learning, moves: Moved, made: Rollouts) -> Done:
    updates = tuple((batch, update.step(learning, batch)) for batch in update.batches(learning, made.tokens))
    forward = sum(update.log_probs_s(learning, batch) for batch, _ in updates)
    sent, sent_update = update.sent_s(learning, made.tokens)
    work = Work(
        made.seconds, made.judged_s(learning.reward), learning.controller_s, forward if learning.old else 0.0,
        forward if learning.kl else 0.0, moves.reference_s, moves.back_s, sum(own.seconds for _, own in updates),
        moves.away_s, moves.places_s, moves.sync_s, sent if learning.old else 0.0, sent if learning.kl else 0.0,
        sent_update,
    )  # fmt: skip
    return Done(made, updates, work)


def _reference_bytes(learning: Learning) -> float:
    """On a GPU, beside all that an update needs."""
    return update.held(learning.scenario)[0] if learning.kl and learning.reference == DEVICE else 0.0


def _reference_fits(learning: Learning, steps: Sequence[Done]) -> list[str]:
    """Whether the reference has room beside an update that fits by itself."""
    worst = max((own for each in steps for _, own in each.updates), key=lambda own: own.peak_bytes)
    need = worst.peak_bytes + _reference_bytes(learning)
    if worst.peak_bytes > worst.capacity_bytes or need <= worst.capacity_bytes:
        return []
    from hwmodels.units import format_quantity

    shown = [format_quantity(each, "data") for each in (need, worst.capacity_bytes)]
    return [f"update and reference need {shown[0]} of {shown[1]}; write rl.reference: host"]


def _figures(
    learning: Learning, steps: Sequence[Done], periods: Sequence[Period], before: int, moves: Moved
) -> dict[str, Any]:
    """Of the steps that are reported: those before them, and after them, fill what runs beside. steps: all but those
    after them."""
    own, over = steps[before:], course.ends(periods, len(steps))
    start = over[before - 1] if before else 0.0
    window = over[-1] - start
    step_s = window / len(own)
    tokens = float(np.mean([each.rollouts.tokens.sum() for each in own]))
    prompts = learning.answers.count * learning.answers.prompt
    said = learning.published
    return {
        "step_s": step_s, "steps_s": np.diff([start, *over[before:]]).tolist(),
        "steps": len(own), "gpus": {"training": learning.cluster.gpus, "rollouts": learning.serve.gpus},
        "apart": learning.apart, "stale": learning.stale, "answers": learning.answers.count,
        "tokens": {
            "prompts": prompts, "answers": tokens, "per_s_gpu": (prompts + tokens) / step_s / learning.gpus,
        },
        "parts_s": _parts(own), "lanes_s": _lanes(learning, periods, start, over[-1], own),
        "lengths": _lengths(learning, own), "update": _update(own),
        "memory": _memory(learning, own), "weights": {"bytes": weights.size(learning).total, "sync_s": moves.sync_s},
        "preemptions": sum(each.rollouts.again for each in own),
        "published": vars(said) | {"error": step_s / said.step_s - 1} if said else None,
        "timeline": [
            each._asdict() | {"start_s": each.start_s - start, "end_s": each.end_s - start}
            for each in periods if each.end_s > start and each.start_s < over[-1]
        ],
    }  # fmt: skip


def _parts(own: Sequence[Done]) -> dict[str, float]:
    """Mean seconds of each part, whoever has it; reward is what comes behind the last answer."""
    mean = Work(*np.mean([each.work for each in own], axis=0).tolist())
    tail = float(np.mean([each.rollouts.tail_s for each in own]))
    return {
        "rollout": mean.rollout, "tail": tail, "reward": mean.judged - mean.rollout,
        "controller": mean.controller,
        "sent_log_probs": mean.sent_old + mean.sent_reference, "sent_update": mean.sent_update,
        "old_log_probs": mean.old, "reference_log_probs": mean.reference, "change": mean.change, "update": mean.update,
        "away": mean.away, "back": mean.back, "places": 2 * mean.places, "sync": mean.sync,
    }  # fmt: skip


def _lanes(
    learning: Learning, periods: Sequence[Period], start: float, end: float, own: Sequence[Done]
) -> dict[str, dict[str, float]]:
    """Of each kind of GPUs, seconds of a step by what they do; they add up to it. An instance that has answered all
    that it was asked waits for the last answer of the step: the tail, on average over instances."""
    tail = float(np.mean([each.rollouts.tail_s for each in own]))
    answer = {}
    for lane in (course.ROLLOUTS, course.TRAINING) if learning.apart else (course.BOTH,):
        seconds: dict[str, float] = {}
        for each in (*(p for p in periods if p.lane == lane), *course.waits(periods, lane, start, end)):
            inside = min(end, each.end_s) - max(start, each.start_s)
            if inside > 0:
                seconds[each.what] = seconds.get(each.what, 0.0) + inside / len(own)
        if course.ROLLOUT in seconds:
            seconds = {course.ROLLOUT: seconds.pop(course.ROLLOUT) - tail, course.TAIL: tail} | seconds
        answer[lane] = seconds
    return answer


def _lengths(learning: Learning, own: Sequence[Done]) -> dict[str, float]:
    """Of answers: their distribution, the longest of a step, and how many were cut off."""
    each = np.concatenate([step.rollouts.tokens for step in own])
    at = np.quantile(each, list(QUANTILES.values()))
    return {
        "mean": float(each.mean()), **dict(zip(QUANTILES, map(float, at), strict=True)),
        "longest": float(np.mean([step.rollouts.tokens.max() for step in own])),
        "longest_expected": lengths.longest(learning.answers),
        "cut_off": float((each >= learning.answers.most).mean()),
    }  # fmt: skip


def _update(own: Sequence[Done]) -> dict[str, float]:
    """Of updates on average."""
    each = [pair for step in own for pair in step.updates]
    return {
        "sequences": float(np.mean([batch.sequences for batch, _ in each])),
        "sequence_length": float(np.mean([batch.length for batch, _ in each])),
        "micro_batches": float(np.mean([step.micro_batches for _, step in each])),
        "padding": float(np.mean([batch.padding for batch, _ in each])),
        "step_s": float(np.mean([step.seconds for _, step in each])),
        "bubble": float(np.mean([step.bubble for _, step in each])),
    }


def _memory(learning: Learning, own: Sequence[Done]) -> dict[str, float]:
    """Bytes on a GPU. critic: GRPO has none. reference: beside an update's peak."""
    worst = max((step for each in own for _, step in each.updates), key=lambda step: step.peak_bytes)
    made = deployed(learning.serve, learning.serve.pools[0])
    return {
        "update_peak": worst.peak_bytes, "capacity": worst.capacity_bytes, "reference": _reference_bytes(learning),
        "critic": 0.0, "rollout_weights": made.weight_bytes, "rollout_cache": made.tokens * made.token_bytes,
    }  # fmt: skip
