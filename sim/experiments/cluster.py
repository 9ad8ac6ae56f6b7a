"""Runs on a Dask cluster: `dask scheduler` and `dask worker`s as its users start them, on one machine or many.

Workers need this project installed, the same files of code and tables (a worker with others is refused: its answers
would be others'), and scenario files under the same path. Dask gives what a dead worker had to another one.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any, TypeVar

from hwmodels.refused import Refused
from sim.experiments.record import stamp

Task = TypeVar("Task")
Outcome = TypeVar("Outcome")
AHEAD = 2
"""Tasks that wait for each worker, so that none is idle while results are written."""
DEATHS = 5
"""Workers that may die over a task before it is blamed: a machine that is too small kills it every time."""

PATIENCE_S = 30
"""How long a scheduler may take to answer."""


@contextmanager
def connected(address: str) -> "Iterator[Cluster]":
    """The workers of the scheduler at an address. Raises Refused where nobody answers, or Dask is not installed."""
    try:
        dask: Any = import_module("distributed")
    except ImportError:
        raise Refused("--executor dask needs Dask: pip install 'trainyard[cluster]'") from None
    try:
        client = dask.Client(address, timeout=PATIENCE_S, set_as_default=False)
    except (OSError, ValueError) as error:
        why = " ".join(str(error).split())
        raise Refused(f"--executor dask:{address}: no scheduler answers there ({why})") from None
    try:
        yield Cluster(dask, client, address)
    finally:
        client.close()


class Cluster:
    """Workers of a Dask scheduler."""

    def __init__(self, dask: Any, client: Any, address: str) -> None:
        self.dask, self.client, self.address = dask, client, address

    def results(self, function: Callable[[Task], Outcome], tasks: Iterable[Task]) -> Iterator[tuple[int, Outcome]]:
        """See `sim.experiments.executors.Executor`."""
        waiting = enumerate(tasks)
        running: dict[Any, tuple[int, Task, int]] = {}
        coming = self.dask.as_completed(loop=self.client.loop)

        def submit(number: int, task: Task, deaths: int) -> None:
            future = self.client.submit(_stamped, function, task, pure=False)
            running[future] = number, task, deaths
            coming.add(future)

        try:
            for number, task in _first(waiting, AHEAD * max(1, sum(self.client.ncores().values()))):
                submit(number, task, 0)
            while running:
                future = next(coming)
                number, task, deaths = running.pop(future)
                if (outcome := self._outcome(future, deaths)) is None:
                    submit(number, task, deaths + 1)
                    continue
                yield number, outcome[0]
                for further in _first(waiting, 1):
                    submit(*further, 0)
        finally:
            self.client.cancel(list(running))

    def _outcome(self, future: Any, deaths: int) -> tuple[Any] | None:
        """What a worker answered, None where it died too often over the task. Raises what the function did."""
        try:
            mark, outcome = future.result()
        except self.dask.KilledWorker:
            if deaths + 1 >= DEATHS:
                what = "workers kept dying over the same run; is there too little memory for it? What was done is kept"
                raise Refused(what) from None
            return None
        except self.dask.client.FutureCancelledError:
            raise Refused(f"the scheduler at {self.address} is gone; what was done is kept") from None
        if mark != stamp():
            what = "a worker has other code, machines or tables than this one, so its answers would not be ours"
            raise Refused(f"--executor dask:{self.address}: {what}; install the same there")
        return (outcome,)


def _stamped(function: Callable[[Task], Outcome], task: Task) -> tuple[str, Outcome]:
    return stamp(), function(task)


def _first(items: Iterator[tuple[int, Task]], count: int) -> Iterator[tuple[int, Task]]:
    for _, item in zip(range(count), items, strict=False):
        yield item
