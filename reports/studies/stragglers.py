"""What one slow GPU, node or link costs all ranks: the longer step, split by what the mean rank does with it."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from hwmodels.units import SECONDS_PER_HOUR, TERA
from reports.studies import svg, text
from reports.studies.points import Points
from sim.result.markdown import table

CAUSES = (
    "slower kernels", "exposed communication", "waiting for peers", "waiting for activations",
    "waiting for gradients", "fill and reduction", "optimizer",
)  # fmt: skip
WORK = ("forward", "backward", "weight", "overlapped")
SCHEDULES = {"dualpipe": "DualPipe", "zb1p": "ZB1P", "1f1b": "1F1B"}
FAULTS = {"gpu": "one GPU 10 % slower", "node": "one node 10 % slower", "link": "one GPU's NIC at 50 %"}
PLACES = ("first", "middle", "last")


class Cost(NamedTuple):
    """Of one fault under one schedule. step: seconds with it. more: seconds that the step is longer. causes: the same
    seconds by CAUSES, mean over ranks. missing: GPUs that the cluster as a whole seems to lack. rank: that the critical
    path is on most."""

    step: float
    more: float
    causes: dict[str, float]
    missing: float
    rank: str


def costs(points: Points) -> dict[tuple[str, str, str], Cost]:
    """(schedule, fault, place) -> its cost."""
    summaries = {(labels["schedule"], labels["fault"]): record["summary"] for labels, record in points}
    out = {}
    for (schedule, fault), summary in summaries.items():
        if fault != "none":
            kind, place = fault.split()
            out[schedule, kind, place] = _cost(summaries[schedule, "none"], summary)
    return out


def _cost(base: Mapping[str, Any], slow: Mapping[str, Any]) -> Cost:
    before, after = _causes(base), _causes(slow)
    step, was = slow["step_time_s"], base["step_time_s"]
    hours = base["gpu_hours_per_trillion_tokens"]
    gpus = hours * SECONDS_PER_HOUR / was * base["tokens_per_step"] / TERA
    causes = {name: after[name] - before[name] for name in CAUSES}
    rank = next((str(each["rank"]) for each in slow["critical_ranks"]), "none")
    return Cost(step, step - was, causes, gpus * (1 - was / step), rank)


def _causes(summary: Mapping[str, Any]) -> dict[str, float]:
    """A step by cause, mean over ranks; they add up to the step."""
    phases, idle = summary["phases_s"], summary["bubble_s"]
    exposed, peers = summary["exposed_communication_s"], summary.get("waiting_for_peers_s", 0.0)
    work = sum(phases[name] for name in WORK) - exposed - peers
    return dict(zip(CAUSES, (
        work, exposed, peers, idle["activations"], idle["gradients"], idle["fill"] + idle["drain"], phases["optimizer"],
    ), strict=True))  # fmt: skip


def tell(points: Points) -> tuple[str, dict[str, str]]:
    """Markdown, and charts by file name."""
    by_case = costs(points)
    steps = {labels["schedule"]: r["summary"]["step_time_s"] for labels, r in points if labels["fault"] == "none"}
    unfit = [SCHEDULES[labels["schedule"]] for labels, r in points
             if labels["fault"] == "none" and not r["summary"]["feasible"]]  # fmt: skip
    healthy = ", ".join(f"{SCHEDULES[name]} {seconds:.2f} s" for name, seconds in steps.items())
    note = f" {' and '.join(unfit)} would not fit in memory; its times hold all the same." if unfit else ""
    parts = [
        f"Healthy steps: {healthy}.{note}", "![Cost by cause](stragglers.svg)", _table(by_case),
        "In the middle of the pipeline, from the ledger (mean over all 2,048 ranks):",
        "\n".join(f"- {_sentences(schedule, kind, by_case[schedule, kind, 'middle'])}"
                  for schedule in SCHEDULES for kind in FAULTS),
    ]  # fmt: skip
    return "\n\n".join(parts), {"stragglers.svg": _chart(by_case)}


def _table(by_case: Mapping[tuple[str, str, str], Cost]) -> str:
    head = ["schedule", "slow", "where", "step, s", "longer by, s", "", "GPUs' worth", "critical rank",
            *(name for name in CAUSES if name != "optimizer")]  # fmt: skip
    rows = [
        [SCHEDULES[schedule], FAULTS[kind], place, f"{cost.step:.2f}", text.more(cost.more),
         text.share(cost.more / (cost.step - cost.more)), f"{cost.missing:.0f}", cost.rank,
         *(text.more(s) for name, s in cost.causes.items() if name != "optimizer")]
        for (schedule, kind, place), cost in by_case.items()
    ]  # fmt: skip
    return table(head, rows, range(3, len(head)))


def _sentences(schedule: str, kind: str, cost: Cost) -> str:
    """Two sentences from the ledger: what the mean rank waits for between steps, and what it loses inside them."""
    idle = {name: cost.causes[name] for name in CAUSES[3:6]}
    worst = max(idle, key=lambda name: idle[name])
    inside, exposed, peers = (sum(cost.causes[n] for n in names) for names in (CAUSES[:3], CAUSES[1:2], CAUSES[2:3]))
    return (
        f"**{SCHEDULES[schedule]}, {FAULTS[kind]}**: the step is {cost.more:.2f} s longer, and the mean rank spends "
        f"{sum(idle.values()):.2f} s of that idle between steps: {idle[worst]:.2f} s {_waiting(worst)}, "
        + " and ".join(f"{s:.2f} s {_waiting(name)}" for name, s in idle.items() if name != worst)
        + f". Inside steps it loses {inside:.2f} s: {peers:.3f} s waiting for peers, {exposed:.2f} s for bytes."
    )


def _waiting(name: str) -> str:
    return "before the first micro-batch and at the gradient reduction" if name == CAUSES[5] else name


def _chart(by_case: Mapping[tuple[str, str, str], Cost]) -> str:
    names: list[str] = []
    values: list[dict[str, float]] = []
    for schedule in SCHEDULES:
        for kind in FAULTS:
            for place in PLACES:
                names.append(f"{SCHEDULES[schedule]}: {kind}, {place}")
                values.append(by_case[schedule, kind, place].causes)
        names.append("")
        values.append(dict.fromkeys(CAUSES, 0.0))
    series = [svg.Series(cause, [v[cause] for v in values[:-1]]) for cause in CAUSES[:-1]]
    return svg.stacked("What one slow part adds to the step", "seconds, mean rank", names[:-1], series)
