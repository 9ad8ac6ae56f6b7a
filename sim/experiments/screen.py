"""What a search asks of one point, each question dearer than the one before, so that few points come to the last:

* `screened`: the least step and memory that it can have, wherever its layers go (`sim.experiments.least`);
* `weighed`: whether it fits in memory, by `sim.analysis.memory` in the order of steps, without a clock; and the least
  step that it can have as it is laid out;
* `tried`: its run, with even loads and without intervals.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from hwmodels.refused import Refused
from sim import assembly
from sim.analysis import memory
from sim.experiments import kinds
from sim.experiments.kind import Kind, value
from sim.experiments.least import least_bytes, least_laid_out_s, least_s
from sim.experiments.objectives import Facts, Figures
from sim.layout import optimizer
from sim.layout.clock import rested
from sim.layout.machine import Machine
from sim.layout.plan import Plan, lay_out
from sim.scenario.files import load
from sim.scenario.values import Routing, Scenario
from sim.simulation import run


class Ask(NamedTuple):
    """A point to be asked about. path: of the scenario file. limit: bytes that a rank may need; None: its device's."""

    path: str
    overrides: tuple[str, ...]
    limit: int | None = None


class Screened(NamedTuple):
    """The least that a point can have, or why it is none; neither: nobody knows before it runs. lacks: what it surely
    lacks."""

    least: Facts | None
    refused: str = ""
    lacks: str = ""


class Tried(NamedTuple):
    """A point that was tried: facts of its run, or peak_bytes that do not fit, or why it was refused. summary: what
    tables tell beside the facts."""

    facts: Facts | Figures | None = None
    peak_bytes: int = 0
    lacks: str = ""
    refused: str = ""
    summary: dict[str, Any] | None = None


def even(scenario: Scenario) -> Scenario:
    """The scenario with loads and ranks alike, which is what points are ranked by."""
    routing = Routing("balanced", redundant_experts=scenario.routing.redundant_experts)
    batch = replace(scenario.batch, lengths=None) if scenario.batch.unlike else scenario.batch
    return replace(scenario, routing=routing, faults=(), jitter=0.0, fold=True, batch=batch, outputs=("result",))


def screened(asks: Sequence[Ask]) -> list[Screened]:
    """The least of points that are neighbours."""
    return [_screened(ask) for ask in asks]


def _screened(ask: Ask) -> Screened:
    if kinds.kind(ask.path):
        return Screened(None)
    try:
        scenario = even(load(ask.path, ask.overrides))
        plan = lay_out(scenario)
        machine = assembly.prices(scenario, assembly.held_always(plan))
        least = least_bytes(plan, machine)
        lacks = MEMORY if least > _room(ask, scenario) else ""
        step = 0.0 if lacks else least_s(plan, rested(machine))
    except Refused as refused:
        return Screened(None, _line(refused))
    return Screened(_facts(plan, step, least), lacks=lacks)


def weighed(ask: Ask) -> Screened:
    """The same of a point that is laid out."""
    try:
        scenario = even(load(ask.path, ask.overrides))
        plan = lay_out(scenario)
        peak, lacks = _fits(ask, plan)
        step = 0.0 if lacks else least_laid_out_s(plan, assembly.machine(plan))
    except Refused as refused:
        return Screened(None, _line(refused))
    return Screened(_facts(plan, step, peak), lacks=lacks)


def _facts(plan: Plan, step_s: float, peak_bytes: int) -> Facts:
    batch, cluster = plan.scenario.batch, plan.scenario.cluster
    assert cluster is not None
    tokens = plan.micro_batches * batch.micro_batch * batch.sequence_length * plan.data
    return Facts(step_s, tokens, cluster.gpus, peak_bytes)


def _room(ask: Ask, scenario: Scenario) -> int:
    """Bytes that a rank may need."""
    assert scenario.cluster is not None
    capacity = scenario.cluster.node.device.hbm.capacity_bytes
    return capacity if ask.limit is None else min(ask.limit, capacity)


def _fits(ask: Ask, plan: Plan) -> tuple[int, str]:
    """Bytes of the fullest rank, or the least that it needs; and what there is too little of, "" where it fits."""
    machine = assembly.unshared(plan)
    if (peak := _peak(plan, machine)) > _room(ask, plan.scenario):
        return peak, MEMORY
    waits = optimizer.most_host_bytes(plan, machine) + memory.hosted_bytes(plan, machine)
    return peak, "the host's memory" if waits > machine.cluster.node.device.host.capacity_bytes else ""


def tried(ask: Ask) -> Tried:
    """A point by memory first; only what fits is run."""
    own = kinds.of(ask.path)
    try:
        return _tried(ask) if own is None else _of_kind(own, ask)
    except Refused as refused:
        return Tried(refused=_line(refused))


def _tried(ask: Ask) -> Tried:
    scenario = even(load(ask.path, ask.overrides))
    plan = lay_out(scenario)
    machine = assembly.prices(scenario, assembly.held_always(plan))
    if (least := least_bytes(plan, machine)) > _room(ask, scenario):
        return Tried(peak_bytes=least, lacks=MEMORY)
    peak, lacks = _fits(ask, plan)
    if lacks:
        return Tried(peak_bytes=peak, lacks=lacks)
    summary = run(scenario, interval=False).summary
    peak = summary["worst_memory"]["peak_bytes"]
    if peak > _room(ask, scenario):
        return Tried(peak_bytes=peak, lacks=MEMORY)
    lacks = "" if summary["feasible"] else "limits of the scenario"
    facts = _facts(plan, summary["step_time_s"], peak)._replace(tokens=summary["tokens_per_step"])
    return Tried(facts, peak, lacks, summary={key: summary[key] for key in KEPT})


def _of_kind(own: Kind, ask: Ask) -> Tried:
    """A point of another kind by its run."""
    summary = own.run(kinds.load(ask.path, ask.overrides)).summary
    figures = {each.word: value(summary, each.key) for each in own.measures}
    parts = {part.name: part.seconds for part in own.parts(summary)}
    facts = Figures({word: figure for word, figure in figures.items() if figure is not None})
    return Tried(facts, 0, "" if summary["feasible"] else "limits of the scenario", summary={PARTS: parts})


MEMORY = "memory"
"""What most points lack."""
PARTS = "parts"
"""Of what is kept of such a point: seconds by what they go to."""
KEPT = (
    "scenario_hash", "mfu", "phases_s", "bubble_fraction", "exposed_communication_s", "bubble_s", "price_grade",
    "tokens_per_day", "gpu_hours_per_trillion_tokens", "layers_per_stage",
)  # fmt: skip
"""Of result.json, what is kept of a point beside its facts."""


def _peak(plan: Plan, machine: Machine) -> int:
    """Bytes that the fullest rank needs without a run; where gradients come and go, at least."""
    peak = memory.peak_bytes(plan, machine)
    if not machine.site.stack.frees_gradients:
        return peak
    positions = range(plan.program.positions)
    return peak - max(memory.constant(plan, machine, position)["gradients"] for position in positions)


def _line(refused: Refused) -> str:
    return " ".join(str(refused).split())
