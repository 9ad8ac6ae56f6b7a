"""The table of a sweep: figures of its runs by column, as text and as a CSV file beside the file of runs."""

import csv
import hashlib
import json
import os
import shlex
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from hwmodels.refused import Refused
from hwmodels.units import KILO
from sim.experiments.record import Record, figure, tables
from sim.experiments.space import ALWAYS_LAST
from sim.experiments.sweep import Sweep
from sim.result.folder import writing

MOST = KILO
"""Rows that are printed; all are in the CSV file."""
SHOWN = 20_000
"""Points of a page, so that a browser can hold it."""


def table(sweep: Sweep, records: Sequence[Record]) -> Iterator[list[Any]]:
    """Headings, then a row a point: labels of its axes, figures, and why a run was refused or failed."""
    yield [*sweep.axes, *sweep.columns, "error"]
    for point, entry in zip(sweep.points, records, strict=True):
        labels = [point.labels.get(axis, "") for axis in sweep.axes]
        yield [*labels, *(figure(entry, key) for key in sweep.columns.values()), lack(entry)]


def empty(sweep: Sweep, records: Sequence[Record]) -> Iterator[str]:
    """A line for each column whose figure no run has, though one might."""
    absent, ran = dict(sweep.columns), False
    for entry in records:
        if "summary" in entry:
            ran = True
            absent = {heading: key for heading, key in absent.items() if figure(entry, key, ABSENT) is ABSENT}
        if ran and not absent:
            return
    yield from (f"columns.{heading}: no run has {key}" for heading, key in absent.items() if ran)


def plain(sweep: Sweep, records: Sequence[Record]) -> dict[str, Any]:
    """What a page of a sweep tells, as plain values: axes with labels, columns of numbers, and points that ran."""
    labels: dict[str, dict[str, None]] = {axis: {} for axis in sweep.axes}
    points = []
    for point, entry in islice(zip(sweep.points, records, strict=True), SHOWN):
        for axis, label in point.labels.items():
            labels[axis][label] = None
        if "summary" in entry:
            figures = {heading: _number(figure(entry, key)) for heading, key in sweep.columns.items()}
            words = [word for word in point.overrides if word not in ALWAYS_LAST]
            command = shlex.join(["python", "-m", "sim", os.path.normpath(sweep.scenario), *words])
            points.append({**dict.fromkeys(sweep.axes, ""), **point.labels, **figures, "command": command})
    axes = [{"name": axis, "labels": list(own)} for axis, own in labels.items()]
    figures_ = [{"name": heading, "unit": "", "best": "min"} for heading in sweep.columns]
    return {"name": sweep.name, "axes": axes, "figures": figures_, "points": points, "count": len(records)}


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None


ABSENT = object()
"""Stands for a figure that a record does not have, not even as nothing."""


def lack(entry: Record) -> str:
    """Why a record has no figures, in one line: the refusal, or the cause of the failure; nothing where it has them."""
    if "failed" in entry:
        return f"failed: {entry['failed'].splitlines()[-1]}"
    return f"refused: {entry['error']}" if "error" in entry else ""


def text(rows: Sequence[Sequence[Any]]) -> str:
    """A table as aligned text; a column that is empty everywhere is left out."""
    cells = [[_cell(value) for value in row] for row in rows]
    used = [column for column in zip(*cells, strict=True) if any(column[1:])]
    widths = [max(map(len, column)) for column in used]
    numbers = [all(_is_number(cell) for cell in column[1:]) for column in used]
    lines = [
        "  ".join(c.rjust(w) if n else c.ljust(w) for c, w, n in zip(row, widths, numbers, strict=True)).rstrip()
        for row in zip(*used, strict=True)
    ]
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.5g}"
    return "" if value is None else str(value)


def _is_number(cell: str) -> bool:
    return not cell or cell.replace(".", "", 1).replace("e+", "", 1).replace("e-", "", 1).lstrip("-").isdigit()


TABLE_BYTES = 16
"""Of the digest that a file of runs keeps of the tables written beside it."""


def check_table(kept: Path) -> None:
    """Refuse where the table beside a file of runs would replace one that no sweep into that file wrote."""
    path = kept.with_suffix(".csv")
    with writing(path):
        if path.exists() and (not path.is_file() or _digest(path.read_bytes()) not in tables(kept)):
            what = f"is no table that a sweep into {kept.name} wrote, so it is not replaced"
            raise Refused(f"{what}; name another file with --out", str(path))


def write_csv(rows: Iterable[Sequence[Any]], kept: Path) -> Path:
    """A table as the CSV file beside a file of runs, which keeps its digest; numbers in full. Answers its path.

    Raises Refused when it cannot be written, or replaces something else (see `check_table`).
    """
    path = kept.with_suffix(".csv")
    check_table(kept)
    with writing(path):
        part = path.with_name(f".{path.name}.part")
        with part.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows(rows)
        with part.open("rb") as content:
            digest = hashlib.file_digest(content, lambda: hashlib.blake2b(digest_size=TABLE_BYTES)).hexdigest()
        with kept.open("a", encoding="utf-8") as runs:
            runs.write(json.dumps({"table": digest}) + "\n")
        os.replace(part, path)
    return path


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=TABLE_BYTES).hexdigest()
