"""Stage loads: what each pipeline stage holds and what a micro-batch costs there."""

from html import escape
from itertools import groupby

from hwmodels.units import GIGA
from reports.headline import percent, seconds
from reports.palette import STEPS
from reports.ranks import HEALTHY, differ
from reports.section import Section, details, legend, plot, table
from sim.result import Result, StageLoad
from sim.result.trace import PHASES

PARTS = (("forward", "forward_s"), ("backward_input", "backward_input_s"), ("weight", "weight_s"))


def section(result: Result) -> Section | None:
    """The loads of `result.stages`, or None when there are none."""
    stages = result.stages
    if not stages:
        return None
    kinds = [STEPS[PHASES.index(phase)] for phase, _ in PARTS]
    lead = f"Stand-alone time of one micro-batch on each stage. {spread_text(stages)}"
    if differ(result):
        lead += f" {HEALTHY}"
    body = legend((k.name, k.colour) for k in kinds) + plot("stages", "time of a micro-batch on each stage")
    rows = [[f"stage {s.stage}", f"position {s.position}", escape(s.contents), f"{s.parameters / GIGA:.2f} billion",
             *(seconds(getattr(s, key)) for _, key in PARTS), seconds(load_s(s))] for s in stages]  # fmt: skip
    head = ("Stage", "Position", "Contents", "Parameters", "F", "B (input)", "W", "Sum")
    data = {
        "parts": [[k.name, k.colour] for k in kinds],
        "mean": sum(map(load_s, stages)) / len(stages),
        "stages": [
            {"stage": s.stage, "position": s.position, "contents": s.contents,
             "times": [getattr(s, key) for _, key in PARTS], "parameters": f"{s.parameters / GIGA:.2f} billion"}
            for s in stages
        ],
    }  # fmt: skip
    return Section("stages", "Stage loads", lead, body + details("As a table", table(head, rows, (0, 1, 2))), data)


def load_s(stage: StageLoad) -> float:
    """Seconds of a micro-batch on a stage: forward, input gradients and weight gradients."""
    return stage.forward_s + stage.backward_input_s + stage.weight_s


def imbalance(stages: tuple[StageLoad, ...]) -> float:
    """How much the slowest stage exceeds the mean, as a fraction."""
    loads = [load_s(stage) for stage in stages]
    return max(loads) * len(loads) / sum(loads) - 1


def alike(stages: tuple[StageLoad, ...]) -> list[tuple[StageLoad, StageLoad]]:
    """(first, last) of every run of neighbouring stages that take the same times."""
    runs = groupby(stages, key=lambda s: (s.forward_s, s.backward_input_s, s.weight_s))
    groups = [tuple(run) for _, run in runs]
    return [(group[0], group[-1]) for group in groups]


def spread_text(stages: tuple[StageLoad, ...]) -> str:
    """One sentence on how even the stages are."""
    slowest = max(stages, key=load_s)
    return (
        f"The slowest is stage {slowest.stage} ({escape(slowest.contents)}): {seconds(load_s(slowest))}, "
        f"{percent(imbalance(stages))} above the mean."
    )
