"""A campaign second by second in one seed, with lists and a heap: no axis, no arrays, nothing of sim.campaign.

The run goes through segments, each some seconds that end with a checkpoint, which is whole `lag` seconds later.
Failures come from whoever draws them: (time, nodes that fail at once, when they are repaired).
"""

import heapq
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

Failure = tuple[float, Sequence[int], float]


@dataclass
class Fleet:
    """Who works and who waits. turns: spares in the order in which they stand in, each with when it is ready."""

    nodes: int
    spares: int
    working: set[int] = field(default_factory=set)
    turns: list[list[float]] = field(default_factory=list)
    turn: int = 0

    def __post_init__(self) -> None:
        self.working = set(range(self.nodes))
        self.turns = [[0.0, node] for node in range(self.nodes, self.nodes + self.spares)]

    def fail(self, time: float, node: int, repaired: float) -> float | None:
        """When the job has all nodes again, or None where a spare failed."""
        if node not in self.working:
            for entry in self.turns:
                if entry[1] == node:
                    entry[0] = max(entry[0], repaired)
            return None
        if not self.turns:
            return repaired
        at = self.turn
        if self.turns[at][0] > time:
            at = min(range(len(self.turns)), key=lambda i: self.turns[i][0])
        self.turn = (at + 1) % len(self.turns)
        ready, other = self.turns[at]
        if ready > repaired:
            return repaired
        self.working.remove(node)
        self.working.add(int(other))
        self.turns[at] = [repaired, node]
        return max(time, ready)


def wall(
    segments: Sequence[float], lag: float, fleet: Fleet, failures: Iterator[Failure], detect: float, replace: float,
    restart: float,
) -> float:  # fmt: skip
    """Seconds until the last segment is through."""
    now, segment, into, needed, lacking = 0.0, 0, 0.0, 0.0, 0.0
    whole, under_way = 0, list[tuple[float, int]]()
    for time, nodes, repaired in failures:
        while now < time and now + segments[segment] - into <= time:
            now, into, segment = now + segments[segment] - into, 0.0, segment + 1
            if segment == len(segments):
                return now
            under_way.append((now + lag, segment))
        if now < time:
            into, now = into + time - now, time
        there = [node for node in nodes if node < fleet.nodes + fleet.spares]
        held = [fleet.fail(time, node, repaired) for node in there] if nodes else [time]
        waits = [each for each in held if each is not None]
        if not waits:
            continue
        whole = max([whole, *(number for ready, number in under_way if ready <= time)])
        under_way, segment, into = [], whole, 0.0
        needed = max(needed, *waits)  # a job that is down lacks nodes of all failures that have stopped it
        ready = max(time + detect + (replace if nodes or time < lacking else 0.0), needed)
        lacking = ready if ready > time + detect else 0.0
        now = ready + restart
    raise AssertionError("failures end before the run")


def drawn(seed: int, means: Sequence[float], repair: float, behind: int = 1, switch_mean: float = 0.0,
          switch_repair: float = 0.0) -> Iterator[Failure]:  # fmt: skip
    """Exponential failures of nodes with means of their own, and of switches with `behind` nodes each."""
    random_ = random.Random(seed)
    heap = [(random_.expovariate(1 / mean), 0, node) for node, mean in enumerate(means)]
    if switch_mean:
        heap += [(random_.expovariate(1 / switch_mean), 1, at) for at in range(-(-len(means) // behind))]
    heapq.heapify(heap)
    while heap:
        time, kind, who = heapq.heappop(heap)
        gap, mean = (switch_repair, switch_mean) if kind else (repair, means[who])
        yield time, range(who * behind, who * behind + behind) if kind else (who,), time + gap
        heapq.heappush(heap, (time + gap + random_.expovariate(1 / mean), kind, who))
