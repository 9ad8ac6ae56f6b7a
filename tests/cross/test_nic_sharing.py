"""Messages beside exchanges: each one in a V3 step against a fluid model that knows nothing of steps or templates.

It takes from the trace when exchanges ran and when each message left, and lets the message flow at what the exchanges
at both of its ends leave, at least half of a NIC.
"""

from bisect import bisect_right

import numpy as np
import pytest

from hwmodels.op import AllToAll
from sim import assembly, simulation
from sim.layout import plan
from sim.result.trace import LANES
from sim.scenario import load

SENDS = {"send activations": 1, "send gradients": -1}


def exchanges(machine, spans):
    """By position: starts, ends and parts of a NIC of the exchanges that ran, in ns."""
    unit = next(unit for unit in machine.units if unit.kind == "moe")
    ops = {kernel.name: kernel.op for direction in "FB" for part in machine.parts(unit, direction)
            for kernel in part.kernels if isinstance(kernel.op, AllToAll)}  # fmt: skip
    rate, found = machine.pricer.wires.network, {}
    labels = np.array(spans.labels)[spans.label]
    for position in range(16):
        mine = (spans.position == position) & (spans.lane == LANES.index("communication")) & np.isin(labels, list(ops))
        order = np.argsort(spans.start[mine])
        called = [ops[name] for name in labels[mine][order]]
        # launch gaps come before kernels and are a part of what an exchange takes
        gaps = np.array([op.kernels * machine.pricer.launch_gap_ns for op in called])
        start, end = spans.start[mine][order] - gaps, spans.end[mine][order]
        need = np.array([op.wire_bytes() for op in called]) / rate * 1e9
        found[position] = (start.tolist(), end.tolist(), (need / (end - start)).tolist())
    return found


def taken(known, at):
    """Part of a NIC that exchanges need, and until when."""
    start, end, part = known
    i = bisect_right(start, at) - 1
    if i >= 0 and at < end[i]:
        return part[i], end[i]
    return 0.0, start[i + 1] if i + 1 < len(start) else float("inf")


def flown(ends, at, need):
    """When a message of `need` ns is through that leaves at `at`."""
    while True:
        (one, until), (two, also) = (taken(known, at) for known in ends)
        pace, stop = max(1 - max(one, two), 0.5), min(until, also)
        if need <= (stop - at) * pace:
            return at + need / pace
        need, at = need - (stop - at) * pace, stop


@pytest.mark.parametrize("overrides", [(), ("schedule=zb1p",), ("cluster.node.nic.bandwidth=25 GB/s",)])
def test_every_message_takes_what_a_fluid_does(v3_file, overrides):
    scenario = load(str(v3_file), ["outputs=[result,events]", "detail=op", *overrides])
    laid = plan.lay_out(scenario)
    machine = assembly.machine(laid)
    spans = simulation.run(scenario, False).spans
    known = exchanges(machine, spans)
    ratios = []
    for name, ahead in SENDS.items():
        mine = spans.label == spans.labels.index(name)
        names = ("position", "stage", "micro_batch", "start", "end")
        columns = (getattr(spans, column)[mine].tolist() for column in names)
        for position, stage, micro_batch, start, end in zip(*columns, strict=True):
            target = laid.homes[stage + ahead, micro_batch]
            alone = machine.pricer.price(machine.message(laid.mesh, position, target)).ns
            assert end == pytest.approx(flown((known[position], known[target]), start, alone), abs=5)
            ratios.append((end - start) / alone)
    assert len(ratios) == 2 * 15 * 120 and min(ratios) >= 1 and max(ratios) > 1.4 and 1.1 < np.mean(ratios) < 2
