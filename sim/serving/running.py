"""Sequences that an instance decodes, as columns in the order they were admitted."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from sim.serving.job import Job

Reals = npt.NDArray[np.float64]


class Running:
    """context [sequences]: tokens in the cache; grows: by how many in a step; left: steps until the last token. block:
    tokens of a block of the cache. tokens, pace: sums of context and grows; soonest: the least of left."""

    def __init__(self, block: int) -> None:
        self.block, self.jobs = block, list[Job]()
        self.context: Reals = np.zeros(0)
        self.grows: Reals = np.zeros(0)
        self.left: npt.NDArray[np.int64] = np.zeros(0, np.int64)
        self.tokens, self.pace, self.soonest = 0.0, 0.0, 0

    def __len__(self) -> int:
        return len(self.jobs)

    def admit(self, jobs: Sequence[Job]) -> None:
        """Sequences whose cache is there."""
        self.jobs.extend(jobs)
        self.context = np.concatenate((self.context, [float(job.context) for job in jobs]))
        self.grows = np.concatenate((self.grows, [job.grows for job in jobs]))
        self.left = np.concatenate((self.left, [job.left for job in jobs]))
        self._count()

    def _count(self) -> None:
        self.tokens, self.pace = float(self.context.sum()), float(self.grows.sum())
        self.soonest = int(self.left.min()) if self.jobs else 0

    def blocks(self, steps: int) -> int:
        """Blocks that all have after so many more steps, in which none ends."""
        if not self.jobs:
            return 0
        return int(np.ceil((self.context + self.grows * steps) / self.block).sum())

    def fitting(self, steps: int, room: int) -> int:
        """Of so many steps, those after which all still fits."""
        tokens = self.tokens + self.pace * steps
        if tokens / self.block + len(self) <= room or self.blocks(steps) <= room:
            return steps
        low = 0
        while steps - low > 1:
            middle = (low + steps) // 2
            low, steps = (middle, steps) if self.blocks(middle) <= room else (low, middle)
        return low

    def advance(self, steps: int) -> list[Job]:
        """So many steps later; the jobs that are done."""
        self.context += self.grows * steps
        self.left -= steps
        self.tokens += self.pace * steps
        self.soonest -= steps
        if self.soonest > 0:
            return []
        done = self.left <= 0
        ended = [job for job, over in zip(self.jobs, done, strict=True) if over]
        self._keep(~done)
        return ended

    def evict(self) -> Job:
        """The job that was admitted last, as it is now: its context must be computed again."""
        now = self._without(len(self.jobs) - 1)
        self._keep(np.arange(len(self.jobs)) < len(self.jobs) - 1)
        return now

    def all(self) -> list[Job]:
        """All jobs as they are now, without their caches."""
        return [self._without(i) for i in range(len(self.jobs))]

    def _without(self, i: int) -> Job:
        return self.jobs[i].evicted(round(float(self.context[i])), int(self.left[i]))

    def _keep(self, these: npt.NDArray[np.bool_]) -> None:
        self.jobs = [job for job, kept in zip(self.jobs, these, strict=True) if kept]
        self.context, self.grows, self.left = self.context[these], self.grows[these], self.left[these]
        self._count()
