"""Figures of a machine: numbers that say their unit, how they are known, and where from; and how they are read."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hwmodels.document import Document, DocumentError, KeyPath, Problem, did_you_mean, dotted, unknown
from hwmodels.refused import Refused
from hwmodels.units import EXAMPLES, KILO, MB, MEGA, SECONDS_PER_HOUR, format_quantity, parse

KINDS = ("datasheet", "measured", "published-effective", "assumed")
"""How a figure is known: its maker says so, a measurement of one part, what a published system reached, a guess."""

OVERRIDE = "override"
"""Source of a figure that a scenario states without one."""

HERE = Path(__file__).parent
"""Folder of the machine documents (devices, nodes, fabrics)."""


@dataclass(frozen=True)
class Figure:
    """One number of a machine. text: as written ("50 GB/s"); value: SI; kind: one of KINDS; source: where from."""

    text: str
    value: float
    kind: str
    source: str


@dataclass
class Reading:
    """A document being read: what its figures are and what is wrong with it, in the order of asking.

    key: where the document sits in a larger one, for messages.
    """

    document: Document
    key: KeyPath = ()
    figures: dict[str, Figure] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def problem(self, path: KeyPath, message: str) -> None:
        """Note that `path` is wrong."""
        self.problems.append(Problem(self.document.place(path), dotted((*self.key, *path)), message))

    def check(self) -> None:
        """Raise DocumentError when anything was wrong."""
        if self.problems:
            raise DocumentError(self.problems)

    def content(self, *path: str) -> Any:
        """What stands at `path`, None when nothing does."""
        return self.document.value(*path)

    def keys(self, legal: tuple[str, ...], *path: str) -> bool:
        """Whether a mapping stands at `path`; notes keys that are not legal."""
        content = self.content(*path)
        if not isinstance(content, Mapping):
            self.problem(path, f"missing; expected a mapping with {', '.join(legal)}" if content is None
                         else f"expected a mapping with {', '.join(legal)}; found {content!r}")  # fmt: skip
            return False
        for key in content:
            if key not in legal:
                self.problem((*path, key), unknown(key, "key", legal))
        return True

    def word(self, *path: str, optional: bool = False) -> str:
        """The text at `path`; "" when it is optional and absent, or wrong."""
        content = self.content(*path)
        if isinstance(content, str) and content:
            return content
        if content is not None or not optional:
            self.problem(path, "missing; expected a word" if content is None else f"expected a word; found {content!r}")
        return ""

    def words(self, *path: str) -> tuple[str, ...]:
        """The list of words at `path`; () when it is absent, or wrong, which is noted."""
        content = self.content(*path)
        if content is None:
            return ()
        if isinstance(content, list) and all(isinstance(word, str) and word for word in content):
            return tuple(content)
        self.problem(path, f"expected a list of words; found {content!r}")
        return ()

    def quantity(self, dimension: str, *path: str) -> float:
        """The SI value of the figure at `path`; 0 when it is wrong, which is noted."""
        return self._figure(path, lambda value: _rate(value, dimension))

    def count(self, *path: str) -> int:
        """The whole number, 1 or more, of the figure at `path`; 0 when it is wrong, which is noted."""
        return int(self._figure(path, _count))

    def _figure(self, path: KeyPath, value_of: Callable[[Any], float]) -> float:
        leaf = self.document.value(*path)
        figure = self._cited(path, leaf)
        if figure is None:
            return 0
        try:
            value = value_of(figure["value"])
        except Refused as error:
            self.problem((*path, "value") if isinstance(leaf, Mapping) else path, str(error))
            return 0
        self.figures[dotted(path)] = Figure(str(figure["value"]), value, figure["kind"], figure["source"])
        return value

    def _cited(self, path: KeyPath, leaf: Any) -> Mapping[str, Any] | None:
        """The leaf as {value, kind, source}: a bare one is assumed where kind and source may be left out."""
        if leaf is None:
            self.problem(path, "missing; expected {value: ..., kind: ..., source: ...}")
            return None
        form = leaf if isinstance(leaf, Mapping) else {"value": leaf}
        if not self.document.place(path).cited:
            form = {"kind": "assumed", "source": OVERRIDE} | dict(form)
        wrong = [key for key in form if key not in ("value", "kind", "source")]
        missing = [key for key in ("value", "kind", "source") if not form.get(key) and form.get(key) != 0]
        for key in wrong:
            self.problem((*path, key), unknown(key, "key", ("value", "kind", "source")))
        if missing:
            self.problem(path, f"a figure needs {' and '.join(missing)}: {{value: ..., kind: ..., source: ...}}")
        elif form["kind"] not in KINDS:
            near = did_you_mean(form["kind"], KINDS)
            self.problem((*path, "kind"), f"unknown kind {form['kind']!r}{near or ';'} legal: {', '.join(KINDS)}")
            return None
        return None if wrong or missing else form


LEAST = {"data/time": MB, "FLOP/time": MEGA, "frequency": KILO, "power": 1}
"""Lower limits of rates, SI: with less a step would take longer than 64 bits of nanoseconds hold."""
LONGEST_S = SECONDS_PER_HOUR
"""Upper limit of a latency."""
MANY = 1 << 20
"""Upper limit of things that are counted."""


def _rate(value: Any, dimension: str) -> float:
    """Latencies and costs may be nothing; with a rate or a size of 0 nothing would ever end."""
    quantity = parse(value, dimension)
    if not quantity and dimension not in ("time", "money"):
        raise Refused(f'expected more than 0, e.g. "{EXAMPLES[dimension]}"; found {str(value)!r}')
    if quantity < (least := LEAST.get(dimension, 0)):
        raise Refused(f"expected {format_quantity(least, dimension)} or more; found {str(value)!r}")
    if dimension == "time" and quantity > LONGEST_S:
        raise Refused(f"expected {LONGEST_S} s or less; found {str(value)!r}")
    return quantity


def _count(value: object) -> float:
    number = value if isinstance(value, int | float) and not isinstance(value, bool) else 0
    if (isinstance(number, float) and not math.isfinite(number)) or number % 1 or number < 1:
        raise Refused(f"expected a whole number, 1 or more; found {value!r}")
    if number > MANY:
        raise Refused(f"expected a whole number from 1 to {MANY}; found {value!r}")
    return int(number)


def resolved(content: Any, figures: Mapping[str, Figure], path: KeyPath = ()) -> Any:
    """`content` with each leaf that is a figure written in full, so that it stands without its files."""
    if figure := figures.get(dotted(path)):
        value = content["value"] if isinstance(content, Mapping) else content
        return {"value": value, "kind": figure.kind, "source": figure.source}
    if not isinstance(content, Mapping):
        return content
    return {key: resolved(value, figures, (*path, key)) for key, value in content.items()}
