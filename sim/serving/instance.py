"""An instance at work: continuous batching step by step, prompts first, by free blocks of the cache.

Prompts go in the order they come, in parts of a chunk; while any waits and fits, no decode step runs (SGLang's default
order). Decode steps in which nothing comes or goes are one event: their durations are priced each, and a request that
comes in between cuts them at the end of the step under way. A sequence that finds no block for its next token makes the
one that was admitted last give up its cache, to be computed again.
"""

from collections import deque
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from sim.engine.clock import Clock
from sim.serving.deployment import Deployed
from sim.serving.job import Filling, Job
from sim.serving.log import NEVER, Log
from sim.serving.prefix import Prefixes
from sim.serving.running import Running
from sim.serving.values import DECODE, PREFILL

MOST_STEPS = 512
"""Decode steps of an event."""

Ends = npt.NDArray[np.int64]
Told = Callable[["Instance", Job], None]


class Instance:
    """number: of all instances. block, shared: tokens of a block of the cache, and of one that prompts share (0: none
    are named). filled: told of a prompt whose first token is there; ended: of a last token; lost: of a job whose cache
    an instance that only decodes gave up."""

    def __init__(
        self, number: int, clock: Clock, own: Deployed, log: Log, block: int, shared: int,
        filled: Told, ended: Told, lost: Told,
    ) -> None:  # fmt: skip
        self.number, self.clock, self.own, self.log, self.block = number, clock, own, log, block
        self.filled, self.ended, self.lost = filled, ended, lost
        self.groups, pool = own.pool.groups, own.pool
        self.room = own.tokens // block * self.groups
        self.most = pool.batch * self.groups
        self.decodes, self.prefills = pool.does != PREFILL, pool.does != DECODE
        self.prefixes = Prefixes(own.prefix_tokens * self.groups // shared) if shared and own.prefix_tokens else None
        self.shared = shared
        self.waiting, self.filling, self.running = deque[Job](), list[Filling](), Running(block)
        self.held = 0
        self.tokens = 0
        self.idle, self.turn = True, 0
        self.start, self.ends, self.each = 0, np.zeros(0, np.int64), np.zeros(0, np.int64)

    def offer(self, job: Job) -> None:
        """A job: a prompt to compute, or a sequence whose cache is here."""
        self.waiting.append(job)
        self.tokens += job.context
        if self.idle:
            self._begin()
        elif len(self.ends) and self._admissible():
            self._cut()

    def release(self, job: Job) -> None:
        """The cache of a prompt has gone to where it decodes."""
        self.held -= self._blocks(job.context)
        if self.idle:
            self._begin()

    def used(self) -> int:
        """Blocks that are not free."""
        return self.held + self.running.blocks(0)

    def _blocks(self, tokens: int) -> int:
        return -(-tokens // self.block)

    def _admissible(self) -> bool:
        """Whether the next that waits has room, with a token to come."""
        if not self.waiting or len(self.running) + len(self.filling) >= self.most:
            return False
        more = self._blocks(self.waiting[0].context + 1)
        rough = float(self.running.context.sum()) / self.block + len(self.running) + self.held
        return rough + more <= self.room or self.used() + more <= self.room

    def _begin(self) -> None:
        """The next step, if there is something to do."""
        self._admit()
        self.log.load.append((self.clock.now, self.number, len(self.running), len(self.waiting) + len(self.filling)))
        self.idle = False
        if self.filling:
            self._prefill()
        elif len(self.running):
            self._decode()
        else:
            self.idle = True

    def _admit(self) -> None:

        while self._admissible():
            job = self.waiting.popleft()
            if not self.prefills:
                self.running.admit([job])
                continue
            self.held += self._blocks(job.context)
            self.filling.append(Filling(job, self._kept(job)))

    def _kept(self, job: Job) -> int:
        """Tokens of a prompt that are in the cache from others; the last one is always computed."""
        if self.prefixes is None or not job.blocks:
            return 0
        kept = min(self.prefixes.use(job.blocks) * self.shared, job.context - 1)
        if job.fresh:
            self.log.cached[job.request] = kept
        return kept

    # --- prompts ------------------------------------------------------------------------------------------------------

    def _prefill(self) -> None:
        """Parts of prompts, each to the group with the fewest tokens; the step is as long as the fullest group's."""
        tokens, pairs = np.zeros(self.groups), np.zeros(self.groups)
        parts: list[tuple[Filling, int]] = []
        for each in self.filling:
            group = int(tokens.argmin())
            part = min(each.rest, int(self.own.pool.chunk - tokens[group]))
            if part <= 0:
                break
            parts.append((each, part))
            tokens[group] += part
            pairs[group] += part * (each.done + part / 2)
            if each.job.fresh and self.log.begun[each.job.request] == NEVER:
                self.log.begun[each.job.request] = self.clock.now
        most = int(tokens.argmax())
        full = int(tokens[most])
        mean = float(tokens.sum()) / (full * self.groups)
        ns = round(self.own.grid.prefill_ns(full, max(1.0, float(pairs[most]) / full), mean)) + self.own.pool.host
        self.log.spend("prefill", ns)
        self.clock.at(self.clock.now + ns, self._filled, parts)

    def _filled(self, parts: list[tuple[Filling, int]]) -> None:
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
        steps = min(int(running.left.min()), MOST_STEPS)
        steps = max(1, running.fitting(steps, self.room - self.held))
        count = len(running)
        first, more = running.context.sum() / count + 1, running.grows.sum() / count
        each = self.own.grid.decode_ns(-(-count // self.groups), first + more * np.arange(steps))
        self.each = np.rint(each).astype(np.int64) + self.own.pool.host
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
        ends, self.ends = self.ends, self.ends[:0]
        self.log.steps.append((self.each[: len(ends)], len(self.running)))
        self.log.spend("decode", int(ends[-1]) - self.start)
        for job in self.running.advance(len(ends)):
            self.tokens -= job.context
            self._over(job)
        self._begin()

    def _lose(self) -> None:
        """The sequence that came last gives its cache up."""
        self.tokens -= self.running.jobs[-1].context
        job = self.running.evict()
        self.log.again[job.request] += 1
        if self.prefills:
            self.waiting.appendleft(job)
            self.tokens += job.context
        else:
            self.lost(self, job)
