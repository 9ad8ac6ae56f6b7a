"""The clock of an exchange, and its door to SimPy: processes, doorbells and calls at a time, in whole nanoseconds."""

from collections.abc import Callable, Generator
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from simpy import Environment
from simpy.events import Event, Timeout

T = TypeVar("T")
Course = Generator[Event, Any, T]
"""What a process does until it knows a T: it yields what it waits for."""
Life = Course[None]


class Clock(Environment):
    """SimPy's environment, which counts integers here."""

    if TYPE_CHECKING:

        @property
        def now(self) -> int: ...

    def at(self, time: int, call: Callable[..., None], *words: object) -> None:
        """Call at a time, now at the earliest."""
        Timeout(self, max(0, time - self.now)).callbacks.append(partial(_called, call, words))

    def until(self, time: int) -> Event:
        """What a process yields to sleep until then."""
        return Timeout(self, max(0, time - self.now))


def _called(call: Callable[..., None], words: tuple[object, ...], event: Event) -> None:
    call(*words)


class Bell:
    """Wakes the one process that waits at it; a ring that nobody waits for is lost, so look before you wait."""

    __slots__ = ("clock", "waiter")

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.waiter: Event | None = None

    def wait(self) -> Event:
        """What the process yields."""
        self.waiter = Event(self.clock)
        return self.waiter

    def ring(self) -> None:
        if self.waiter is not None:
            waiter, self.waiter = self.waiter, None
            waiter.succeed()


class Latch:
    """Opens once `count` have come."""

    def __init__(self, clock: Clock, count: int) -> None:
        self.clock, self.left, self.open = clock, count, Event(clock)
        if not count:
            self.open.succeed()

    def come(self) -> None:
        self.left -= 1
        if not self.left:
            self.open.succeed()
