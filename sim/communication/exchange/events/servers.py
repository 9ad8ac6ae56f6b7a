"""What roles of a rank share or queue for, all by `free_at` arithmetic: ports, memory, warps, and room in buffers."""

from collections import deque
from collections.abc import Callable, Sequence
from math import ceil
from typing import NamedTuple

from sim.communication.exchange.events.bells import Bell
from sim.engine.clock import Clock

Log = list[tuple[int, int]]
Cast = tuple[int, Callable[..., None], tuple[object, ...]]
"""Nanoseconds of a port, and what is called with which words when they begin."""


class Port:
    """A rank's port of one network. out, into: when each way is free again, ns. queue: what waits for the way out, of
    which only the first stands in the clock's own queue."""

    __slots__ = ("clock", "into", "out", "queue")

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.out = self.into = 0
        self.queue: deque[Cast] = deque()

    def book(self, ns: int, begin: Callable[..., None], *words: object) -> None:
        """Have so many ns of the way out, first come, first served; `begin` is called with the words when they do."""
        queue, clock = self.queue, self.clock
        if queue or self.out > clock.now:
            queue.append((ns, begin, words))
            if len(queue) == 1:
                clock.at(self.out, self.serve)
        else:
            self.out = clock.now + ns
            begin(*words)

    def serve(self) -> None:
        """The way out is free for the next."""
        queue = self.queue
        ns, begin, words = queue.popleft()
        self.out = self.clock.now + ns
        if queue:
            self.clock.at(self.out, self.serve)
        begin(*words)

    def receive(self, start: int, ns: int, end: int) -> int:
        """Have so many ns of the way in for what leaves its sender from `start`, which is now, to `end`; when it is
        here. The switch holds what the port is not free for, so both ways serve whenever there is something."""
        self.into = into = (self.into if self.into > start else start) + ns
        return into if into > end else end


class Beside(NamedTuple):
    """Compute that runs beside the exchange from `start` to `end`, ns. sm: of the time of the exchange's SMs that it
    takes; memory: of the device's memory bandwidth."""

    start: int
    end: int
    sm: float
    memory: float


def beside_at(windows: Sequence[Beside], time: int) -> Beside | None:
    return next((window for window in windows if window.start <= time < window.end), None)


class Memory:
    """A rank's memory, as fast as compute beside leaves it. rate: bytes/ns. used: bytes that went through it."""

    __slots__ = ("free", "rate", "used", "windows")

    def __init__(self, rate: float, windows: Sequence[Beside]) -> None:
        self.rate, self.windows, self.free, self.used = rate, windows, 0, 0.0

    def take(self, now: int, size: float) -> int:
        """Move so many bytes, begun now at the earliest; when they are through."""
        start = now if now > self.free else self.free
        window = beside_at(self.windows, start)
        rate = self.rate * (1 - window.memory) if window else self.rate
        self.used += size
        self.free = start + ceil(size / rate)
        return self.free


class Warps:
    """Warps of one role of a channel, first come, first served: each works on one task at a time.

    slow: how long a task that begins then takes, where something runs beside; None: as long as alone.
    """

    __slots__ = ("free", "slow", "task_ns")

    def __init__(self, count: int, task_ns: int, slow: Callable[[int, int], int] | None = None) -> None:
        self.task_ns, self.slow = task_ns, slow
        self.free: deque[tuple[int, int]] = deque([(0, count)])

    @property
    def next(self) -> int:
        """When one is free next."""
        return self.free[0][0]

    def take(self, tasks: int, at: int, task_ns: int = 0) -> int:
        """`tasks` tasks that may begin `at`, of `task_ns` each where it is not the usual; when all have ended."""
        free, ns, slow = self.free, task_ns or self.task_ns, self.slow
        last = at
        while tasks > 0:
            time, count = free.popleft()
            if count > tasks:
                free.appendleft((time, count - tasks))
                count = tasks
            if time < at:
                time = at
            end = time + (slow(time, ns) if slow else ns)
            place = len(free)
            while place and free[place - 1][0] > end:
                place -= 1
            if place and free[place - 1][0] == end:
                free[place - 1] = (end, free[place - 1][1] + count)
            else:
                free.insert(place, (end, count))
            tasks -= count
            if end > last:
                last = end
        return last


class Buffer:
    """Rows of room behind a sender. Credits come back in the order in which they were given, `back` ns later.

    bell: of the sender. log: where rows that are taken, and come back (negative), are written down with their times.
    """

    __slots__ = ("back", "bell", "coming", "free", "log", "rows")

    def __init__(self, rows: int, bell: Bell, back: int, log: Log | None = None) -> None:
        self.rows = self.free = rows
        self.bell, self.back, self.log = bell, back, log
        self.coming: deque[tuple[int, int]] = deque()

    def has(self, rows: int, now: int) -> bool:
        """Whether there is room for `rows`; all of it will do for more."""
        need = rows if rows < self.rows else self.rows
        coming = self.coming
        while coming and self.free < need and coming[0][0] <= now:
            self.free += coming.popleft()[1]
        return self.free >= need

    def take(self, rows: int, now: int) -> None:
        self.free -= rows
        if self.log is not None:
            self.log.append((now, rows))

    def give(self, end: int, rows: int) -> None:
        """`rows` are free again at `end`. Who waits for credits of which none was on its way learns of it now."""
        coming, time = self.coming, end + self.back
        coming.append((time, rows))
        if self.log is not None:
            self.log.append((time, -rows))
        if len(coming) == 1:
            self.bell.ring()

    @property
    def next(self) -> int | None:
        """When credits come that are on their way; None where none are."""
        return self.coming[0][0] if self.coming else None
