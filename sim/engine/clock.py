"""The clock of a simulation, and the door to SimPy: events in whole nanoseconds, and what they call."""

from collections.abc import Callable, Generator
from heapq import heappop, heappush
from operator import attrgetter
from typing import Any

from simpy import Environment
from simpy.events import NORMAL, URGENT, Event, EventPriority, Process

__all__ = ["Clock", "Routine", "Event", "Process"]

LATE = EventPriority(2)
"""After all else that happens in the same nanosecond (SimPy's own priorities are 0 and 1)."""


class Alarm(Event):
    """A SimPy event that happens by itself, at a time. callbacks: what is called with it then, as SimPy has them."""

    __slots__ = ("callbacks", "env")
    _ok, _value = True, None

    def __init__(
        self, clock: "Clock", time: int, callbacks: list[Callable[[Any], None]], priority: EventPriority
    ) -> None:
        self.env, self.callbacks = clock, callbacks
        heappush(clock._queue, (time, priority, next(clock._eid), self))


class Errand(Event):
    """An alarm that calls with words of its own."""

    __slots__ = ("call", "callbacks", "env", "words")
    _ok, _value = True, None

    def __init__(
        self, clock: "Clock", time: int, call: Callable[..., None], words: tuple[object, ...], priority: EventPriority
    ) -> None:
        self.env, self.callbacks, self.call, self.words = clock, SENT, call, words
        heappush(clock._queue, (time, priority, next(clock._eid), self))


def _sent(errand: Any) -> None:
    errand.call(*errand.words)


SENT: list[Callable[[Any], None]] = [_sent]


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
        """Call with words at a time, now at the earliest."""
        now = self._now
        Errand(self, time if time > now else now, call, words, NORMAL)

    def late_at(self, time: int, call: Callable[..., None], *words: object) -> None:
        """Call with words at a later time, when all else that happens in that nanosecond has happened."""
        Errand(self, time, call, words, LATE)

    def work_off(self) -> None:
        """All events in turn, as SimPy's `run` does with a call for each; one that fails raises what it failed with."""
        queue = self._queue
        while queue:
            self._now, _, _, event = heappop(queue)  # type: ignore[assignment]
            callbacks, event.callbacks = event.callbacks, None  # type: ignore[assignment]
            for callback in callbacks:
                callback(event)
            if not event._ok and not hasattr(event, "_defused"):
                raise event._value
