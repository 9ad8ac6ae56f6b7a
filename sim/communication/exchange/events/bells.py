"""What processes of an exchange wait at: doorbells, and a latch that all pass together."""

from collections.abc import Generator
from typing import Any, TypeVar

from sim.engine.clock import Clock, Event

T = TypeVar("T")
Course = Generator[Event, Any, T]
"""What a process does until it knows a T: it yields what it waits for."""
Life = Course[None]


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
