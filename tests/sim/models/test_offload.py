"""Activations in the host's memory: copies by hand, beside compute while the link keeps up; memory and its bounds."""

from itertools import pairwise

import pytest

from hwmodels.op import HostCopy
from sim import assembly
from sim.engine.lowering import lower
from sim.layout.plan import lay_out
from sim.models.layer import HOST
from sim.result.trace import LANES
from sim.scenario import from_mapping
from sim.simulation import run

LAYERS = 8


def on(offload=0.0, **more):
    parallel = more.pop("parallel", {})
    return from_mapping({
        "cluster": {"node": {"base": "h100x8", "gpus": 4}, "nodes": 1}, "precision": "bf16",
        "model": {"base": "llama3_8b", "layers": LAYERS}, "stack": {"name": "megatron", "cuda_graphs": True},
        "parallel": parallel, "schedule": "1f1b", "outputs": ["result"], "offload": offload, "placement": "even",
        "batch": {"sequences": 16, "sequence_length": 8192}, **more,
    })  # fmt: skip


def summary(*args, **kwargs):
    return run(on(*args, **kwargs), interval=False).summary


def test_bytes_that_wait_on_the_host_are_gone_from_the_device():
    """One stage of eight layers: seven go, two of them are back while backward is at one."""
    plan = lay_out(on(0.5))
    machine = assembly.machine(plan)
    layer = next(unit for unit in machine.units if unit.block)
    kept = machine.lowering.kept(machine.site, layer).at(machine.site)
    assert [unit.hosted for unit in machine.stages[0] if unit.block] == [round(kept / 2)] * 7 + [0]
    whole, less = (summary(part)["peak_memory_bytes"][0]["activations"] for part in (0.0, 0.5))
    assert whole - less == 7 * round(kept / 2) - 2 * round(kept / 2)


def test_copies_by_hand():
    """Each layer's copy begins behind its forward, or behind the copy before; one comes back when the layer but one
    behind it is through, and its backward waits for it."""
    plan = lay_out(on(1.0))
    machine = assembly.machine(plan)
    kits = {kit.fine.kind: kit for kit in lower(plan, machine).known}
    copy = HostCopy(float(next(unit.hosted for unit in machine.stages[0] if unit.block)))
    link = machine.pricer.wires.pcie
    ns, gap = machine.pricer.price(copy).ns, machine.pricer.launch_gap_ns
    assert ns == pytest.approx(1e9 * (copy.size / link.effective + link.latency_s), abs=2)
    for kind, name, half in (("F", "offload", "F"), ("BW", "reload", "B")):
        kit = kits[kind]
        assert kit.composition is not None
        phases = list(zip(kit.composition.phases, kit.timing.segments, strict=True))
        copies = {p.layer: times for p, times in phases if p.name == name}
        assert len(copies) == LAYERS - 1 and all(p.lane == HOST for p, _ in phases if p.name == name)
        free = 0
        for layer in sorted(copies, reverse=half == "B"):
            own = [t for p, t in phases if p.half == half and p.name != name and p.layer == layer + 2 * (half == "B")]
            start, end = copies[layer]
            asked = max((e for _, e in own), default=0)
            assert start == max(free, asked) and end - start == ns + gap
            free = end
            if half == "B":
                assert min(s for p, (s, _) in phases if p.half in "BW" and p.layer == layer and p.name != name) >= end


def test_steps_last_as_long_while_the_link_keeps_up_and_as_the_link_beyond():
    times = [summary(part)["step_time_s"] for part in (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)]
    assert times[0] == pytest.approx(times[1], rel=1e-3) and all(a <= b for a, b in pairwise(times))
    plan = lay_out(on(1.0))
    machine = assembly.machine(plan)
    away = sum(unit.hosted for unit in machine.stages[0])
    assert times[-1] > 2 * plan.micro_batches * away / machine.pricer.wires.pcie.effective > 0.5 * times[-1]


def test_a_faster_link_is_never_slower():
    node = {"base": "h100x8", "gpus": 4}
    times = [
        summary(1.0, cluster={"node": {**node, "pcie": {"bandwidth": f"{rate} GB/s"}}, "nodes": 1})["step_time_s"]
        for rate in (32, 64, 128, 512)
    ]
    assert all(slow >= fast for slow, fast in pairwise(times)) and times[0] > times[-1]


@pytest.mark.parametrize("more", [
    {"parallel": {"pipeline": 2}}, {"parallel": {"pipeline": 2, "tensor": 2}}, {"recompute": "full"},
    {"stack": "torch", "parallel": {"zero": 3}}, {"parallel": {"pipeline": 2}, "schedule": "zb1p"},
])  # fmt: skip
def test_it_composes(more):
    """Folded equals unfolded; all parts add up; time is conserved; less memory, never less time."""
    folded, each, without = run(on(0.6, **more), False), run(on(0.6, fold=False, **more), False), summary(**more)
    assert folded.summary["step_time_s"] == each.summary["step_time_s"] >= without["step_time_s"] * (1 - 1e-3)
    assert sum(bar.seconds for bar in folded.waterfall) == pytest.approx(folded.summary["step_time_s"])
    for row, before in zip(folded.summary["peak_memory_bytes"], without["peak_memory_bytes"], strict=True):
        assert row["total"] == sum(size for name, size in row.items() if name != "total")
        assert row["activations"] < before["activations"]


def test_copies_are_drawn_on_the_host_lane():
    for detail, names in (("layer", {"offload(F)", "reload(B)"}), ("op", {"offload", "reload"})):
        spans = run(on(0.5, detail=detail, outputs=["result", "events"]), False).spans
        rows = spans.lane == LANES.index("host")
        assert {spans.labels[i] for i in set(spans.label[rows].tolist())} == names


def test_the_host_has_room_for_so_much():
    small = {"base": "h100x8", "gpus": 4, "device": {"host": {"capacity": "2 GB"}}}
    said = summary(1.0, parallel={"pipeline": 4}, cluster={"node": small, "nodes": 1})["infeasible"]
    assert any("does not fit in the host's memory: activations" in line for line in said)


def test_a_stage_of_one_layer_keeps_its_own():
    one = summary(1.0, model={"base": "llama3_8b", "layers": 4}, parallel={"pipeline": 4})
    none = summary(0.0, model={"base": "llama3_8b", "layers": 4}, parallel={"pipeline": 4})
    assert one["step_time_s"] == none["step_time_s"] and one["peak_memory_bytes"] == none["peak_memory_bytes"]
