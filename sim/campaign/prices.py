"""What the step simulator says of the steps of a campaign: seconds of each batch, peaks, states, a slow node's price.

Where a batch grows, the step is simulated at its ends and then between neighbours, wherever a straight line is off by
more than WITHIN at the batch in the middle; between those that are left a line is drawn. Steps that were simulated once
are kept while the process lives: points of a sweep over failures or checkpoints share them all.
"""

from bisect import bisect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hwmodels.refused import Refused
from hwmodels.units import MILLI
from sim import assembly
from sim.analysis import memory
from sim.campaign.values import Phase
from sim.layout.plan import lay_out
from sim.scenario.files import load
from sim.scenario.values import Fault, Scenario
from sim.simulation import run

WITHIN = MILLI
"""Relative: below what steps are uncertain by, a hundredth of it (docs/RUNS.md)."""

_STEPS = dict[str, "Step"]()
_REACHES = dict[str, tuple[float, float]]()


@dataclass(frozen=True)
class Step:
    """What a simulated step says. exposed_s: of it, exchanges that compute waits for. infeasible: why it cannot run."""

    seconds: float
    exposed_s: float
    peak_bytes: int
    capacity_bytes: int
    infeasible: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """Steps of a phase by sequences, as far as they were simulated."""

    points: Mapping[int, Step]

    def seconds(self, sequences: int) -> float:
        """Of a step of so many sequences; between points along a line."""
        if sequences in self.points:
            return self.points[sequences].seconds
        known = sorted(self.points)
        at = bisect(known, sequences)
        low, high = known[at - 1], known[at]
        return _between(low, high, sequences, self.points[low].seconds, self.points[high].seconds)


def table(phase: Phase, batches: Sequence[int]) -> Table:
    """The steps of a phase. batches: sequences of its steps, each once, rising. Raises Refused where one cannot run."""
    points = {each: step(phase, each) for each in {batches[0], batches[-1]}}
    waiting = [(0, len(batches) - 1)]
    while waiting:
        low, high = waiting.pop()
        if high - low < 2:
            continue
        middle = (low + high) // 2
        first, at, last = batches[low], batches[middle], batches[high]
        points[at] = step(phase, at)
        line = _between(first, last, at, points[first].seconds, points[last].seconds)
        if abs(line / points[at].seconds - 1) > WITHIN:
            waiting += [(low, middle), (middle, high)]
    return Table(points)


def _between(low: int, high: int, at: int, first: float, last: float) -> float:
    return first + (last - first) * (at - low) / (high - low)


def step(phase: Phase, sequences: int) -> Step:
    """One simulated step of a phase. Raises Refused, with the phase's name."""
    scenario = _with_batch(phase, sequences)
    if scenario.scenario_hash not in _STEPS:
        try:
            _STEPS[scenario.scenario_hash] = _simulated(scenario)
        except Refused as refused:
            raise Refused(f"phase {phase.name!r}: {' '.join(str(refused).split())}") from None
    return _STEPS[scenario.scenario_hash]


def _with_batch(phase: Phase, sequences: int) -> Scenario:
    if sequences == phase.first:
        return phase.scenario
    try:
        return load(phase.scenario, [f"batch.sequences={sequences}"])
    except Refused as refused:
        raise Refused(f"phase {phase.name!r}: {' '.join(str(refused).split())}") from None


def _simulated(scenario: Scenario) -> Step:
    summary: dict[str, Any] = run(scenario, interval=False).summary
    worst = summary["worst_memory"]
    return Step(
        summary["step_time_s"], summary["exposed_communication_s"], worst["peak_bytes"], worst["capacity_bytes"],
        tuple(summary["infeasible"]),
    )  # fmt: skip


def reach(phase: Phase) -> tuple[float, float]:
    """Ends of the 90 % interval of a phase's last step, as parts of that step: prices as uncertain as their sources say
    and what the model leaves out."""
    scenario = _with_batch(phase, phase.last)
    if scenario.scenario_hash not in _REACHES:
        summary: dict[str, Any] = run(scenario).summary
        low, high = summary["intervals_90"]["step_time_s"]
        _REACHES[scenario.scenario_hash] = low / summary["step_time_s"], high / summary["step_time_s"]
    return _REACHES[scenario.scenario_hash]


def slower(phase: Phase, times: float) -> float:
    """How many times as long a step of a phase takes while all work of one node takes `times` as long."""
    healthy = step(phase, phase.last)
    scenario = _with_batch(phase, phase.last)
    fault = Fault("node", 0, times)
    seconds: float = run(replace(scenario, faults=(fault,)), interval=False).summary["step_time_s"]
    return max(1.0, seconds / healthy.seconds)


def states(scenario: Scenario) -> tuple[float, float]:
    """Bytes that a checkpoint has: in all, and of the rank that has most. Master weights and moments, each saved by one
    of those that hold it, as all frameworks with sharded checkpoints do (ByteCheckpoint, arXiv:2407.20143, sec. 3)."""
    parallel = replace(scenario.parallel, zero=max(1, scenario.parallel.zero), shard=None)
    kept = replace(scenario.optimizer, offload="none")
    plan = lay_out(replace(scenario, parallel=parallel, optimizer=kept))
    machine, _ = assembly.assembled(plan)
    parts = [memory.constant(plan, machine, at)["optimizer states"] for at in range(plan.program.positions)]
    assert scenario.cluster is not None
    return sum(parts) * scenario.cluster.gpus / len(parts), float(max(parts))
