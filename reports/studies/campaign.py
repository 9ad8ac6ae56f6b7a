"""The whole run of DeepSeek-V3 beside what is published of it, and what-ifs that meet the same failures."""

from collections.abc import Mapping, Sequence
from typing import Any

from hwmodels.units import GIGA, KILO, MEGA, PERCENT, SECONDS_PER_HOUR, SECONDS_PER_MINUTE, format_quantity
from reports.studies import svg
from reports.studies.points import Points
from reports.studies.text import share
from sim.result.markdown import table

STEPS = 242_782
"""Of pre-training: a ramp linear in tokens over 469 B, then 15,360 sequences (row CA-V3-STEPS)."""
GPU_HOURS, USD, HOUR = 2_788_000, 5_576_000, 2
"""Of the whole training, and dollars an hour of a GPU (DeepSeek-V3 report, table 1; arXiv:2412.19437)."""
BASE, INTERVAL, CHART = "as it is", "interval ", "campaign.svg"

Figures = Mapping[str, Any]


def tell(points: Points) -> tuple[str, dict[str, str]]:
    """Tables of Markdown, and the chart of intervals. points: of scenarios/sweeps/campaign.yaml."""
    runs = {labels["point"]: record["summary"] for labels, record in points}
    base = runs[BASE]["campaign"]
    parts = {
        "Beside what is published": _published(base),
        "Where the hours go": _hours(base),
        f"Interval of a blocking checkpoint ({_stall(runs)})": _intervals(runs),
        "Kinds of checkpoints": _whatifs(runs, "kind ", "checkpoints"),
        "Spares": _whatifs(runs, "spares ", "spares"),
        "What else if": _whatifs(runs, "if ", "if"),
        "Cluster sizes": _whatifs(runs, "nodes ", "nodes of the job"),
        "Layouts of the context extension": _layouts(runs),
    }
    text = "\n\n".join(f"### {name}\n\n{text}" for name, text in parts.items())
    return text, {CHART: _chart([run["campaign"] for name, run in runs.items() if name.startswith(INTERVAL)])}


def _published(own: Figures) -> str:
    """Figures that are given, beside simulated ones."""
    long = [phase for phase in own["phases"] if phase["sequence_length"] == own["phases"][0]["sequence_length"]]
    pre = sum(phase["steps"] for phase in long[:-1])
    hours = {row["what"]: row for row in own["published"]}
    rows = [_row("steps of pre-training (CA-V3-STEPS)", STEPS, pre, 1, ",.0f")]
    rows += [
        _row(f"GPU-hours of {what}, K", row["published"], row["simulated"], KILO, ",.1f") for what, row in hours.items()
    ]
    work = hours["pre-training"]
    rows.append(_row("its dollars, M", HOUR * work["published"], HOUR * work["simulated"], MEGA, ".3f"))
    rows.append(
        _row("GPU-hours of all, failures and pauses included, K", GPU_HOURS, own["gpu_hours"]["mean"], KILO, ",.1f")
    )
    rows.append(_row("its dollars, without spares, M", USD, HOUR * own["gpu_hours"]["mean"], MEGA, ".3f"))
    return table(("figure", "published", "simulated", "off"), rows)


def _row(name: str, published: float, simulated: float, unit: float, form: str) -> list[str]:
    figures = (f"{value / unit:{form}}" for value in (published, simulated))
    return [name, *figures, share(simulated / published - 1, 2 if abs(simulated / published - 1) < PERCENT else 1)]


def _hours(own: Figures) -> str:
    total = sum(own["hours_s"].values())
    rows = [
        [name, f"{s / SECONDS_PER_HOUR:,.1f}", f"{s / total / PERCENT:.2f} %"]
        for name, s in own["hours_s"].items()
        if s
    ]
    return table(("part", "hours, mean", "of the wall clock"), rows)


def _stall(runs: Mapping[str, Figures]) -> str:
    own = runs["interval optimum"]["campaign"]
    mean = own["interruptions"]["mean_s"]
    waits = format_quantity(own["checkpoint"]["stall_s"], "time")
    return f"which takes {waits}; something fails every {mean / SECONDS_PER_HOUR:.1f} h"


def _intervals(runs: Mapping[str, Figures]) -> str:
    own = {name.removeprefix(INTERVAL): s["campaign"] for name, s in runs.items() if name.startswith(INTERVAL)}
    rows = [
        [name, f"{each['checkpoint']['every_s'] / SECONDS_PER_MINUTE:.1f}", *_shown(each), _lost(each)]
        for name, each in sorted(own.items(), key=lambda item: item[1]["checkpoint"]["every_s"])
    ]  # fmt: skip
    head = ("interval", "min", "days", "goodput", "M USD", "hours at checkpoints, done again")
    return f"{table(head, rows)}\n\n![Hours lost against the interval]({CHART})"


def _chart(runs: Sequence[Figures]) -> str:
    """Hours that checkpoints cost and save, over minutes between two."""
    ordered = sorted(runs, key=lambda own: own["checkpoint"]["every_s"])
    causes = {"at checkpoints": ("checkpoints",), "done again": ("recomputed",), "both": ("checkpoints", "recomputed")}
    series = [
        svg.Series(name, [sum(own["hours_s"][key] for key in keys) / SECONDS_PER_HOUR for own in ordered])
        for name, keys in causes.items()
    ]
    minutes = [own["checkpoint"]["every_s"] / SECONDS_PER_MINUTE for own in ordered]
    return svg.lines("Hours lost by minutes between two blocking checkpoints", "h", minutes, series)


def _lost(own: Figures) -> str:
    return ", ".join(f"{own['hours_s'][key] / SECONDS_PER_HOUR:.1f}" for key in ("checkpoints", "recomputed"))


def _whatifs(runs: Mapping[str, Figures], start: str, head: str) -> str:
    """Points whose name starts alike."""
    own = {name.removeprefix(start): s["campaign"] for name, s in runs.items() if name.startswith(start)}
    base = runs[BASE]["campaign"]["days"]["mean"]
    rows = [
        [name, *_shown(each), share(each["days"]["mean"] / base - 1, 2), f"{each['interruptions']['all']['mean']:.1f}"]
        for name, each in own.items()
    ]
    return table((head, "days", "goodput", "M USD", "longer", "interruptions"), rows)


def _shown(own: Figures) -> list[str]:
    """Days with the middle 90 % of seeds, goodput, dollars."""
    days = f"{own['days']['mean']:.2f} ({own['days']['p5']:.1f} to {own['days']['p95']:.1f})"
    return [days, f"{own['goodput']['mean'] / PERCENT:.2f} %", f"{own['dollars']['mean'] / MEGA:.3f}"]


def _layouts(runs: Mapping[str, Figures]) -> str:
    rows = []
    for name, summary in runs.items():
        if name.startswith(("32 K, ", "128 K, ")):
            long = name.startswith("128")
            (phase,) = (p for p in summary["campaign"]["phases"] if (p["sequence_length"] > 65536) == long and
                        p["sequence_length"] > 4096)  # fmt: skip
            fits = "fits" if summary["feasible"] else "does not fit"
            size = f"{phase['peak_bytes'] / GIGA:.0f} of {phase['capacity_bytes'] / GIGA:.0f}, {fits}"
            rows.append([name, f"{phase['step_s'][0]:.1f}", f"{phase['gpu_hours'] / KILO:.1f}", size])
    return table(("layout", "step, s", "GPU-hours of 1,000 steps, K", "memory, GB"), rows)
