"""A campaign simulated: its plan, its seeds, and what they say."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hwmodels.refused import Refused
from sim.campaign import daly, lanes, prices, saving, streams
from sim.campaign.calendar import Calendar
from sim.campaign.lanes import CAUSES, Outcome
from sim.campaign.plan import Plan, plan, time
from sim.campaign.summary import summary
from sim.campaign.values import Campaign

CELLS = 16_000_000
"""Nodes times seeds that are in memory at a time."""
MARGIN = 1.2
"""How much longer than Daly's expectation failures are drawn for at first; seeds that need more are run again."""


@dataclass(frozen=True)
class Answer:
    """summary: the content of result.json. scenario: the campaign's document as plain values. wall_s: seconds of each
    seed."""

    summary: dict[str, Any]
    scenario: dict[str, Any]
    wall_s: lanes.Floats


def run(campaign: Campaign) -> Answer:
    """Simulate a campaign. Raises Refused where a step or the plan cannot be."""
    made = plan(campaign)
    stragglers = campaign.failures.stragglers
    slower = prices.slower(campaign.phases[made.longest], stragglers.slower) if stragglers else 1.0
    outcome = seeds(campaign, made.calendar, slower, max(own.snapshot_s + own.write_s for own in made.saved),
                    _expected(campaign, made))  # fmt: skip
    reach = [prices.reach(phase) for phase in campaign.phases]
    return Answer(summary(campaign, made, outcome, slower, reach), campaign.resolved, outcome.wall)


def _expected(campaign: Campaign, made: Plan) -> float:
    """Daly's expectation of the whole campaign, of its longest phase's checkpoints."""
    mean, own = saving.interrupted_s(campaign.failures, campaign.nodes), max(made.saved, key=lambda each: each.stall_s)
    chain = campaign.restart
    restart = chain.detect_s + chain.hangs * chain.timeout_s + chain.replace_s + chain.launch_s + chain.connect_s
    restart += chain.warm_up_s + own.load_s + own.lag_s
    every = min(own.every_s, made.calendar.work)
    return max(made.calendar.total, daly.wall(made.calendar.work, every, own.stall_s, restart, mean))


def seeds(campaign: Campaign, course: Calendar, slower: float, stall_s: float, expected_s: float) -> Outcome:
    """What becomes of all seeds, some at a time. Raises Refused where one does not come to an end."""
    if expected_s > lanes.GIVE_UP * course.total:
        mean = saving.interrupted_s(campaign.failures, campaign.nodes)
        raise Refused(
            f"a run of {time(course.total)} without failures would take more than {lanes.GIVE_UP} times as long:"
            f" something fails every {time(mean)}"
        )
    together = max(1, CELLS // (campaign.nodes + campaign.spares))
    last = campaign.seed + campaign.seeds
    starts = range(campaign.seed, last, together)
    parts = [
        _followed(campaign, course, slower, stall_s, range(at, min(at + together, last)), MARGIN * expected_s)
        for at in starts
    ]
    if any(np.isinf(part.wall).any() for part in parts):
        raise Refused(f"a seed of chance is not through after {lanes.GIVE_UP} times {time(course.total)}")
    return Outcome(
        np.concatenate([part.wall for part in parts]),
        {cause: np.concatenate([part.lost[cause] for part in parts]) for cause in CAUSES},
        {kind: np.concatenate([part.interruptions[kind] for part in parts]) for kind in parts[0].interruptions},
    )


def _followed(
    campaign: Campaign, course: Calendar, slower: float, stall_s: float, of: Sequence[int], horizon_s: float
) -> Outcome:
    """Seeds with failures drawn as far as they need; those drawn first stay as they are. Seeds that come to an end
    before the horizon need no later ones."""
    outcome = lanes.run(campaign, course, slower, stall_s, streams.events(campaign, of, horizon_s))
    over = np.flatnonzero(np.isfinite(outcome.wall) & (outcome.wall > horizon_s))
    if not len(over) or horizon_s > lanes.GIVE_UP * course.total:
        return outcome
    again = _followed(campaign, course, slower, stall_s, [of[int(at)] for at in over], 1.5 * horizon_s)
    for old, new in (
        (outcome.wall, again.wall), *((outcome.lost[cause], again.lost[cause]) for cause in CAUSES),
        *((outcome.interruptions[kind], again.interruptions[kind]) for kind in again.interruptions),
    ):  # fmt: skip
        old[over] = new
    return outcome
