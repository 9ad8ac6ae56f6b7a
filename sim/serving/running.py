"""Sequences that an instance decodes, as columns in the order they were admitted."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from sim.serving.job import Job

Reals = npt.NDArray[np.float64]


class Running:
    """context [sequences]: tokens in the cache; grows: by how many in a step; left: steps until the last token. block:
    tokens of a block of the cache."""

    def __init__(self, block: int) -> None:
        self.block, self.jobs = block, list[Job]()
        self.context: Reals = np.zeros(0)
        self.grows: Reals = np.zeros(0)
        self.left: npt.NDArray[np.int64] = np.zeros(0, np.int64)

    def __len__(self) -> int:
        return len(self.jobs)

    def admit(self, jobs: Sequence[Job]) -> None:
        """Sequences whose cache is there."""
        self.jobs.extend(jobs)
        self.context = np.append(self.context, [float(job.context) for job in jobs])
        self.grows = np.append(self.grows, [job.grows for job in jobs])
        self.left = np.append(self.left, [job.left for job in jobs])

    def blocks(self, steps: int) -> int:
        """Blocks that all have after so many more steps, in which none ends."""
        return int(np.ceil((self.context + self.grows * steps) / self.block).sum())

    def fitting(self, steps: int, room: int) -> int:
        """Of so many steps, those after which all still fits."""
        tokens = float(self.context.sum()) + float(self.grows.sum()) * steps
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
        done = self.left <= 0
        if not done.any():
            return []
        ended = [job for job, over in zip(self.jobs, done, strict=True) if over]
        self._keep(~done)
        return ended

    def evict(self) -> Job:
        """The job that was admitted last, as it is now: its context must be computed again."""
        job = self.jobs[-1]
        left = int(self.left[-1])
        now = job.evicted(round(float(self.context[-1])), left)
        self._keep(np.arange(len(self.jobs)) < len(self.jobs) - 1)
        return now

    def _keep(self, these: npt.NDArray[np.bool_]) -> None:
        self.jobs = [job for job, kept in zip(self.jobs, these, strict=True) if kept]
        self.context, self.grows, self.left = self.context[these], self.grows[these], self.left[these]
