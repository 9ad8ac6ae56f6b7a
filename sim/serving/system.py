"""All instances and what is asked of them: router, the cache's way between pools, nodes that fail, clients who wait."""

import heapq
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from hwmodels.refused import Refused
from hwmodels.units import NS_PER_S
from sim.engine.clock import Clock
from sim.routing.keyed import generator
from sim.serving.asked import Asked, asked
from sim.serving.deployment import deployed
from sim.serving.instance import Instance
from sim.serving.job import Job
from sim.serving.log import NEVER, Log
from sim.serving.values import BOTH, CLOSED, DECODE, PREFILL, PREFIX, ROUND_ROBIN, SWAP, Pool, Serve

MOST_FAILURES = 100_000
"""Of a run; one that has more is taken to end never."""


class Sent(NamedTuple):
    """An instance that a cache leaves or goes to, and how often it had failed then."""

    source: Instance
    epoch: int

    @property
    def lives(self) -> bool:
        """Whether it has not failed since."""
        return self.epoch == self.source.epoch


class System:
    """A deployment at work. first, second: instances that compute prompts, and that decode where those are others."""

    def __init__(self, serve: Serve, requests: Asked) -> None:
        self.serve, self.requests = serve, requests
        self.clock, self.log = Clock(), Log.of(requests)
        self.first = self._instances(PREFILL, BOTH)
        self.second = self._instances(DECODE)
        self.turns = [0, 0]
        self.layers = serve.model.layers
        self.lanes = {each.number: [0] * each.groups for each in (*self.first, *self.second)}
        self.inside, self.since, self.next, self.over = 0, 0, 0, 0
        self.parked: list[tuple[Job, Sent | None]] = []

    def _instances(self, *kinds: str) -> list[Instance]:
        block, shared, swaps = self.serve.cache.block, self.requests.block, self.serve.cache.preempt == SWAP
        return [
            Instance(
                number, self.clock, deployed(self.serve, pool), self.log, block, shared, swaps,
                self._send, self._end, self._again,
            )
            for number, pool in self._pools() if pool.does in kinds
        ]  # fmt: skip

    def _pools(self) -> Iterator[tuple[int, Pool]]:
        """The pool of each instance, with the instance's number."""
        return enumerate(pool for pool in self.serve.pools for _ in range(pool.instances))

    def run(self) -> Log:
        """All requests to their end. Raises Refused for one that fits nowhere."""
        self.check()
        for each in (*self.first, *self.second) if self.serve.failures.mtbf_ns else ():
            self._await_failure(each, generator(self.serve.seed, "failures", rank=each.number))
        if self.serve.requests.arrivals == CLOSED:
            for _ in range(min(self.serve.requests.clients, len(self.requests.arrival))):
                self._ask()
        else:
            for i, time in enumerate(self.requests.arrival.tolist()):
                self.clock.at(time, self._arrive, i)
        self.clock.work_off()
        self._count(0)
        if (self.log.last == NEVER).any():
            stuck = int(np.flatnonzero(self.log.last == NEVER)[0])
            raise AssertionError(f"request {stuck} never ended")
        return self.log

    def check(self) -> None:
        """Raises Refused for a request that fits nowhere."""
        whole = self.requests.prompt + self.requests.output
        room = min(each.own.tokens for each in (*self.first, *self.second))
        if (whole > room).any():
            i = int(np.flatnonzero(whole > room)[0])
            what = f"request {i} of {int(whole[i]):,} tokens does not fit"
            raise Refused(f"{what}: the cache of an attention group holds {room:,}")

    def _ask(self) -> None:
        """The next request of a closed loop, now."""
        if self.next < len(self.requests.arrival):
            self.log.arrival[self.next] = self.clock.now
            self._arrive(self.next)
            self.next += 1

    def _arrive(self, i: int) -> None:
        self._count(1)
        steps, grows = self._steps(i)
        blocks = self.requests.blocks[i] if self.requests.blocks else ()
        self._begin(Job(i, int(self.requests.prompt[i]), steps, grows, blocks))

    def _begin(self, job: Job) -> None:
        """A prompt to be computed, once an instance is there."""
        target = self._to(self.first, job)
        if target is None:
            self.parked.append((job, None))
        else:
            target.offer(job)

    def _steps(self, i: int) -> tuple[int, float]:
        """Decode steps until a request's last token, and tokens of each on average: as drafts stand."""
        tokens, drafting = int(self.requests.output[i]) - 1, self.serve.speculation
        if not drafting.depth or not tokens:
            return tokens, 1.0
        random = generator(self.serve.seed, "drafts", rank=i)
        stands = random.random((tokens, drafting.depth)) < drafting.acceptance
        made = 1 + np.cumprod(stands, axis=1).sum(axis=1)
        steps = int(np.searchsorted(np.cumsum(made), tokens)) + 1
        return steps, tokens / steps

    def _to(self, instances: Sequence[Instance], job: Job) -> Instance | None:
        """Who gets a job, of those that are there."""
        router, begins = self.serve.router, instances is self.first
        instances = [each for each in instances if not each.down] if self.serve.failures.mtbf_ns else instances
        if not instances:
            return None
        if router == ROUND_ROBIN:
            turn = self.turns[begins]
            self.turns[begins] = turn + 1
            return instances[turn % len(instances)]
        known = [_known(each, job) if router == PREFIX and begins else 0 for each in instances]
        best = min(range(len(instances)), key=lambda i: (-known[i], instances[i].tokens / instances[i].groups))
        return instances[best]

    def _send(self, source: Instance, job: Job) -> None:
        """A prompt's cache to where it decodes."""
        self._transfer(Sent(source, source.epoch), job, int(self.log.begun[job.request]))

    def _transfer(self, sent: Sent, job: Job, since: int) -> None:
        """Layer by layer since its prompt was begun, so that what is left is the last layer, or what NICs have not
        carried yet: those of the group that sends and of the group that gets it, each with its transfers one after
        another."""
        target = self._to(self.second, job)
        if target is None:
            self.parked.append((job, sent))
            return
        target.tokens += job.context
        source, size = sent.source, target.own.token_bytes * job.context
        gets = size / target.own.rate
        gives = size * target.own.pool.tensor / (source.own.rate * source.own.pool.tensor)
        ns = max(gets, gives) * NS_PER_S
        lanes = self.lanes[source.number], self.lanes[target.number]
        start = max(*(heapq.heappop(lane) for lane in lanes), since)
        end = round(max(start + ns, self.clock.now + ns / self.layers))
        for lane in lanes:
            heapq.heappush(lane, end)
        self.clock.at(end, self._sent, sent, Sent(target, target.epoch), job)

    def _sent(self, sent: Sent, to: Sent, job: Job) -> None:
        """Arrived, unless either end has failed since."""
        if to.lives:
            to.source.tokens -= job.context
        if not sent.lives:
            self._lost(job)
            return
        if not to.lives:
            self._transfer(sent, job, self.clock.now)
            return
        self.log.sent[job.request] = self.clock.now
        sent.source.release(job)
        to.source.offer(job)

    def _again(self, source: Instance, job: Job) -> None:
        self._begin(job)

    # --- failures -----------------------------------------------------------------------------------------------------

    def _await_failure(self, each: Instance, random: np.random.Generator) -> None:
        """The next failure of an instance: any of its nodes'."""
        nodes = -(-each.own.pool.gpus // self.serve.node.gpus)
        gap = round(random.exponential(self.serve.failures.mtbf_ns / nodes))
        self.clock.at(self.clock.now + gap, self._fail, each, random)

    def _fail(self, each: Instance, random: np.random.Generator) -> None:
        if self.over == len(self.requests.arrival):
            return
        if self.log.failures == MOST_FAILURES:
            of = len(self.requests.arrival)
            raise Refused(f"{MOST_FAILURES:,} failures and {self.over:,} of {of:,} requests served: nothing would end",
                          key="serve.failures.mtbf")  # fmt: skip
        jobs = each.fail()
        self.log.failures += 1
        self.log.down_ns += self.serve.failures.repair_ns
        self.clock.at(self.clock.now + self.serve.failures.repair_ns, self._repaired, each, random)
        for job in jobs:
            self._lost(job)

    def _lost(self, job: Job) -> None:
        """Whose cache an instance has lost that failed: it begins anew."""
        self.log.again[job.request] += not job.fresh
        self._begin(job)

    def _repaired(self, each: Instance, random: np.random.Generator) -> None:
        """It is there again, for those that waited too."""
        each.down = False
        self._await_failure(each, random)
        parked, self.parked = self.parked, []
        for job, sent in parked:
            if sent is None:
                self._begin(job)
            elif not sent.lives:
                self._lost(job)
            else:
                self._transfer(sent, job, self.clock.now)

    def _end(self, source: Instance, job: Job) -> None:
        self._count(-1)
        self.over += 1
        if self.serve.requests.arrivals == CLOSED:
            self._ask()

    def _count(self, change: int) -> None:
        """Requests in the system, over time."""
        self.log.inside += self.inside * (self.clock.now - self.since)
        self.inside, self.since = self.inside + change, self.clock.now


def _known(each: Instance, job: Job) -> int:
    """Blocks at the beginning of a prompt that an instance has."""
    return each.prefixes.known(job.blocks) if each.prefixes else 0


def run(serve: Serve) -> tuple[Asked, Log]:
    """What was asked, and what happened. Raises Refused."""
    requests = asked(serve.requests, serve.seed)
    return requests, System(serve, requests).run()
