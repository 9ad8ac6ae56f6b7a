"""Rows of training runs in a CSV file: one run each, with its layout, its words and what was measured."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hwmodels.refused import Refused
from sim.scenario.shelves import SCENARIOS

FILE = SCENARIOS / "published" / "training_runs.csv"
"""The rows that ship, each with its source."""
ALSO = {
    "where": "url_repo_path", "parameters": "params", "gpus": "n_gpus", "tensor": "tp", "context": "cp",
    "pipeline": "pp", "chunks": "vpp", "expert": "ep", "expert_tensor": "etp", "data_parallel": "dp_kind",
    "micro_batch": "mbs", "sequences": "gbs", "sequence_length": "seq",
}  # fmt: skip
"""Column -> another name that it may have."""
WORDS = (
    "id", "family", "group", "source", "where", "model", "parameters", "gpu", "precision", "data_parallel", "recompute",
    "overlap", "other", "tflops_published", "memory_published", "confidence", "notes",
)  # fmt: skip
COUNTS = (
    "gpus", "tensor", "context", "pipeline", "chunks", "expert", "expert_tensor", "micro_batch", "sequences",
    "sequence_length",
)  # fmt: skip
NEEDED = (
    "id",
    "family",
    "model",
    "gpu",
    "precision",
    "data_parallel",
    *COUNTS,
    "recompute",
    "overlap",
    "other",
    "step_s",
)
"""Columns that a file must have; the others of WORDS may be left out."""
UNSAID = ("?", "yaml", "interleaved, degree not stated")
"""What stands in a column of numbers where a source does not say them."""
LARGEST = 10**9
"""Of a number in a row: more is a slip."""


@dataclass(frozen=True)
class Run:
    """A row. Words are as published. Counts: ranks of each axis, virtual stages a rank, sequences; None: not said.
    assumed: columns whose number its collector assumed. step_s: seconds of a step as measured, or None."""

    id: str
    family: str
    group: str
    source: str
    where: str
    model: str
    parameters: str
    gpu: str
    precision: str
    data_parallel: str
    recompute: str
    overlap: str
    other: str
    tflops_published: str
    memory_published: str
    confidence: str
    notes: str
    gpus: int | None
    tensor: int | None
    context: int | None
    pipeline: int | None
    chunks: int | None
    expert: int | None
    expert_tensor: int | None
    micro_batch: int | None
    sequences: int | None
    sequence_length: int | None
    assumed: tuple[str, ...]
    step_s: float | None

    @property
    def lacking(self) -> str:
        """Why nothing is asked of the row: what it does not say, or that it is doubtful; "" where it says enough."""
        missing = [key for key in COUNTS if key != "expert_tensor" and getattr(self, key) is None]
        if missing:
            return f"does not say: {', '.join(missing)}"
        if self.step_s is None:
            return "gives no step time"
        return "is of low confidence" if self.confidence == "low" else ""


def read(path: Path) -> tuple[Run, ...]:
    """The rows of a file, in order. Raises Refused with one line that names file and line."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.reader(file)
            names = _header(next(reader, []), str(path))
            rows = [_row(dict(zip(names, cells, strict=False)), cells, names, str(path), reader.line_num)
                    for cells in reader if cells]  # fmt: skip
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else f"is no CSV file in UTF-8 ({error})"
        raise Refused(f"cannot be read: {reason}", str(path)) from None
    if not rows:
        raise Refused("has no rows of runs", str(path))
    seen: set[str] = set()
    for run in rows:
        if run.id in seen:
            raise Refused(f"two rows are called {run.id!r}; legal: an id for each", str(path))
        seen.add(run.id)
    return tuple(rows)


def _header(cells: Sequence[str], path: str) -> list[str]:
    """Names of the columns, as ours."""
    ours = {other: key for key, other in ALSO.items()}
    names = [ours.get(name.strip(), name.strip()) for name in cells]
    if missing := [f"{key} (or {ALSO[key]})" if key in ALSO else key for key in NEEDED if key not in names]:
        raise Refused(f"columns are missing: {', '.join(missing)}", path, 1)
    return names


def _row(named: Mapping[str, str], cells: Sequence[str], names: Sequence[str], path: str, line: int) -> Run:
    if len(cells) != len(names):
        raise Refused(f"expected {len(names)} columns, as the first line has; found {len(cells)}", path, line)
    words: dict[str, Any] = {key: named.get(key, "").strip() for key in WORDS}
    if not words["id"]:
        raise Refused("a row without an id", path, line)
    counts: dict[str, Any] = {key: _count(key, named[key].strip(), path, line) for key in COUNTS}
    assumed = tuple(key for key in COUNTS if named[key].strip().endswith("?") and counts[key] is not None)
    tensor = named["expert_tensor"].strip() == "tp"
    counts["expert_tensor"] = counts["tensor"] if tensor else counts["expert_tensor"]
    if named["expert"].strip() == "":
        counts["expert"] = 1
    return Run(**words, **counts, assumed=assumed, step_s=_seconds(named["step_s"].strip(), path, line))


def _count(key: str, text: str, path: str, line: int) -> int | None:
    """A whole number above zero, with a ? behind it where it is assumed; None where nothing is said."""
    may_lack = {"expert": ("",), "expert_tensor": ("", "tp")}.get(key, ())
    if text in (*UNSAID, *may_lack):
        return None
    digits = text.removesuffix("?")
    if not (digits.isascii() and digits.isdigit() and 0 < int(digits) <= LARGEST):
        name = f"{key} ({ALSO[key]})" if key in ALSO else key
        raise Refused(f"expected a whole number above zero, or ?; found {text!r}", path, line, name)
    return int(digits)


def _seconds(text: str, path: str, line: int) -> float | None:
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < LARGEST:
        raise Refused(f"expected seconds above zero, or nothing; found {text!r}", path, line, "step_s")
    return value


def asked(rows: Sequence[Run]) -> Iterator[Run]:
    """Those that say enough to be asked for."""
    return (run for run in rows if not run.lacking)
