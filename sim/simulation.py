"""One run from scenario to result: lay out, price, run, measure."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Any

from hwmodels.units import NS_PER_S
from sim import assembly
from sim.analysis import (
    binding,
    communication,
    feasible,
    grade,
    graph,
    left_out,
    memory,
    metrics,
    overheads,
    pairs,
    spans,
    uncertainty,
)
from sim.engine import steps
from sim.engine.kit import Kit
from sim.engine.lowering import Lowered, lower
from sim.engine.timeline import Timeline
from sim.layout import optimizer
from sim.layout.machine import NON_BLOCKING, Machine
from sim.layout.plan import Plan, lay_out
from sim.models.family import weights
from sim.models.layer import Unit
from sim.result import SCHEMA_VERSION, Draws, MemoryCurve, RankLoads, Result, StageLoad, Utilisation
from sim.result.trace import Trace
from sim.scenario.values import Scenario
from sim.schedules.program import Step

if TYPE_CHECKING:
    from sim.communication.fabric.network import Network
    from sim.disturbances.documents import Documents
    from sim.disturbances.durations import Durations
    from sim.routing.loads import Loads


KEPT = 8
"""Runs of alike ranks that are kept beside their prices, half a MB each."""


@dataclass(frozen=True)
class Run:
    """What ran. alike: the timeline of ranks that nothing tells apart. timeline: of all ranks, the same where they are
    alike. loads: drawn for them, or None. times: by which ranks that differ ran, else None. column: of the timeline,
    the ranks that are drawn. evened: ns of the run where documents take all ranks alike, of documents that differ."""

    lowered: Lowered
    alike: Timeline
    timeline: Timeline
    loads: "Loads | None" = None
    times: "Durations | None" = None
    column: int = 0
    evened: int | None = None


def run(scenario: Scenario, interval: bool = True, seed: int | None = None) -> Result:
    """See `sim.run`. seed: of the draws of prices, which pairs those of several scenarios; None: the scenario's own."""
    plan = lay_out(scenario)
    machine, network = assembly.assembled(plan) if scenario.model else (None, None)
    documents = _documents(plan)
    ran = simulated(plan, machine, documents)
    lowered, timeline = ran.lowered, ran.timeline
    books = metrics.ledgers(lowered, timeline, machine.pricer if machine else None)
    drawn_steps = spans.steps(plan, timeline, ran.column)
    curves = memory.curves(plan, machine, ran.loads, timeline, ran.column) if machine else ()
    drawn = {"report", "trace", "events", "links"} & set(scenario.outputs)
    trace, sources = drawn_steps.where(drawn_steps.position < 0), dict[str, str]()
    if drawn:
        trace, sources = spans.spans(plan, lowered, timeline, ran.column, scenario.detail)
    kit, step, pair_name = _pair(plan, lowered)
    pair, pair_sources = spans.pair(kit, step, lowered.first_layer) if machine and drawn else (None, {})
    use, counts = _links(plan, machine, trace, timeline.end, network)
    extra = _differing(plan, machine, ran, books, kit, step) if machine and ran.times else {}
    summary = _head(scenario) | counts | _memory(curves) | _beside(plan, machine, curves) | extra
    lengths = _lengths(plan, documents)
    summary |= metrics.summary(plan, machine, timeline, books, lengths)
    if machine and scenario.batch.lengths:
        summary["documents"] = _of_documents(plan, machine, ran, lengths)
    summary["host_copy_s"] = max(tail.average_ns for tail in lowered.tails) / NS_PER_S
    on_host = optimizer.most_host_bytes(plan, machine) + memory.hosted_bytes(plan, machine) if machine else 0.0
    summary |= feasible.judged(scenario, summary["step_time_s"], curves, summary["host_copy_s"], on_host)
    draws = None
    if machine:
        if interval:
            ends, draws = _intervals(ran, books, summary, plan, machine, scenario.seed if seed is None else seed)
            summary |= ends
        summary |= _of_machine(plan, machine, ran) | grade.graded(machine, scenario, summary["price_shares"])
        alone = {"name": pair_name, "position": _middle(plan), "seconds": kit.timing.total / NS_PER_S}
        summary["pair_s"] = alone | extra.get("pair_s", {})
    summary["binds"] = binding.binds(bars := metrics.waterfall(books), summary)
    return Result(
        summary, scenario.resolved, drawn_steps, trace, pair, pair_name, sources | pair_sources, curves, bars,
        _stages(plan, machine), use, _rank_loads(plan, machine, ran.loads), draws,
    )  # fmt: skip


def foretold(scenario: Scenario) -> Iterator[Any]:
    """Figures of a scenario's result that take no run, what is quickly told first: layers by stage and what is
    communicated, but for messages; then the pair."""
    plan = lay_out(scenario)
    if scenario.model is None:
        return
    machine = assembly.machine(plan)
    yield _layers(machine), communication.timeless(plan, machine)
    kit, _, name = _pair(plan, lower(plan, machine))
    yield name, kit.timing.total


def simulated(plan: Plan, machine: Machine | None, documents: "Documents | None" = None) -> Run:
    """All ranks simulated: those at a position alike, as SimPy events; or each for itself where something tells them
    apart (or the scenario does not fold), as arrays. documents: of their micro-batches, where any differ."""
    scenario, (lowered, alike) = plan.scenario, _alike(plan, machine)
    if machine is None or not (scenario.uneven or not scenario.fold):
        return Run(lowered, alike, alike)
    from sim.disturbances import ranks  # with all that draws loads: what is not asked for is not imported

    ran = ranks.run(plan, machine, lowered, alike, documents)
    return Run(ran.lowered, alike, ran.timeline, ran.loads, ran.times, int(ran.timeline.last().argmax()), ran.evened)


def _of_machine(plan: Plan, machine: Machine, ran: Run) -> dict[str, Any]:
    """What is communicated, who has SMs for it, and layers by stage."""
    return {
        "communication": communication.table(plan, machine, ran.alike), "comm": communication.held(machine.pricer),
        "layers_per_stage": _layers(machine),
    }  # fmt: skip


def _layers(machine: Machine) -> list[int]:
    return [sum(u.block and not u.beside for u in stage) for stage in machine.stages]


def _documents(plan: Plan) -> "Documents | None":
    """Documents of the step, where any are told apart."""
    batch = plan.scenario.batch
    if batch.lengths is None:
        return None
    from sim.disturbances import documents

    return documents.of_step(batch, plan.scenario.seed, plan.micro_batches, plan.data)


def _lengths(plan: Plan, drawn: "Documents | None") -> Sequence[tuple[int, int]]:
    """Tokens of documents, and how many of them a step has: of its sequences, where nothing is said."""
    batch = plan.scenario.batch
    sequences = plan.micro_batches * batch.micro_batch * plan.data
    if batch.lengths is None:
        return [(batch.sequence_length, sequences)]
    from sim.disturbances import documents

    return documents.counted(batch, sequences, drawn)


def _of_documents(plan: Plan, machine: Machine, ran: Run, lengths: Sequence[tuple[int, int]]) -> dict[str, Any]:
    """Figures of documents, and of ranks that differ by them."""
    from sim.analysis import documents

    figures = documents.figures(plan, machine, lengths)
    if ran.times and ran.times.attending and ran.evened is not None:
        figures |= documents.spread(ran.times.attending, ran.evened, ran.timeline.end)
    return figures


def _alike(plan: Plan, machine: Machine | None) -> tuple[Lowered, Timeline]:
    """What runs, and the timeline of ranks that nothing tells apart: kept, for seeds, faults, loads and limits leave it
    as it is."""
    if machine is None or machine.hindrances is not NON_BLOCKING:
        lowered = lower(plan, machine)
        return lowered, steps.run(lowered.actors, lowered.kits)
    runs, key = machine.known.runs, (plan.key, machine.cluster.nodes, machine.stages, machine.pricer.wires)
    if key not in runs:
        lowered = lower(plan, machine)
        runs[key] = lowered, steps.run(lowered.actors, lowered.kits)
        if len(runs) > KEPT:
            del runs[next(iter(runs))]
    outcome: tuple[Lowered, Timeline] = runs[key]
    return outcome


def _intervals(
    ran: Run, books: Sequence[metrics.Ledger], summary: dict[str, Any], plan: Plan, machine: Machine, seed: int
) -> tuple[dict[str, Any], Draws]:
    """90 % intervals of the headlines, by prices and by what the model leaves out, and steps as prices are drawn."""
    price_graph = graph.graph(ran.lowered, ran.timeline, *([ran.times.pace] if ran.times else []))
    wires, draw = communication.spread(plan, machine), partial(uncertainty.draws, seed=seed)
    sensitivity = uncertainty.sensitivity(ran.lowered, price_graph, books, wires, draw=draw)
    drawn = uncertainty.drawn(sensitivity, summary["step_time_s"])
    prices = uncertainty.intervals(sensitivity, summary, drawn)
    return prices | left_out.widened(prices["intervals_90"], summary, plan.scenario), drawn.steps


def _links(
    plan: Plan, machine: Machine | None, trace: Trace, end_ns: int, network: "Network | None"
) -> tuple[Utilisation | None, dict[str, Any]]:
    """How busy the fabric is, where there is a cluster and the scenario's outputs ask for it."""
    if machine is None or "links" not in plan.scenario.outputs:
        return None, {}
    from sim.analysis import links as summary

    use, counts = summary.links(plan, machine, trace, end_ns, network)
    return use, {"links": counts}


def _rank_loads(plan: Plan, machine: Machine | None, drawn: "Loads | None") -> RankLoads | None:
    """Loads by rank and layer, where they were drawn and the scenario's outputs ask for them."""
    if machine is None or drawn is None or "loads" not in plan.scenario.outputs:
        return None
    from sim.analysis import loads

    return loads.rank_loads(plan, machine, drawn)


def _differing(
    plan: Plan, machine: Machine, ran: Run, books: Sequence[metrics.Ledger], kit: Kit, step: Step
) -> dict[str, Any]:
    """Figures of ranks that differ, beside those of every run. kit, step: the pair that is drawn."""
    from sim.analysis import differing

    assert ran.times is not None
    figures = differing.summary(plan, machine, ran.lowered, ran.timeline, ran.times, ran.loads, ran.column, books)
    if plan.scenario.uneven:
        figures["pair_s"] = pairs.durations(plan, ran.timeline, _middle(plan), step)
        figures["pair_s"]["balanced_seconds"] = kit.timing.total / NS_PER_S
    return figures


def _head(scenario: Scenario) -> dict[str, Any]:
    return {
        "schema_version": SCHEMA_VERSION,
        "scenario": scenario.name,
        "scenario_hash": scenario.scenario_hash,
        "overrides": list(scenario.overrides),
        "detail": scenario.detail,
        "gpus": scenario.cluster.gpus if scenario.cluster else None,
    }


def _memory(curves: tuple[MemoryCurve, ...]) -> dict[str, Any]:
    """Peak of each pipeline position, its parts at that moment, and the highest; where loads were drawn, also of which
    rank each is."""
    if not curves:
        return {"peak_memory_bytes": None, "worst_memory": None}
    out = []
    for curve in curves:
        at = int(sum(curve.parts.values()).argmax())  # type: ignore[union-attr]
        out.append({"total": curve.peak_bytes, **{name: int(part[at]) for name, part in curve.parts.items()}})
    whose, worst = [curve.rank for curve in curves], max(curves, key=lambda curve: curve.peak_bytes)
    peak = {"peak_bytes": worst.peak_bytes, "capacity_bytes": worst.capacity_bytes, "position": worst.position}
    if whose[0] is None:
        return {"peak_memory_bytes": out, "worst_memory": peak}
    return {"peak_memory_bytes": out, "worst_memory": peak | {"rank": worst.rank}, "peak_memory_ranks": whose}


def _beside(plan: Plan, machine: Machine | None, curves: tuple[MemoryCurve, ...]) -> dict[str, Any]:
    """What libraries hold beside the highest peak, on stacks where they do."""
    more = overheads.beside(plan, machine, max(curve.peak_bytes for curve in curves)) if machine and curves else {}
    return {"memory_beside": more} if more else {}


def _middle(plan: Plan) -> int:
    """The position whose pair is drawn."""
    return plan.program.positions // 2


def _pair(plan: Plan, lowered: Lowered) -> tuple[Kit, Step, str]:
    """The step to draw kernel by kernel: of the middle position's overlapped pairs, or else of its steps, the longest
    that is no rare one, as a first forward that gathers parameters is."""
    position = _middle(plan)
    row = list(zip(plan.program.steps[position], lowered.kits[position], strict=True))
    pairs = [item for item in row if "+" in item[0].kind] or row
    often = Counter(kit.number for _, kit in pairs)
    usual = max(often.values())
    step, kit = max((item for item in pairs if often[item[1].number] * 2 >= usual), key=lambda i: i[1].timing.total)
    stages = f"forward of stage {step.stage} with backward of stage {step.stage_b}"
    return kit, step, stages if "+" in step.kind else f"{step.kind} of stage {step.stage}"


def _stages(plan: Plan, machine: Machine | None) -> tuple[StageLoad, ...]:
    if machine is None:
        return ()
    out = []
    for stage, units in enumerate(machine.stages):
        costs = [sum(machine.unit_ns(unit, d) for unit in units) / NS_PER_S for d in "FBW"]
        size = weights(machine.whole, units).total
        layers = sum(u.block for u in units)
        out.append(StageLoad(stage, plan.holders(stage)[0], _contents(units), layers, size, *costs))
    return tuple(out)


def _contents(units: tuple[Unit, ...]) -> str:
    """Such as "embedding, dense 0-2, MoE 3"."""
    names: list[str] = []
    for _, run in groupby(enumerate(units), key=lambda item: (item[1].label, item[1].block, item[1].layer - item[0])):
        first, *rest = (unit for _, unit in run)
        layers = f" {first.layer}-{rest[-1].layer}" if rest else f" {first.layer}"
        names += [first.label + layers] if first.block else [first.label] * (1 + len(rest))
    return ", ".join(names)
