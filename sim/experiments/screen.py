"""What a search asks of one point: the least step that it can have, whether it fits in memory, and its run.

Each question costs a tenth of the next, so that most points of a space are out before anything is run:

* the least step: compute of all layers, or their exchanges, over the positions that share them. No rank ends before its
  own kernels, the slowest position has at least the mean of all, and nothing takes less beside others than alone.
* the least memory: weights, gradients and states of all positions over their number; the fullest has at least the mean.
* memory: that of `sim.analysis.memory`, in the order of steps, without a clock.
* the run, with even loads and without intervals.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from hwmodels.refused import Refused
from hwmodels.units import NS_PER_S
from sim import assembly
from sim.analysis import memory
from sim.experiments import kinds
from sim.experiments.kind import Kind, value
from sim.experiments.objectives import Facts, Figures
from sim.layout import optimizer
from sim.layout.machine import Machine
from sim.layout.plan import Plan, lay_out
from sim.models.layer import COMMUNICATION, COMPUTE
from sim.scenario.files import load
from sim.scenario.values import Routing, Scenario
from sim.simulation import run

SURE = 0.99
"""Part of the mean of constant bytes that the fullest position surely has: shards are rounded up to whole parameters by
unit, a thousandth at most."""


class Ask(NamedTuple):
    """A point to be asked about. path: of the scenario file. limit: bytes that a rank may need; None: its device's."""

    path: str
    overrides: tuple[str, ...]
    limit: int | None = None


class Screened(NamedTuple):
    """The least that a point can have, or why it is none; neither: nobody knows before it runs."""

    least: Facts | None
    refused: str = ""


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
    except Refused as refused:
        return Screened(None, _line(refused))
    assert scenario.cluster is not None
    return Screened(Facts(least_s(plan, machine), _tokens(plan), scenario.cluster.gpus))


def least_s(plan: Plan, machine: Machine) -> float:
    """Seconds that a step takes at least."""
    each = (sum(machine.unit_ns(unit, lanes=(lane,)) for unit in machine.units) for lane in (COMPUTE, COMMUNICATION))
    return max(each) * plan.micro_batches / plan.program.positions / NS_PER_S


def _tokens(plan: Plan) -> int:
    batch = plan.scenario.batch
    return plan.micro_batches * batch.micro_batch * batch.sequence_length * plan.data


def tried(ask: Ask) -> Tried:
    """A point by memory first; only what fits is run."""
    own = kinds.of(ask.path)
    try:
        return _tried(ask) if own is None else _of_kind(own, ask)
    except Refused as refused:
        return Tried(refused=_line(refused))


def _tried(ask: Ask) -> Tried:
    scenario = even(load(ask.path, ask.overrides))
    assert scenario.cluster is not None
    capacity = scenario.cluster.node.device.hbm.capacity_bytes
    room = capacity if ask.limit is None else min(ask.limit, capacity)
    plan = lay_out(scenario)
    if (least := least_bytes(plan)) > room:
        return Tried(peak_bytes=least, lacks="memory")
    machine = assembly.unshared(plan)
    if (peak := _peak(plan, machine)) > room:
        return Tried(peak_bytes=peak, lacks="memory")
    waits = optimizer.most_host_bytes(plan, machine) + memory.hosted_bytes(plan, machine)
    if waits > machine.cluster.node.device.host.capacity_bytes:
        return Tried(peak_bytes=peak, lacks="the host's memory")
    summary = run(scenario, interval=False).summary
    peak = summary["worst_memory"]["peak_bytes"]
    if peak > room:
        return Tried(peak_bytes=peak, lacks="memory")
    facts = Facts(summary["step_time_s"], summary["tokens_per_step"], scenario.cluster.gpus, peak)
    lacks = "" if summary["feasible"] else "limits of the scenario"
    return Tried(facts, peak, lacks, summary={key: summary[key] for key in KEPT})


def _of_kind(own: Kind, ask: Ask) -> Tried:
    """A point of another kind by its run."""
    summary = own.run(kinds.load(ask.path, ask.overrides)).summary
    figures = {each.word: value(summary, each.key) for each in own.measures}
    parts = {part.name: part.seconds for part in own.parts(summary)}
    facts = Figures({word: figure for word, figure in figures.items() if figure is not None})
    return Tried(facts, 0, "" if summary["feasible"] else "limits of the scenario", summary={PARTS: parts})


PARTS = "parts"
"""Of what is kept of such a point: seconds by what they go to."""
KEPT = (
    "scenario_hash", "mfu", "phases_s", "bubble_fraction", "exposed_communication_s", "bubble_s", "price_grade",
    "tokens_per_day", "gpu_hours_per_trillion_tokens", "layers_per_stage",
)  # fmt: skip
"""Of result.json, what is kept of a point beside its facts."""


def least_bytes(plan: Plan) -> int:
    """Bytes that the fullest rank needs at least, wherever layers go: what is constant, as if all positions had as much
    of it. Placed by number, which takes no prices of pairs."""
    by_number = replace(plan, scenario=replace(plan.scenario, placement="even"))
    machine = assembly.unshared(by_number)
    positions = range(plan.program.positions)
    total = sum(sum(memory.constant(by_number, machine, position).values()) for position in positions)
    freed = _gradients(by_number, machine) if machine.site.stack.frees_gradients else 0
    return round(SURE * (total - freed) / len(positions))


def _gradients(plan: Plan, machine: Machine) -> int:
    return sum(memory.constant(plan, machine, position)["gradients"] for position in range(plan.program.positions))


def _peak(plan: Plan, machine: Machine) -> int:
    """Bytes that the fullest rank needs without a run; where gradients come and go, at least."""
    peak = memory.peak_bytes(plan, machine)
    if not machine.site.stack.frees_gradients:
        return peak
    positions = range(plan.program.positions)
    return peak - max(memory.constant(plan, machine, position)["gradients"] for position in positions)


def _line(refused: Refused) -> str:
    return " ".join(str(refused).split())
