"""The campaign without failures, as one axis of seconds: where it stands, what it can go back to, and from when on.

Work is steps; after some of them come pauses for evaluation, and a checkpoint with its stall. Where the layout changes
between phases, the job waits until all is stored and starts anew. A failure moves the run back on this axis, so all
that happens between failures is a subtraction.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import inf

import numpy as np
import numpy.typing as npt

from hwmodels.refused import Refused
from sim.campaign.blocks import Block
from sim.campaign.saving import Saved
from sim.campaign.values import MEMORY, Campaign

Floats = npt.NDArray[np.float64]
MOST = 1 << 20
"""Checkpoints that a campaign may have."""


@dataclass(frozen=True)
class Shelf:
    """Checkpoints of one kind in order, the run's beginning first. position: on the axis, of the run once it is loaded.
    ready: position from which on it can be loaded. load_s: what that takes."""

    position: Floats
    ready: Floats
    load_s: Floats

    def last(self, reached: Floats) -> Floats:
        """Positions of the last that can be loaded when the run has `reached` a position."""
        return self.position[np.searchsorted(self.ready, reached, side="right") - 1]

    def before(self, place: Floats) -> Floats:
        """Positions of the last that was begun at or before a place."""
        return self.position[np.searchsorted(self.position, place, side="right") - 1]

    def loading(self, position: Floats) -> Floats:
        """Seconds to load what stands at a position, or last before it."""
        return self.load_s[np.searchsorted(self.position, position, side="right") - 1]


@dataclass(frozen=True)
class Calendar:
    """total: seconds of the axis: work, pauses, stalls (of checkpoints) and changes (of layouts) together. first: where
    checkpoints can be loaded soonest; stored: those on storage, of all kinds but memory the same. stall_s: of a
    checkpoint, by the position at which its segment ends. checkpoints: how many."""

    total: float
    work: float
    pauses: float
    stalls: float
    changes: float
    first: Shelf
    stored: Shelf
    checkpoints: int


@dataclass(frozen=True)
class _Segment:
    """What ends with a checkpoint."""

    phase: int
    work: float
    steps: int


def calendar(campaign: Campaign, blocks: Sequence[Block], seconds: Sequence[float], saved: Sequence[Saved]) -> Calendar:
    """The axis. seconds: of a step of each block. saved: what a checkpoint takes, by phase."""
    segments = list(_segments(blocks, seconds, saved))
    position, work, pauses, stalls, changes, done = 0.0, 0.0, 0.0, 0.0, 0.0, 0
    shelf, stored, since = [(0.0, 0.0, saved[0].load_s)], [(0.0, 0.0, saved[0].reload_s)], inf
    for segment, after in zip(segments, [*segments[1:], None], strict=True):
        own = saved[segment.phase]
        pause = _pauses(campaign, done, done + segment.steps)
        last, done = after is None, done + segment.steps
        changed = not last and _changes(campaign, segment.phase, after.phase)  # type: ignore[union-attr]
        wait = own.stored_lag_s if last or changed else 0.0  # all is stored before the job ends or changes
        change = _start_s(campaign) + saved[after.phase].reload_s if changed else 0.0  # type: ignore[union-attr]
        through = position + segment.work + pause + own.stall_s
        work, pauses, stalls, changes = (
            work + segment.work, pauses + pause, stalls + own.stall_s + (wait if last else 0.0),
            changes + change + (0.0 if last else wait),
        )  # fmt: skip
        position = through + wait + change
        load = saved[after.phase if after else segment.phase]
        shelf.append((position, through + own.lag_s if not wait else through + wait, load.load_s))
        since += segment.work
        if campaign.checkpoint.stored_every_s <= since + segment.work / 2 or wait:
            stored.append((position, through + (wait or own.stored_lag_s), load.reload_s))
            since = 0.0
    first = _shelf(shelf)
    slow = _shelf(stored) if campaign.checkpoint.kind == MEMORY else first
    return Calendar(position, work, pauses, stalls, changes, first, slow, len(segments))


def _shelf(rows: Sequence[tuple[float, float, float]]) -> Shelf:
    position, ready, load = np.array(rows).T
    return Shelf(position.copy(), np.maximum.accumulate(ready), load.copy())


def _segments(blocks: Sequence[Block], seconds: Sequence[float], saved: Sequence[Saved]) -> Iterator[_Segment]:
    """Steps between checkpoints: as near to the interval as whole steps are, and to the end of each phase."""
    count, work, steps = 0, 0.0, 0
    for number, (block, each) in enumerate(zip(blocks, seconds, strict=True)):
        left, every = block.steps, saved[block.phase].every_s
        while left:
            room = left if every == inf else min(left, max(1, round((every - work) / each)))
            left, work, steps = left - room, work + room * each, steps + room
            ends = not left and (number + 1 == len(blocks) or blocks[number + 1].phase != block.phase)
            if ends or work + each / 2 > every:
                yield _Segment(block.phase, work, steps)
                count, work, steps = count + 1, 0.0, 0
                if count > MOST:
                    raise Refused(f"more than {MOST} checkpoints; write a longer campaign.checkpoint.every")


def _pauses(campaign: Campaign, first: int, last: int) -> float:
    """Seconds of the evaluations behind steps first + 1 to last."""
    own = campaign.evaluation
    return own.takes_s * (last // own.every - first // own.every) if own else 0.0


def _changes(campaign: Campaign, phase: int, after: int) -> bool:
    """Whether the job starts anew between two phases: where anything but the batch differs."""
    if phase == after:
        return False
    alike = ("parallel", "schedule", "stack", "precision", "recompute", "optimizer", "states", "placement")
    here, there = (campaign.phases[each] for each in (phase, after))
    same = all(getattr(here.scenario, key) == getattr(there.scenario, key) for key in alike)
    return not (same and here.length == there.length)


def _start_s(campaign: Campaign) -> float:
    """Seconds of a start without loading."""
    own = campaign.restart
    return own.launch_s + own.connect_s + own.warm_up_s
