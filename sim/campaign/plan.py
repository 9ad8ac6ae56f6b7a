"""A campaign before chance comes in: its steps priced, its checkpoints sized, its calendar laid out."""

from collections.abc import Sequence
from dataclasses import dataclass

from hwmodels.refused import Refused
from hwmodels.units import SECONDS_PER_DAY, SECONDS_PER_HOUR, format_quantity
from sim.campaign import blocks, calendar, prices, saving
from sim.campaign.blocks import Block
from sim.campaign.calendar import Calendar
from sim.campaign.prices import Table
from sim.campaign.saving import Saved
from sim.campaign.values import BLOCKING, Campaign


@dataclass(frozen=True)
class Plan:
    """What a campaign is before chance comes in. tables, saved: by phase. seconds: of a step of each block."""

    blocks: tuple[Block, ...]
    tables: tuple[Table, ...]
    seconds: tuple[float, ...]
    saved: tuple[Saved, ...]
    calendar: Calendar

    def work(self, phase: int) -> float:
        """Seconds of a phase's steps."""
        rows = zip(self.blocks, self.seconds, strict=True)
        return sum(block.steps * each for block, each in rows if block.phase == phase)

    @property
    def longest(self) -> int:
        """The phase whose steps take most of the time."""
        return max(range(len(self.tables)), key=self.work)


def plan(campaign: Campaign) -> Plan:
    """Price the steps of a campaign and lay out its calendar. Raises Refused where that cannot be."""
    of_phase = [list(blocks.blocks(number, phase)) for number, phase in enumerate(campaign.phases)]
    tables = [
        prices.table(phase, sorted({block.sequences for block in own}))
        for phase, own in zip(campaign.phases, of_phase, strict=True)
    ]
    saved = list[Saved]()
    for phase in campaign.phases:
        assert phase.scenario.cluster is not None
        states, step = prices.states(phase.scenario), prices.step(phase, phase.first)
        saved.append(saving.saved(campaign, phase.scenario.cluster, states, step))
    _possible(campaign, saved)
    every = tuple(block for own in of_phase for block in own)
    seconds = tuple(tables[block.phase].seconds(block.sequences) for block in every)
    return Plan(every, tuple(tables), seconds, tuple(saved), calendar.calendar(campaign, every, seconds, saved))


def _possible(campaign: Campaign, saved: Sequence[Saved]) -> None:
    """Raise Refused for a plan that cannot be."""
    mean = saving.interrupted_s(campaign.failures, campaign.nodes)
    for phase, own in zip(campaign.phases, saved, strict=True):
        takes = own.stall_s + own.lag_s
        if takes >= mean:
            raise Refused(
                f"phase {phase.name!r}: a checkpoint takes {time(takes)} and something fails every {time(mean)}, so"
                " hardly one is ever through: look for more bandwidth (campaign.checkpoint.storage) or fewer failures"
            )
        if campaign.checkpoint.kind != BLOCKING and own.every_s < own.lag_s:
            raise Refused(
                f"campaign.checkpoint.every: {time(own.every_s)} is less than the {time(own.lag_s)} that a checkpoint"
                f" of phase {phase.name!r} is under way; legal: at least that"
            )


def time(seconds: float) -> str:
    """A time as a message has it: of hours and days by them."""
    if seconds >= SECONDS_PER_DAY:
        return f"{seconds / SECONDS_PER_DAY:.1f} days"
    if seconds >= SECONDS_PER_HOUR:
        return f"{seconds / SECONDS_PER_HOUR:.1f} h"
    return format_quantity(seconds, "time")
