"""Ranks that are slower than they should be, and when: a GPU, a node, a NIC, a clock that falls with heat.

A fault is a factor over time: once, again and again, or in steps. Work begun at a moment takes as long as it takes at
the rates that hold from then on, exactly: work done since 0 is a piecewise linear function of time, so a duration is
two look-ups however many windows there are.
"""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from hwmodels.units import NS_PER_S, format_quantity
from sim.layout.mesh import Mesh, Times
from sim.scenario.values import FOREVER, Fault

Factors = npt.NDArray[np.float64]

SlowDown = Callable[[Fault, float], float]
"""(fault, factor) -> how many times as long some work takes where the fault alone would make it `factor` times."""

CLOCK_STEP = 1 / 128
"""Step of a clock, as a part of the full one: clocks of NVIDIA GPUs move in steps of 15 MHz (nvidia-smi -q -d
SUPPORTED_CLOCKS), of 1.9 GHz."""
FIRST_LOOK = 64
"""So many windows of a recurring fault are written out, and four times as many when time gets there."""
DIGITS = 3
"""Digits of a nanosecond that survive sums of steps a minute long in double precision."""


def plainly(fault: Fault, factor: float) -> float:
    """Work that is as slow as what is broken."""
    return factor


def ranks(fault: Fault, mesh: Mesh) -> range:
    """Ranks a fault touches."""
    return mesh.on_node(fault.at) if fault.kind == "node" else range(fault.at, fault.at + 1)


def of_ranks(faults: Sequence[Fault], kinds: Sequence[str], mesh: Mesh) -> dict[int, tuple[Fault, ...]]:
    """Rank -> faults of these kinds that it has, for ranks that have some."""
    by_rank: dict[int, tuple[Fault, ...]] = {}
    for fault in faults:
        for rank in ranks(fault, mesh) if fault.kind in kinds else ():
            by_rank[rank] = (*by_rank.get(rank, ()), fault)
    return by_rank


def missed(faults: Sequence[Fault], end_ns: int) -> list[str]:
    """One line for each fault that a step of this length cannot meet, and for each that slows nothing."""
    lines = []
    for i, fault in enumerate(faults):
        begins, end = (format_quantity(ns / NS_PER_S, "time") for ns in (fault.start_ns, end_ns))
        if fault.start_ns >= end_ns:
            lines.append(f"faults[{i}]: changes nothing: it begins at {begins}, and the step ends at {end}")
        elif fault.slower == 1:
            lines.append(f"faults[{i}]: changes nothing: slower is 1")
    return lines


# --- factors over time ------------------------------------------------------------------------------------------------


def course(fault: Fault, until_ns: int) -> tuple[Times, Factors]:
    """Moments before `until_ns` at which the factor of a fault changes, and to what; before the first it is 1."""
    if fault.kind == "thermal":
        return _falling(fault)
    if not fault.every_ns:
        return np.array([fault.start_ns, fault.end_ns]), np.array([fault.slower, 1.0])
    count = max(0, -(-(min(until_ns, fault.end_ns) - fault.start_ns) // fault.every_ns))
    opens = fault.start_ns + fault.every_ns * np.arange(count, dtype=np.int64)
    closes = np.minimum(opens + fault.lasts_ns, fault.end_ns)
    return np.stack([opens, closes], 1).ravel(), np.tile([fault.slower, 1.0], count)


def _falling(fault: Fault) -> tuple[Times, Factors]:
    """A clock on its way to 1 / slower as heat rises: exponentially with the time constant, in steps of the clock, each
    made when the curve is half-way to it."""
    drop = 1 - 1 / fault.slower
    count = max(1, round(drop / CLOCK_STEP))
    step = np.arange(1, count + 1)
    since = -np.log(1 - (step - 0.5) / count) * fault.time_constant_ns
    return fault.start_ns + np.rint(since).astype(np.int64), 1 / (1 - drop * step / count)


class Pace:
    """How many times as long work takes on one replica, from each of `edges` ns on; done: work done up to each."""

    def __init__(self, faults: Sequence[Fault], slow_down: SlowDown, worst: bool) -> None:
        self.faults, self.slow_down, self.worst = faults, slow_down, worst
        self._look(FIRST_LOOK * min((fault.every_ns for fault in faults if fault.every_ns), default=FOREVER))

    def _look(self, until_ns: int) -> None:
        until_ns = min(until_ns, FOREVER)
        courses = [course(fault, until_ns) for fault in self.faults]
        edges = np.sort(np.concatenate([[0], *(at for at, _ in courses)]))
        self.edges: Times = edges[(np.diff(edges, append=FOREVER) > 0) & (edges < until_ns)]
        self.factor = np.ones(len(self.edges))
        for fault, (at, factors) in zip(self.faults, courses, strict=True):
            levels, which = np.unique(factors, return_inverse=True)
            slow_down = np.array([self.slow_down(fault, level) for level in levels.tolist()])
            own = np.append(1.0, slow_down[which])[np.searchsorted(at, self.edges, "right")]
            self.factor = np.maximum(self.factor, own) if self.worst else self.factor * own
        lengths = np.diff(self.edges, append=until_ns)
        self.done = np.concatenate([[0.0], np.cumsum(lengths / self.factor)])
        self.until_ns = until_ns

    @property
    def steady(self) -> bool:
        """Whether work is as slow at any time."""
        return len(self.edges) == 1 and self.until_ns == FOREVER

    def durations(self, starts: Times, work: Times) -> Times:
        """Durations in whole ns of `work` ns begun at `starts`."""
        if self.steady:
            return np.asarray(np.ceil(np.round(work * self.factor[0], DIGITS)), dtype=np.int64)
        while True:
            first = np.searchsorted(self.edges, starts, "right") - 1
            target = self.done[first] + (starts - self.edges[first]) / self.factor[first] + work
            if starts.max() < self.until_ns and target.max() <= self.done[-1]:
                break
            self._look(4 * self.until_ns)
        last = np.maximum(np.searchsorted(self.done, target) - 1, first)
        later = self.edges[last] - starts + (target - self.done[last]) * self.factor[last]
        taken = np.where(last == first, work * self.factor[first], later)
        return np.asarray(np.ceil(np.round(taken, DIGITS)), dtype=np.int64)

    def moved(self, begun: int, start: Factors, duration: int, scale: Factors) -> Factors:
        """Duration, ns, from `start` [draw] on of work that is `scale` [draw] times that of a run where it began at
        `begun` and lasted `duration`: windows stay where they are on the clock."""
        while max(start.max(), begun + duration) >= self.until_ns:
            self._look(4 * self.until_ns)
        work = float(self._done(begun + duration) - self._done(begun))
        target = self._done(start) + work * scale
        while target.max() > self.done[-1]:
            self._look(4 * self.until_ns)
        was = self._moment(self._done(begun) + work) - begun  # duration, but for rounding: the same start gives itself
        return np.asarray(duration + (self._moment(target) - start - was))

    def _done(self, at: Factors | int) -> Factors:
        """Work done up to a moment."""
        first = np.searchsorted(self.edges, at, "right") - 1
        return np.asarray(self.done[first] + (at - self.edges[first]) / self.factor[first])

    def _moment(self, done: Factors) -> Factors:
        """When so much work is done."""
        last = np.searchsorted(self.done[:-1], done, "right") - 1
        return np.asarray(self.edges[last] + (done - self.done[last]) * self.factor[last])


class Slowed:
    """Replicas that are slow, each at its own pace. Where faults of a replica meet, their factors multiply; with
    `worst` the largest counts."""

    def __init__(self, faults: Sequence[Sequence[Fault]], slow_down: SlowDown = plainly, worst: bool = False) -> None:
        """faults: of each replica."""
        rows: dict[tuple[Fault, ...], list[int]] = {}
        for replica, own in enumerate(faults):
            if own:
                rows.setdefault(tuple(own), []).append(replica)
        self.rows = [(np.array(row), Pace(own, slow_down, worst)) for own, row in rows.items()]

    def durations(self, starts: Times, work: Times) -> Times:
        """Durations of `work` ns begun at `starts`, of each replica."""
        if not self.rows:
            return work
        stretched = work.copy()
        for row, pace in self.rows:
            stretched[row] = pace.durations(starts[row], work[row])
        return stretched
