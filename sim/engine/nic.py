"""A rank's NICs while its steps run: what exchanges need of them, and what else passes beside.

Messages and gradient reductions find free what the exchange under way at that moment leaves, at each of their ends, and
never less than a fair part: max-min fairness between exchanges and the rest (of which two that meet do not share). How
fast an exchange goes does not depend on the moment (`sim.communication.sharing` slows all of a step's alike), so a step
takes as long inside whatever passes: when its exchanges run is known as soon as it starts, at every level of detail.
"""

from bisect import bisect_right
from collections.abc import Sequence
from math import ceil
from typing import NamedTuple, Protocol

from hwmodels.collectives import Hindrance

FAIR = 0.5
"""Part of a link that one of two kinds of traffic gets at least."""

ROUNDED = 2.0**-20
"""ns that rounding may have added to what is left of a passage: a millionth, far more than sums of floats lose."""


class Window(NamedTuple):
    """An exchange in a step. start, end: ns from the step's start. part: of the NICs' rate, what it needs of them."""

    start: int
    end: int
    part: float


class User(Protocol):
    """A holder of traffic on a NIC."""

    def catch_up(self) -> None:
        """Count what has passed until now."""

    def retime(self) -> None:
        """The NIC's windows have changed: time again when it is through."""


class Nic:
    """The NICs of a rank, taken as one. base: ns at which the latest step with windows started."""

    __slots__ = ("base", "ends", "users", "windows")

    def __init__(self) -> None:
        self.base = 0
        self.windows: Sequence[Window] = ()
        self.ends: Sequence[int] = ()
        self.users: list[User] = []

    def begin(self, now: int, windows: Sequence[Window]) -> None:
        """A step starts, so the exchanges of the one before it are through."""
        if not windows:
            return
        for user in self.users:
            user.catch_up()
        if windows is not self.windows:
            self.windows, self.ends = windows, [window.end for window in windows]
        self.base = now
        for user in self.users:
            user.retime()


class Passage:
    """Something on its way over the NICs at its ends. left: ns that it still needs alone, counted at `since`.

    hindrance: how many times longer it takes alone than its NICs need (then exchanges that leave it as much of those do
    not delay it), and what exchanges need of links between switches whenever they run at its ends, as if everywhere.
    """

    __slots__ = ("hindrance", "left", "nics", "since")

    def __init__(self, nics: Sequence[Nic], hindrance: Hindrance, ns: float, now: int) -> None:
        self.nics, self.hindrance = nics, hindrance
        self.left, self.since = float(ns), now

    def advance(self, now: int) -> None:
        """Count what has passed until `now`."""
        while self.since < now:
            pace, until = self._pace(self.since)
            if until is None or until > now:
                until = now
            self.left = max(0.0, self.left - (until - self.since) * pace)
            self.since = until

    def end(self) -> int:
        """When it is through if no further step starts at its ends."""
        at, left = self.since, self.left
        while True:
            pace, until = self._pace(at)
            if until is None or left <= (until - at) * pace:
                return at + ceil(left / pace - ROUNDED)
            left -= (until - at) * pace
            at = until

    def _pace(self, at: int) -> tuple[float, int | None]:
        """Against alone, and until when; None: for good."""
        taken, until = 0.0, None
        for nic in self.nics:
            since, ends = at - nic.base, nic.ends
            number = bisect_right(ends, since)
            if number == len(ends):
                continue
            change, end, part = nic.windows[number]
            if since >= change:
                change = end
                if part > taken:
                    taken = part
            change += nic.base
            if until is None or change < until:
                until = change
        if not taken:
            return min(1.0, self.hindrance.slower), until
        free, between = max(1.0 - taken, FAIR), max(1.0 - taken * self.hindrance.exchanges, FAIR)
        return min(1.0, free * self.hindrance.slower, between), until
