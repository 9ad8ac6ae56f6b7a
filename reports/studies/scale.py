"""What a run costs against the ranks it simulates: CPU time and memory, for ranks that are alike, and that differ."""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from hwmodels.units import GB, MB, MEGA
from reports.studies import svg
from reports.studies.points import Points
from sim.result.markdown import table

COLUMN = "ranks are"
Costs = dict[str, dict[int, list[Mapping[str, Any]]]]
"""Kind of ranks -> how many -> records of its repeats."""


def costs(points: Points) -> Costs:
    """The records of a sweep by kind and number of ranks."""
    by_kind: Costs = {}
    for labels, record in points:
        by_kind.setdefault(labels[COLUMN], {}).setdefault(int(labels["ranks"]), []).append(record)
    return by_kind


def _of(records: Sequence[Mapping[str, Any]], key: str) -> list[float]:
    return [float(record["cost"][key]) for record in records]


def tell(points: Points) -> tuple[str, dict[str, str]]:
    """Markdown, and charts by file name."""
    by_kind = costs(points)
    kinds, counts = list(by_kind), sorted(next(iter(by_kind.values())))
    head = ["ranks", *(f"{kind}: CPU, s" for kind in kinds), *(f"{kind}: memory, MB" for kind in kinds),
            f"spans, {kinds[-1]}, million", "step, s"]  # fmt: skip
    rows = [[
        f"{count:,}",
        *(f"{median(_of(by_kind[kind][count], 'cpu_s')):.1f}" for kind in kinds),
        *(f"{median(_of(by_kind[kind][count], 'peak_memory_bytes')) / MB:,.0f}" for kind in kinds),
        f"{by_kind[kinds[-1]][count][0]['summary']['events'] / MEGA:.1f}",
        f"{by_kind[kinds[0]][count][0]['summary']['step_time_s']:.2f}",
    ] for count in counts]  # fmt: skip
    cpu = _chart(by_kind, counts, "cpu_s", 1, "CPU time of a run", "CPU seconds against ranks")
    memory = _chart(by_kind, counts, "peak_memory_bytes", GB, "Peak memory of a run", "GB against ranks")
    repeats = len(by_kind[kinds[0]][counts[0]])
    lead = f"Median of {repeats} runs, each in a process of its own; the whiskers are the least and the most."
    images = "![CPU time against ranks](scale_cpu.svg)\n\n![Memory against ranks](scale_memory.svg)"
    block = f"{lead}\n\n{table(head, rows, range(len(head)))}\n\n{images}"
    return block, {"scale_cpu.svg": cpu, "scale_memory.svg": memory}


def _chart(by_kind: Costs, counts: Sequence[int], key: str, scale: float, title: str, unit: str) -> str:
    series = []
    for kind, records in by_kind.items():
        values = [[value / scale for value in _of(records[count], key)] for count in counts]
        series.append(svg.Series(
            f"ranks {kind}", [median(v) for v in values], [min(v) for v in values], [max(v) for v in values]
        ))  # fmt: skip
    return svg.lines(title, unit, counts, series)
