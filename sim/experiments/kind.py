"""What experiments need to know of a kind of scenario beside the training step.

A kind is told by its top-level key. It is read and run here by the functions of its room; its figures by which people
decide make tables, objectives and limits of searches; its parts, which add up to the first of these figures, make the
causes of a difference. A further kind is one more value of `Kind` and a line in `sim.experiments.kinds`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from hwmodels.document import Document
from hwmodels.figure import Figure

Floats = npt.NDArray[np.float64]
Summary = Mapping[str, Any]
MIN, MAX, NEITHER = "min", "max", ""
"""Which way a figure is better."""


class Measure(NamedTuple):
    """A figure to decide by. word: in a search file. key: of result.json, dotted. unit: seconds, bytes, share, number,
    days, dollars or joules. best: MIN, MAX or NEITHER. dimension: of a limit in a search file, "": a plain number.
    ends: keys of the ends of 90 % of what chance does to it. power: of a seed's time that it goes with; 0: none. needs:
    a key of the file without which there is none, and an example of its value."""

    word: str
    key: str
    name: str
    unit: str
    best: str = MIN
    dimension: str = ""
    ends: tuple[str, ...] = ()
    power: int = 0
    needs: tuple[str, str] = ("", "")

    @property
    def lacking(self) -> str:
        """What is to be said where its key is not."""
        return f"{self.word} needs {self.needs[0]}, e.g. {self.needs[1]}"


class Part(NamedTuple):
    """Seconds that go to something. group: what it is a part of."""

    group: str
    name: str
    meaning: str
    seconds: float


class Ran(NamedTuple):
    """A run of any kind. summary: as in result.json. scenario: as plain values. draws: its first figure in seconds by
    seed of chance, the same seeds in every run; None: there is one answer."""

    summary: Summary
    scenario: Summary
    draws: Floats | None = None


@dataclass(frozen=True)
class Kind:
    """key: that tells it. called: in a sentence. makes: what its files become. resolve: such a value from a document
    with overrides, relative to a path; raises DocumentError. run: of a value; raises Refused. machine: its machine's
    numbers by dotted key. measures: figures to decide by; the first one heads comparisons and is what sensitivity
    moves. parts: of a summary; they add up to the first figure in seconds. columns: what the table of a sweep shows,
    heading -> key. structure: words of keys whose numbers say how something is cut, not how much of it there is."""

    key: str
    called: str
    makes: type
    resolve: Callable[[Document, Sequence[str], Path | None], Any]
    run: Callable[[Any], Ran]
    machine: Callable[[Any], Mapping[str, Figure]]
    measures: tuple[Measure, ...]
    parts: Callable[[Summary], Sequence[Part]]
    columns: Mapping[str, str]
    structure: tuple[str, ...] = ()
    drawn: Callable[[Any], Mapping[str, Floats]] | None = None

    def measure(self, word: str) -> Measure:
        """By its word."""
        return next(each for each in self.measures if each.word == word)


def value(summary: Summary, key: str) -> float | None:
    """The number under a dotted key; None where there is none."""
    at: Any = summary
    for part in key.split("."):
        at = at.get(part) if isinstance(at, Mapping) else None
    return None if at is None or isinstance(at, bool) else float(at)
