"""Ranks that differ, simulated: loads drawn for them, and all of them as arrays beside the run of alike ones."""

from dataclasses import dataclass, replace

from sim.disturbances.durations import Durations, columns
from sim.engine import arrays, steps
from sim.engine.lowering import Lowered
from sim.engine.timeline import Timeline
from sim.layout.machine import Machine
from sim.layout.plan import Plan
from sim.routing.imbalance import loads_of
from sim.routing.loads import Loads


@dataclass(frozen=True)
class Differing:
    """A run whose ranks differ. lowered: with messages as long as among alike ranks. timeline: of all ranks. loads:
    drawn for them, or None. times: durations by which they ran."""

    lowered: Lowered
    timeline: Timeline
    loads: Loads | None
    times: Durations


def run(plan: Plan, machine: Machine, lowered: Lowered, alike: Timeline) -> Differing:
    """Simulate every rank. alike: the timeline of ranks that nothing tells apart."""
    scenario = plan.scenario
    jobs, syncs = steps.with_network_times(lowered.jobs, lowered.syncs, alike)
    lowered = replace(lowered, jobs=tuple(jobs), syncs=tuple(syncs))
    loads = loads_of(plan, machine)
    times = Durations(
        plan, machine, lowered.kits, lowered.first_layer, loads, scenario.faults, scenario.jitter, columns(plan, loads)
    )
    timeline = arrays.run(lowered.parts, syncs, times.columns, times, times.wire)
    return Differing(lowered, replace(timeline, events=alike.events), loads, times)
