"""What processes of an exchange wait at: doorbells, and a latch that all pass together."""

from collections.abc import Generator
from typing import Any, TypeVar

from sim.engine.clock import Clock, Event

T = TypeVar("T")
Course = Generator[Event, Any, T]
"""What a process does until it knows a T: it yields what it waits for."""
Life = Course[None]


class Bell(Event):
    """What one process yields to wait for a ring, time after time; one that nobody waits for is lost, so look before
    you wait. Who waits goes on inside the ring: no event stands between two things of one nanosecond."""

    __slots__ = ()

    def ring(self) -> None:
        waiters = self.callbacks
        if waiters:
            self.callbacks = []
            for go_on in waiters:
                go_on(self)


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
