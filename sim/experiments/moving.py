"""Runs of a sensitivity: one figure under one changed key, and where that key takes over. Tasks that travel to workers.

All runs are paired: one seed draws loads, jitter and failures in all of them. A key is moved to the worse first; one
that does not move the figure by a nanosecond then does nothing, and is not moved further. The crossing of a key is
where its elasticity passes a half: from there on it moves the figure by more than all else together.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import exp, inf, log, sqrt
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from hwmodels.refused import Refused
from hwmodels.units import format_quantity, units
from sim.analysis.uncertainty import HIGH, LOW
from sim.experiments import kinds
from sim.experiments.kind import value
from sim.experiments.movable import Key
from sim.result.sensitivity import Crossing, Move, Point
from sim.scenario.files import load
from sim.scenario.values import Scenario
from sim.simulation import run

HALF = 0.5
"""Elasticity from which on a key binds: more of the figure hangs on it than on everything else."""
FAR, FARTHER = 16.0, 500.0
"""A crossing is looked for up to so many times worse; of latencies, which differ by more from place to place."""
CHORD, CLOSE = 1.02, 1.015
"""Factors: of the chord that tells whether a key binds at the far end, and how near a crossing is found."""
STEP = "step_time_s"
Draws = npt.NDArray[np.float64]


class Subject(NamedTuple):
    """What is moved. source: a scenario that is loaded, or a source of `sim.experiments.kinds` with overrides. figure:
    key of result.json, and its value as it is."""

    source: Any
    overrides: tuple[str, ...]
    figure: str
    base: float


class Task(NamedTuple):
    """A key to move by factors of less and more. intervals: also of elasticities. move: as it was moved; then it is
    asked where the key takes over."""

    subject: Subject
    key: Key
    by: tuple[float, float]
    intervals: bool = False
    move: Move | None = None


class Moved(NamedTuple):
    """How a task ended, in so many runs."""

    move: Move
    crossing: Crossing | None
    runs: int


def moved(task: Task) -> Moved:
    """The key moved; of one that was moved, where it takes over."""
    runs = Runs(task.subject)
    if task.move is None:
        return Moved(_moved(runs, task), None, len(runs.known))
    return Moved(task.move, _crossing(runs, task.key, task.move), len(runs.known))


@dataclass
class Runs:
    """The subject under one changed key, each run once."""

    subject: Subject
    known: dict[tuple[str, bool], tuple[float, Draws | None] | str] = field(default_factory=dict)

    def asked(self, word: str, draws: bool = False) -> tuple[float, Draws | None] | str:
        """The figure under an override, with draws of it, or why it is refused."""
        if (word, draws) not in self.known:
            try:
                self.known[word, draws] = _figure(self.subject, words(word), draws)
            except Refused as refused:
                self.known[word, draws] = " ".join(str(refused).split())
        return self.known[word, draws]

    def figure(self, word: str) -> float | str:
        """The same without draws."""
        reading = self.asked(word)
        return reading if isinstance(reading, str) else reading[0]


def _figure(subject: Subject, changes: list[str], draws: bool) -> tuple[float, Draws | None]:
    if isinstance(subject.source, Scenario):
        result = run(replace(load(subject.source, changes), outputs=("result",)), draws)
        return float(result.summary[STEP]), result.draws
    own = kinds.of(subject.source)
    assert own is not None
    summary = own.run(kinds.load(subject.source, [*subject.overrides, *changes])).summary
    reading = value(summary, subject.figure)
    if reading is None:
        raise Refused(f"has no {subject.figure}")
    return reading, None


def words(word: str) -> list[str]:
    """An override with what gives way to it: micro-batches follow from sequences."""
    return [*(["batch.micro_batches=null"] if word.startswith("batch.sequences=") else []), word]


# --- moving -----------------------------------------------------------------------------------------------------------


def _moved(runs: Runs, task: Task) -> Move:
    """The worse side first; the other one only where that one is felt."""
    key, (less, more), base = task.key, task.by, task.subject.base
    first, second = (more, less) if key.dearer else (less, more)
    worse = _point(runs, key, first)
    idle = worse.value == base
    better = Point(key.at(second)[0], key.at(second)[1], base) if idle else _point(runs, key, second)
    low, high = (better, worse) if key.dearer else (worse, better)
    ends = _ends(runs, key, low, high) if task.intervals and not idle else None
    return Move(key.key, key.kind, key.text, base, low, high, ends)


def _point(runs: Runs, key: Key, factor: float) -> Point:
    text, exact = key.at(factor)
    if exact == 1:
        return Point(text, exact, runs.subject.base)
    reading = runs.figure(f"{key.key}={text}")
    return Point(text, exact, None, reading) if isinstance(reading, str) else Point(text, exact, reading)


def _ends(runs: Runs, key: Key, low: Point, high: Point) -> tuple[float, float] | None:
    """Ends of the 90 % interval of the elasticity between two points: prices are drawn alike in both."""
    drawn = [runs.asked(f"{key.key}={each.text}", True) for each in (low, high)]
    if low.factor == high.factor or any(isinstance(each, str) or each[1] is None for each in drawn):
        return None
    a, b = (each[1] for each in drawn if not isinstance(each, str))
    slopes = np.log(np.asarray(b) / np.asarray(a)) / log(high.factor / low.factor)
    below, above = np.percentile(slopes, (LOW, HIGH))
    return float(below), float(above)


# --- crossings --------------------------------------------------------------------------------------------------------


def far(key: Key) -> float:
    """How many times worse a crossing of a key is looked for."""
    return FARTHER if "latency" in key.key else FAR


def _crossing(runs: Runs, key: Key, move: Move) -> Crossing | None:
    """Where the elasticity of a key passes HALF: towards the worse, or towards the better where it binds already.

    It is the lowest point of log(figure) - HALF x log(how much worse), which is looked for by golden section: a step is
    the longest of paths whose times are sums, so its logarithm bends upwards. None where there is none as far as is
    looked, or as is legal.
    """
    binds, base = abs(move.elasticity or 0.0) >= HALF, runs.subject.base
    dearer = key.dearer if not move.elasticity else move.elasticity > 0
    way = (1 if dearer else -1) * (-1 if binds else 1)  # of log(factor)
    slope = -HALF if not binds else HALF

    def height(distance: float) -> float:
        text, factor = key.at(exp(way * distance))
        reading = runs.figure(f"{key.key}={text}") if factor != 1 else base
        return log(reading) + slope * abs(log(factor)) if isinstance(reading, float) and reading > 0 else inf

    end = log(far(key))
    if not move.size and height(end) == log(base) + slope * end:
        return None
    if height(end) < height(end - log(CHORD)):
        return None
    place = lowest(height, 0.0, end)
    if height(place) == inf or (height(end) == inf and height(_beyond(key, way, place)) == inf):
        return None  # at the edge of what is legal
    text, factor = key.at(float(f"{exp(way * place):.4g}"))
    if factor == 1:
        return None
    return Crossing(
        key.key, key.base * factor, text if key.multiple else _shown(key, factor), key.text, factor, not dearer, binds
    )


def _beyond(key: Key, way: int, place: float) -> float:
    """Somewhat farther; of whole numbers the next one."""
    if not key.multiple:
        return place + 3 * log(CLOSE)
    _, factor = key.at(exp(way * place))
    return abs(log(max(key.number * factor + way * key.multiple, key.multiple / 2) / key.number))


def _shown(key: Key, factor: float) -> str:
    """A value as people write it."""
    text = f"{key.number * factor:.3g}"
    if "e" in text and key.unit:
        return format_quantity(key.base * factor, units()[key.unit][0])
    return f"{text} {key.unit}".strip()


def lowest(height: Callable[[float], float], low: float, high: float) -> float:
    """Where a function with one lowest point has it, as near as CLOSE, by golden section."""
    part = (sqrt(5) - 1) / 2
    a, b = high - part * (high - low), low + part * (high - low)
    left, right = height(a), height(b)
    while high - low > 2 * log(CLOSE):
        if left <= right:
            high, b, right = b, a, left
            a = high - part * (high - low)
            left = height(a)
        else:
            low, a, left = a, b, right
            b = low + part * (high - low)
            right = height(b)
    return (low + high) / 2
