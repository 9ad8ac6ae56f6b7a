"""What a step hangs on: each key moved, prices by class, and where the next bottleneck takes over.

Pure data, picklable; `sim.experiments.sensitivity` makes it, reports draw it.
"""

from dataclasses import dataclass
from math import log
from pathlib import Path
from typing import Any

from sim.result.comparison import Run, frame, saved

SCHEMA_VERSION = 1
"""Version of what `Sensitivity.plain` holds."""
STEP = "step_time_s"
MACHINE, SCENARIO, PRICE = "machine", "scenario", "price"
"""Kinds of keys."""


@dataclass(frozen=True)
class Point:
    """A key moved. text: its value as written. factor: of the base value. value: the figure of that run, a step's
    seconds; None where it is refused, and then why."""

    text: str
    factor: float
    value: float | None
    why: str = ""


@dataclass(frozen=True)
class Move:
    """A key at less and at more. kind: machine, scenario or price (a class of prices, moved as times). base: its value
    as written. value: the figure of the base run. ends: of the 90 % interval of its elasticity; None: nothing drawn."""

    key: str
    kind: str
    base: str
    value: float
    less: Point
    more: Point
    ends: tuple[float, float] | None = None

    @property
    def points(self) -> list[Point]:
        """Those that ran."""
        return [point for point in (self.less, self.more) if point.value is not None]

    @property
    def size(self) -> float:
        """By how much it moves the figure at most."""
        return max((abs(point.value - self.value) for point in self.points if point.value), default=0.0)

    @property
    def elasticity(self) -> float | None:
        """Percent of the figure for a percent of the key, between less and more; None where it could not be moved."""
        ends = [(log(each.factor), log(each.value)) for each in self.points if each.value and each.factor > 0]
        ends = sorted([*ends, (0.0, log(self.value))]) if len(ends) == 1 else sorted(ends)
        if len(ends) < 2 or ends[0][0] == ends[-1][0]:
            return None
        return (ends[-1][1] - ends[0][1]) / (ends[-1][0] - ends[0][0])


@dataclass(frozen=True)
class Crossing:
    """Where a key takes over. at: the value, in SI; text: as people write it. factor: of the base value. below: whether
    it binds below that value (else above). binds: whether it does already at the base. room: it is what must fit there,
    and takes no time."""

    key: str
    at: float
    text: str
    base: str
    factor: float
    below: bool
    binds: bool
    room: bool = False


@dataclass(frozen=True)
class Sensitivity:
    """base: the run as it is. by: factors of less and more. moves: keys that move the step, largest first. crossings:
    nearest first. unreached: keys that take over nowhere between the base and `far` times worse (latencies: `farther`),
    or as far as is legal. idle: keys that do nothing. runs: simulated in all. figure: key of what is moved, what it is
    called, and its unit."""

    base: Run
    by: tuple[float, float]
    moves: tuple[Move, ...]
    crossings: tuple[Crossing, ...]
    unreached: tuple[str, ...]
    far: float
    farther: float
    idle: tuple[str, ...]
    stuck: tuple[str, ...]
    runs: int
    figure: str = STEP
    called: str = "step"
    unit: str = "seconds"

    @property
    def value(self) -> float:
        """Of the figure in the base run."""
        at: Any = self.base.summary
        for part in self.figure.split("."):
            at = at[part]
        return float(at)

    def plain(self) -> dict[str, Any]:
        """As JSON holds it, SI units."""
        return {
            "schema_version": SCHEMA_VERSION, "kind": "sensitivity", "scenario": self.base.summary["scenario"],
            "overrides": self.base.summary["overrides"], "scenario_hash": self.base.summary["scenario_hash"],
            "figure": self.figure, "value": self.value, "unit": self.unit, "by": list(self.by), "runs": self.runs,
            "moves": [_move(each) for each in self.moves], "crossings": [vars(each) for each in self.crossings],
            "unreached": list(self.unreached), "far": self.far, "farther": self.farther,
            "idle": list(self.idle), "stuck": list(self.stuck),
        }  # fmt: skip

    def to_frame(self) -> Any:
        """The moves as a pandas DataFrame, a row a key. Raises Refused where pandas is not installed."""
        rows = [_move(each) for each in self.moves]
        return frame([row | {side: row[side]["value"] for side in ("less", "more")} for row in rows])

    def save(self, path: str | Path) -> Path:
        """Write it as JSON to a file that ends in .json. Answers its path. Raises Refused."""
        return saved(self.plain(), Path(path))


def _move(each: Move) -> dict[str, Any]:
    return {
        "key": each.key, "kind": each.kind, "base": each.base, "elasticity": each.elasticity,
        "elasticity_90": list(each.ends) if each.ends else None,
        "less": vars(each.less), "more": vars(each.more),
    }  # fmt: skip
