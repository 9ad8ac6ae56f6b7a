"""Calibration tables: measured kernels by device, with the machine they were measured on.

A table folder holds gemm, memory, attention, exchange and contention as JSON, written by `numerics calibrate`.
Times are microseconds of the kernel alone; `reference` gives the device the times belong to. Inside it, a folder with a
library's name holds what that library's kernels take (`hwmodels.library`), and the gap between them.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from hwmodels.library import Measured, measured, nearby, operation
from hwmodels.library import knows as has_kind
from hwmodels.op import AllToAll, Attention, Gemm, GroupedGemm, Memory, Op
from hwmodels.refused import Refused

FOLDER = Path(__file__).parent / "tables"
STREAM = "elementwise"
"""Memory-bound kind that reads and writes in order and does nothing else."""
NEAR = 0.06
"""Memory-bound rows whose bytes per row differ by less than this are the same operation on another row count."""


@dataclass(frozen=True)
class Tables:
    """Everything measured on one device, indexed for look-up.

    exact: operation -> row.  grouped: (n, k) -> rows.  kinds: kind -> rows of memory-bound kernels.  library: a
    vendor's kernels, instead of all these.  sparse: rows of one job, which price what is near
    them and nothing else.  launch_gap_us: between two kernels of a stream; what the host takes to
    launch one is a node's (`hwmodels.node.Launch`), not a device's.
    """

    device: str
    source: str
    sms: int
    reference: dict[str, float]
    exact: dict[Any, dict[str, Any]]
    grouped: dict[tuple[int, int], list[dict[str, Any]]]
    kinds: dict[str, list[dict[str, Any]]]
    attention: dict[str, list[dict[str, Any]]]
    wave_fit: dict[str, dict[str, float]]
    memory_fit: dict[str, dict[str, float]]
    exchanges: dict[str, dict[str, Any]]
    contention: dict[str, dict[str, Any]]
    launch_gap_us: float
    library: Measured | None = None
    sparse: bool = False

    @property
    def streamed(self) -> float:
        """The part of HBM's bandwidth that elementwise kernels were measured to reach; all of it where none were."""
        rate = self.memory_fit.get(STREAM, {}).get("bytes_per_s", 0.0)
        return rate / self.reference["hbm_bytes_per_s"] if rate else 1.0


TWINS = "twins"
"""Folder of a card with the tables of its kernels as they were when another card's were measured, where its own are of
newer ones: what the two cards are compared by (numerics.accuracy.siblings). Nothing is priced by them."""


def available() -> tuple[str, ...]:
    """Names that `load` knows."""
    return _available(FOLDER.stat().st_mtime_ns)


@cache
def _available(changed: int) -> tuple[str, ...]:
    return tuple(sorted(file.parent.name for file in FOLDER.glob("*/gemm.json")))


def libraries(device: str) -> tuple[str, ...]:
    """Libraries whose kernels were measured on `device`."""
    folders = {file.parent.name for file in (FOLDER / device).glob("*/gemm.json")}
    return tuple(sorted(folders - {TWINS}))


@cache
def load(device: str) -> Tables:
    """The tables of `device`, of a library on it (h200/torch), or its twins (h200/twins), which have the rest of them
    from its own. Raises FileNotFoundError when it has none."""
    files = _files(device)
    if not files:
        raise FileNotFoundError(f"hwmodels/tables/{device} holds no tables")
    card, _, part = device.partition("/")
    if part == TWINS:
        files = _files(card) | files
    elif part:
        return _of_library(device, files)
    gemm, memory, attention = files["gemm"], files["memory"], files["attention"]
    exact: dict[Any, dict[str, Any]] = {}
    groups: dict[tuple[int, int], list[dict[str, Any]]] = {}
    kinds: dict[str, list[dict[str, Any]]] = {}
    for row in gemm["rows"]:
        if row["op"] == "gemm":
            exact[Gemm(row["m"], row["n"], row["k"], role_class(row["role"]), row["precision"])] = row
        else:
            groups.setdefault((row["n"], row["k"]), []).append(row)
            exact[_grouped(row)] = row
    for row in memory["rows"]:
        kinds.setdefault(row["kind"], []).append(row)
        exact[Memory(row["kind"], row["rows"], row["read"], row["write"], row["kernels"])] = row
    by_direction: dict[str, list[dict[str, Any]]] = {}
    for row in attention["rows"]:
        by_direction.setdefault(row["direction"], []).append(row)
        exact[attention_of(row)] = row
    return Tables(
        card, gemm["source"], gemm["sms"], gemm["reference"], exact, groups, kinds, by_direction, gemm["fit"],
        memory["fit"], {r["beside"]: r for r in files["exchange"]["rows"]},
        {r["class"]: r for r in files["contention"]["rows"]}, files["contention"]["launch_gap_us"],
    )  # fmt: skip


def _files(folder: str) -> dict[str, Any]:
    return {path.stem: json.loads(path.read_text()) for path in sorted((FOLDER / folder).glob("*.json"))}


def _of_library(folder: str, files: Mapping[str, Any]) -> Tables:
    """Tables of a library; what it lacks is asked of the device's own."""
    gemm = files["gemm"]
    rows = [row for name in ("gemm", "attention", "memory") if name in files for row in files[name]["rows"]]
    kernels = measured(folder, gemm["reference"], library_rows(rows), gemm["fit"]["spread"])
    beside = {row["class"]: row for row in files.get("contention", {"rows": ()})["rows"]}
    return Tables(
        gemm["device"], gemm["source"], gemm["reference"]["sms"], gemm["reference"], {}, {}, {}, {}, {}, {}, {}, beside,
        files.get("host", {}).get("launch_gap_us", 0.0), kernels,
    )  # fmt: skip


@cache
def given(text: str) -> Tables:
    """Tables that a scenario has with it, as JSON: what `numerics calibrate --trace` wrote, in one mapping."""
    said = json.loads(text)
    kernels = measured(said["source"], said["reference"], library_rows(said["rows"]), said["spread"])
    return Tables(
        said["device"], said["source"], said["reference"]["sms"], said["reference"], {}, {}, {}, {}, {}, {}, {}, {},
        said["launch_gap_us"], kernels, sparse=True,
    )  # fmt: skip


KERNELS = ("gemm", "attention", "memory")
"""Files of a library's tables that hold kernels."""
OF_A_TRACE = ("device", "library", "source", "reference", "spread", "launch_gap_us", "rows")
"""Keys of tables that a scenario has with it."""


def of_folder(folder: Path) -> dict[str, Any]:
    """What a folder of a trace's tables holds, as one mapping. Raises Refused."""
    files = {name: folder / f"{name}.json" for name in (*KERNELS, "host")}
    if absent := [path.name for path in files.values() if not path.is_file()]:
        raise Refused(f"{folder} has no {absent[0]}; legal: a folder that `python -m numerics calibrate --trace` wrote")
    by_name = {name: json.loads(path.read_text(encoding="utf-8")) for name, path in files.items()}
    gemm, rows = by_name["gemm"], [row for name in KERNELS for row in by_name[name]["rows"]]
    if "spread" not in gemm.get("fit", {}) or "reference" not in gemm:
        raise Refused(f"{folder} prices nothing: a trace with the shapes of its operators, on a known device, does")
    gap = by_name["host"]["launch_gap_us"]
    said = {**gemm, "spread": gemm["fit"]["spread"], "launch_gap_us": gap, "rows": rows}
    return {key: said[key] for key in OF_A_TRACE}


def library_rows(rows: Iterable[Mapping[str, Any]]) -> Iterator[tuple[Op, Mapping[str, Any]]]:
    """Rows of a library's tables with their operations."""
    for row in rows:
        yield operation(row), row


def attention_of(row: dict[str, Any]) -> Attention:
    """The operation of a row."""
    return Attention(**{name: row[name] for name in Attention._fields if name in row})


def _grouped(row: dict[str, Any]) -> GroupedGemm:
    return GroupedGemm(row["groups"], row["rows"], row["n"], row["k"], role_class(row["role"]), row["precision"])


def role_class(role: str) -> str:
    """Forward and input-gradient products cost alike; weight gradients accumulate into FP32 and do not."""
    return "wgrad" if role == "wgrad" else "fprop"


def near(tables: Tables, op: Memory) -> list[dict[str, Any]]:
    """Rows of the same kind and nearly the same bytes a row, at any row count."""
    size = op.read + op.write
    rows = tables.kinds.get(op.kind, [])
    return [r for r in rows if r["kernels"] == op.kernels and abs(r["read"] + r["write"] - size) <= NEAR * size]


def named(tables: Tables, table: str, row: Mapping[str, Any]) -> str:
    """A row as the source of a price."""
    return f"{tables.device}/{table}.json: {', '.join(row['names'])} ({row['samples']} samples)"


def knows(tables: Tables, op: Op, mode: str) -> bool:
    """Whether tables have rows that the mode may use, or a fit, for the class of an operation."""
    if tables.library:
        known = nearby if tables.sparse else has_kind
        return known(tables.library, op)
    if isinstance(op, Gemm | GroupedGemm):
        row = mode == "measured" and op._replace(role=role_class(op.role)) in tables.exact
        return row or op.precision != "bf16" or "bf16" in tables.wave_fit
    if isinstance(op, Attention):
        return op.direction in tables.attention
    if isinstance(op, Memory):
        return op.kind in tables.memory_fit
    return op.beside in tables.exchanges if isinstance(op, AllToAll) else True


def wait_us(tables: Tables | None, op: Op, device: str) -> float:
    """Mean wait for peers before an exchange beside compute, as measured; none where there are no peers, nor before
    other operations. Raises Refused where the tables that `device` is priced by have none."""
    if not isinstance(op, AllToAll):
        return 0.0
    row = tables.exchanges.get(op.beside, {}) if tables else {}
    if "wait_us" not in row:
        raise Refused(f"no table of {device} has waits before {op.beside}; legal: comm.waits none")
    return float(row["wait_us"]) if op.group > 1 else 0.0
