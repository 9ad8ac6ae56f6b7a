"""Loads of experts' ranks as drawn: expert rows by layer and rank as a picture, and every rank's as a file."""

from html import escape
from typing import Any

import numpy as np
import numpy.typing as npt

from reports.columns import pack
from reports.palette import LOADS
from reports.section import Section, plot
from sim.result import RankLoads, Result

ROW_PX, MARGIN_PX, LEAST_PX = 9, 90, 220
"""Height of the picture: of a layer, of what is above and below, and of all at least."""


def section(result: Result) -> Section | None:
    """The picture of `result.loads`, or None where no loads were drawn or nobody asked for them."""
    loads = result.loads
    if loads is None:
        return None
    layers = np.unique(loads.layer)
    body = plot("loads", "expert rows of the ranks of an expert group, by layer")
    body += f'<p class="lead after">{figures(result.summary["routing"])}</p>'
    data = {
        "table": pack(cells(loads)),
        "layers": layers.tolist(),
        "blocks": blocks(loads),
        "members": loads.group,
        "node": loads.gpus_per_node,
        "expected": loads.expected_rows,
        "colours": LOADS,
        "height": max(LEAST_PX, ROW_PX * len(layers) + MARGIN_PX),
    }
    return Section("loads", "Expert loads", _lead(loads), body, data)


def _lead(loads: RankLoads) -> str:
    return (
        "Expert rows of a rank and micro-batch as drawn, each expert's padded to a tile, beside the "
        f"{loads.expected_rows:,} of experts that are all liked alike. Popular experts are the same in all expert "
        "groups and micro-batches, so a cell is the mean over them; the smallest and the largest come up with the "
        "pointer. Lines part nodes, and layers of different pipeline positions."
    )


def figures(routing: dict[str, Any]) -> str:
    """MaxVio, percentiles of rows and how far tokens go, in a few sentences (HTML)."""
    max_vio, rows = routing["max_vio"], routing["rows_percentiles"]
    nodes, ranks = (float(np.mean(routing[key])) for key in ("nodes_per_token_expected", "ranks_per_token"))
    received = routing["rank_imbalance"]["received"]
    return (
        f"Routing is {escape(routing['kind'])}. MaxVio (the largest load over the mean, less 1) of "
        f"{escape(max_vio['of'])}: {max_vio['mean']:.3f} in the mean over layers, {max_vio['worst']:.3f} in layer "
        f"{max_vio['worst_layer']}, the worst{_recorded(max_vio)}. The same of {escape(received['of'])}: "
        f"{received['mean']:.3f} in the mean over layers, {received['worst']:.3f} in layer {received['worst_layer']}. "
        f"Of all ranks, layers and micro-batches, 5 % have up to {rows['5']:,} "
        f"rows, half up to {rows['50']:,}, 95 % up to {rows['95']:,}. A token reaches {nodes:.2f} nodes (expected) "
        f"and {ranks:.2f} ranks (as drawn). The file loads.csv has every rank in every layer."
    )


def _recorded(max_vio: dict[str, Any]) -> str:
    """What the histogram says beside what was drawn from it, where there is one."""
    if "recorded" not in max_vio:
        return ""
    mean, worst = (max_vio["recorded"][key] for key in ("mean", "worst"))
    return f" (as recorded: {mean:.3f} and at most {worst:.3f})"


def cells(loads: RankLoads) -> dict[str, npt.NDArray[np.int64]]:
    """Mean, smallest and largest rows and mean tokens received [layers x members], over the expert groups and pipeline
    positions that have a layer, member by member."""
    layers, layer = np.unique(loads.layer, return_inverse=True)
    cell = layer * loads.group + loads.rank % loads.group
    count = len(layers) * loads.group
    weight = np.bincount(cell, loads.micro_batches, count)
    mean, received = (
        np.bincount(cell, column[:, 0] * loads.micro_batches, count) / weight for column in (loads.rows, loads.received)
    )
    least, most = np.full(count, np.inf), np.zeros(count)
    np.minimum.at(least, cell, loads.rows[:, 1])
    np.maximum.at(most, cell, loads.rows[:, 2])
    columns = {"mean": mean, "least": least, "most": most, "received": received}
    return {name: np.rint(column).astype(np.int64) for name, column in columns.items()}


def blocks(loads: RankLoads) -> list[dict[str, Any]]:
    """Runs of layers at the same pipeline positions, in order: how many layers, and which positions."""
    runs: list[dict[str, Any]] = []
    for layer in np.unique(loads.layer).tolist():
        positions = np.unique(loads.position[loads.layer == layer]).tolist()
        if not runs or runs[-1]["positions"] != positions:
            runs.append({"layers": 0, "positions": positions})
        runs[-1]["layers"] += 1
    return runs
