"""Reinforcement learning as experiments see it: seconds of a step, by what the GPUs that train do or wait for."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from hwmodels.document import Document
from hwmodels.figure import Figure
from sim.campaign.rl.values import KIND, Learning
from sim.experiments.kind import MAX, NEITHER, Kind, Measure, Part, Ran, Summary

MEASURES = (
    Measure("step", "rl.step_s", "Step", "seconds", dimension="time"),
    Measure("throughput", "rl.tokens.per_s_gpu", "Tokens a second and GPU", "number", MAX),
    Measure("rollout", "rl.parts_s.rollout", "Rollout", "seconds", dimension="time"),
    Measure("tail", "rl.parts_s.tail", "Waiting for the last answer", "seconds", dimension="time"),
    Measure("update", "rl.parts_s.update", "Update", "seconds", dimension="time"),
    Measure("weights", "rl.parts_s.sync", "Weights to rollouts", "seconds", dimension="time"),
    Measure("gpus", "gpus", "GPUs", "number"),
    Measure("cut_off", "rl.lengths.cut_off", "Answers cut off", "share", NEITHER),
)
GROUPS = {
    "rollout": "rollouts", "waiting for the last answer": "rollouts", "reward": "rollouts", "waiting": "waiting",
    "controller": "host", "batches to workers": "host", "update": "training", "old log-probabilities": "training",
    "reference log-probabilities": "training", "change to the reference and back": "weights",
    "trainer's weights come, rollouts' go": "weights", "rollouts' weights come, trainer's go": "weights",
    "weights to rollouts": "weights", "optimizer states to the host": "weights", "optimizer states back": "weights",
}  # fmt: skip
"""What GPUs do -> its group."""


def _resolve(document: Document, overrides: Sequence[str], path: Path | None) -> Learning:
    from sim.campaign.rl.files import resolved  # pydantic forms: on demand

    return resolved(document, overrides, path)


def _run(learning: Learning) -> Ran:
    from sim.campaign.rl.answer import run

    answer = run(learning)
    return Ran(answer.summary, answer.scenario)


def _machine(learning: Learning) -> Mapping[str, Figure]:
    return learning.cluster.figures


def _parts(summary: Summary) -> list[Part]:
    """Of the GPUs that train, which are all of them where all take turns."""
    lanes = summary[KIND]["lanes_s"]
    own = lanes.get("training") or lanes["all"]
    return [Part(GROUPS.get(what, "other"), what, "seconds of a step", seconds) for what, seconds in own.items()]


LEARNING = Kind(
    KIND, "reinforcement learning", Learning, _resolve, _run, _machine, MEASURES, _parts,
    {"step (s)": "rl.step_s", "rollout (s)": "rl.parts_s.rollout", "tail (s)": "rl.parts_s.tail",
     "update (s)": "rl.parts_s.update", "weights (s)": "rl.parts_s.sync", "tokens/s a GPU": "rl.tokens.per_s_gpu",
     "CPU (s)": "cost.cpu_s"},
    structure=("parallel", "published", "model", "steps", "tensor", "expert"),
)  # fmt: skip
