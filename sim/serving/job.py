"""A request on its way through instances."""

from typing import NamedTuple


class Job(NamedTuple):
    """request: its number. context: tokens that its cache holds when it decodes next, or must hold before. left: decode
    steps to come; grows: tokens of each, on average. blocks: names of blocks of its prompt. fresh: it has no token
    yet. swapped: its cache is in host memory."""

    request: int
    context: int
    left: int
    grows: float = 1.0
    blocks: tuple[int, ...] = ()
    fresh: bool = True
    swapped: bool = False

    def evicted(self, context: int, left: int) -> "Job":
        """Without its cache, after so many tokens."""
        return self._replace(context=context, left=left, fresh=False)


class Filling:
    """A prompt that is being computed. done: tokens in the cache, those kept from others included; fetched: of them,
    those that host memory keeps and nobody has read yet."""

    __slots__ = ("done", "fetched", "job")

    def __init__(self, job: Job, done: int, fetched: int = 0) -> None:
        self.job, self.done, self.fetched = job, done, fetched

    @property
    def rest(self) -> int:
        """Tokens to compute."""
        return self.job.context - self.done
