"""What a campaign says: the content of result.json."""

from collections.abc import Iterator, Mapping, Sequence
from math import hypot, inf
from typing import Any

import numpy as np

from hwmodels.units import SECONDS_PER_DAY
from sim.campaign import money, saving, streams
from sim.campaign.calendar import Calendar
from sim.campaign.lanes import CAUSES, DOWN, Outcome
from sim.campaign.plan import Plan, time
from sim.campaign.values import Campaign, Published
from sim.result import SCHEMA_VERSION

BINS = 24
"""Of the histogram of seeds."""
PERCENTILES = (5, 25, 50, 75, 95)
EVENTS = {"nodes": streams.NODE, "switches": streams.SWITCH, "software": streams.SOFTWARE, "silent": streams.SILENT,
          "stragglers": streams.SLOW}  # fmt: skip


Reach = Sequence[tuple[float, float]]
"""Of each phase: ends of its steps' 90 % interval, as parts of them."""


def summary(campaign: Campaign, made: Plan, outcome: Outcome, slower: float, reach: Reach) -> dict[str, Any]:
    """See above. outcome: of the seeds. slower: times as long as a step takes while a node is slow."""
    infeasible = list(_infeasible(campaign, made, outcome))
    return {
        "schema_version": SCHEMA_VERSION, "scenario": campaign.name, "scenario_hash": campaign.scenario_hash,
        "overrides": list(campaign.overrides), "gpus": campaign.gpus, "feasible": not infeasible,
        "infeasible": infeasible, "unfelt": list(campaign.unfelt),
        "campaign": _figures(campaign, made, outcome, slower, reach),
    }  # fmt: skip


def _infeasible(campaign: Campaign, made: Plan, outcome: Outcome) -> Iterator[str]:
    for phase, table in zip(campaign.phases, made.tables, strict=True):
        lines = dict.fromkeys(line for step in table.points.values() for line in step.infeasible)
        yield from (f"phase {phase.name!r}: {line}" for line in lines)
    if campaign.deadline_s is not None and (late := float(np.percentile(outcome.wall, 95))) > campaign.deadline_s:
        yield f"misses its deadline of {time(campaign.deadline_s)}: one seed of twenty takes {time(late)} or more"


def _figures(campaign: Campaign, made: Plan, outcome: Outcome, slower: float, reach: Reach) -> dict[str, Any]:
    course, wall, own = made.calendar, outcome.wall, money.rates(campaign)
    down = np.sum([outcome.lost[cause] for cause in DOWN], axis=0)
    dollars = own.dollars(wall)
    return {
        "seeds": campaign.seeds, "nodes": campaign.nodes, "spares": campaign.spares,
        "steps": sum(block.steps for block in made.blocks), "tokens": sum(block.tokens for block in made.blocks),
        "phases": [_phase(campaign, made, number) for number in range(len(campaign.phases))],
        "ideal": {
            "days": course.work / SECONDS_PER_DAY, "gpu_hours": own.gpu_hours(course.work),
            "dollars": own.dollars(course.work),
        },
        "days": spread(wall / SECONDS_PER_DAY), "gpu_hours": spread(own.gpu_hours(wall)),
        "goodput": spread(course.work / wall), "dollars": None if dollars is None else spread(dollars),
        "energy_j": spread(own.joules(wall, down)),
        "intervals_90": _intervals(made, own, wall, down, reach),
        "hours_s": _hours(course, outcome),
        "interruptions": {name: spread(outcome.interruptions[kind]) for name, kind in EVENTS.items()}
        | {"all": spread(np.sum([outcome.interruptions[kind] for kind in EVENTS.values()], axis=0)),
           "mean_s": _finite(saving.interrupted_s(campaign.failures, campaign.nodes))},
        "checkpoint": _checkpoint(campaign, made),
        "published": [_compared(campaign, made, row) for row in campaign.published],
        "seeds_by_days": _histogram(wall / SECONDS_PER_DAY),
        "slower": slower, "power_w": {"busy": own.busy_w, "idle": own.idle_w},
    }  # fmt: skip


def _intervals(made: Plan, own: money.Rates, wall: Any, down: Any, reach: Reach) -> dict[str, list[float] | None]:
    """90 % intervals of chance and of what steps are uncertain by. All phases share the latter: their steps are long
    together. The two have nothing to do with each other, so their distances from the median add up as squares do. Time
    lost to failures stays."""
    median, chance = float(np.median(wall)), np.percentile(wall, (PERCENTILES[0], PERCENTILES[-1]))
    ends = list[float]()
    for end, of_chance in enumerate(chance):
        moved = sum(made.work(number) * (own_reach[end] - 1) for number, own_reach in enumerate(reach))
        ends.append(median + (-1, 1)[end] * hypot(float(of_chance) - median, moved))
    dollars = [paid for end in ends if (paid := own.dollars(end)) is not None]
    return {
        "days": [end / SECONDS_PER_DAY for end in ends], "gpu_hours": [own.gpu_hours(end) for end in ends],
        "dollars": dollars or None,
        "energy_j": [own.joules(end, float(np.median(down))) for end in ends],
    }  # fmt: skip


def spread(values: Any) -> dict[str, float]:
    """Mean and percentiles over seeds."""
    levels = np.percentile(values, PERCENTILES)
    return {"mean": float(np.mean(values))} | {f"p{p}": float(v) for p, v in zip(PERCENTILES, levels, strict=True)}


def _histogram(days_: Any) -> dict[str, Any]:
    """How many seeds end in which part of the range, in BINS."""
    counts, edges = np.histogram(days_, BINS)
    return {"first": float(edges[0]), "last": float(edges[-1]), "seeds": counts.tolist()}


def _compared(campaign: Campaign, made: Plan, row: Published) -> dict[str, Any]:
    """Published hours beside those of the same phases' steps."""
    numbers = [number for number, phase in enumerate(campaign.phases) if phase.name in row.phases]
    hours = money.rates(campaign).gpu_hours(sum(made.work(number) for number in numbers))
    return {
        "what": row.what, "published": row.gpu_hours, "simulated": hours, "error": hours / row.gpu_hours - 1,
        "source": row.source,
    }  # fmt: skip


def _phase(campaign: Campaign, made: Plan, number: int) -> dict[str, Any]:
    phase, table = campaign.phases[number], made.tables[number]
    own = [block for block in made.blocks if block.phase == number]
    seconds, steps = made.work(number), table.points
    worst = max(steps.values(), key=lambda step: step.peak_bytes)
    before = sum(made.work(each) for each in range(number))
    return {
        "name": phase.name, "begins_days": before / SECONDS_PER_DAY,
        "learning_rate": phase.learning_rate, "sequence_length": phase.length,
        "sequences": [own[0].sequences, own[-1].sequences], "steps": sum(block.steps for block in own),
        "tokens": sum(block.tokens for block in own), "work_s": seconds,
        "gpu_hours": money.rates(campaign).gpu_hours(seconds),
        "step_s": [table.seconds(block.sequences) for block in (own[0], own[-1])],
        "simulated": len(steps), "batches": len({block.sequences for block in own}),
        "peak_bytes": worst.peak_bytes, "capacity_bytes": worst.capacity_bytes, "layout": _layout(campaign, number),
    }  # fmt: skip


def _layout(campaign: Campaign, number: int) -> str:
    """The layout of a phase in a few words."""
    scenario = campaign.phases[number].scenario
    own, ways = scenario.parallel, [f"PP{scenario.parallel.pipeline}"]
    groups = (("TP", own.tensor), ("CP", own.context), ("EP", own.expert))
    ways += [f"{word}{size}" for word, size in groups if size > 1]
    again = "" if scenario.recompute.kind == "recipe" else f", recompute {scenario.recompute.kind}"
    return f"{' '.join(ways)}, {scenario.schedule.name}, {scenario.stack.name}, {scenario.precision}{again}"


def _hours(course: Calendar, outcome: Outcome) -> dict[str, float]:
    """Mean seconds by cause; they add up to the mean wall clock."""
    axis = {"work": course.work, "checkpoints": course.stalls, "evaluation": course.pauses, "changes": course.changes}
    return axis | {cause: float(outcome.lost[cause].mean()) for cause in CAUSES}


def _checkpoint(campaign: Campaign, made: Plan) -> dict[str, Any]:
    """What a checkpoint of the longest phase takes, beside Daly's figures."""
    longest = made.longest
    own = made.saved[longest]
    values: Mapping[str, Any] = vars(own)
    return {
        "kind": campaign.checkpoint.kind, "phase": campaign.phases[longest].name, "count": made.calendar.checkpoints,
        **{key: _finite(value) for key, value in values.items()},
    }  # fmt: skip


def _finite(value: float) -> float | None:
    return None if value == inf else value
