"""docs/NODE_STEPS.md: training steps over the eight GPUs of a node, predicted before anybody measured them.

The models are those that four H200s were measured with. Rows come from `python -m numerics calibrate --node`
(steps_8/node_steps.json), or from scenarios/measured once they are kept there; until then every figure is a prediction.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from hwmodels.document import DocumentError, read
from hwmodels.refused import Refused
from hwmodels.units import GIGA
from sim.scenario.shelves import SCENARIOS
from sim.validation import torch_pairs
from sim.validation.torch_pairs import Pair

GPUS = 8
PAGE = Path("docs/NODE_STEPS.md")
KEPT = SCENARIOS / "measured" / f"h200x{GPUS}_torch_steps.yaml"
"""Measured rows of the repository, when there are any."""
NONE = "not measured yet"
WHOLE = {"tp_sp": "tensor", "1f1b": "pipeline", "ep": "expert"}
"""Kind of a run -> the axis that takes all GPUs."""
FIGURES = {"step_ms": "step_ms", "comm_alone_ms": "exposed_ms", "peak_allocated": "peak_bytes"}
"""Key of a measured row -> field of a pair."""
HEAD = """\
# Steps over eight H200s of one node, predicted first

Written by `python -m sim steps --gpus 8 --write`. The nine runs that four H200s were measured with
([TORCH_STEPS.md](TORCH_STEPS.md)), over eight: tensor and sequence parallel, the pipeline and experts over all eight,
the rest over all as replicas. Nothing is fitted to a step.

{state}

| run | layout | step, ms | exposed communication, ms | peak, GB |
|---|---|--:|--:|--:|
"""
BEFORE = """No row is measured: the project has not run them over eight GPUs. What stands here was predicted first, and
stays so in the history of this page."""
AFTER = "Predicted / measured, error; the step is off by {median:.1%} in the median of {rows} runs (asked: 8 %)."
NOTES = """
* Over four H200s the same program came out too short in all nine runs, most with tensor parallelism
  ([TORCH_STEPS.md](TORCH_STEPS.md)), so these are likely too short as well.
* All-reduces over eight (DDP, and what is no expert in `ep`) are predicted through NVSwitches that add up, as NCCL
  takes them by default: 1.08 ms for 256 MiB, by rings 1.40. The program that measures has NVLink multicast off, and no
  key of a scenario says so.
* To measure: `python -m numerics calibrate --node --out DIR` on the node, then
  `python -m sim steps --gpus 8 --measured DIR/steps_8/node_steps.json`.
"""
MEASURED = ("_ms", "peak_allocated", "peak_reserved", "spread")
"""Ends of keys of a row that were measured."""


class Step(NamedTuple):
    """A run, predicted (or refused, with the reason) and measured, as far as it is."""

    name: str
    kind: str
    predicted: Pair | str
    measured: Pair | None


def runs() -> list[dict[str, Any]]:
    """Dimensions of each run, without what was measured over four."""
    return [{key: run[key] for key in run if not key.endswith(MEASURED)} for run in torch_pairs.runs(4)]


def scenario(run: Mapping[str, Any]) -> dict[str, Any]:
    """The scenario of a run over all GPUs of a node."""
    return torch_pairs.scenario(run, GPUS, layout(run["kind"]))


def layout(kind: str) -> dict[str, Any]:
    """Of four GPUs', with the axis that takes them all."""
    keys = dict(torch_pairs.KINDS[kind])
    return keys | ({"parallel": keys["parallel"] | {WHOLE[kind]: GPUS}} if kind in WHOLE else {})


def measured(file: Path | None) -> dict[tuple[str, str], Pair]:
    """Name and kind of a run -> what the card said. Raises Refused for a file of other GPUs or without such rows."""
    if file is None and not KEPT.is_file():
        return {}
    path = file or KEPT
    content = read(path).content
    world = content.get("about", {}).get("world", GPUS)
    if world != GPUS:
        raise Refused(f"has steps over {world} ranks, {GPUS} are asked", str(path))
    rows = [row for row in content["runs"] if FIGURES.keys() <= row.keys()]
    if not rows:
        raise Refused(f"has no run with {', '.join(FIGURES)}: a run on CPUs measures nothing", str(path))
    return {(r["name"], r["kind"]): Pair(**{field: r[key] for key, field in FIGURES.items()}) for r in rows}


def steps(file: Path | None = None) -> Iterator[Step]:
    """All runs, each predicted without a look at its row."""
    rows = measured(file)
    for run in runs():
        yield Step(run["name"], run["kind"], predicted(run), rows.get((run["name"], run["kind"])))


def predicted(run: Mapping[str, Any]) -> Pair | str:
    """A run's figures, or why it cannot be said."""
    try:
        return torch_pairs.simulated(scenario(run))
    except (Refused, DocumentError) as refused:
        return str(refused).splitlines()[0]


def page(rows: Sequence[Step]) -> str:
    """The document."""
    offs = [abs(p.step_ms / m.step_ms - 1) for _, _, p, m in rows if isinstance(p, Pair) and m]
    state = AFTER.format(median=median(offs), rows=len(offs)) if offs else BEFORE
    lines = (f"| {row.name} | {row.kind} | {' | '.join(_cells(row))} |\n" for row in rows)
    return HEAD.format(state=state) + "".join(lines) + NOTES


def _cells(row: Step) -> tuple[str, ...]:
    ours, theirs = row.predicted, row.measured
    if isinstance(ours, str):
        return "refused", ours, NONE if theirs is None else f"{theirs.step_ms:.2f} ms measured"
    if theirs is None:
        return tuple(f"{each:.2f} / {NONE}" for each in (ours.step_ms, ours.exposed_ms, ours.peak_bytes / GIGA))
    step, peak = (a / b - 1 for a, b in ((ours.step_ms, theirs.step_ms), (ours.peak_bytes, theirs.peak_bytes)))
    return (
        f"{ours.step_ms:.2f} / {theirs.step_ms:.2f}, {step:+.1%}", f"{ours.exposed_ms:.2f} / {theirs.exposed_ms:.2f}",
        f"{ours.peak_bytes / GIGA:.2f} / {theirs.peak_bytes / GIGA:.2f}, {peak:+.1%}",
    )  # fmt: skip
