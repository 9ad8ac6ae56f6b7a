"""Campaigns as experiments see them: days of a whole training run, by what its hours go to."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from hwmodels.document import Document
from hwmodels.figure import Figure
from sim.campaign.values import Campaign
from sim.experiments.kind import MAX, NEITHER, Kind, Measure, Part, Ran, Summary

KEY = "campaign"


def _spread(key: str) -> tuple[str, str]:
    return f"{KEY}.{key}.p5", f"{KEY}.{key}.p95"


MEASURES = (
    Measure("days", "campaign.days.mean", "Days, mean of seeds", "days", ends=_spread("days"), power=1),
    Measure("days_95", "campaign.days.p95", "Days, one seed of twenty is longer", "days"),
    Measure("gpu_hours", "campaign.gpu_hours.mean", "GPU-hours", "number", ends=_spread("gpu_hours"), power=1),
    Measure("dollars", "campaign.dollars.mean", "Dollars", "dollars", dimension="money", ends=_spread("dollars"),
            power=1, needs=("prices.gpu_hour", "2 USD")),
    Measure("energy", "campaign.energy_j.mean", "Energy", "joules", ends=_spread("energy_j")),
    Measure("goodput", "campaign.goodput.mean", "Goodput", "share", MAX, ends=_spread("goodput"), power=-1),
    Measure("interruptions", "campaign.interruptions.all.mean", "Interruptions", "number", NEITHER),
    Measure("gpus", "gpus", "GPUs of the job", "number"),
)  # fmt: skip
PARTS = {
    "work": ("steps", "steps", "steps of all phases, each once"),
    "checkpoints": ("checkpoints", "checkpoints", "training waits while a checkpoint is copied or written"),
    "evaluation": ("planned pauses", "evaluation", "pauses in which the model is evaluated"),
    "changes": ("planned pauses", "new layouts", "the job is stored and started anew where the layout changes"),
    "slow": ("failures", "slow nodes", "steps take longer until a slow node is found"),
    "recomputed": ("failures", "done again", "what was done since the last whole checkpoint before a failure"),
    "detection": ("failures", "detection", "from a failure until it is seen"),
    "replacement": ("failures", "replacement", "until a spare or a repaired node stands in"),
    "restart": ("failures", "restart", "launch, connections, loading, warm-up"),
}
"""Key of campaign.hours_s -> group, name and meaning."""


def _resolve(document: Document, overrides: Sequence[str], path: Path | None) -> Campaign:
    from sim.campaign.resolve import resolved  # pydantic forms: on demand

    return resolved(document, overrides, path)


def _run(campaign: Campaign) -> Ran:
    from sim.campaign.answer import run

    answer = run(campaign)
    return Ran(answer.summary, answer.scenario, answer.wall_s)


def _machine(campaign: Campaign) -> Mapping[str, Figure]:
    return campaign.cluster.figures


def _parts(summary: Summary) -> list[Part]:
    """Mean seconds of seeds by what they go to."""
    return [_part(key, seconds) for key, seconds in summary[KEY]["hours_s"].items()]


def _part(key: str, seconds: float) -> Part:
    group, name, meaning = PARTS.get(key, ("other", key, key))
    return Part(group, name, meaning, seconds)


CAMPAIGN = Kind(
    KEY, "a campaign", Campaign, _resolve, _run, _machine, MEASURES, _parts,
    {"days": "campaign.days.mean", "days (95 %)": "campaign.days.p95", "goodput": "campaign.goodput.mean",
     "GPU-hours": "campaign.gpu_hours.mean", "USD": "campaign.dollars.mean", "energy (J)": "campaign.energy_j.mean",
     "interruptions": "campaign.interruptions.all.mean", "CPU (s)": "cost.cpu_s"},
    structure=("parallel", "published", "model", "seeds", "learning_rate"),
)  # fmt: skip
