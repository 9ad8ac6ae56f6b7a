"""An instance at work: continuous batching step by step, prompts first, by free blocks of the cache.

Prompts go in the order they come, in parts of a chunk; while any waits and fits, no decode step runs (SGLang's default
order). Decode steps in which nothing comes or goes are one event: their durations are priced each, and a request that
comes in between cuts them at the end of the step under way. A sequence that finds no block for its next token makes the
one that was admitted last give up its cache, to be computed again or to come back from host memory. What host memory
keeps of a prompt is read layer by layer beside the step that uses it. An instance that fails loses all it holds.
"""

from collections import deque
from collections.abc import Callable

import numpy as np

from sim.engine.clock import Clock
from sim.serving.deployment import Deployed
from sim.serving.host import Host
from sim.serving.job import Filling, Job
from sim.serving.log import NEVER, Log
from sim.serving.prefix import Prefixes
from sim.serving.running import Running
from sim.serving.values import DECODE, PREFILL

MOST_STEPS = 512
"""Decode steps of an event."""

Told = Callable[["Instance", Job], None]


class Instance:
    """number: of all instances. block, shared: tokens of a block of the cache, and of one that prompts share (0: none
    are named). swaps: whether host memory takes sequences that give their cache up. filled: told of a prompt whose
    first token is there; ended: of a last token; lost: of a job whose cache an instance that only decodes gave up.
    epoch: how often it failed; down: whether it is not back yet."""

    def __init__(
        self, number: int, clock: Clock, own: Deployed, log: Log, block: int, shared: int, swaps: bool,
        filled: Told, ended: Told, lost: Told,
    ) -> None:  # fmt: skip
        self.number, self.clock, self.own, self.log, self.block = number, clock, own, log, block
        self.filled, self.ended, self.lost = filled, ended, lost
        self.groups, pool = own.pool.groups, own.pool
        self.room = own.tokens // block * self.groups
        self.most = pool.batch * self.groups
        self.decodes, self.prefills = pool.does != PREFILL, pool.does != DECODE
        keeps, beyond = bool(shared and own.prefix_tokens), own.host_tokens * self.groups
        part = beyond // (keeps + swaps) if keeps + swaps else 0
        self.host = Host(own, part if swaps else 0)
        self.room_for_prefixes = (own.prefix_tokens * self.groups // shared, part // shared) if keeps else None
        self.shared, self.epoch, self.down, self.turn = shared, 0, False, 0
        self._empty()

    def _empty(self) -> None:
        """Nothing to do, and nothing kept."""
        self.prefixes = Prefixes(*self.room_for_prefixes) if self.room_for_prefixes else None
        self.waiting, self.filling, self.running = deque[Job](), list[Filling](), Running(self.block)
        self.coming = dict[int, Job]()
        self.held = self.tokens = self.pause = 0
        self.idle = True
        self.start, self.ends, self.each = 0, np.zeros(0, np.int64), np.zeros(0, np.int64)
        self.host.clear()

    def offer(self, job: Job) -> None:
        """A job: a prompt to compute, or a sequence whose cache is here."""
        if self.idle:
            self._tell_load()
        self.waiting.append(job)
        self.tokens += job.context
        if self.idle:
            self._begin()
        elif len(self.ends) and self._admissible():
            self._cut()

    def release(self, job: Job) -> None:
        """The cache of a prompt has gone to where it decodes."""
        self._tell_load()
        self.held -= self._blocks(job.context)
        if self.idle:
            self._begin()
        else:
            self._tell_load()

    def fail(self) -> list[Job]:
        """All that it had to do, without caches; what it has begun is lost."""
        self._tell(int(np.searchsorted(self.ends, self.clock.now, side="right")))
        lost = self.running.all() + [each.job for each in self.filling] + [*self.coming.values(), *self.waiting]
        self.epoch, self.turn, self.down = self.epoch + 1, self.turn + 1, True
        self._empty()
        self._tell_load()
        return [job._replace(swapped=False) for job in lost]

    def used(self) -> int:
        """Blocks that are not free."""
        return self.held + self.running.blocks(0)

    def _blocks(self, tokens: int) -> int:
        return -(-tokens // self.block)

    def _admissible(self) -> bool:
        """Whether the next that waits has room, with a token to come."""
        if not self.waiting or len(self.running) + len(self.filling) + len(self.coming) >= self.most:
            return False
        more = self._blocks(self.waiting[0].context + 1)
        rough = self.running.tokens / self.block + len(self.running) + self.held
        return rough + more <= self.room or self.used() + more <= self.room

    def _begin(self) -> None:
        """The next step, if there is something to do."""
        self._admit()
        self._tell_load()
        self.idle = False
        if self.filling:
            self._prefill()
        elif len(self.running):
            self._decode()
        else:
            self.idle = True

    def _tell_load(self, steps: int = 0) -> None:
        """What there is now. steps: that sequences have done since they were counted."""
        used = (self.held + self.running.blocks(steps)) / self.room if self.room else 0.0
        others = len(self.waiting) + len(self.filling) + len(self.coming)
        self.log.load.append((self.clock.now, self.number, len(self.running), others, used))

    def _admit(self) -> None:
        while self._admissible():
            job = self.waiting.popleft()
            if job.swapped:
                self._fetch(job)
            elif not self.prefills:
                self.running.admit([job])
            else:
                self.held += self._blocks(job.context)
                self.filling.append(Filling(job, *self._kept(job)))

    def _kept(self, job: Job) -> tuple[int, int]:
        """Tokens of a prompt that are in the cache from others, and those of them that host memory keeps; the last one
        is always computed."""
        if self.prefixes is None or not job.blocks:
            return 0, 0
        blocks, below = self.prefixes.use(job.blocks)
        kept, fetched = min(blocks * self.shared, job.context - 1), below * self.shared
        if job.fresh:
            self.log.cached[job.request], self.log.fetched[job.request] = kept, fetched
        return kept, fetched

    def _fetch(self, job: Job) -> None:
        """A swapped sequence's cache comes back to blocks that are its own from now on."""
        self.held += self._blocks(job.context)
        self.coming[job.request] = job
        self.clock.at(self.host.fetch(job.context, self.clock.now), self._fetched, job, self.epoch)

    def _fetched(self, job: Job, epoch: int) -> None:
        if epoch != self.epoch:
            return
        self.held -= self._blocks(job.context)
        del self.coming[job.request]
        self.running.admit([job._replace(swapped=False)])
        if self.idle:
            self._begin()
        elif len(self.ends):
            self._cut()

    # --- prompts ------------------------------------------------------------------------------------------------------

    def _prefill(self) -> None:
        """Parts of prompts, each to the group with the fewest tokens; the step is as long as the fullest group's."""
        tokens, pairs, fetched = np.zeros((3, self.groups))
        parts: list[tuple[Filling, int]] = []
        for each in self.filling:
            group = int(tokens.argmin())
            part = min(each.rest, int(self.own.pool.chunk - tokens[group]))
            if part <= 0:
                break
            parts.append((each, part))
            tokens[group] += part
            pairs[group] += part * (each.done + part / 2)
            fetched[group] += each.fetched
            each.fetched = 0
            if each.job.fresh and self.log.begun[each.job.request] == NEVER:
                self.log.begun[each.job.request] = self.clock.now
        most = int(tokens.argmax())
        full = int(tokens[most])
        mean = float(tokens.sum()) / (full * self.groups)
        ns = round(self.own.grid.prefill_ns(full, max(1.0, float(pairs[most]) / full), mean)) + self.own.pool.host
        if fetched.any():
            ns = max(ns, self.own.host_ns(int(fetched.max())))
        self._spend("prefill", self.clock.now, ns, int(tokens.sum()))
        self.clock.at(self.clock.now + ns, self._filled, parts, self.epoch)

    def _spend(self, kind: str, start: int, ns: int, count: int) -> None:
        """Time on steps of a kind. count: tokens of prompts, or sequences."""
        self.log.spend(kind, ns, self.own.pool.gpus)
        self.log.spans.append((start, start + ns, self.number, kind, count))

    def _filled(self, parts: list[tuple[Filling, int]], epoch: int) -> None:
        if epoch != self.epoch:
            return
        self._tell_load()
        ready = []
        for each, part in parts:
            each.done += part
            if not each.rest:
                ready.append(each.job)
        if ready:
            self.filling = [each for each in self.filling if each.rest]
            for job in ready:
                self._first(job)
        self._begin()

    def _first(self, job: Job) -> None:
        """A prompt is computed, and a token with it."""
        self.tokens -= job.context
        if self.prefixes is not None:
            self.prefixes.keep(job.blocks)
        if job.fresh:
            self.log.first[job.request] = self.clock.now
        if not job.left:
            self.held -= self._blocks(job.context)
            self._over(job)
        elif self.decodes:
            self.held -= self._blocks(job.context)
            self.running.admit([job._replace(fresh=False)])
            self.tokens += job.context
        else:
            self.filled(self, job._replace(fresh=False))

    def _over(self, job: Job) -> None:
        self.log.last[job.request] = self.clock.now
        self.ended(self, job)

    # --- decode -------------------------------------------------------------------------------------------------------

    def _decode(self) -> None:
        """As many steps as nothing comes or goes in."""
        running = self.running
        while len(running) > 1 and not running.fitting(1, self.room - self.held):
            self._lose()
        steps = min(running.soonest, MOST_STEPS)
        steps = max(1, running.fitting(steps, self.room - self.held))
        count = len(running)
        first, more = running.tokens / count + self.own.grid.queries, running.pace / count
        each = self.own.grid.decode_ns(-(-count // self.groups), first + more * np.arange(steps, dtype=np.float64))
        self.each = np.rint(each).astype(np.int64) + self.own.pool.host
        self.each[0] += self.pause
        self.pause = 0
        self.start, self.ends = self.clock.now, self.clock.now + self.each.cumsum()
        self.turn += 1
        self.clock.at(int(self.ends[-1]), self._decoded, self.turn)

    def _cut(self) -> None:
        """No more steps than the one under way."""
        count = int(np.searchsorted(self.ends, self.clock.now)) + 1
        if count < len(self.ends):
            self.ends, self.turn = self.ends[:count], self.turn + 1
            self.clock.at(int(self.ends[-1]), self._decoded, self.turn)

    def _decoded(self, turn: int) -> None:
        if turn != self.turn:
            return
        self._tell(len(self.ends))
        self._begin()

    def _tell(self, steps: int) -> None:
        """So many of the decode steps under way are done; whoever has its last token ends."""
        ends, self.ends = self.ends[:steps], self.ends[:0]
        if not len(ends):
            return
        self.log.steps.append((self.each[:steps], len(self.running)))
        self._spend("decode", self.start, int(ends[-1]) - self.start, len(self.running))
        self._tell_load(steps)
        for job in self.running.advance(steps):
            self.tokens -= job.context
            self._over(job)

    def _lose(self) -> None:
        """The sequence that came last gives its cache up. The next step waits while that goes to the host."""
        self.tokens -= self.running.jobs[-1].context
        job = self.running.evict()
        swapped = self.host.takes(job.context)
        if swapped:
            self.pause += self.host.store(job.context)
            self.log.swapped += 1
        else:
            self.log.again[job.request] += 1
        if self.prefills or swapped:
            self.waiting.appendleft(job._replace(swapped=swapped))
            self.tokens += job.context
        else:
            self.lost(self, job)
