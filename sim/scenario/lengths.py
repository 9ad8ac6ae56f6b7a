"""Lengths of documents: what each kind needs, and recorded ones from a CSV file or from the scenario."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hwmodels.document import Document, DocumentError, KeyPath, Problem, dotted
from sim.models.form import MOST
from sim.scenario.histogram import csv
from sim.scenario.values import Lengths

COLUMNS = ["length", "count"]
"""Names of the columns, which the first line of a file may say."""


OF_KIND = {"length": ("fixed", "a number of tokens"), "low": ("uniform", "the fewest tokens"),
           "high": ("uniform", "the most tokens"), "median": ("lognormal", "a number of tokens"),
           "sigma": ("lognormal", "e.g. 1.2"), "histogram": ("recorded", "a CSV file")}  # fmt: skip
"""Value of lengths -> the kind it belongs to, and what is expected."""
IN_YAML = {"low": "from", "high": "to"}
"""Values of lengths that YAML calls otherwise."""


def mistakes(lengths: Lengths) -> Iterator[tuple[str, str]]:
    """Key and message of each value that the kind needs and that is missing, or that belongs to another kind."""
    for name, (kind, expected) in OF_KIND.items():
        key, given = IN_YAML.get(name, name), getattr(lengths, name) is not None
        if given and lengths.kind != kind:
            yield key, f"only {kind} lengths have it; found {lengths.kind}"
        elif lengths.kind == kind and not given:
            yield key, f"missing; {kind} lengths need it: {expected}"
    if lengths.low and lengths.high and lengths.low > lengths.high:
        yield "from", f"found {lengths.low}; legal: 1 to {lengths.high} (to)"


def place(document: Document) -> KeyPath:
    """Where recorded lengths are named in a scenario: a file alone stands for them."""
    key = ("batch", "lengths")
    return key if isinstance(document.at(*key).content, str) else (*key, "histogram")


def recorded(part: Document, key: KeyPath, folder: Path) -> tuple[tuple[int, int], ...]:
    """(length, documents) in order of length, of the file in `folder` that `part` names or the pairs that it is. Raises
    DocumentError with a line for each row that is wrong."""
    if isinstance(part.content, str) and Path(part.content).suffix.lower() != ".csv":
        what = f"found {part.content!r}; legal: a file ending in .csv, or a list of [length, count]"
        raise DocumentError([Problem(part.place(()), dotted(key), what)])
    document = csv(part, key, folder / part.content) if isinstance(part.content, str) else part
    rows = document.content
    if not isinstance(rows, list) or not rows:
        what = "expected rows of a length and how many documents have it, e.g. 512,1000"
        raise DocumentError([Problem(document.place(()), dotted(key), what)])
    first = int(rows[0] == COLUMNS)
    wrong = [(number, message) for number, row in enumerate(rows[first:], first) if (message := _mistake(row))]
    if wrong:
        raise DocumentError([Problem(document.place((i,)), dotted((*key, i)), message) for i, message in wrong])
    counts: Counter[int] = Counter()
    for length, count in rows[first:]:
        counts[int(length)] += int(count)
    if not any(counts.values()):
        raise DocumentError([Problem(document.place(()), dotted(key), "no length has any documents")])
    return tuple((length, count) for length, count in sorted(counts.items()) if count)


def _mistake(row: Any) -> str:
    """What is wrong with one row, or nothing."""
    if not isinstance(row, list) or len(row) != len(COLUMNS):
        return f"expected a length and a count; found {row!r}"
    for name, value, least in zip(COLUMNS, row, (1, 0), strict=True):
        if isinstance(value, bool) or not isinstance(value, int | float) or value % 1 or not least <= value <= MOST:
            return f"{name}: expected a whole number from {least} to {MOST}; found {value!r}"
    return ""
