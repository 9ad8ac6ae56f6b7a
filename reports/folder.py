"""The folder of a run: figures, resolved scenario, page, traces and columns."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sim.result import Result
from sim.trace import LANES, PHASES, Trace

OUTPUTS = ("result", "report", "trace", "events", "links", "loads")
"""Words of a scenario's `outputs`; result.json and scenario.yaml are always written. Not every run has links
or loads."""


def write(result: Result, folder: Path, outputs: Sequence[str], wall_seconds: float) -> None:
    """Write a run into `folder`, which exists and is empty.

    outputs: any of OUTPUTS.  wall_seconds: how long the run took, for result.json.
    Raises ValueError on another word, OSError when a file cannot be written.
    """
    if unknown := sorted(set(outputs) - set(OUTPUTS)):
        raise ValueError(f"outputs: unknown {unknown[0]!r}, legal: {', '.join(OUTPUTS)}")
    (folder / "result.json").write_text(figures(result, wall_seconds), encoding="utf-8")
    (folder / "scenario.yaml").write_text(scenario_text(result.scenario), encoding="utf-8")
    if "report" in outputs:
        from reports import page  # each when it is asked for: figures alone take a third of the time

        (folder / "report.html").write_text(page.render(result), encoding="utf-8")
    if "trace" in outputs:
        from reports import chrome

        (folder / "trace").mkdir()
        chrome.write(result.spans, folder / "trace")
    if "events" in outputs:
        write_events(result.spans, folder / "events.npz")
    if "links" in outputs and result.links:
        from reports import links

        links.write(result.links, folder / "links.csv")
    if "loads" in outputs and result.loads:
        from reports import loads

        loads.write(result.loads, folder / "loads.csv")


def figures(result: Result, wall_seconds: float) -> str:
    """The text of result.json: sorted keys, and floats with all the digits that tell them apart."""
    content = result.summary | {"wall_seconds": wall_seconds}
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
    return yaml.dump(scenario, Dumper=dumper, sort_keys=False, allow_unicode=True, width=120)


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
