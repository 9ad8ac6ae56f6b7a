"""Batches of 4 to 63 million tokens against the depth of the pipeline: what smaller ones cost, and who can run them."""

from collections.abc import Mapping
from typing import Any

from hwmodels.units import GB, KILO, MEGA
from reports.studies import svg
from reports.studies.points import Points
from sim.result.markdown import table

Record = Mapping[str, Any]


def tell(points: Points) -> tuple[str, dict[str, str]]:
    """Markdown, and charts by file name."""
    rows = cases(points)
    tokens = sorted({size for size, _ in rows})
    depths = list(dict.fromkeys(depth for _, depth in rows))
    heads = ["pipeline and schedule", *(f"{size / MEGA:.1f} M tokens" for size in tokens), "peak, GB", "fits"]
    lines = [_line(depth, tokens, rows) for depth in depths]
    whole = [depth for depth in depths if all((size, depth) in rows for size in tokens)]
    series = [svg.Series(d, [_hours(rows[size, d]) / KILO for size in tokens]) for d in whole]
    sizes = [size / MEGA for size in tokens]
    chart = svg.lines(
        "GPU-hours a trillion tokens, by tokens of a step", "thousand hours; million tokens", sizes, series
    )
    block = "\n\n".join((
        "Thousand GPU-hours a trillion tokens, and in brackets the part of a step that is bubble:",
        table(heads, lines), "![GPU-hours against batch](batch.svg)", _said(rows, tokens, whole),
    ))  # fmt: skip
    return block, {"batch.svg": chart}


def cases(points: Points) -> dict[tuple[int, str], Record]:
    """Summaries by tokens of a step, and pipeline with schedule."""
    out: dict[tuple[int, str], Record] = {}
    for labels, record in points:
        depth = labels.get("pipeline") or labels["point"].partition(", ")[2]
        out[record["summary"]["tokens_per_step"], depth] = record["summary"]
    return out


def _hours(summary: Record) -> float:
    return float(summary["gpu_hours_per_trillion_tokens"])


def _line(depth: str, tokens: list[int], rows: Mapping[tuple[int, str], Record]) -> list[str]:
    own = [rows.get((size, depth)) for size in tokens]
    cells = ["" if one is None else f"{_hours(one) / KILO:.0f} ({one['bubble_fraction']:.0%})" for one in own]
    last = next(one for one in reversed(own) if one is not None)
    return [depth, *cells, f"{last['worst_memory']['peak_bytes'] / GB:.0f}", "yes" if last["feasible"] else "no"]


def _said(rows: Mapping[tuple[int, str], Record], tokens: list[int], whole: list[str]) -> str:
    """What the least batch costs over the largest, of each depth."""
    few, many = tokens[0], tokens[-1]
    costs = ", ".join(f"{_hours(rows[few, d]) / _hours(rows[many, d]):.2f} times with {d}" for d in whole)
    return f"{few / MEGA:.1f} instead of {many / MEGA:.1f} million tokens a step cost a trillion tokens {costs}."
