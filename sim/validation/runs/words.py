"""What the words of a row mean: the committed table of phrases, column by column."""

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from hwmodels.document import did_you_mean, read
from hwmodels.refused import Refused
from sim.validation.runs.rows import Run

FOLDER = Path(__file__).parent
COLUMNS = ("precision", "data_parallel", "recompute", "overlap", "other")
"""Columns of a row that are read by phrases, and sections of the table."""
WHOLE = ("precision", "data_parallel")
"""Those that are one phrase, whatever stands in them."""


class Meaning(NamedTuple):
    """What a phrase says. keys: dotted keys of a scenario with their values. note: what has no key, or how it is read.
    refused: why no scenario can say it, or ""."""

    phrase: str
    keys: Mapping[str, Any]
    note: str
    refused: str


@cache
def table(name: str) -> Mapping[str, Any]:
    """A committed document beside this file."""
    content: Mapping[str, Any] = read(FOLDER / f"{name}.yaml").content
    return content


def phrases(run: Run, column: str) -> Iterator[str]:
    """What a column says, cut at its semicolons."""
    text = str(getattr(run, column))
    parts = [text] if column in WHOLE else text.split(";")
    return (part.strip() for part in parts if part.strip())


def meanings(run: Run) -> Iterator[Meaning]:
    """Of all phrases of a row, in order. Raises Refused for one that the table does not have."""
    for column in COLUMNS:
        for phrase in phrases(run, column):
            yield _meaning(column, phrase)


def _meaning(column: str, phrase: str) -> Meaning:
    known = table("words")[column]
    if phrase not in known:
        near = did_you_mean(phrase, known) or ""
        raise Refused(f"{column}: nobody said what {phrase!r} means{near} (sim/validation/runs/words.yaml)")
    said = known[phrase] or {}
    keys = {key: value for key, value in said.items() if key not in ("note", "refused")}
    return Meaning(phrase, keys, said.get("note", ""), said.get("refused", ""))
