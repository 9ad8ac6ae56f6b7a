"""A run as files of data: figures, resolved scenario, spans, links, loads. docs/REFERENCE.md says what is in them."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from sim.result.curves import RankLoads, Utilisation
from sim.result.folder import LISTED, MARK, listed
from sim.result.trace import LANES, PHASES, Trace

FILES = (
    "result.json", "scenario.yaml", "report.html", "trace/rank*.json.gz", "events.npz", "links.csv", "loads.csv",
    "requests.csv", "trace.json.gz",
)  # fmt: skip
"""Patterns of all that a run of any kind writes into its folder, the page and the traces included: a run that replaces
one of another kind leaves nothing of it beside its own."""

LOADS_HEAD = (
    "layer", "rank", "pipeline_position", "micro_batches", "received_mean", "received_min", "received_max",
    "padded_rows_mean", "padded_rows_min", "padded_rows_max", "nodes_per_token_expected", "ranks_per_token_drawn",
)  # fmt: skip
"""Columns of loads.csv. Mean, smallest and largest are over the micro-batches that come to the rank."""


class Run(Protocol):
    """What a folder of data holds; `sim.result.Result` is one."""

    @property
    def summary(self) -> dict[str, Any]: ...
    @property
    def scenario(self) -> dict[str, Any]: ...
    @property
    def spans(self) -> Trace: ...
    @property
    def links(self) -> Utilisation | None: ...
    @property
    def loads(self) -> RankLoads | None: ...


def write(run: Run, folder: Path, outputs: Sequence[str], wall_seconds: float | None = None) -> None:
    """Write the data of a run into `folder`, which exists; result.json comes last, so that with it all are there.

    outputs: which of events, links and loads; a run need not have the latter two. wall_seconds: how long it took, for
    result.json, which also lists what is in `folder` by then. OSError when a file cannot be written.
    """
    if "events" in outputs:
        write_events(run.spans, folder / "events.npz")
    if "links" in outputs and run.links:
        write_links(run.links, folder / "links.csv")
    if "loads" in outputs and run.loads:
        write_loads(run.loads, folder / "loads.csv")
    (folder / "scenario.yaml").write_text(scenario_text(run.scenario), encoding="utf-8")
    own = {LISTED: listed(folder)} | ({} if wall_seconds is None else {"wall_seconds": wall_seconds})
    (folder / MARK).write_text(figures(run.summary | own), encoding="utf-8")


def figures(content: dict[str, Any]) -> str:
    """The text of result.json: sorted keys, and floats with all the digits that tell them apart."""
    return json.dumps(content, sort_keys=True, indent=1, allow_nan=False, ensure_ascii=False, default=_plain) + "\n"


def _plain(value: Any) -> Any:
    """A numpy number or array as Python's own."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"result.summary holds a {type(value).__name__}; it should be plain data")


def scenario_text(scenario: dict[str, Any]) -> str:
    """The resolved scenario as YAML in the order it was given."""
    import yaml

    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)  # the same text, 15 times as fast
    return str(yaml.dump(scenario, Dumper=dumper, sort_keys=False, allow_unicode=True, width=120))


def write_events(spans: Trace, path: Path) -> None:
    """Write every column of `spans` as an array, with the tables that label, lane, phase and price index.

    Arrays have the names of the columns, but `position` is `rank`. start and end are int64 nanoseconds; the other
    columns fit in 32 bits.
    """
    columns = {"rank" if name == "position" else name: getattr(spans, name) for name in Trace.COLUMNS}
    narrow = {n: c if n in ("start", "end") else c.astype(np.int32) for n, c in columns.items()}
    tables = {"labels": spans.labels, "prices": spans.prices, "lanes": LANES, "phases": PHASES}
    with path.open("wb") as file:
        np.savez(file, **narrow | {name: np.array(table, dtype=np.str_) for name, table in tables.items()})


def write_links(use: Utilisation, path: Path) -> None:
    """A CSV file with one row for each link in use, by class, those with the most bytes first, and a column for each
    kind of traffic that there is any of."""
    order = np.lexsort((-use.size.sum(axis=1), use.of))
    ends = [use.ends[i] for i in order.tolist()]
    bytes_of = np.rint(use.size[order][:, use.carried]).astype(np.int64).T.tolist()
    columns = (
        [use.classes[number] for number in use.of[order].tolist()], [end[0] for end in ends], [end[1] for end in ends],
        *bytes_of, _digits(use.average[order], 6), _digits(use.peak[order], 6),
    )  # fmt: skip
    heads = (f"{use.kinds[kind]}_bytes" for kind in use.carried)
    with path.open("w", newline="", encoding="utf-8") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(("class", "from", "to", *heads, "average_utilisation", "peak_utilisation"))
        out.writerows(zip(*columns, strict=True))


def write_loads(loads: RankLoads, path: Path) -> None:
    """A CSV file with one row for each layer with experts and rank that has it, by layer, then by rank."""
    wholes = [column.tolist() for column in (loads.layer, loads.rank, loads.position, loads.micro_batches)]
    spreads = [column for part in (loads.received, loads.rows) for column in _spread(part)]
    reached = [_digits(column, 4) for column in (loads.nodes_reached, loads.ranks_reached)]
    with path.open("w", newline="", encoding="utf-8") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(LOADS_HEAD)
        out.writerows(zip(*wholes, *spreads, *reached, strict=True))


def _spread(part: npt.NDArray[np.float64]) -> tuple[list[str], list[int], list[int]]:
    mean, least, most = part.T
    return _digits(mean, 1), least.astype(np.int64).tolist(), most.astype(np.int64).tolist()


def _digits(values: npt.NDArray[np.float64], digits: int) -> list[str]:
    return [f"{value:.{digits}f}" for value in values.tolist()]
