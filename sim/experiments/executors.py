"""Where runs run: in this process, in processes of this machine, or on a Dask cluster; one interface for all of them.

`results` gives back each task's result once, as it comes, whatever happens to workers: what a killed worker had is done
again by another. Tasks are asked for as workers take them, so that a million of them need no room.

    local:4                 four processes here (local:1 is this process)
    dask:HOST:PORT          the scheduler of `dask scheduler`, with its `dask worker`s; extra `cluster`
"""

import gc
import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from multiprocessing import parent_process
from threading import Thread
from typing import Any, NamedTuple, Protocol

from hwmodels.document import did_you_mean
from hwmodels.refused import Refused
from sim.experiments import cluster
from sim.experiments.cluster import AHEAD, DEATHS, Outcome, Task

KINDS = ("local", "dask")

INTERRUPTED = 130
"""Exit status of a worker that an interrupt ended: 128 and the signal's number, as of shells."""


class Executor(Protocol):
    """Runs a function on tasks."""

    def results(self, function: Callable[[Task], Outcome], tasks: Iterable[Task]) -> Iterator[tuple[int, Outcome]]:
        """Number of each task, from 0, and what the function makes of it, as they come. Raises what the function does,
        and Refused where workers keep dying or cannot be had."""


def jobs(word: str) -> int:
    """Processes of an executor on this machine; 0 of a cluster. Raises Refused for a word that is none."""
    kind, colon, rest = word.partition(":")
    if kind not in KINDS or not colon or not rest:
        near = did_you_mean(kind, KINDS) * (kind not in KINDS) or ";"
        raise Refused(f"--executor: found {word!r}{near} legal: local:N (processes), dask:HOST:PORT (a scheduler)")
    if kind == "dask":
        return 0
    if not rest.isdecimal() or not int(rest):
        raise Refused(f"--executor: local:N expects a whole number of processes, 1 or more; found {rest!r}")
    return int(rest)


@contextmanager
def executor(word: str, fresh: bool = False) -> Iterator[Executor]:
    """The executor that a word means. fresh: a process for each task, so that its memory is its own. Raises Refused."""
    count = jobs(word)
    if not count:
        with cluster.connected(word.partition(":")[2]) as connected:
            yield connected
    elif count == 1 and not fresh:
        yield Here()
    else:
        with closing(Processes(count, fresh)) as processes:
            yield processes


class Here:
    """This process."""

    def results(self, function: Callable[[Task], Outcome], tasks: Iterable[Task]) -> Iterator[tuple[int, Outcome]]:
        """See `Executor`."""
        for number, task in enumerate(tasks):
            yield number, function(task)


class _Running(NamedTuple):
    """A task that a worker has. deaths: of workers that had it before."""

    number: int
    task: Any
    deaths: int = 0


class Processes:
    """Processes of this machine, which start from nothing: the memory and time of a run must not hold what the caller
    has. They stay from one question to the next, and keep what they know of prices."""

    def __init__(self, count: int, fresh: bool = False) -> None:
        self.count, self.fresh = count, fresh
        self._kept: ProcessPoolExecutor | None = None

    def _pool(self) -> ProcessPoolExecutor:
        if self._kept is None:
            from multiprocessing import get_context

            spawn, as_here, most = get_context("spawn"), gc.get_threshold(), 1 if self.fresh else None
            self._kept = ProcessPoolExecutor(self.count, spawn, _begin, as_here, max_tasks_per_child=most)
        return self._kept

    def _submitted(self, function: Callable[[Task], Outcome], task: Task) -> Future[Outcome]:
        """A task handed in, to new processes where one died that had none."""
        try:
            return _submitted(self._pool(), function, task)
        except BrokenProcessPool:
            self.close()
            return _submitted(self._pool(), function, task)

    def close(self) -> None:
        """End them."""
        pool, self._kept = self._kept, None
        if pool is not None:
            pool.shutdown(wait=True, cancel_futures=True)

    def results(self, function: Callable[[Task], Outcome], tasks: Iterable[Task]) -> Iterator[tuple[int, Outcome]]:
        """See `Executor`. A pool with a dead worker is given up: what it had goes to a new one, at first one by one, so
        that a task which kills its worker takes no other with it."""
        fresh = (_Running(number, task) for number, task in enumerate(tasks))
        again = deque[_Running]()
        running: dict[Future[Outcome], _Running] = {}
        try:
            while True:
                alone = bool(again)
                most = 1 if alone else AHEAD * self.count
                while len(running) < most and (item := again.popleft() if again else next(fresh, None)):
                    running[self._submitted(function, item.task)] = item
                if not running:
                    return
                dead = []
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    item = running.pop(future)
                    if isinstance(future.exception(), BrokenProcessPool):
                        dead.append(item)
                    else:
                        yield item.number, future.result()
                if dead:
                    dead += [running.pop(future) for future in list(running)]
                    self.close()
                    again.extend(_blamed(item) for item in sorted(dead))
        finally:
            if running:  # given up by the caller, or by what a task raised
                self.close()


def _submitted(pool: ProcessPoolExecutor, function: Callable[[Task], Outcome], task: Task) -> Future[Outcome]:
    """A task handed in. An interrupt waits meanwhile, and does in processes that start here until they know how to end
    (`_begin`): one that reaches a process among its imports prints where. The pool is older: what it starts by itself
    lets interrupts in."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return pool.submit(function, task)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin(*as_there: int) -> None:
    """What a worker does first: as the caller about garbage, and an end when the caller's comes, however that does, or
    an interrupt, which is the caller's to tell."""
    gc.set_threshold(*as_there)
    Thread(target=_outlived, daemon=True).start()
    signal.signal(signal.SIGINT, lambda *_: os._exit(INTERRUPTED))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def _outlived() -> None:
    if caller := parent_process():
        caller.join()
        os._exit(1)


def _blamed(item: _Running) -> _Running:
    if item.deaths + 1 >= DEATHS:
        what = f"{DEATHS} workers died over the same run; is there too little memory for it? What was done is kept"
        raise Refused(what)
    return item._replace(deaths=item.deaths + 1)
