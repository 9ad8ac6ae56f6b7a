"""All instances and what is asked of them: the router, the cache's way between pools, clients who wait."""

import heapq
from collections.abc import Iterator, Sequence

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
from sim.serving.values import BOTH, CLOSED, DECODE, PREFILL, PREFIX, ROUND_ROBIN, Pool, Serve


class System:
    """A deployment at work. first, second: instances that compute prompts, and that decode where those are others."""

    def __init__(self, serve: Serve, requests: Asked) -> None:
        self.serve, self.requests = serve, requests
        self.clock, self.log = Clock(), Log.of(requests)
        self.first = self._instances(PREFILL, BOTH)
        self.second = self._instances(DECODE)
        self.turns = [0, 0]
        self.layers = serve.model.layers
        self.lanes = {id(each): [0] * each.groups for each in self.second}
        self.inside, self.since, self.next = 0, 0, 0

    def _instances(self, *kinds: str) -> list[Instance]:
        block, shared = self.serve.cache.block, self.requests.block
        return [
            Instance(
                number, self.clock, deployed(self.serve, pool), self.log, block, shared,
                self._send, self._end, self._again,
            )
            for number, pool in self._pools() if pool.does in kinds
        ]  # fmt: skip

    def _pools(self) -> Iterator[tuple[int, Pool]]:
        """The pool of each instance, with the instance's number."""
        return enumerate(pool for pool in self.serve.pools for _ in range(pool.instances))

    def run(self) -> Log:
        """All requests to their end. Raises Refused for one that fits nowhere."""
        self._check()
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

    def _check(self) -> None:
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
        job = Job(i, int(self.requests.prompt[i]), steps, grows, blocks)
        self._to(self.first, job).offer(job)

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

    def _to(self, instances: Sequence[Instance], job: Job) -> Instance:
        """Who gets a job."""
        router, begins = self.serve.router, instances is self.first
        if router == ROUND_ROBIN:
            turn = self.turns[begins]
            self.turns[begins] = turn + 1
            return instances[turn % len(instances)]
        known = [_known(each, job) if router == PREFIX and begins else 0 for each in instances]
        best = min(range(len(instances)), key=lambda i: (-known[i], instances[i].tokens / instances[i].groups))
        return instances[best]

    def _send(self, source: Instance, job: Job) -> None:
        """A prompt's cache to where it decodes: layer by layer while it is computed, so that what is left is the last
        layer, or what the NICs of the group have not carried yet; a group's transfers follow each other."""
        target = self._to(self.second, job)
        target.tokens += job.context
        lanes = self.lanes[id(target)]
        ns = target.own.token_bytes * job.context / target.own.rate * NS_PER_S
        start = max(heapq.heappop(lanes), int(self.log.begun[job.request]))
        end = round(max(start + ns, self.clock.now + ns / self.layers))
        heapq.heappush(lanes, end)
        self.clock.at(end, self._sent, source, target, job)

    def _sent(self, source: Instance, target: Instance, job: Job) -> None:
        self.log.sent[job.request] = self.clock.now
        target.tokens -= job.context
        source.release(job)
        target.offer(job)

    def _again(self, source: Instance, job: Job) -> None:
        self._to(self.first, job).offer(job)

    def _end(self, source: Instance, job: Job) -> None:
        self._count(-1)
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
