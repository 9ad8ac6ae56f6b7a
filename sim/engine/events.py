"""Discrete events: ranks work through their steps, lanes through their kernels; in SimPy.

A rank comes to a step, begins it when the messages that it waits for are there, and is through when all of its lanes
are (or, of a step as chunks, when it has lasted): each is a SimPy event that calls what follows. What comes after the
last step is a SimPy process. A lane is a chain of timeouts, one a segment (`sim.engine.stream`). Messages
and reductions share the NICs at their ends with the exchanges of the steps there (`sim.engine.wire`, `sim.engine.nic`).
An exchange starts when the last member of its group arrives. Times are integer ns; ties go by the order of scheduling.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from functools import partial
from math import inf
from typing import Any

from hwmodels.units import LONGEST_NS, NS_PER_S, too_large
from sim.engine.actor import LOCAL, OWN, Actor, Job, Message, Outcome, Record, Route
from sim.engine.clock import Clock, Event, Process
from sim.engine.deadlock import Stuck, deadlock
from sim.engine.nic import Nic
from sim.engine.steady import Steady
from sim.engine.stream import Stream
from sim.engine.wire import GATHER, REDUCE, Load, Wire
from sim.step.template import STREAMS, Template

COMPUTE, COMMUNICATION, WEIGHT, _ = STREAMS


class _Rank:
    """The lanes of one actor and what couples them."""

    def __init__(self, world: _World, number: int, actor: Actor) -> None:
        self.world, self.number, self.actor, self.record = world, number, actor, Record()
        self.env = world.env
        self.lanes = () if world.chunks else tuple(Stream(self.env, self, i, self.record) for i in STREAMS)
        self.active = [False] * len(STREAMS)
        self.template: Template = None  # type: ignore[assignment]
        self.needs: list[int] = []
        self.open = self.missing = self.came = 0
        self.step, self.waits = -1, tuple[Message, ...]()
        self.same = all(position == peer for position, peer in actor.peers.items())
        self.nic, self.wire = Nic(), Wire(world.env, self.record)
        self.nics: dict[tuple[int, ...], list[Nic]] = {(): []}
        self.reduces: dict[int, list[tuple[int, int]]] = {}
        for after, key, ns in () if actor.sync.after else actor.sync.reduces:
            self.reduces.setdefault(after, []).append((key, ns))
        self.pending: list[Event] = []
        self.tail: Process | None = None
        self.waits_for: str | None = None
        self.steady: Steady | None = None
        self.env.at(0, self.come)

    # --- coupling ---

    def contended(self, lane: int) -> bool:
        active = self.active
        return active[COMPUTE] or active[WEIGHT] if lane == COMMUNICATION else active[COMMUNICATION]

    def busy(self, lane: int) -> None:
        if not self.active[lane]:
            self._switch(lane, True)

    def _switch(self, lane: int, on: bool) -> None:
        """A lane starts or stops working; the other side changes its rate if that is news to it."""
        comm, compute, weight = self.lanes[COMMUNICATION], self.lanes[COMPUTE], self.lanes[WEIGHT]
        before = self.contended(COMMUNICATION)
        self.active[lane] = on
        if lane == COMMUNICATION:
            compute.retime(on)
            weight.retime(on)
        elif self.contended(COMMUNICATION) != before:
            comm.retime(not before)

    def arrive(self, segment: int, lane: Stream) -> bool:
        """Whether the group of this exchange is complete; if not, the lane is started when it is."""
        kind = self.template.segments[segment].meets
        group = kind, self.actor.groups.get(kind, -1)
        if self.world.sizes.get(group, 1) <= 1:
            return True
        key = (*group, self.step, segment)
        crowd = self.world.crowds.setdefault(key, [])
        crowd.append(lane)
        if len(crowd) < self.world.sizes[group]:
            self.needs[segment] += 1
            return False
        for other in crowd[:-1]:
            other.rank.needs[segment] -= 1
            exchange = other.rank.template.segments[segment]
            other.begin(exchange.first, exchange.stop)
        del self.world.crowds[key]
        return True

    def finish(self, lane: Stream) -> None:
        """A segment is through: release who waited for it, send its output, go on."""
        number = lane.order[lane.cursor]
        lane.cursor += 1
        segment = self.template.segments[number]
        if segment.sends and not self.actor.jobs[self.step].rendezvous:
            self.leave(self.step, segment.sends)
        needs = self.needs
        for follower in segment.feeds:
            needs[follower] -= 1
            if not needs[follower]:
                other = self.lanes[self.template.segments[follower].lane]
                if other is not lane:
                    other.advance()
        lane.advance()
        if lane.pending is None:
            self._switch(lane.index, False)
        self.open -= 1
        if not self.open:
            self.through()

    # --- messages ---

    def leave(self, step: int, outputs: int) -> None:
        """Outputs of a step join the network lane at the end of this nanosecond; the next one may have begun."""
        for load in self._loads(step, outputs):
            self.wire.leave(load)

    def left(self, step: int, outputs: int) -> None:
        """They do, for this nanosecond is at its end."""
        self.wire.join(self._loads(step, outputs))

    def _loads(self, step: int, outputs: int) -> list[Load]:
        job, post = self.actor.jobs[step], self.world.post
        return [
            self._load(kind, step, ns, job.routes.get(kind, LOCAL), partial(post, (self.number, step, kind)))
            for kind, ns in job.sends if outputs & kind
        ]  # fmt: skip

    def _load(self, kind: int, step: int, ns: int, route: Route, arrive: Callable[[], object]) -> Load:
        ends, hindrance = route
        if ends not in self.nics:
            ranks, peers = self.world.ranks, self.actor.peers
            self.nics[ends] = [ranks[peers[position]].nic for position in ends]
        return Load(kind, step, ns, self.nics[ends], hindrance, arrive)

    @property
    def waiting(self) -> Message | str | None:
        """What keeps it: a message or, in words, something else."""
        missing = (message for message in self.waits if message not in self.world.arrived)
        return next(missing, None) if self.missing else self.waits_for

    # --- steps ---

    def come(self) -> None:
        """Come to the next step, or to the end of all: it begins when the messages that it waits for have come, and own
        ones are through."""
        number, jobs, self.came = self.step + 1, self.actor.jobs, self.env.now
        waits, rendezvous = self.actor.sync.waits, True
        if number < len(jobs):
            _, waits, _, _, _, rendezvous = jobs[number]
        peers = self.actor.peers
        self.waits = waits if self.same else tuple([(peers[sender], step, kind) for sender, step, kind in waits])
        if waits:
            self._wait(rendezvous)
        if not self.missing:
            self.begin()

    def _wait(self, rendezvous: bool) -> None:
        """Wait for the messages that are not there."""
        world = self.world
        for message in self.waits if rendezvous else ():
            world.come(message)
        for message in self.waits:
            if message not in world.arrived:
                self.missing += 1
                world.awaited.setdefault(message, []).append(self)

    def begin(self) -> None:
        """Begin a step, or what follows the last."""
        now, record, jobs, number = self.env.now, self.record, self.actor.jobs, self.step + 1
        if number == len(jobs):
            self.tail = self.env.process(self._finish())
            return
        job = jobs[number]
        record.blame.append(self._blame() if job.waits else 0)
        record.starts.append(now)
        self.step = number
        if self.world.chunks and job.waits:
            self.world.take(self.waits, job.rendezvous)
        if self.steady:
            self.steady.begun(number)
        self.nic.begin(now, job.windows)
        early = self.actor.sync.early
        for key, ns in self.reduces.get(number, ()) if early else ():
            if key in early:
                self.pending.append(self.env.process(self._reduce(key, ns, early[key])))
        if self.world.chunks:
            self._chunk(job)
        else:
            self._start(job.template)

    def _blame(self) -> int:
        """Which output came last and was waited for."""
        since, last = self.came, 0
        for message in self.waits:
            at = self.world.arrived[message]
            if at > since:
                since, last = at, message[2] + OWN * (message[0] == self.number)
        return last

    def _chunk(self, job: Job) -> None:
        """A step of which only its end and its outputs matter."""
        env, number, (total, outputs) = self.env, self.step, job.template.outputs
        now = env.now
        for at, kinds in outputs if job.sends and not job.rendezvous else ():
            if at:
                env.late_at(now + at, self.left, number, kinds)
            else:
                self.leave(number, kinds)
        env.at(now + total, self.through)

    def _start(self, template: Template) -> None:
        """A step on its lanes."""
        self.template = template
        self.needs = [segment.needs for segment in template.segments]
        self.open = len(template.segments)
        if not self.open:  # such as the weight gradient of a stage without weights
            self.env.at(self.env.now, self.through)
        for lane in self.lanes:
            lane.load(template)
        for lane in self.lanes:
            lane.advance()

    def through(self) -> None:
        """A step is through: reduce what it was the last to make, and go on."""
        self.record.ends.append(self.env.now)
        for key, ns in self.reduces.get(self.step, ()):
            if key not in self.actor.sync.early:
                self.pending.append(self.env.process(self._reduce(key, ns)))
        self.come()

    # --- gradients, optimizer and parameters ---

    def _reduce(self, key: int, ns: int, after: int = 0) -> Generator[Event, Any, None]:
        """Reduce a stage's gradients, or a bucket of them, once every holder is there. after: ns until this one is."""
        if after:
            yield self.env.until(self.env.now + after)
        yield self.world.barrier(("reduce", key), self.world.holders[key])
        done = Event(self.env)
        self.wire.leave(self._load(REDUCE, key, ns, self.actor.sync.routes.get(key, LOCAL), done.succeed))
        yield done

    def _finish(self) -> Generator[Event, Any, None]:
        sync, everybody, pending = self.actor.sync, len(self.world.actors), self.pending
        if sync.after:
            self.waits_for = "every rank before the gradients are reduced"
            yield self.world.barrier(("drain", 0), everybody)
            pending = [self.env.process(self._reduce(key, ns)) for _, key, ns in sync.reduces]
        drained, self.waits_for = self.env.now, "the gradients of its stages"
        yield from pending
        self.waits_for = "every rank before the gradient norm"
        yield self.world.barrier(("norm", 0), everybody)
        start = drained if sync.after else self.env.now
        if sync.update_ns:
            yield self.env.until(self.env.now + sync.update_ns)
        if sync.gather_ns:
            self.record.network.extend((self.env.now, self.env.now + sync.gather_ns, -1, GATHER))
            yield self.env.until(self.env.now + sync.gather_ns)
        self.record.update = (start, self.env.now)
        self.waits_for = None


class _World:
    """All actors, the mail between them and the groups they meet in."""

    def __init__(self, actors: Sequence[Actor], chunks: bool) -> None:
        self.env = Clock()
        self.actors, self.chunks = actors, chunks
        self.sizes: dict[tuple[str, int], int] = {}
        self.holders: dict[int, int] = {}
        for actor in actors:
            for group in actor.groups.items():
                self.sizes[group] = self.sizes.get(group, 0) + 1
            for _, key, _ in actor.sync.reduces:
                self.holders[key] = self.holders.get(key, 0) + 1
        self.arrived: dict[Message, int] = {}
        self.awaited: dict[Message, list[_Rank]] = {}
        self.alone, self.taken = set[Message](), set[Message]()
        self.crowds: dict[tuple[str, int, int, int], list[Stream]] = {}
        self.gates: dict[tuple[str, int], list[Any]] = {}
        self.ranks = [_Rank(self, i, actor) for i, actor in enumerate(actors)]

    def post(self, message: Message) -> None:
        """A message has arrived; who waits for nothing else goes on."""
        self.arrived[message] = self.env.now
        for rank in self.awaited.pop(message, ()):
            rank.missing -= 1
            if not rank.missing:
                rank.begin()

    def come(self, message: Message) -> None:
        """One end of a message has come to wait for it; when both have, it leaves."""
        if message not in self.alone:
            self.alone.add(message)
            return
        self.alone.remove(message)
        sender, step, kind = message
        self.ranks[sender].leave(step, kind)

    def take(self, messages: Sequence[Message], rendezvous: bool) -> None:
        """Messages are taken by one who waited for them; by rendezvous their sender waits as well."""
        for message in messages:
            if rendezvous and message not in self.taken:
                self.taken.add(message)
                continue
            self.taken.discard(message)
            del self.arrived[message]

    @property
    def mail(self) -> tuple[dict[Message, int], dict[Message, list[_Rank]], set[Message], set[Message]]:
        """See `sim.engine.steady.World`."""
        return self.arrived, self.awaited, self.alone, self.taken

    def barrier(self, key: tuple[str, int], size: int) -> Event:
        """An event that happens when `size` actors have asked for it."""
        gate = self.gates.setdefault(key, [0, Event(self.env)])
        gate[0] += 1
        event: Event = gate[1]
        if gate[0] == size:
            event.succeed()
        return event

    def stop(self, event: Event) -> None:
        """At the latest time that can be counted."""
        if self.env.peek() < inf:
            raise too_large(f"the step takes more than {LONGEST_NS // NS_PER_S} s")


def run(actors: Sequence[Actor], chunks: bool = False, steady: bool = True) -> Outcome:
    """Run all actors to the end. chunks: templates are chunks, of which only ends and outputs matter, so that records
    are without what lies inside steps; then, where `steady`, periods that repeat themselves are not run. Raises
    DeadlockError, and Refused when the end is too far to count."""
    world = _World(actors, chunks)
    if chunks and steady and actors:
        world.ranks[0].steady = Steady(world)
    world.env.after(LONGEST_NS, world.stop)
    world.env.work_off()
    alive = (r for r in world.ranks if r.tail is None or r.tail.is_alive)
    stuck = [Stuck(r.number, len(r.record.ends), r.waiting) for r in alive]
    if stuck:
        raise deadlock(actors, stuck)
    end = max((rank.record.end for rank in world.ranks), default=0)
    return Outcome(tuple(rank.record for rank in world.ranks), end, next(world.env._eid) - 1)  # but for `stop`
