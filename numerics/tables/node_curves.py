"""Collectives and expert exchanges of a node's GPUs as curves over bytes, and how far each row is off the rest.

A curve is what is alike but for bytes: an operation over so many ranks, or an exchange by so many channels or SMs,
evenly or not (1.6 times the bytes at one port take 1.4 times as long, for the others have less). Time lies on it
between neighbours, logarithm over logarithm, beyond its ends as between the last two. Leave-one-out: every load of a
curve as the others have it (rows of one load together, so that no twin tells). No price reads these tables: NCCL has a
model of its own (docs/COLLECTIVES.md), and eight GPUs are not measured.
"""

import json
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from math import exp, log
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from hwmodels.refused import Refused
from numerics.tables import left_out, provenance
from numerics.tables.calibrate import Row, Table, rounded, write

SIZES, EXCHANGES, ROUTED = "node.json", "node_exchange.json", "node_routed.json"
"""Files that a card run of several GPUs leaves (numerics.card.node_runs)."""
ENTRIES = ("numerics.tables.node_curves:tables", "numerics.tables.calibrate:write")
FEWEST = 3
"""Loads of a curve without which none can be left out."""


class Point(NamedTuple):
    """kind: "collective" or "exchange"; curve: what all its rows have in common; load: bytes of the vector, or of the
    rows at the busiest port."""

    kind: str
    curve: str
    load: float
    us: float


def points(folder: Path) -> list[Point]:
    """All that the folder's files timed alone. Raises Refused when it has none of them."""
    readers = {SIZES: _collectives, EXCHANGES: _exchanges, ROUTED: _routed}
    files = {name: folder / name for name in readers if (folder / name).is_file()}
    if not files:
        raise Refused(f"has none of {', '.join(readers)}; `calibrate --node` writes them", str(folder))
    return [p for name, file in files.items() for p in readers[name](json.loads(file.read_text(encoding="utf-8")))]


def _collectives(content: Mapping[str, Any]) -> Iterator[Point]:
    for row in content["sizes"]:
        yield Point("collective", f"{row['op']}, {row['ranks']} ranks", row["bytes"], row["us"])


def _exchanges(content: Mapping[str, Any]) -> Iterator[Point]:
    """The hottest rank's rows that come from others."""
    ranks = content["about"]["world"]
    for row in content["alone"]:
        load = row["skew"] * row["tokens"] * row["top_k"] * row["row_bytes"] * (ranks - 1) / ranks
        curve = f"all_to_all, {ranks} ranks, {row['channels'] or 'all'} channels, skew {row['skew']:g}"
        yield Point("exchange", curve, load, row["us"])


def _routed(content: Mapping[str, Any]) -> Iterator[Point]:
    ranks = content["about"]["world"]
    for row in content["alone"]:
        load = row["most_received_rows"] * row["row_bytes"] * (ranks - 1) / ranks
        how = f"{row['sms']} SMs" if row["sms"] else "all channels"
        yield Point(
            "exchange", f"{content['way']}, {ranks} ranks, {how}, {row['routing'].partition(',')[0]}", load, row["us"]
        )


def at(load: float, curve: Mapping[float, float]) -> float:
    """Microseconds of a load on a curve of two loads or more."""
    loads = sorted(curve)
    right = min(max(bisect_left(loads, load), 1), len(loads) - 1)
    low, high = loads[right - 1], loads[right]
    part = log(load / low) / log(high / low)
    return exp(log(curve[low]) + part * log(curve[high] / curve[low]))


def curves(rows: Sequence[Point]) -> dict[tuple[str, str], list[Point]]:
    """Kind and curve -> its points."""
    held: dict[tuple[str, str], list[Point]] = defaultdict(list)
    for point in rows:
        held[point.kind, point.curve].append(point)
    return held


def mean(rows: Sequence[Point]) -> dict[float, float]:
    """Load -> geometric mean of what has it."""
    held: dict[float, list[float]] = defaultdict(list)
    for point in rows:
        held[point.load].append(log(point.us))
    return {load: exp(fmean(each)) for load, each in held.items()}


def offs(rows: Sequence[Point]) -> list[float]:
    """Logarithm of what the others of a curve say over what each row took."""
    curve = mean(rows)
    if len(curve) < FEWEST:
        return []
    rest = {load: {other: us for other, us in curve.items() if other != load} for load in curve}
    return [log(at(point.load, rest[point.load]) / point.us) for point in rows]


def errors(rows: Sequence[Point]) -> dict[str, Row]:
    """Kind -> what its rows came back with when left out; no kind without a curve of enough loads."""
    by_kind: dict[str, list[float]] = defaultdict(list)
    for (kind, _), each in curves(rows).items():
        by_kind[kind] += offs(each)
    return {kind: left_out.errors(each, left_out.covering(each)) for kind, each in by_kind.items() if each}


def tables(folder: Path) -> dict[str, Table]:
    """collectives and exchanges, a row a load, from what a card run left."""
    timed = points(folder)
    files = [folder / name for name in (SIZES, EXCHANGES, ROUTED) if (folder / name).is_file()]
    origin = {
        "command": "python -m numerics calibrate --node-rows FOLDER",
        "inputs": {file.name: provenance.digest_of(file) for file in files},
        "measured_by": {file.name: json.loads(file.read_text(encoding="utf-8"))["about"] for file in files},
        "program": {"entries": list(ENTRIES), "files": provenance.program(ENTRIES)},
    }
    said, held = errors(timed), curves(timed)
    return {
        f"{kind}s": {
            "provenance": origin, "left_out": said.get(kind, {}), "source": "python -m numerics calibrate --node",
            "rows": [
                {"curve": curve, "bytes": rounded(load), "us": rounded(us)}
                for (other, curve), each in held.items() if other == kind for load, us in sorted(mean(each).items())
            ],
        }
        for kind in sorted({kind for kind, _ in held})
    }  # fmt: skip


def report(folder: Path, out: Path | None) -> str:
    """What leaving out says, a line a kind and a line a curve; the tables go to `out` when there is one."""
    timed = points(folder)
    if out:
        write(tables(folder), out)
    lines = [f"{kind}s: {_line(row)}" for kind, row in errors(timed).items()]
    for (_, curve), each in curves(timed).items():
        held = offs(each)
        lines.append(f"  {curve}: {_line(left_out.errors(held, left_out.covering(held))) if held else 'too few loads'}")
    return "\n".join(lines)


def _line(row: Row) -> str:
    return f"{row['rows']} rows left out one by one, off by {row['median']:.1%} in the median, {row['p95']:.0%} at p95"
