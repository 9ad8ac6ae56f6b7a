"""Recorded histograms: tokens of every expert in every layer, from a YAML, CSV or npz file or from the scenario."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hwmodels.document import Document, DocumentError, KeyPath, Place, Problem, dotted, parse
from hwmodels.units import PERCENT
from sim.models.mixture import Mixture

Histogram = tuple[tuple[int, ...], ...]
"""Tokens by layer and expert."""

MOST = 1 << 53
"""Tokens of a layer in all: a float tells no larger whole numbers apart."""
ARRAY = "tokens"
"""Name of the array [layers, experts] in an npz file."""


def histogram(part: Document, key: KeyPath, folder: Path, mixture: Mixture | None = None) -> Histogram:
    """The histogram that `part` names (a file in `folder`) or is (a list of lists). Raises DocumentError, also for rows
    that no gate of `mixture` can give.

    A file is YAML (a list of lists), CSV (a line of numbers a layer, # begins a comment) or npz (array `tokens`).
    """
    read = _READERS.get(Path(part.content).suffix.lower()) if isinstance(part.content, str) else None
    if isinstance(part.content, str) and read is None:
        legal = "a file ending in .yaml, .csv or .npz, or a list of lists"
        raise DocumentError([Problem(part.place(()), dotted(key), f"found {part.content!r}; legal: {legal}")])
    return _checked(read(part, key, folder / part.content) if read else part, key, mixture)


def _checked(document: Document, key: KeyPath, mixture: Mixture | None) -> Histogram:
    """Rows of equal length of whole numbers, in none of which all are 0, and which a gate can give."""
    rows = document.content
    if not isinstance(rows, list) or not rows or not all(isinstance(row, list) and row for row in rows):
        what = "expected a list of lists: for each layer the tokens of each expert"
        raise DocumentError([Problem(document.place(()), dotted(key), what)])
    problems = [
        Problem(document.place((index,)), dotted((*key, index)), message)
        for index, row in enumerate(rows)
        if (message := _wrong(row, len(rows[0])) or (_impossible(row, mixture) if mixture else ""))
    ]
    if problems:
        raise DocumentError(problems)
    return tuple(tuple(int(value) for value in row) for row in rows)


def _wrong(row: Sequence[Any], experts: int) -> str:
    """What is wrong with the tokens of one layer, or nothing."""
    for value in row:
        if isinstance(value, bool) or not isinstance(value, int | float) or value < 0 or value % 1:
            return f"expected whole numbers of tokens, 0 or more; found {value!r}"
    if len(row) != experts:
        return f"length {len(row)}; the first layer has {experts}"
    if max(row) > MOST or sum(row) > MOST:
        return f"more than {MOST} tokens in all"
    return "" if any(row) else "all tokens are 0; leave the layer out or give one line for all layers"


def _impossible(row: Sequence[float], mixture: Mixture) -> str:
    """Why no gate of this model gives the tokens of one layer, or nothing: a token chooses so many different experts,
    from so many groups at most. What is wrong with the model, or with the row for it, is told elsewhere."""
    chosen, experts, groups = mixture.chosen, mixture.experts, mixture.groups
    if len(row) != experts or chosen > experts or experts % groups:
        return ""
    total, most, live = sum(row), max(row), sum(value > 0 for value in row)
    if live < chosen:
        return f"only {live} of {experts} experts have tokens; legal: {chosen} or more (a token chooses {chosen})"
    if most * chosen > total:
        actual, legal = (f"{share / PERCENT:.4g} %" for share in (most / total, 1 / chosen))
        what = f"a token chooses an expert once, {chosen} of {experts}"
        return f"expert {row.index(most)} has {actual} of all choices; legal: at most {legal} ({what})"
    size = experts // groups
    needed = sum(max(row[first : first + size]) for first in range(0, experts, size)) * chosen
    if needed > mixture.chosen_groups * total:
        what = "the busiest expert of each group alone asks for so many"
        return (
            f"a token chooses from {needed / total:.4g} of {groups} groups on average, {what}; legal: at most"
            f" {mixture.chosen_groups} (model.groups_per_token)"
        )
    return ""


def _yaml(part: Document, key: KeyPath, path: Path) -> Document:
    return parse(_text(part, key, path), str(path))


def csv(part: Document, key: KeyPath, path: Path) -> Document:
    """Rows of a CSV file as lists of numbers, or of words where there are none, each at its place. Raises
    DocumentError."""
    places: dict[KeyPath, Place] = {(): Place(str(path))}
    rows: list[list[Any]] = []
    for number, line in enumerate(_text(part, key, path).splitlines(), 1):
        text = line.partition("#")[0].strip()
        if text:
            places[(len(rows),)] = Place(str(path), number, 1)
            rows.append([_number(word.strip()) for word in text.split(",")])
    return Document(rows, places)


def _text(part: Document, key: KeyPath, path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")  # spreadsheets begin a CSV with a mark of the encoding
    except (OSError, ValueError) as error:  # also of a name with a NUL in it
        raise DocumentError([_unreadable(part, key, path, error)]) from None


def _number(word: str) -> Any:
    """The number a word says, or the word itself."""
    try:
        return float(word)
    except ValueError:
        return word


def _npz(part: Document, key: KeyPath, path: Path) -> Document:
    from zipfile import BadZipFile

    import numpy as np

    try:
        with np.load(path, allow_pickle=False) as arrays:
            names = list(arrays)
            content = arrays[ARRAY].tolist() if ARRAY in names else None
    except (OSError, ValueError, BadZipFile, AttributeError, TypeError) as error:
        raise DocumentError([_unreadable(part, key, path, error)]) from None
    if content is None:
        what = f"{path} has no array named {ARRAY}; found {', '.join(names) or 'none'}"
        raise DocumentError([Problem(part.place(()), dotted(key), what)])
    return Document(content, {(): Place(str(path))})


def _unreadable(part: Document, key: KeyPath, path: Path, error: Exception) -> Problem:
    why = error.strerror if isinstance(error, OSError) and error.strerror else "not what its name says"
    return Problem(part.place(()), dotted(key), f"{path} cannot be read: {why}")


_READERS = {".yaml": _yaml, ".yml": _yaml, ".csv": csv, ".npz": _npz}
