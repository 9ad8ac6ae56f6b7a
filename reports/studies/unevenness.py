"""What unequal expert loads alone add to a step: seeds of sampled routing beside the balanced run and published."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from hwmodels.units import MILLI
from reports.studies import svg, text
from reports.studies.points import Points
from sim.result.markdown import table

Record = Mapping[str, Any]
Figure = Callable[[Record], float]
PUBLISHED = {
    "step": "IS-T4-step", "forward": "IS-T4-1F", "backward": "IS-T4-1B", "weight": "IS-T4-1W",
    "overlapped": "IS-T4-1F1B", "bubble": "IS-T4-bubble", "optimizer": "IS-T4-opt",
}  # fmt: skip
"""Figure -> id of its published row (scenarios/published)."""
PAIR = "PD-SPAN"
NAMES = {
    "step": "step", "forward": "forward alone (1F)", "backward": "backward alone (1B)",
    "weight": "weight gradient alone (1W)", "overlapped": "overlapped pairs (1F1B)", "bubble": "bubble",
    "optimizer": "optimizer",
}  # fmt: skip


def _summary(record: Record, keys: Sequence[str]) -> float:
    value: Any = record["summary"]
    for key in keys:
        value = value.get(key, 0.0)
    return float(value)


def pair_ms(record: Record) -> float:
    """The pair as a run tells it, mean of a middle position's ranks: four MoE layers each way, as in the profile. ms"""
    return _summary(record, ("pair_s", "seconds")) / MILLI


def figures() -> dict[str, Figure]:
    """Name -> figure of a record: the step and its phases, seconds."""
    phases = {name: partial(_summary, keys=("phases_s", name)) for name in PUBLISHED if name != "step"}
    return {"step": partial(_summary, keys=("step_time_s",)), **phases}


def tell(points: Points, published: Mapping[str, float]) -> tuple[str, dict[str, str]]:
    """Markdown, and charts by file name. published: id -> value, in the units of scenarios/published."""
    beside = {labels["point"]: record for labels, record in points if "point" in labels}
    seeds: dict[str, list[Record]] = {}
    for labels, record in points:
        if "seed" in labels:
            seeds.setdefault(labels["redundant"], []).append(record)
    balanced, plain = beside["balanced"], seeds["0"]
    rows = [record["summary"]["expert_rows"] for record in plain]
    extremes = f"{min(r['smallest'] for r in rows):,} to {max(r['largest'] for r in rows):,}"
    block = "\n\n".join((
        f"Mean of {len(plain)} seeds, with the smallest and the largest (a further seed lies between them with a "
        f"chance of {text.plain_share((len(plain) - 1) / (len(plain) + 1))}). Seconds, mean over all ranks.",
        _table(balanced, plain, published),
        "![Phases balanced, sampled and published](unevenness.svg)",
        f"Expert rows of a rank in a micro-batch, all ranks, layers, micro-batches and seeds: {extremes} around "
        f"{rows[0]['expected']:,}.",
        "Copies of popular experts, placed by EPLB with the true popularity:",
        _copies(balanced, seeds, beside),
    ))  # fmt: skip
    return block, {"unevenness.svg": _chart(balanced, plain, published)}


def _table(balanced: Record, seeds: Sequence[Record], published: Mapping[str, float]) -> str:
    rows = []
    for name, of in figures().items():
        rows.append(_row(NAMES[name], of, balanced, seeds, f"{published[PUBLISHED[name]]:.2f}"))
    parts: dict[str, tuple[str, ...]] = {
        f"bubble: {cause}": ("bubble_s", cause) for cause in ("fill", "activations", "gradients", "drain")
    }
    parts["inside steps: waiting for peers"] = ("waiting_for_peers_s",)
    parts["inside steps: exposed exchanges"] = ("exposed_communication_s",)
    rows += [_row(name, partial(_summary, keys=keys), balanced, seeds) for name, keys in parts.items()]
    rows.append(_row("overlapped pair, ms", pair_ms, balanced, seeds, f"{published[PAIR]:.1f}", 1))
    return table(["", "balanced", "sampled", "unevenness adds", "published"], rows)


def _row(
    name: str, of: Figure, balanced: Record, seeds: Sequence[Record], published: str = "", digits: int = 2
) -> list[str]:
    base, values = of(balanced), [of(record) for record in seeds]
    added = [value - base for value in values]
    return [name, f"{base:.{digits}f}", text.spread(values, digits), text.spread(added, digits, signed=True), published]


def _copies(balanced: Record, seeds: Mapping[str, Sequence[Record]], beside: Mapping[str, Record]) -> str:
    of = figures()["step"]
    rows = []
    for copies, records in seeds.items():
        rows.append([f"groups of 64, {copies} copies, {len(records)} seeds", *_copy_row(records, of(balanced))])
    small = of(beside["balanced, groups of 32"])
    for copies in ("no copies", "32 copies"):
        rows.append([f"groups of 32, {copies}, one seed", *_copy_row([beside[f"{copies}, groups of 32"]], small)])
    return table(["", "rows", "step, s", "over its balanced step", "waiting for peers, s", "pair, ms"], rows)


def _copy_row(records: Sequence[Record], base: float) -> list[str]:
    rows = [record["summary"]["expert_rows"] for record in records]
    steps = [_summary(record, ("step_time_s",)) for record in records]
    peers = [_summary(record, ("waiting_for_peers_s",)) for record in records]
    return [
        f"{min(r['smallest'] for r in rows):,} to {max(r['largest'] for r in rows):,}",
        text.spread(steps) if len(steps) > 1 else f"{steps[0]:.2f}", text.share(text.mean(steps) / base - 1),
        f"{text.mean(peers):.2f}", f"{text.mean([pair_ms(record) for record in records]):.1f}",
    ]  # fmt: skip


def _chart(balanced: Record, seeds: Sequence[Record], published: Mapping[str, float]) -> str:
    shown = figures()
    values = {name: [of(record) for record in seeds] for name, of in shown.items()}
    exactly = [of(balanced) for of in shown.values()]
    reported = [published[PUBLISHED[name]] for name in shown]
    sampled = svg.Series(
        f"sampled, {len(seeds)} seeds", [text.mean(v) for v in values.values()],
        [min(v) for v in values.values()], [max(v) for v in values.values()],
    )  # fmt: skip
    series = [svg.Series("balanced", exactly), sampled, svg.Series("published (arXiv 2505.09343, table 4)", reported)]
    return svg.grouped("A step of DeepSeek-V3 by phase", "seconds, mean rank", [NAMES[n] for n in shown], series)
