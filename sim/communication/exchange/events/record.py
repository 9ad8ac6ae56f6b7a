"""What one channel did: when each of its roles worked, what it waited for, and which rows its buffers held room for."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from sim.communication.exchange.events.servers import Log

Span = tuple[int, int]


@dataclass(frozen=True)
class Lane:
    """Of a role. worked, waited: starts and ends, ns, ascending; waits with what for."""

    role: str
    worked: tuple[Span, ...]
    waited: tuple[tuple[int, int, str], ...]


@dataclass(frozen=True)
class Lanes:
    """Of a channel: its roles in the order of the rows. flying: link -> when rows in flight towards the buffers behind
    it change, and how many they are from then on. An end that waits for a credit that is on its way counts it still."""

    lanes: tuple[Lane, ...]
    flying: Mapping[str, tuple[tuple[int, int], ...]]


class Watch:
    """A `sim.communication.exchange.events.channel.Record` of one channel."""

    def __init__(self) -> None:
        self.work: dict[str, list[Span]] = {}
        self.waits: dict[str, list[tuple[int, int, str]]] = {}
        self.logs: dict[str, Log] = {}

    def worked(self, role: str, start: int, end: int) -> None:
        if end > start:
            self.work.setdefault(role, []).append((start, end))

    def waited(self, role: str, start: int, end: int, why: str) -> None:
        self.waits.setdefault(role, []).append((start, end, why))

    def log(self, link: str) -> Log:
        return self.logs.setdefault(link, [])

    def lanes(self, order: Sequence[str] = ("send", "forward", "receive")) -> Lanes:
        """All that was written down; waits are where a role did not work."""
        lanes = []
        for role in order:
            if role in self.work:
                worked = union(self.work[role])
                waits = tuple(idle(self.waits.get(role, ()), worked))
                lanes.append(Lane(role, worked, waits))
        return Lanes(tuple(lanes), {link: _course(log) for link, log in self.logs.items() if log})


def union(spans: Sequence[Span]) -> tuple[Span, ...]:
    """Spans that do not touch, which cover what `spans` do."""
    joined: list[Span] = []
    for start, end in sorted(spans):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(joined[-1][1], end))
        else:
            joined.append((start, end))
    return tuple(joined)


def idle(waits: Sequence[tuple[int, int, str]], worked: Sequence[Span]) -> Iterator[tuple[int, int, str]]:
    """What of the waits lies outside of `worked`, which does not overlap."""
    for start, end, why in waits:
        at = start
        for begin, stop in worked:
            if stop <= at or begin >= end:
                continue
            if begin > at:
                yield at, begin, why
            at = stop
        if at < end:
            yield at, end, why


def _course(log: Log) -> tuple[tuple[int, int], ...]:
    rows, course = 0, []
    for time, changes in groupby(sorted(log), key=lambda change: change[0]):
        rows += sum(change for _, change in changes)
        course.append((time, rows))
    return tuple(course)
