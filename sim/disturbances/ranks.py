"""Ranks that differ, simulated: loads drawn for them, and all of them as arrays beside the run of alike ones."""

from dataclasses import dataclass, replace

from sim.disturbances.attention import Attending, attending
from sim.disturbances.documents import Documents
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
    drawn for them, or None. times: durations by which they ran. evened: ns of the same run where documents take every
    rank alike; None where none were drawn."""

    lowered: Lowered
    timeline: Timeline
    loads: Loads | None
    times: Durations
    evened: int | None = None


def run(plan: Plan, machine: Machine, lowered: Lowered, alike: Timeline, documents: Documents | None) -> Differing:
    """Simulate every rank. alike: the timeline of ranks that nothing tells apart. documents: of their micro-batches."""
    scenario = plan.scenario
    jobs, syncs = steps.with_network_times(lowered.jobs, lowered.syncs, alike)
    lowered = replace(lowered, jobs=tuple(jobs), syncs=tuple(syncs))
    loads = loads_of(plan, machine)
    kits, first = lowered.kits, lowered.first_layer

    def ran(attends: Attending | None, differ: bool) -> tuple[Timeline, Durations]:
        which = columns(plan, loads, differ)
        times = Durations(
            plan, machine, kits, first, loads, scenario.faults, scenario.jitter, which, attends
        )  # fmt: skip
        return arrays.run(lowered.parts, syncs, which, times, times.wire), times

    attends = attending(machine, documents) if documents and scenario.batch.unlike else None
    timeline, times = ran(attends, attends is not None)
    evened = ran(attends.evened, False)[0].end if attends else None
    return Differing(lowered, replace(timeline, events=alike.events), loads, times, evened)
