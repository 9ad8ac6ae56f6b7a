"""Steady states: where all that decides what happens next comes again, periods are written down and not run.

In the middle of a step most schedules repeat themselves: every position runs the same few kinds of steps over and over,
and once the pipeline is full it does so after the same time. When the first position has begun a period of its steps,
and that nanosecond is over, all that is under way is told from now and from each position's step on: what waits for
what, what each network lane carries, where exchanges are, what is left of a message, and what is to come. Where that is
as it was a period before, and the steps ahead are those of a period before too, what happens until these end is what
happened since, later by as much: records repeat, and the clock, steps and messages move on. SimPy has run one period of
each; counts of events are as if it had run all. Tests hold records of runs with and without equal, to the nanosecond.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol

import numpy as np

from hwmodels.units import LONGEST_NS
from sim.engine.actor import Actor, Job, Message, Record
from sim.engine.clock import Clock
from sim.engine.nic import Nic
from sim.engine.wire import REDUCE, Load, Wire

LONGEST = 64
"""Steps of a period that is looked for, at most: of an interleaved schedule as many as its groups have."""
ROUNDS = 16
"""Periods of steps after which times are looked for again, at most: with messages between, as many as positions."""
PARTS = 5
"""Of a run, each of which may have a period of its own: gpipe's forwards, then its backwards."""
FREE = 4
"""Looks in a row that are followed by as many pauses."""
ROW = 4
"""Numbers of a row of a record's network."""


class Rank(Protocol):
    """What is looked at of a rank. missing: messages that it waits for since `came`, of `waits`."""

    number: int
    actor: Actor
    record: Record
    nic: Nic
    wire: Wire
    step: int
    came: int
    missing: int
    waits: tuple[Message, ...]
    reduces: Mapping[int, Any]

    def through(self) -> None:
        """A step is through."""

    def left(self, step: int, outputs: int) -> None:
        """Outputs leave."""


class World(Protocol):
    """Ranks, and mail: when messages arrived that somebody still waits for, who waits for which, those that one of two
    ends has come for, and those that one of two has taken."""

    env: Clock

    @property
    def ranks(self) -> Sequence[Any]: ...

    @property
    def mail(self) -> tuple[dict[Message, int], dict[Message, list[Any]], set[Message], set[Message]]: ...

    def post(self, message: Message) -> None:
        """A message has arrived."""

    def stop(self, event: Any) -> None:
        """At the latest time that can be counted."""


class Mark(NamedTuple):
    """Where a run has come to: its time, events so far, the step of each rank, and what it has recorded."""

    now: int
    events: int
    steps: tuple[int, ...]
    lengths: tuple[tuple[int, int, int, int], ...]


class Steady:
    """Watches the first rank of a world whose steps are chunks. periods: of its steps, of each
    part of them; 0: none. seen: what was
    under way when it was looked at, and where the run was. pause: periods in which nobody looks, more and more of them
    after vain looks."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.ranks: Sequence[Rank] = world.ranks
        jobs = self.ranks[0].actor.jobs
        self.part = max(1, -(-len(jobs) // PARTS))
        self.periods = [period(jobs, len(self.ranks), at + self.part // 2) for at in range(0, len(jobs), self.part)]
        self.wires = {id(rank.wire): rank.number for rank in self.ranks}
        self.seen: dict[Any, Mark] = {}
        self.pause = self.vain = 0

    def begun(self, number: int) -> None:
        """The first rank has begun a step: look, where the last two rounds took as long, each of a few periods, for
        times may come again later than kinds of steps."""
        period = self.periods[number // self.part]
        if not period or number % period:
            return
        if self.pause:
            self.pause -= 1
            return
        starts = self.ranks[0].record.starts
        for round_ in range(period, min(ROUNDS * period, number // 2) + 1, period):
            middle = starts[number - round_]
            if starts[number] - middle == middle - starts[number - 2 * round_]:
                self.world.env.last(self.look)
                return

    def look(self) -> None:
        """Whether what is under way was under way before."""
        state, mark = self.state(), self.mark()
        if state is not None and (before := self.seen.get(state)):
            if periods := self.ahead(before, mark):
                self.repeat(before, mark, periods)
            self.seen.clear()
            return
        if state is not None:
            self.seen[state] = mark
        if len(self.seen) > ROUNDS:
            del self.seen[next(iter(self.seen))]
        self.vain += 1
        self.pause = self.vain // FREE

    def mark(self) -> Mark:
        """Where the run is."""
        records = [rank.record for rank in self.ranks]
        lengths = tuple((len(r.starts), len(r.ends), len(r.blame), len(r.network)) for r in records)
        return Mark(self.world.env.now, self.world.env.count, tuple(rank.step for rank in self.ranks), lengths)

    # --- what is under way --------------------------------------------------------------------------------------------

    def state(self) -> Any:
        """All that decides what happens next, from now and from each rank's step on; None where something else than
        steps and messages is under way."""
        steps, now = [rank.step for rank in self.ranks], self.world.env.now
        arrived, awaited, alone, taken = self.world.mail

        def named(message: Message) -> Message:
            return message[0], message[1] - steps[message[0]], message[2]

        entries = sorted(self.world.env.entries, key=lambda entry: entry[:3])
        rows = tuple([self._entry(entry, steps, now) for entry in entries])
        ranks = tuple([self._rank(rank, named, now) for rank in self.ranks])
        if None in rows or None in ranks:
            return None
        mail = frozenset((named(message), now - at) for message, at in arrived.items())
        waiting = frozenset((named(message), tuple([rank.number for rank in who])) for message, who in awaited.items())
        return rows, ranks, mail, waiting, frozenset(map(named, alone)), frozenset(map(named, taken))

    def _entry(self, entry: Any, steps: Sequence[int], now: int) -> Any:
        """An entry of the queue; () for the stop at the end of time, None where it is none of steps and messages."""
        if len(entry) == ROW:
            return () if self.world.stop in entry[3].callbacks else None
        time, priority, _, call, words = entry
        owner: Any = getattr(call, "__self__", None)
        if isinstance(owner, Wire):
            return time - now, priority, self.wires[id(owner)], words[0] == owner.timed
        if owner not in self.ranks or call.__name__ not in ("through", "left"):
            return None
        step = (words[0] - steps[owner.number], words[1]) if words else ()
        return time - now, priority, owner.number, *step

    def _rank(self, rank: Rank, named: Callable[[Message], Message], now: int) -> Any:
        wire, nic = rank.wire, rank.nic
        if wire.leaving or any(load.kind == REDUCE for load in wire.queue):
            return None
        carried: tuple[Any, ...] = ()
        if wire.queue:
            since, left = wire.passage.since, wire.passage.left
            carried = (now - wire.begun, now - wire.end, now - since, left)
        loads = tuple(
            [(load.kind, load.step - rank.step, load.ns, id(load.nics), load.hindrance) for load in wire.queue]
        )
        users = tuple([self.wires[id(user)] for user in nic.users])
        waits = (now - rank.came, *map(named, rank.waits)) if rank.missing else ()
        exchanges = (now - nic.base, id(nic.windows)) if nic.ends and now - nic.base < nic.ends[-1] else ()
        return rank.missing, waits, loads, carried, exchanges, users

    # --- what lies ahead ----------------------------------------------------------------------------------------------

    def ahead(self, before: Mark, mark: Mark) -> int:
        """Periods from now on whose steps are those of a period before."""
        moved = [b - a for a, b in zip(before.steps, mark.steps, strict=True)]
        if not all(moved) or mark.now == before.now:
            return 0
        left = (LONGEST_NS - mark.now) // (mark.now - before.now) - 1
        return max(0, min([left, *(self._ahead(rank, moved) for rank in self.ranks)]))

    def _ahead(self, rank: Rank, moved: Sequence[int]) -> int:
        """Of one rank. One step more than it begins is read, for the messages that it waits for."""
        jobs, period, number = rank.actor.jobs, moved[rank.number], rank.step
        while number < len(jobs) and number not in rank.reduces and _again(jobs[number], jobs[number - period], moved):
            number += 1
        return (number - 2 - rank.step) // period

    # --- moving on ----------------------------------------------------------------------------------------------------

    def repeat(self, before: Mark, mark: Mark, periods: int) -> None:
        """So many periods as from `before` to `mark` have passed."""
        moved = [periods * (b - a) for a, b in zip(before.steps, mark.steps, strict=True)]
        ns, clock = mark.now - before.now, self.world.env

        def later(message: Message) -> Message:
            return message[0], message[1] + moved[message[0]], message[2]

        for rank, a, b in zip(self.ranks, before.lengths, mark.lengths, strict=True):
            _written(rank.record, a, b, periods, ns, moved[rank.number] // periods)
        past = periods * ns
        entries = [self._later(entry, moved, past) for entry in clock.entries]
        clock.skip(past, periods * (mark.events - before.events), entries)
        for rank in self.ranks:
            self._move(rank, moved[rank.number], past, later)
        arrived, awaited, alone, taken = self.world.mail
        _renamed(arrived, later)
        _renamed(awaited, later)
        for message in arrived:
            arrived[message] += past
        for some in (alone, taken):
            names = [later(message) for message in some]
            some.clear()
            some.update(names)

    def _later(self, entry: Any, moved: Sequence[int], past: int) -> Any:
        if len(entry) == ROW:  # the stop
            return entry
        time, priority, number, call, words = entry
        if words and call.__name__ == "left":
            words = (words[0] + moved[call.__self__.number], words[1])
        return time + past, priority, number, call, words

    def _move(self, rank: Rank, steps: int, past: int, later: Callable[[Message], Message]) -> None:
        wire = rank.wire
        rank.step += steps
        rank.came += past
        rank.nic.base += past
        if rank.missing:
            rank.waits = tuple(map(later, rank.waits))
        if wire.queue:
            wire.begun, wire.end, wire.passage.since = wire.begun + past, wire.end + past, wire.passage.since + past
            loads = [self._named(rank.number, load._replace(step=load.step + steps)) for load in wire.queue]
            wire.queue.clear()
            wire.queue.extend(loads)

    def _named(self, number: int, load: Load) -> Load:
        return load._replace(arrive=partial(self.world.post, (number, load.step, load.kind)))


def _renamed(kept: dict[Message, Any], later: Callable[[Message], Message]) -> None:
    named = {later(message): value for message, value in kept.items()}
    kept.clear()
    kept.update(named)


def period(jobs: Sequence[Job], ranks: int, at: int) -> int:
    """Of the steps about one of them, where all ranks do as many in it; 0: none, or too few of them."""
    for number in range(1, min(LONGEST, at, (len(jobs) - at) // 2) + 1):
        moved = [number] * ranks
        if all(_again(jobs[i + number], jobs[i], moved) for i in range(at - number, at + number)):
            return number
    return 0


def _again(job: Job, was: Job, moved: Sequence[int]) -> bool:
    """Whether a step is one of a period before. moved: steps of each rank since."""
    return (
        job.template is was.template
        and job.windows is was.windows
        and job.sends == was.sends
        and job.rendezvous == was.rendezvous
        and (job.routes is was.routes or job.routes == was.routes)
        and len(job.waits) == len(was.waits)
        and all(
            a[0] == b[0] and a[1] == b[1] + moved[b[0]] and a[2] == b[2]
            for a, b in zip(job.waits, was.waits, strict=True)
        )
    )


def _written(record: Record, first: Sequence[int], last: Sequence[int], periods: int, ns: int, steps: int) -> None:
    """What a record has from `first` to `last`, so many times more. steps: of the rank in a period, of so many ns."""
    times = np.arange(1, periods + 1)[:, None]
    for row, a, b in zip((record.starts, record.ends), first, last, strict=False):
        row.frombytes((np.array(row[a:b], dtype=np.int64) + ns * times).tobytes())
    record.blame.extend(record.blame[first[2] : last[2]] * periods)
    table = np.array(record.network[first[3] : last[3]], dtype=np.int64).reshape(-1, ROW)
    record.network.frombytes((table + times[..., None] * np.array([ns, ns, steps, 0])).tobytes())
