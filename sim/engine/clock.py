"""The clock of a simulation, and the door to SimPy: events in whole nanoseconds, and what they call."""

from collections.abc import Callable, Generator
from heapq import heapify, heappop, heappush
from itertools import count
from operator import attrgetter
from typing import Any

from simpy import Environment
from simpy.events import NORMAL, URGENT, Event, EventPriority, Process

__all__ = ["Clock", "Routine", "Event", "Process"]

LATE = EventPriority(2)
"""After all else that happens in the same nanosecond (SimPy's own priorities are 0 and 1)."""
LAST = EventPriority(3)
SIMPY = 4
"""Fields of an entry of SimPy's queue; calls have one more."""


class Alarm(Event):
    """A SimPy event that happens by itself, at a time. callbacks: what is called with it then, as SimPy has them."""

    __slots__ = ("callbacks", "env")
    _ok, _value = True, None

    def __init__(
        self, clock: "Clock", time: int, callbacks: list[Callable[[Any], None]], priority: EventPriority
    ) -> None:
        self.env, self.callbacks = clock, callbacks
        heappush(clock._queue, (time, priority, next(clock._eid), self))


class Routine(Event):
    """A process as SimPy has them, by the same events, that nobody interrupts and that hears nothing from its events; a
    third of the price. It happens when its generator is through."""

    __slots__ = ("generator",)

    def __init__(self, clock: "Clock", generator: Generator[Event, Any, None]) -> None:
        super().__init__(clock)
        self.generator = generator
        Alarm(clock, clock.now, [self.go], URGENT)

    def go(self, event: Event) -> None:
        """On to the next event that has not happened yet."""
        for target in self.generator:
            if target.callbacks is not None:
                target.callbacks.append(self.go)
                return
        self.succeed()


class Clock(Environment):
    """SimPy's environment with time in whole nanoseconds."""

    _now: int

    def __init__(self) -> None:
        """entries: what is to come, SimPy's queue: a heap of (time, priority, number, event), or of (time, priority,
        number, call, words) where nobody else hears of it."""
        super().__init__()
        self.entries: list[Any] = self._queue

    now = property(attrgetter("_now"))  # without a call of Python's

    def routine(self, generator: Generator[Event, Any, None]) -> Routine:
        """A process that begins now."""
        return Routine(self, generator)

    def until(self, time: int) -> Event:
        """What a process yields to sleep until then, now at the earliest."""
        now = self._now
        return Alarm(self, time if time > now else now, [], NORMAL)

    def after(self, ns: int, call: Callable[[Any], None]) -> Event:
        """Call in so many ns with the event that is returned now."""
        return Alarm(self, self._now + ns, [call], NORMAL)

    def late(self, call: Callable[[Any], None]) -> None:
        """Call with an event when all else that happens in this nanosecond has happened."""
        Alarm(self, self._now, [call], LATE)

    def at(self, time: int, call: Callable[..., None], *words: object) -> None:
        """Call with words at a time, now at the earliest: an event of SimPy's queue."""
        now = self._now
        heappush(self.entries, (time if time > now else now, NORMAL, next(self._eid), call, words))

    def late_at(self, time: int, call: Callable[..., None], *words: object) -> None:
        """Call with words at a later time, when all else that happens in that nanosecond has happened."""
        heappush(self.entries, (time, LATE, next(self._eid), call, words))

    def last(self, call: Callable[[], None]) -> None:
        """Call when nothing else is left to happen in this nanosecond; counted with no other event."""
        heappush(self.entries, (self._now, LAST, -1, call, ()))

    @property
    def count(self) -> int:
        """How many events there have been, those to come included."""
        number = next(self._eid)
        self._eid = count(number)
        return number

    def skip(self, ns: int, events: int, entries: list[Any]) -> None:
        """It is so many ns later, so many events have been, and these are to come."""
        self._now += ns
        self._eid = count(self.count + events)
        self.entries[:] = entries
        heapify(self.entries)

    def work_off(self) -> None:
        """All events in turn, as SimPy's `run` does with a call for each; one that fails raises what it failed with."""
        queue = self.entries
        while queue:
            entry = heappop(queue)
            self._now = entry[0]
            if len(entry) > SIMPY:
                entry[3](*entry[4])
                continue
            event = entry[3]
            callbacks, event.callbacks = event.callbacks, None
            for callback in callbacks:
                callback(event)
            if not event._ok and not hasattr(event, "_defused"):
                raise event._value
