"""What a combine's senders hand to forwarders, and the room that they have there.

Nothing is kept for a credit: a sender that lacks room looks when the forwarders were through with what it sent.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple, Protocol

from sim.communication.exchange.events.bells import Bell
from sim.communication.exchange.events.cargo import Chunk


class Forwarder(Protocol):
    def complete(self, sheet: "Sheet") -> None:
        """All rows of a sheet have left for it."""


class Sheet:
    """A chunk on its way back, at its forwarder.

    missing: GPUs of the node that have not sent their rows yet. time: when the last of them are here. end: when they
    are reduced; None before that is known. bells: of those who wait to know it.
    """

    __slots__ = ("bells", "chunk", "end", "forwarder", "missing", "time")

    def __init__(self, chunk: Chunk, forwarder: Forwarder) -> None:
        self.chunk, self.forwarder, self.time = chunk, forwarder, 0
        self.missing = len(chunk.split) - chunk.split.count(0)
        self.end: int | None = None
        self.bells: tuple[Bell, ...] = ()

    def land(self, time: int) -> None:
        """Rows of one more GPU are there at a time."""
        if time > self.time:
            self.time = time
        self.missing -= 1
        if not self.missing:
            self.forwarder.complete(self)

    def reduce(self, end: int) -> None:
        """Its rows are reduced at `end`, and their room is free again."""
        self.end = end
        for bell in self.bells:
            bell.ring()


class Load(NamedTuple):
    """Rows that a sender hands over together. at: tokens up to which the first of them go. rows, sheets [shifts]: for
    each forwarder of its node, and to what they belong there."""

    at: int
    rows: tuple[int, ...]
    sheets: tuple[Sheet, ...]


class Window:
    """A sender's room at the forwarders of its node for what goes over one turn: `rows` at each, of which it learns
    `back` ns after they are free; at once on the own GPU.

    free [shifts]: rows of room that it knows of. sent: loads, of which those before `known` [shifts] are through.
    """

    __slots__ = ("back", "bell", "free", "known", "rows", "sent")

    def __init__(self, rows: int, gpus: int, back: int, bell: Bell) -> None:
        self.rows, self.back, self.bell = rows, back, bell
        self.free, self.known = [rows] * gpus, [0] * gpus
        self.sent: list[Load] = []

    def lacks(self, load: Load, now: int) -> int | None:
        """A shift at which there is no room for a load; None where all have it."""
        for shift, (free, count) in enumerate(zip(self.free, load.rows, strict=True)):
            if free < count and not self._has(shift, min(count, self.rows), now):
                return shift
        return None

    def take(self, load: Load) -> None:
        self.free = [free - count for free, count in zip(self.free, load.rows, strict=True)]
        self.sent.append(load)

    def _has(self, shift: int, need: int, now: int) -> bool:
        """Whether there is room for so many rows, with credits that have come by now."""
        free, known, sent, back = self.free[shift], self.known[shift], self.sent, self.back if shift else 0
        while free < need and known < len(sent):
            if rows := sent[known].rows[shift]:
                end = sent[known].sheets[shift].end
                if end is None or end + back > now:
                    break
                free += rows
            known += 1
        self.free[shift], self.known[shift] = free, known
        return free >= need

    def next(self, shift: int) -> int | None:
        """When a shift that lacks room gets some; None where nobody knows, and the bell rings once someone does."""
        sheet = self.sent[self.known[shift]].sheets[shift]
        if sheet.end is None:
            sheet.bells += (self.bell,)
            return None
        return sheet.end + (self.back if shift else 0)


class Progress:
    """How far a home has come with its tokens. steps: tokens up to which all are reduced, and when, in order."""

    __slots__ = ("bells", "steps")

    def __init__(self) -> None:
        self.steps: list[tuple[int, int]] = []
        self.bells: list[Bell] = []

    def add(self, done: int, end: int) -> None:
        self.steps.append((done, end))
        bells, self.bells = self.bells, []
        for bell in bells:
            bell.ring()


class Bay:
    """Room at a home for the chunks of one node: `rows`, free again as their tokens are reduced, of which the forwarder
    there learns `back` ns later. free: rows of room that it knows of."""

    __slots__ = ("back", "begin", "chunks", "coming", "free", "given", "progress", "rows", "seen")

    def __init__(self, rows: int, back: int, chunks: Iterable[Chunk], progress: Progress) -> None:
        self.rows = self.free = rows
        self.back, self.chunks, self.progress = back, deque(chunks), progress
        self.seen = self.begin = self.given = 0
        self.coming: tuple[int, int] | None = None

    def has(self, rows: int, now: int) -> bool:
        """Whether there is room for `rows`; all of it will do for more."""
        need = min(rows, self.rows)
        while self.free < need and (credit := self._credit()) is not None and credit[0] <= now:
            self.free += credit[1]
            self.coming = None
        return self.free >= need

    def next(self, bell: Bell) -> int | None:
        """When a credit comes that is on its way; None where nobody knows, and the bell rings once someone does."""
        credit = self._credit()
        if credit is None:
            self.progress.bells.append(bell)
            return None
        return credit[0]

    def credits(self) -> Iterator[tuple[int, int]]:
        """All that are known and not back: when each comes, and its rows."""
        while (credit := self._credit()) is not None:
            self.coming = None
            yield credit

    def _credit(self) -> tuple[int, int] | None:
        """The first that is not back."""
        steps = self.progress.steps
        while self.coming is None and self.seen < len(steps):
            done, end = steps[self.seen]
            self.seen += 1
            if rows := self._reduced(done):
                self.coming = end + self.back, rows
        return self.coming

    def _reduced(self, done: int) -> int:
        """Rows of tokens up to `done` that are not given back yet: they lie evenly in a chunk."""
        chunks, rows = self.chunks, -self.given
        while chunks and chunks[0].at <= done:
            chunk = chunks.popleft()
            rows, self.begin = rows + chunk.rows, chunk.at
        self.given = chunks[0].rows * (done - self.begin) // (chunks[0].at - self.begin) if chunks else 0
        return rows + self.given
