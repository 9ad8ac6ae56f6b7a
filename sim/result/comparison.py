"""Two runs side by side: figures with the interval of their difference, causes of it, memory, and keys that differ.

Pure data, picklable; `sim.experiments.compare` makes it, reports draw it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from hwmodels.refused import Refused
from hwmodels.units import NS_PER_S
from sim.result import Result
from sim.result.archive import figures as text
from sim.result.folder import writing

SCHEMA_VERSION = 1
"""Version of what `Comparison.plain` holds."""


@dataclass(frozen=True)
class Change:
    """A figure of two runs. key: of result.json. name: in words. unit: seconds, bytes, tokens, share or number. a, b:
    its values; None where a run has none. interval: ends of the 90 % interval of b - a; ratio: of b / a; or None."""

    key: str
    name: str
    unit: str
    a: float | None
    b: float | None
    interval: tuple[float, float] | None = None
    ratio: tuple[float, float] | None = None

    @property
    def difference(self) -> float | None:
        """b - a."""
        return None if self.a is None or self.b is None else self.b - self.a

    @property
    def clear(self) -> bool | None:
        """Whether the interval of the difference leaves out 0; None where there is no interval."""
        return None if self.interval is None else not self.interval[0] <= 0 <= self.interval[1]


@dataclass(frozen=True)
class Cause:
    """A part of both steps in whole ns: the parts of a run add up to its step. group: what it is a part of."""

    group: str
    name: str
    meaning: str
    a_ns: int
    b_ns: int

    @property
    def difference_ns(self) -> int:
        """b - a."""
        return self.b_ns - self.a_ns


@dataclass(frozen=True)
class Key:
    """A key of the resolved scenarios that differs; None: not there."""

    key: str
    a: Any
    b: Any


class Run(Protocol):
    """A run of any kind; a Result is one. summary: as in result.json. scenario: as plain values."""

    @property
    def summary(self) -> Mapping[str, Any]: ...
    @property
    def scenario(self) -> Mapping[str, Any]: ...


@dataclass(frozen=True)
class Comparison:
    """a, b: the runs. changes: their figures. causes: parts of the step, in order. memory: part -> bytes of either at
    the highest peak. keys: what differs between the scenarios. notes: a line each. alike: whether every figure that is
    compared is the same."""

    a: Run
    b: Run
    changes: tuple[Change, ...]
    causes: tuple[Cause, ...]
    memory: Mapping[str, tuple[int, int]]
    keys: tuple[Key, ...]
    notes: tuple[str, ...] = ()

    @property
    def step(self) -> Change:
        """Of the figure that the runs are compared by: the step time, unless they are of another kind."""
        return self.changes[0]

    @property
    def steps(self) -> tuple[Result, Result] | None:
        """Both runs, if they are training steps."""
        return (self.a, self.b) if isinstance(self.a, Result) and isinstance(self.b, Result) else None

    @property
    def alike(self) -> bool:
        """Whether no figure differs."""
        return all(change.a == change.b for change in self.changes)

    @property
    def groups(self) -> dict[str, int]:
        """Group -> ns by which B's is longer, in order; they add up to the difference of the steps."""
        total: dict[str, int] = {}
        for cause in self.causes:
            total[cause.group] = total.get(cause.group, 0) + cause.difference_ns
        return total

    def plain(self) -> dict[str, Any]:
        """As JSON holds it, SI units."""
        return {
            "schema_version": SCHEMA_VERSION,
            "kind": "comparison",
            "a": _run(self.a, self.step.key),
            "b": _run(self.b, self.step.key),
            "figures": {each.key: _change(each) for each in self.changes},
            "causes": [_cause(each) for each in self.causes],
            "groups_s": {name: ns / NS_PER_S for name, ns in self.groups.items()},
            "memory_bytes": {part: list(pair) for part, pair in self.memory.items()},
            "keys": {each.key: [each.a, each.b] for each in self.keys},
            "notes": list(self.notes),
        }

    def to_frame(self) -> Any:
        """The figures as a pandas DataFrame, a row each. Raises Refused where pandas is not installed."""
        return frame([{"key": each.key, **_change(each)} for each in self.changes])

    def save(self, path: str | Path) -> Path:
        """Write it as JSON to a file that ends in .json. Answers its path. Raises Refused."""
        return saved(self.plain(), Path(path))


def frame(rows: Sequence[Mapping[str, Any]]) -> Any:
    """Rows as a pandas DataFrame. Raises Refused where pandas is not installed."""
    try:
        import pandas
    except ImportError:
        raise Refused("to_frame needs pandas: pip install pandas, or read .plain()") from None
    return pandas.DataFrame(rows)


def saved(content: dict[str, Any], path: Path) -> Path:
    """Content as JSON in a file of our own. Raises Refused."""
    if path.suffix != ".json":
        raise Refused(f"{path}: expected a file that ends in .json")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text(content), encoding="utf-8")
    return path


def _run(result: Run, key: str) -> dict[str, Any]:
    """key: of the figure that runs are compared by."""
    summary = result.summary
    plain = {name: summary[name] for name in ("scenario", "overrides", "scenario_hash", "feasible")}
    if isinstance(result, Result):
        plain |= {key: summary[key], "interval_90": summary.get("intervals_90", {}).get(key)}
    return plain


def _change(each: Change) -> dict[str, Any]:
    return {
        "a": each.a, "b": each.b, "difference": each.difference,
        "difference_90": list(each.interval) if each.interval else None,
        "ratio": each.b / each.a if each.a and each.b is not None else None,
        "ratio_90": list(each.ratio) if each.ratio else None,
    }  # fmt: skip


def _cause(each: Cause) -> dict[str, Any]:
    seconds = {"a_s": each.a_ns / NS_PER_S, "b_s": each.b_ns / NS_PER_S, "difference_s": each.difference_ns / NS_PER_S}
    return {"group": each.group, "name": each.name, **seconds, "difference_ns": each.difference_ns}
