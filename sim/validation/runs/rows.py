"""Rows of training runs in a CSV file: one run each, with its layout, its words and what was measured."""

import csv
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hwmodels.refused import Refused
from hwmodels.units import KIB, MIB, MS_PER_S
from sim.scenario.shelves import SCENARIOS

FILE = SCENARIOS / "published" / "training_runs.csv"
"""The rows that ship, each with its source."""
UNSEEN = SCENARIOS / "published" / "unseen_runs.csv"
"""Rows that were read and written down before any of them was simulated; nothing is learned on them."""
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
NEEDED = ("id", "model", "gpu", "gpus", "sequences", "sequence_length", "step_s")
"""Columns that a file must have; of the others those that are left out say nothing."""
UNSAID = ("?", "yaml", "interleaved, degree not stated", "not stated", "unknown")
"""What stands in a column of numbers where a source does not say them."""
ALONE = ("", "-", "n/a", "na", "none", "no")
"""What stands in the column of an axis that a run does not have."""
AXES = ("tensor", "context", "pipeline", "chunks", "expert")
"""Columns of ranks, and of stages a rank, of which a run may have none."""
KIBI = {"": 1, "k": KIB, "m": MIB}
"""Letter behind a number -> how many it stands for."""
NUMBER = re.compile(r"(\d{1,3}(?:[,_ ]\d{3})+|\d+)(?:\.0+)? ?([km]?)i?(?: ?(gpus?|tokens?|ranks?|sequences?))?\Z", re.I)
"""A whole number as people write it."""
LARGEST = 10**9
"""Of a number in a row: more is a slip."""


@dataclass(frozen=True)
class Run:
    """A row. Words are as published. Counts: ranks of each axis, virtual stages a rank, sequences; None: not said.
    assumed: columns whose number its collector assumed. step_s: seconds of a step as measured, or None. wrong: what of
    the row cannot be read, with its line; "" where all can."""

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
    wrong: str = ""

    @property
    def lacking(self) -> str:
        """Why nothing is asked of the row: what it does not say, or that it is doubtful; "" where it says enough."""
        if self.wrong:
            return ""  # asked, and refused with the reason
        missing = [key for key in COUNTS if key != "expert_tensor" and getattr(self, key) is None]
        if missing:
            return f"does not say: {', '.join(missing)}"
        if self.step_s is None:
            return "gives no step time"
        return "is of low confidence" if self.confidence == "low" else ""


def read(path: Path) -> tuple[Run, ...]:
    """The rows of a file, in order; one that cannot be read says why and leaves the others as they are. Raises Refused
    with one line that names file and line, where no row can be read."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            names = _header(next(reader, []), str(path))
            rows = [_row(cells, names, str(path), reader.line_num) for cells in reader if any(map(str.strip, cells))]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else f"is no CSV file in UTF-8 ({error})"
        raise Refused(f"cannot be read: {reason}", str(path)) from None
    if not rows:
        raise Refused("has no rows of runs", str(path))
    if all(run.wrong for run in rows):
        raise Refused(rows[0].wrong)
    return tuple(_named(rows))


def _named(rows: Sequence[Run]) -> Iterator[Run]:
    """Rows with an id each: one that came before has its number behind it."""
    seen = Counter[str]()
    for run in rows:
        seen[run.id] += 1
        yield run if seen[run.id] == 1 else replace(run, id=f"{run.id} ({seen[run.id]})")


def _header(cells: Sequence[str], path: str) -> list[str]:
    """Names of the columns, as ours."""
    ours = {other: key for key, other in ALSO.items()}
    named = [name.strip().casefold().replace(" ", "_") for name in cells]
    names = [ours.get(name, name) for name in named]
    if missing := [f"{key} (or {ALSO[key]})" if key in ALSO else key for key in NEEDED if key not in names]:
        raise Refused(f"columns are missing: {', '.join(missing)}", path, 1)
    return names


def _row(cells: Sequence[str], names: Sequence[str], path: str, line: int) -> Run:
    named = {name: cell.strip() for name, cell in zip(names, cells, strict=False)}
    words: dict[str, Any] = {key: named.get(key, "") for key in WORDS}
    words["id"] = words["id"] or f"line {line}"
    try:
        if len(cells) != len(names):
            raise Refused(f"expected {len(names)} columns, as the first line has; found {len(cells)}", path, line)
        counts: dict[str, Any] = {key: _count(key, named.get(key, ""), path, line) for key in COUNTS}
        seconds = _seconds(named.get("step_s", ""), path, line)
    except Refused as refused:
        none: dict[str, Any] = dict.fromkeys(COUNTS)
        return Run(**words, **none, assumed=(), step_s=None, wrong=str(refused))
    assumed = tuple(key for key in COUNTS if named.get(key, "").endswith("?") and counts[key] is not None)
    if named.get("expert_tensor", "").casefold() in ("tp", "tensor"):
        counts["expert_tensor"] = counts["tensor"]
    return Run(**words, **counts, assumed=assumed, step_s=seconds)


def _count(key: str, text: str, path: str, line: int) -> int | None:
    """A whole number above zero, with a ? behind it where it is assumed; None where nothing is said."""
    if text.casefold() in UNSAID or (key == "expert_tensor" and text.casefold() in (*ALONE, "tp", "tensor")):
        return None
    if text.casefold() in ALONE:
        return 1 if key in AXES else None
    number = NUMBER.match(text.removesuffix("?").strip())
    value = int(re.sub(r"\D", "", number[1])) * KIBI[number[2].casefold()] if number and text.isascii() else 0
    if key == "chunks" and text == "0":
        return 1
    if not 0 < value <= LARGEST:
        name = f"{key} ({ALSO[key]})" if key in ALSO else key
        raise Refused(f"expected a whole number above zero, or ?; found {text!r}", path, line, name)
    return value


def _seconds(text: str, path: str, line: int) -> float | None:
    """Seconds of a step; a unit behind them may be s or ms."""
    number, parts = (text[:-2], MS_PER_S) if text.endswith("ms") else (text.removesuffix("s"), 1)
    if not text:
        return None
    try:
        value = float(number.replace(",", "")) / parts
    except ValueError:
        value = 0.0
    if not 0 < value < LARGEST:
        raise Refused(f"expected seconds above zero, or nothing; found {text!r}", path, line, "step_s")
    return value


def asked(rows: Sequence[Run]) -> Iterator[Run]:
    """Those that say enough to be asked for."""
    return (run for run in rows if not run.lacking)
