"""Memory of drawn loads: against each replica integrated on its own, and against the balanced run."""

from functools import cache

import numpy as np
import pytest

from sim import assembly, simulation
from sim.analysis import memory
from sim.layout import plan
from sim.models.activations import landing_bytes
from sim.routing.loads import Loads
from sim.scenario import from_mapping
from sim.simulation import simulated

TINY = {
    "cluster": {"node": "h800x8", "nodes": 2},
    "model": {"base": "deepseek_v2_lite", "layers": 8, "mtp_depth": 1, "q_rank": 128, "vocabulary": 1024},
    "parallel": {"pipeline": 2, "expert": 4},
    "batch": {"micro_batches": 8, "sequence_length": 512},
    "placement": "even",
    "outputs": ["result"],
}
SCHEDULES = ("1f1b", "zb1p", "gpipe", "interleaved", "dualpipe", "dualpipev")


@cache
def found(schedule, *overrides):
    chosen = (f"schedule={schedule}", "routing={kind: sampled, spread: 0.5}", *overrides)
    laid = plan.lay_out(from_mapping(TINY, chosen))
    machine = assembly.machine(laid)
    return laid, machine, simulated(laid, machine)


def curves(laid, machine, run, loads):
    """Of these loads in place of those that were drawn."""
    return memory.curves(laid, machine, loads, run.timeline, run.column)


def alone(laid, machine, loads, position, replica, timeline):
    """Bytes of one replica over time: an event a micro-batch that comes or goes, unit by unit at its own load."""
    site, dense, own = machine.site, machine.site.shape.dense_layers, machine.family
    landing, events = 0.0, []
    steps = timeline.positions[position]
    for step, starts, ends in zip(laid.program.steps[position], steps.starts, steps.ends, strict=True):
        for letter, stage, micro_batch in step.passes():
            kept = {"F": 0.0, "W": 0.0}
            for unit in machine.stages[stage]:
                load = (site.received, site.rows)
                if unit.kind == "moe":
                    at = (unit.layer - dense, micro_batch, replica)
                    load = (int(loads.received[at]), int(loads.rows[at]))
                    landing = max(landing, load[0] * landing_bytes(site))
                kept["F"] += own.kept(site, unit).bytes(*load)
                kept["W"] += own.kept_for_weight(site, unit).bytes(*load)
            start, end = int(starts[replica]), int(ends[replica])
            if letter == "F":
                events.append((start, round(kept["F"])))
            elif letter == "B":
                split = not step.kind.endswith("W")
                events.append((end, split * round(kept["W"]) - round(kept["F"])))
            elif step.kind == "W":
                events.append((end, -round(kept["W"])))
    flat = memory.constant(laid, machine, position) | {"communication buffers": round(landing)}
    levels = np.cumsum([size for _, size in sorted(events, key=lambda e: e[0])])
    return sum(flat.values()) + int(max(levels.max(), 0)), int(levels[-1])


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_worst_replica_of_all(schedule):
    laid, machine, run = found(schedule)
    for position, curve in enumerate(curves(laid, machine, run, run.loads)):
        each = [alone(laid, machine, run.loads, position, r, run.timeline) for r in range(laid.data)]
        assert all(left == 0 for _, left in each), "everything kept is given back"
        peaks = [peak for peak, _ in each]
        assert curve.peak_bytes == max(peaks) > min(peaks)
        assert divmod(curve.rank, laid.data) == (position, peaks.index(max(peaks)))
        assert (np.diff(curve.times) >= 0).all() and curve.parts["activations"].min() >= 0
        assert curve.parts["activations"][-1] == 0 and curve.times[-1] == run.timeline.end


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_expected_loads_are_the_balanced_run(schedule):
    """To the byte, at every moment."""
    laid, machine, run = found(schedule)
    shape = run.loads.rows.shape
    even = Loads(np.full(shape, machine.site.received, np.int32), np.full(shape, machine.site.rows, np.int32))
    for one, two in zip(curves(laid, machine, run, even), curves(laid, machine, run, None), strict=True):
        for name, part in two.parts.items():
            np.testing.assert_array_equal(one.parts[name], part, name)


def test_more_of_either_load_is_more_memory():
    laid, machine, run = found("zb1p")
    plain = curves(laid, machine, run, run.loads)
    for more in (run.loads._replace(rows=run.loads.rows + 128), run.loads._replace(received=run.loads.received + 1)):
        for a, b in zip(plain, curves(laid, machine, run, more), strict=True):
            assert b.peak_bytes > a.peak_bytes


def test_the_summary_and_the_verdict_name_the_rank():
    small = "cluster.node.device.hbm.capacity=4GB"
    result = simulation.run(from_mapping(TINY, ("schedule=1f1b", "routing={kind: sampled, spread: 0.5}", small)), False)
    worst = max(result.memory, key=lambda curve: curve.peak_bytes)
    assert result.summary["peak_memory_ranks"] == [curve.rank for curve in result.memory]
    assert [row["total"] for row in result.summary["peak_memory_bytes"]] == [c.peak_bytes for c in result.memory]
    fits, why = result.feasible
    assert not fits
    assert f"rank {worst.rank} (position {worst.position} of the pipeline) needs" in why


def test_a_balanced_run_names_no_rank():
    result = simulation.run(from_mapping(TINY, ("schedule=1f1b", "faults=[{kind: gpu, at: 3, slower: 1.5}]")), False)
    assert "peak_memory_ranks" not in result.summary
    assert all(curve.rank is None for curve in result.memory)
