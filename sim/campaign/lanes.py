"""Many seeds of a campaign side by side: each is at a place of the calendar's axis, and only events move it otherwise
than in a straight line. One event of every seed is handled at a time, as arrays over seeds [lane].

A failure: the run is down from then on. It is detected, waits for a node that stands in (a spare, or its own repair),
launches, connects and loads the last checkpoint that is whole; then it goes on from there. A failure meanwhile begins
that chain anew. Nodes that were replaced become spares when they are repaired. Where a node stays slow, all of the axis
takes so many times as long, until it is found and replaced, for which the job is saved and restarted.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sim.campaign import streams
from sim.campaign.calendar import Calendar
from sim.campaign.values import MEMORY, Campaign

Floats = npt.NDArray[np.float64]
Lane = npt.NDArray[np.int64]

CAUSES = ("recomputed", "detection", "replacement", "restart", "slow")
"""Seconds that a lane has beyond the axis."""
DOWN = CAUSES[1:4]
"""Those in which the job does not run."""
GIVE_UP = 20
"""A seed that takes longer than so many times the axis is not followed further."""


@dataclass(frozen=True)
class Outcome:
    """wall: seconds of each seed, infinite where it was given up. lost: by CAUSES. interruptions: by kind of event."""

    wall: Floats
    lost: Mapping[str, Floats]
    interruptions: Mapping[int, Floats]


def run(campaign: Campaign, calendar: Calendar, slower: float, stall_s: float, events: streams.Events) -> Outcome:
    """What becomes of each seed. slower: of steps while a node is slow. stall_s: of a checkpoint before a planned
    restart. A lane that its events do not bring to an end ends as if none came later: see `horizon`."""
    lanes = _Lanes(campaign, calendar, slower, stall_s, len(events.time))
    for at in range(events.time.shape[1]):
        if not lanes.until(events.time[:, at]):
            break
        for kind in np.unique(events.kind[:, at]):
            lanes.meet(int(kind), events, at)
    lanes.until(np.full(len(events.time), np.inf))
    return Outcome(lanes.end, dict(zip(CAUSES, lanes.lost, strict=True)), lanes.met)


class _Lanes:
    """State of all seeds. place: of each node [lane, node]: below `nodes` its place in the job, above that its place
    among the spares. since: when a lane goes on from `at` on the axis; before that it is down. chain: seconds of what
    it is down for [detection, replacement, restart][lane]. held: when all that stand in for broken nodes are there;
    replaced: until when a job that is down lacks some. kept, stored: positions of checkpoints that are whole. tainted:
    position of a silent error that the run still carries, and seen when it is found."""

    def __init__(self, campaign: Campaign, calendar: Calendar, slower: float, stall_s: float, count: int) -> None:
        self.campaign, self.calendar, self.slower, self.stall_s = campaign, calendar, slower, stall_s
        self.nodes, spares = campaign.nodes, campaign.spares
        self.everyone = np.arange(count)
        few = np.min_scalar_type(self.nodes + spares)
        self.place = np.tile(np.arange(self.nodes + spares, dtype=few), (count, 1))
        self.spare = np.tile(np.arange(self.nodes, self.nodes + spares), (count, 1))
        self.ready, self.turn = np.zeros((count, spares)), np.zeros(count, np.int64)
        self.slow = np.zeros((count, self.nodes + spares), np.bool_) if campaign.failures.stragglers else None
        self.since, self.at, self.kept, self.stored = (np.zeros(count) for _ in range(4))
        self.held, self.replaced = np.zeros((2, count))
        self.pace, (self.tainted, self.seen, self.end) = np.ones(count), np.full((3, count), np.inf)
        self.chain, self.lost = np.zeros((3, count)), np.zeros((len(CAUSES), count))
        self.wounded = np.full(count, -1)
        self.hurt = np.zeros(count, np.int64)
        self.met = {kind: np.zeros(count) for kind in range(streams.SLOW_FOUND + 1)}
        self.running = np.ones(count, np.bool_)
        self.limit = GIVE_UP * calendar.total

    def until(self, time: Floats) -> bool:
        """End lanes that are through before `time`; whether any is left."""
        through = self.since + (self.calendar.total - self.at) * self.pace
        ended = self.running & (through <= time)
        self.end[ended] = through[ended]
        self.lost[4, ended] += (self.calendar.total - self.at[ended]) * (self.pace[ended] - 1)
        self.running &= ~ended & (time < self.limit)
        return bool(self.running.any())

    def meet(self, kind: int, events: streams.Events, at: int) -> None:
        """The events of one kind at one place of all lanes' rows."""
        lane = self.everyone[self.running & (events.kind[:, at] == kind) & np.isfinite(events.time[:, at])]
        if not len(lane):
            return
        time, who, hang = events.time[lane, at], events.who[lane, at], events.hang[lane, at]
        failures = self.campaign.failures
        if kind == streams.NODE and failures.nodes:
            self._broken(kind, lane, time, who[:, None], time + failures.nodes.repair_s, hang)
        elif kind == streams.SWITCH and failures.switches:
            behind = who[:, None] * failures.switches.nodes + np.arange(failures.switches.nodes)
            self._broken(kind, lane, time, behind, time + failures.switches.repair_s, hang)
        elif kind == streams.SOFTWARE:
            self._down(kind, lane, time, time, np.zeros(len(lane), np.bool_), hang)
        elif kind in (streams.SILENT, streams.SILENT_FOUND):
            (self._taint if kind == streams.SILENT else self._untaint)(lane, time, who)
        elif kind in (streams.SLOW, streams.SLOW_FOUND):
            (self._slows if kind == streams.SLOW else self._replace_slow)(lane, time, who)

    # --- nodes --------------------------------------------------------------------------------------------------------

    def _broken(self, kind: int, lane: Lane, time: Floats, who: Lane, repaired: Floats, hang: Floats) -> None:
        """Nodes [lane, node] fail at once: those in the job are replaced, spares are away until they are repaired."""
        lost = self._memory_lost(lane, time, who)
        if self.slow is not None:
            self._rebase(lane, time)
        held, hit = time.copy(), np.zeros(len(lane), np.bool_)
        for column in who.T:
            there = column < self.place.shape[1]
            here, node = lane[there], column[there]
            place = self.place[here, node].astype(np.int64)
            used, idle = place < self.nodes, place >= self.nodes
            until = self._swap(here[used], time[there][used], node[used], repaired[there][used])
            both = np.flatnonzero(there)[used]
            held[both], hit[both] = np.maximum(held[both], until), True
            slot = here[idle], place[idle] - self.nodes
            self.ready[slot] = np.maximum(self.ready[slot], repaired[there][idle])
        self._down(kind, lane[hit], time[hit], held[hit], lost[hit], hang[hit])

    def _swap(self, lane: Lane, time: Floats, node: Lane, repaired: Floats) -> Floats:
        """A spare stands in for a node of the job, unless that is repaired sooner; the answer is when one of both is
        there. Spares take turns; where the one whose turn it is is not ready, it is the one that is ready first."""
        self._healthy(lane, node)
        if not self.ready.shape[1] or not len(lane):
            return repaired
        slot = self.turn[lane]
        ready = self.ready[lane, slot]
        if (late := ready > time).any():
            slot[late] = self.ready[lane[late]].argmin(axis=1)
            ready = self.ready[lane, slot]
        self.turn[lane] = (slot + 1) % self.ready.shape[1]
        sooner = ready <= repaired
        lane, node, slot = lane[sooner], node[sooner], slot[sooner]
        self.place[lane, self.spare[lane, slot]] = self.place[lane, node]
        self.place[lane, node] = self.nodes + slot
        self.spare[lane, slot], self.ready[lane, slot] = node, repaired[sooner]
        return np.where(sooner, np.maximum(time, ready), repaired)

    def _memory_lost(self, lane: Lane, time: Floats, who: Lane) -> npt.NDArray[np.bool_]:
        """Whether all copies of some node's states in memory are gone: consecutive places of the job hold each other's
        (GEMINI, SOSP 2023, sec. 4). Those that failed since the job last ran count, of the group that was hit last."""
        if self.campaign.checkpoint.kind != MEMORY:
            return np.zeros(len(lane), np.bool_)
        copies = self.campaign.checkpoint.replicas
        there = who < self.place.shape[1]
        place = self.place[lane[:, None], np.where(there, who, 0)].astype(np.int64)
        group = np.where(there & (place < self.nodes), place // copies, -1)
        self.hurt[lane[time >= self.since[lane]]] = 0
        gone = np.zeros(len(lane), np.bool_)
        for column in group.T:
            hit = column >= 0
            more = np.where(column == self.wounded[lane], self.hurt[lane], 0) + 1
            self.hurt[lane[hit]], self.wounded[lane[hit]] = more[hit], column[hit]
            gone |= hit & (more >= copies)
        return gone

    # --- the run ------------------------------------------------------------------------------------------------------

    def _down(
        self, kind: int, lane: Lane, time: Floats, held: Floats, memory_lost: npt.NDArray[np.bool_], hang: Floats
    ) -> None:
        """Interrupt lanes. held: until a node stands in; `time` where none has to."""
        reached = self._stop(lane, time)
        stored = kept = np.maximum(self.stored[lane], self.calendar.stored.last(reached))
        if self.calendar.first is not self.calendar.stored:
            kept = np.maximum(np.maximum(self.kept[lane], self.calendar.first.last(reached)), stored)
        back = np.where(memory_lost, stored, kept)
        from_storage = memory_lost | (kept <= stored)
        own = self.campaign.restart
        detection = np.where(hang < own.hangs, own.timeout_s, own.detect_s)
        least = np.full(len(lane), own.replace_s * (kind in (streams.NODE, streams.SWITCH)))
        self._begin(kind, lane, time, reached, back, stored, from_storage, detection, least, held)

    def _begin(
        self, kind: int, lane: Lane, time: Floats, reached: Floats, back: Floats, stored: Floats,
        from_storage: npt.NDArray[np.bool_], detection: Floats, least: Floats, held: Floats,
    ) -> None:  # fmt: skip
        """The chain of a restart, which ends at the position `back`. least: seconds of a replacement. A job that lacks
        nodes of an earlier failure still waits for those too."""
        own, first, stored_there = self.campaign.restart, self.calendar.first, self.calendar.stored
        least = np.maximum(least, own.replace_s * (time < self.replaced[lane]))
        self.held[lane] = np.maximum(self.held[lane], held)
        replacement = np.maximum(least, self.held[lane] - time - detection)
        self.replaced[lane] = np.where(replacement > 0, time + detection + replacement, 0.0)
        load = stored_there.loading(back)
        if first is not stored_there:
            load = np.where(from_storage, load, first.loading(back))
        restart = own.launch_s + own.connect_s + own.warm_up_s + load
        self.kept[lane], self.stored[lane] = back, np.minimum(stored, back)
        self.tainted[lane] = np.where(back <= self.tainted[lane], np.inf, self.tainted[lane])
        self.lost[0, lane] += reached - back
        self.chain[:, lane] = detection, replacement, restart
        self.lost[1:4, lane] += self.chain[:, lane]
        self.at[lane], self.since[lane] = back, time + detection + replacement + restart
        self.met[kind][lane] += 1

    def _stop(self, lane: Lane, time: Floats) -> Floats:
        """Where lanes are at a time; what of a chain they have not been down for yet is taken back."""
        ran = np.maximum(0.0, time - self.since[lane])
        left = np.maximum(0.0, self.since[lane] - time)
        for row in (2, 1, 0):
            unspent = np.minimum(left, self.chain[row, lane])
            self.lost[1 + row, lane] -= unspent
            left -= unspent
        self.lost[4, lane] += ran - ran / self.pace[lane]
        return self.at[lane] + ran / self.pace[lane]

    # --- what is found later ------------------------------------------------------------------------------------------

    def _taint(self, lane: Lane, time: Floats, who: Lane) -> None:
        """A node of a job that runs computes something wrong."""
        used = self.place[lane, who] < self.nodes
        lane, time = lane[used], time[used]
        runs = time >= self.since[lane]
        lane, time = lane[runs], time[runs]
        reached = self.at[lane] + (time - self.since[lane]) / self.pace[lane]
        assert self.campaign.failures.silent
        end = time + self.campaign.failures.silent.detect_s
        self.seen[lane] = np.where(np.isinf(self.tainted[lane]), end, self.seen[lane])
        self.tainted[lane] = np.minimum(self.tainted[lane], reached)

    def _untaint(self, lane: Lane, time: Floats, who: Lane) -> None:
        """An error is found, where it is the one that the run carries: back to the last checkpoint before it, of those
        on storage."""
        carried = np.isfinite(self.tainted[lane]) & (time >= self.seen[lane])
        lane, time = lane[carried], time[carried]
        reached = self._stop(lane, time)
        stored = np.maximum(self.stored[lane], self.calendar.stored.last(reached))
        back = np.minimum(self.calendar.stored.before(self.tainted[lane]), stored)
        nothing = np.zeros(len(lane))
        self._begin(streams.SILENT, lane, time, reached, back, back, nothing == 0, nothing, nothing, time)

    def _slows(self, lane: Lane, time: Floats, who: Lane) -> None:
        """A node of the job becomes slow."""
        assert self.slow is not None
        used = self.place[lane, who] < self.nodes
        lane, time, who = lane[used], time[used], who[used]
        self._rebase(lane, time)
        self.slow[lane, who] = True
        self.pace[lane] = self.slower

    def _replace_slow(self, lane: Lane, time: Floats, who: Lane) -> None:
        """A slow node is found: the job is saved and restarted without it; where it is down anyway, it waits there for
        what stands in."""
        assert self.slow is not None
        still = self.slow[lane, who]
        lane, time, who = lane[still], time[still], who[still]
        self._rebase(lane, time)
        runs = time >= self.since[lane]
        held = self._swap(lane, time, who, time + self._repair_s())
        self._wait(lane[~runs], held[~runs])
        lane, time, held = lane[runs], time[runs], held[runs]
        reached = self._stop(lane, time)
        least = np.maximum(self.campaign.restart.replace_s, held - time) + self.stall_s
        self._begin(streams.SLOW, lane, time, reached, reached, reached, reached >= 0, 0 * time, least, held)

    def _wait(self, lane: Lane, held: Floats) -> None:
        """Lanes that are down are so for longer: until another node is there too."""
        self.held[lane] = np.maximum(self.held[lane], held)
        late = np.maximum(0.0, held - (self.since[lane] - self.chain[2, lane]))
        self.replaced[lane] = np.where(late > 0, held, self.replaced[lane])
        self.since[lane] += late
        self.chain[1, lane] += late
        self.lost[2, lane] += late

    def _repair_s(self) -> float:
        return self.campaign.failures.nodes.repair_s if self.campaign.failures.nodes else 0.0

    def _healthy(self, lane: Lane, node: Lane) -> None:
        """Nodes leave the job, and are repaired: lanes without slow ones have their pace again."""
        if self.slow is None or not len(lane):
            return
        was = self.slow[lane, node]
        lane, node = lane[was], node[was]
        self.slow[lane, node] = False
        self.pace[lane] = np.where(self.slow[lane].any(axis=1), self.slower, 1.0)

    def _rebase(self, lane: Lane, time: Floats) -> None:
        """Lanes that run go on from where they are, as their pace is about to change."""
        runs = time > self.since[lane]
        lane, time = lane[runs], time[runs]
        self.at[lane] = self._stop(lane, time)
        self.since[lane], self.chain[:, lane] = time, 0.0
