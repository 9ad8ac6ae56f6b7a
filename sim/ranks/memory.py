"""Device memory of ranks whose loads differ: of all replicas at a position, the one with the highest peak.

What a micro-batch of a layer with experts keeps goes by the tokens that the rank received and its expert rows; landing
zones of the exchange are as large as the most tokens that came at once. Activations change in the order of a rank's
own program, so the peak of every replica is the largest of one running sum, whatever its clock says.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from sim import memory
from sim.memory import Change
from sim.models.activations import landing_bytes
from sim.plan import Machine, Plan
from sim.ranks.crowd import Crossing, Crowd
from sim.result import MemoryCurve
from sim.tokens.loads import Loads

Bytes = npt.NDArray[np.int64]


def curves(plan: Plan, machine: Machine, loads: Loads, everyone: Crowd) -> tuple[MemoryCurve, ...]:
    """One curve a pipeline position, of its worst replica."""
    end = max(int(row[-1].ends.max()) for row in everyone.crossings)
    return tuple(_worst(plan, machine, loads, p, row, end) for p, row in enumerate(everyone.crossings))


def _worst(
    plan: Plan, machine: Machine, loads: Loads, position: int, crossings: Sequence[Crossing], end: int
) -> MemoryCurve:
    found = list(memory.changes(plan.program.steps[position]))
    deltas = _deltas(plan, machine, loads, position, found)
    landing = _landing(machine, loads, found)
    replica = int((np.cumsum(deltas, axis=0).max(axis=0) + landing).argmax())
    times = [int((crossings[c.step].ends if c.at_end else crossings[c.step].starts)[replica]) for c in found]
    flat = memory.constant(plan, machine, position) | {"communication buffers": int(landing[replica])}
    capacity = machine.cluster.node.device.hbm.capacity_bytes
    rank = position * plan.data + replica
    return memory.curve(position, times, deltas[:, replica].tolist(), end, flat, capacity, rank)


def _deltas(plan: Plan, machine: Machine, loads: Loads, position: int, found: Sequence[Change]) -> Bytes:
    """Bytes by which each change moves the activations [change, replica]."""
    kept = {stage: _kept(machine, loads, stage) for stage in plan.holds[position]}
    return np.array([
        c.forward * kept[c.stage][0][c.micro_batch] + c.weight * kept[c.stage][1][c.micro_batch] for c in found
    ])  # fmt: skip


def _kept(machine: Machine, loads: Loads, stage: int) -> tuple[Bytes, Bytes]:
    """Bytes of each micro-batch of a stage, until backward and until a split weight gradient [micro-batch, replica]."""
    own, nobody = machine.family, np.zeros(loads.rows.shape[1:], dtype=np.int64)
    out = []
    for kept in (own.kept, own.kept_for_weight):
        total = nobody.astype(np.float64)
        for unit in machine.stages[stage]:
            index = machine.routed.index(unit) if unit.routed else None
            received, rows = (nobody if index is None else each[index] for each in (loads.received, loads.rows))
            total += kept(machine.site, unit, machine.recompute).bytes(received, rows)
        out.append(np.rint(total).astype(np.int64))
    return out[0], out[1]


def _landing(machine: Machine, loads: Loads, found: Sequence[Change]) -> Bytes:
    """Bytes of the landing zones of each replica: as many tokens as ever come at once, of the stages and micro-batches
    that its position runs."""
    most = np.zeros(loads.received.shape[2], dtype=np.int64)
    for stage in {c.stage for c in found}:
        layers = [machine.routed.index(unit) for unit in machine.stages[stage] if unit.routed]
        micro_batches = sorted({c.micro_batch for c in found if c.stage == stage})
        come = loads.received[np.ix_(layers, micro_batches)]
        most = np.maximum(most, come.max(axis=(0, 1), initial=0))
    return np.asarray(np.rint(most * landing_bytes(machine.site)), dtype=np.int64)
