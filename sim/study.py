"""One run from scenario to result: plan, lower, simulate, measure."""

from itertools import groupby
from typing import TYPE_CHECKING, Any

import sim
from hwmodels.units import NS_PER_S
from sim import communication, engine, memory, metrics, plan, replay, sharing, spans, uncertainty
from sim.lower import Kit, Lowered, lower
from sim.models.family import weights
from sim.models.layer import Unit
from sim.plan import Machine, Plan, unit_cost_ns
from sim.program import Step
from sim.ranks import attribution, chain, dearer, differing, faults, pairs, passing
from sim.ranks import memory as rank_memory
from sim.ranks.differing import Differing
from sim.result import MemoryCurve, RankLoads, Result, StageLoad, Utilisation
from sim.scenario import Scenario
from sim.tokens import summary as tokens
from sim.tokens.loads import Loads
from sim.trace import Trace

if TYPE_CHECKING:
    from sim.network.network import Network


EVEN = "balanced loads, and no faults"
"""Of which ranks `communication` is where ranks differ."""


def study(scenario: Scenario) -> Result:
    """See `sim.run`."""
    laid = plan.lay_out(scenario)
    machine, wired = _machine(laid) if scenario.model else (None, None)
    lowered = lower(laid, machine)
    pricer = machine.pricer if machine else None
    extra: dict[str, Any] = {}
    graph, loads = None, None
    if machine and (scenario.uneven or (not scenario.fold and scenario.detail == "layer")):  # unfolded: as arrays
        lowered = passing.met(lowered)
        all_ranks, books, extra = _differ(laid, machine, lowered)
        outcome, loads = all_ranks.outcome, all_ranks.loads
        graph = dearer.graph(lowered, all_ranks.everyone, all_ranks.times)
    else:
        outcome = engine.run(lowered.actors)
        books = metrics.ledgers(laid, lowered, outcome, pricer)
    steps = spans.steps(laid, lowered, outcome)
    if machine and loads:
        curves = rank_memory.curves(laid, machine, loads, all_ranks.everyone)
    else:
        curves = memory.curves(laid, machine, steps) if machine else ()
    drawn = {"report", "trace", "events", "links"} & set(scenario.outputs)
    trace, sources = spans.spans(laid, lowered, outcome) if drawn else (steps.where(steps.rank < 0), {})
    kit, step, pair_name = _pair(laid, lowered)
    pair, pair_sources = spans.pair(kit, step, lowered.first_layer) if machine and drawn else (None, {})
    use, counts = _links(laid, machine, trace, outcome.end, wired)
    summary = _head(scenario) | counts | metrics.summary(laid, machine, outcome, books) | _memory(curves) | extra
    if machine:
        found = uncertainty.sensitivity(lowered, graph or replay.alike(lowered, outcome), books)
        summary |= uncertainty.intervals(found, summary, scenario.seed)
        summary["communication"] = communication.table(laid, machine, [outcome.records[a] for a in lowered.actor_of])
        summary["layers_per_stage"] = [sum(u.block for u in stage) for stage in machine.stages]
        alone = {"name": pair_name, "position": _middle(laid), "seconds": kit.timing.total / NS_PER_S}
        summary["pair_s"] = alone | extra.get("pair_s", {})
    return Result(
        summary, scenario.resolved, steps, trace, pair, pair_name, sources | pair_sources, curves,
        metrics.waterfall(books), _stages(laid, machine), memory.verdict(curves, machine) if machine else (True, ""),
        use, _rank_loads(laid, machine, loads),
    )  # fmt: skip


def _machine(laid: Plan) -> tuple[Machine, "Network | None"]:
    """The machine; and where the scenario says how flows are routed, as crowded as they make it, and its network."""
    found, cluster = plan.machine(laid), laid.scenario.cluster
    if cluster is None or cluster.routing is None:
        return found, None
    from sim.network.network import network

    wired = network(laid, found, cluster.placement, cluster.routing)
    busy_s = max(sharing.compute_seconds(laid, found))
    crowded = plan.machine(laid, wired.hindrances(busy_s))
    return crowded, wired if crowded.stages == found.stages else None


def _links(
    laid: Plan, machine: Machine | None, trace: Trace, end_ns: int, wired: "Network | None"
) -> tuple[Utilisation | None, dict[str, Any]]:
    """How busy the fabric is, where there is a cluster and the scenario's outputs ask for it."""
    if machine is None or "links" not in laid.scenario.outputs:
        return None, {}
    from sim.network import summary

    use, counts = summary.links(laid, machine, trace, end_ns, wired)
    return use, {"links": counts}


def _rank_loads(laid: Plan, machine: Machine | None, drawn: Loads | None) -> RankLoads | None:
    """Loads by rank and layer, where they were drawn and the scenario's outputs ask for them."""
    if machine is None or drawn is None or "loads" not in laid.scenario.outputs:
        return None
    return tokens.table(laid, machine, drawn)


def _differ(laid: Plan, machine: Machine, lowered: Lowered) -> tuple[Differing, list[metrics.Ledger], dict[str, Any]]:
    """Ranks that differ: all of them simulated, means over them, and whom the step waits for."""
    found = differing.run(laid, machine, lowered)
    expected = metrics.ledgers(laid, lowered, found.outcome, machine.pricer)
    books = attribution.ledgers(lowered, found.everyone, expected)
    gpus = machine.cluster.node.gpus
    extra: dict[str, Any] = {
        "waiting_for_peers_s": sum(b.inside["peers"] for b in books) / len(books),
        "critical_ranks": chain.named(laid, gpus, chain.critical_ranks(laid, lowered, found.everyone, found.times)),
        "shown_replica": found.shown,
    }
    if laid.scenario.uneven:
        kit, step, _ = _pair(laid, lowered)
        extra["pair_s"] = pairs.took(laid, found.everyone, _middle(laid), step)
        extra["pair_s"]["balanced_seconds"] = kit.timing.total / NS_PER_S
        extra["communication_of"] = EVEN
    if missed := faults.missed(laid.scenario.faults, found.everyone.end):
        extra["faults_without_effect"] = missed
    if found.loads and found.rows:
        extra["routing"] = tokens.figures(laid, machine, found.loads)
        extra["expert_rows"] = {"smallest": found.rows[0], "largest": found.rows[1], "expected": machine.site.rows}
    return found, books, extra


def _head(scenario: Scenario) -> dict[str, Any]:
    return {
        "schema_version": sim.SCHEMA_VERSION,
        "scenario": scenario.name,
        "scenario_hash": scenario.scenario_hash,
        "detail": scenario.detail,
    }


def _memory(curves: tuple[MemoryCurve, ...]) -> dict[str, Any]:
    """Peak of each pipeline rank, and its parts at that moment; where loads were drawn, also whose peak it is: the
    highest among the ranks at that position."""
    if not curves:
        return {"peak_memory_bytes": None}
    out = []
    for curve in curves:
        at = int(sum(curve.parts.values()).argmax())  # type: ignore[union-attr]
        out.append({"total": curve.peak_bytes, **{name: int(part[at]) for name, part in curve.parts.items()}})
    whose = [curve.cluster_rank for curve in curves]
    return {"peak_memory_bytes": out} | ({"peak_memory_ranks": whose} if whose[0] is not None else {})


def _middle(laid: Plan) -> int:
    """The position whose pair is told."""
    return laid.program.ranks // 2


def _pair(laid: Plan, lowered: Lowered) -> tuple[Kit, Step, str]:
    """The step to draw kernel by kernel: an overlapped pair of the middle ranks, or their longest step."""
    position = _middle(laid)
    row = list(zip(laid.program.steps[position], lowered.kits[position], strict=True))
    step, kit = max(row, key=lambda item: ("+" in item[0].kind, item[1].timing.total))
    stages = f"forward of stage {step.stage} with backward of stage {step.stage_b}"
    return kit, step, stages if "+" in step.kind else f"{step.kind} of stage {step.stage}"


def _stages(laid: Plan, machine: Machine | None) -> tuple[StageLoad, ...]:
    if machine is None:
        return ()
    out = []
    for stage, units in enumerate(machine.stages):
        costs = [sum(unit_cost_ns(u, machine.parts, machine.pricer, d) for u in units) / NS_PER_S for d in "FBW"]
        rank = next(p for p, held in enumerate(laid.holds) if stage in held)
        size = weights(machine.site.shape, units).total
        layers = sum(u.block for u in units)
        out.append(StageLoad(stage, rank, _contents(units), layers, size, *costs))
    return tuple(out)


def _contents(units: tuple[Unit, ...]) -> str:
    """Such as "embedding, dense 0-2, MoE 3"."""
    names: list[str] = []
    for _, run in groupby(enumerate(units), key=lambda item: (item[1].label, item[1].block, item[1].layer - item[0])):
        first, *rest = (unit for _, unit in run)
        layers = f" {first.layer}-{rest[-1].layer}" if rest else f" {first.layer}"
        names += [first.label + layers] if first.block else [first.label] * (1 + len(rest))
    return ", ".join(names)
