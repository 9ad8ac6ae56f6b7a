"""Memory over time: constant parts by hand, activations integrated by the test from the trace of steps."""

from pathlib import Path

import numpy as np
import pytest

from sim import assembly, simulation
from sim.layout import plan
from sim.scenario import from_mapping, load

V3 = str(Path(__file__).parents[3] / "scenarios" / "v3_2048gpu.yaml")
FIXED = "placement=[4,4,4,4,4,4,4,4,4,4,4,4,4,4,4,1]"
EXPERT = 3 * 7168 * 2048
ATTENTION = 7168 * 1536 + 1536 * 24576 + 7168 * 576 + 512 * 32768 + 16384 * 7168
SMALL = {
    "cluster": {"node": "h800x8", "nodes": 1},
    "model": {"base": "deepseek_v2_lite", "layers": 8, "vocabulary": 1024},
    "parallel": {"pipeline": 4, "expert": 2},
    "batch": {"micro_batches": 8, "sequence_length": 512},
    "placement": "even",
    "detail": "chunk",
    "outputs": ["result"],
}


@pytest.fixture(scope="module")
def main():
    scenario = load(V3, [FIXED, "outputs=[result]", "detail=chunk"])
    laid = plan.lay_out(scenario)
    return simulation.run(scenario, False), assembly.machine(laid), laid


def test_constant_parts_of_v3_rank_7(main):
    """Stages 7 and 8, eight MoE layers: weights FP8 with scales and BF16 norms and gates, gradients FP32, master
    weights FP32 and moments BF16 of the shard, exchange buffers, attention's temporaries."""
    result, machine, _ = main
    norms_and_gate = 256 * 7168 + 256 + 1536 + 512 + 2 * 7168
    linear, experts = ATTENTION + EXPERT, 4 * EXPERT
    parts = {name: int(part[0]) for name, part in result.memory[7].parts.items() if name != "activations"}
    received = machine.site.received
    assert parts == {
        "weights": 8 * (linear + experts) * (1 + 4 / 16384) + 8 * 2 * norms_and_gate,
        "gradients": 8 * 4 * (linear + norms_and_gate + experts),
        "optimizer states": round(8 * 8 * ((linear + norms_and_gate) / 256 + experts / 4)),
        "communication buffers": received * (7168 + 224 + 14336),
        # q, k and their gradients, v, o and theirs in BF16; dQ in FP32
        "workspace": 4096 * (2 * (4 * 24576 + 4 * 16384) + 4 * 24576),
    }
    for name, part in result.memory[7].parts.items():
        assert name == "activations" or (part == part[0]).all()


def kept(machine, units, until="kept"):
    """Bytes that a micro-batch of these units keeps."""
    return round(sum(getattr(machine.family, until)(machine.site, u).at(machine.site) for u in units))


def integrate(result, laid, machine, rank):
    """Activations after each step boundary, from the rows of the trace: (time, bytes), ends before starts."""
    forward = [kept(machine, stage) for stage in machine.stages]
    weight = [kept(machine, stage, "kept_for_weight") for stage in machine.stages]
    steps, changes = result.steps.of_position(rank), []
    for label, start, end, stage, stage_b in zip(
        steps.label.tolist(), steps.start.tolist(), steps.end.tolist(), steps.stage.tolist(), steps.stage_b.tolist(),
        strict=True,
    ):  # fmt: skip
        kind = steps.labels[label]
        back = stage_b if stage_b >= 0 else stage
        if kind.startswith("F"):
            changes.append((start, 1, forward[stage]))
        if kind.endswith("BW"):
            changes.append((end, 0, -forward[back]))
        elif kind == "B":
            changes.append((end, 0, weight[back] - forward[back]))
        elif kind == "W":
            changes.append((end, 0, -weight[back]))
    level, out = 0, []
    for time, _, change in sorted(changes):
        level += change
        out.append((time, level))
    return out


def check(result, laid, machine):
    for rank, curve in enumerate(result.memory):
        expected = integrate(result, laid, machine, rank)
        found = curve.parts["activations"]
        assert found.max() == max(level for _, level in expected)
        assert dict(zip(curve.times.tolist(), found.tolist(), strict=True)) == {0: found[0]} | dict(expected) | {
            int(curve.times[-1]): found[-1]
        }
        assert found[-1] == 0 and found.min() >= 0
        assert (np.diff(curve.times) >= 0).all()
        assert curve.peak_bytes == sum(curve.parts.values()).max()
        assert curve.times[-1] == result.steps.end.max()


def test_activations_of_v3(main):
    result, machine, laid = main
    check(result, laid, machine)


@pytest.mark.parametrize("schedule", ["1f1b", "zb1p", "gpipe", "interleaved", "dualpipe", "dualpipev"])
def test_activations_of_every_schedule(schedule):
    scenario = from_mapping(SMALL | {"schedule": schedule})
    laid = plan.lay_out(scenario)
    check(simulation.run(scenario, False), laid, assembly.machine(laid))


@pytest.mark.parametrize(("schedule", "chunks"), [("1f1b", 4), ("gpipe", 8)])
def test_peak_in_chunks(schedule, chunks):
    """Rank 0 holds PP chunks at most under 1F1B, all of them under GPipe (full backward: nothing waits for W)."""
    scenario = from_mapping(SMALL | {"schedule": schedule})
    laid = plan.lay_out(scenario)
    machine = assembly.machine(laid)
    one = kept(machine, machine.stages[0])
    assert simulation.run(scenario, False).memory[0].parts["activations"].max() == chunks * one


def test_dualpipe_peaks_at_17_chunks(main):
    """Ranks 6 and 7 of V3 hold two stages of four MoE layers: PP + 1 = 17 chunks of them, while pairs run."""
    result, machine, _ = main
    one = kept(machine, machine.stages[7])
    for rank in (6, 7, 8, 9):
        curve = result.memory[rank]
        steady = result.steps.of_position(rank)
        pairs = steady.where(steady.stage_b >= 0)
        inside = (curve.times >= pairs.start.min()) & (curve.times < pairs.end.max())
        assert curve.parts["activations"][inside].max() == 17 * one


def test_summary_has_the_peak(main):
    result = main[0]
    for row, curve in zip(result.summary["peak_memory_bytes"], result.memory, strict=True):
        assert row["total"] == curve.peak_bytes == sum(v for k, v in row.items() if k != "total")
        assert row["total"] < 80e9


def test_two_copies_under_dualpipe():
    """Weights of a rank under DualPipe are those of its two stages; 1F1B holds one."""
    ours, theirs = (simulation.run(from_mapping(SMALL | {"schedule": s}), False).memory for s in ("dualpipe", "1f1b"))
    weights = [int(c.parts["weights"][0]) for c in theirs]
    assert [int(c.parts["weights"][0]) for c in ours] == pytest.approx(
        [weights[r] + weights[3 - r] for r in range(4)], abs=1
    )
    assert sum(int(c.parts["optimizer states"][0]) for c in ours) == pytest.approx(
        sum(int(c.parts["optimizer states"][0]) for c in theirs), rel=1e-6
    )
