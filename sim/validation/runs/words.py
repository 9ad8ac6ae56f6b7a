"""What the words of a row mean: by the committed table of phrases, column by column, else token by token."""

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from hwmodels.document import read
from sim.validation.runs import grammar
from sim.validation.runs.rows import Run

FOLDER = Path(__file__).parent
COLUMNS = ("precision", "data_parallel", "recompute", "overlap", "other")
"""Columns of a row that are read by phrases, and sections of the table."""
WHOLE = ("precision", "data_parallel")
"""Those that are one phrase, whatever stands in them."""
SILENT = ("", "?", "-", "n/a", "na", "none stated", "not stated", "unknown", "yaml")
"""What says nothing, in any column."""


class Meaning(NamedTuple):
    """What a phrase says. keys: dotted keys of a scenario with their values. notes: what has no key, or how it is read.
    instead: what stands for it. refused: why no scenario can say it, or "". left: words of it that nobody understands,
    or ""."""

    column: str
    keys: Mapping[str, Any]
    notes: tuple[str, ...] = ()
    instead: tuple[str, ...] = ()
    refused: str = ""
    left: str = ""


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
    """Of all phrases of a row, in order."""
    for column in COLUMNS:
        for phrase in phrases(run, column):
            yield meaning(column, phrase)


def meaning(column: str, phrase: str) -> Meaning:
    """Of a phrase: as the table has it, with capitals, quotes and blanks as they may be; else what its tokens say."""
    spelled = grammar.plain(phrase).casefold()
    if spelled in SILENT:
        return Meaning(column, {})
    known = table("words")[column]
    said = known[phrase] if phrase in known else _alike(column).get(spelled, NOBODY)
    if said is NOBODY:
        tokens = table("tokens")
        keys, notes, instead, left = grammar.read(tokens.get(column, tokens["free"]), phrase)
        return Meaning(column, keys, notes, instead, left=left)
    own = said or {}
    keys = {key: value for key, value in own.items() if key not in ("note", "instead", "refused")}
    notes, instead = (tuple(own[word] for word in (each,) if word in own) for each in ("note", "instead"))
    return Meaning(column, keys, notes, instead, own.get("refused", ""))


NOBODY = object()
"""In the place of what the table would say of a phrase that it does not have."""


@cache
def _alike(column: str) -> Mapping[str, Any]:
    """The table's phrases in small letters."""
    return {grammar.plain(phrase).casefold(): said for phrase, said in table("words")[column].items()}
