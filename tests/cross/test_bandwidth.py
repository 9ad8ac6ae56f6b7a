"""What-ifs point the right way: more bandwidth is never slower, more SMs for communication never speed compute up."""

from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from sim.schedules.program import names
from sim.simulation import run
from tests.examples import examples

FACTORS = (1.0, 1.3, 2.0, 4.0, 8.0)
LINKS = {
    "cluster.node.nic.bandwidth": (50, "GB/s"),
    "cluster.node.nvlink.bandwidth": (200, "GB/s"),
    "cluster.node.device.hbm.bandwidth": (3.35, "TB/s"),
}
FIXED = "placement=[4,4,4,4,4,4,4,4,4,4,4,4,4,4,4,1]"
"""Layers of V3's 16 stages: with the rule `balanced` a what-if also moves layers; see the last test."""


def step(result):
    return round(result.summary["step_time_s"] * 1e9)


def override(key, factor):
    """Overrides that make a link `factor` times as fast."""
    base, unit = LINKS[key]
    return [f"{key}={base * factor:.6g}{unit}"]


@pytest.mark.parametrize("key", LINKS)
def test_v3_with_fixed_layers(v3, key):
    times = [step(v3("detail=chunk", FIXED, *override(key, f))) for f in FACTORS]
    assert times == sorted(times, reverse=True)
    assert times[-1] < times[0]


@pytest.mark.parametrize("key", ["cluster.node.nic.bandwidth", "cluster.node.nvlink.bandwidth"])
def test_v3_with_balanced_layers(v3, key):
    times = [step(v3("detail=chunk", *override(key, f))) for f in (1.0, 2.0, 8.0)]
    assert times == sorted(times, reverse=True)


@examples(10, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    key=st.sampled_from(sorted(LINKS)), schedule=st.sampled_from(names()), nodes=st.sampled_from([1, 2]),
    factor=st.sampled_from(FACTORS[:-1]), more=st.sampled_from([1.05, 1.25, 2.0]),
    expert=st.sampled_from([2, 4]), length=st.sampled_from([512, 4096]),
)  # fmt: skip
def test_small(small_scenario, key, schedule, nodes, factor, more, expert, length):
    shared = (
        "detail=layer", f"schedule={schedule}", f"cluster.nodes={nodes}", f"parallel.expert={expert}",
        f"batch.sequence_length={length}", "cluster.fabric=mpft",
    )  # fmt: skip
    slow, fast = (step(run(small_scenario(*shared, *override(key, f)), False)) for f in (factor, factor * more))
    assert fast <= slow


def compute_ns(result):
    """Stand-alone time of all kernels on compute streams, all stages, one micro-batch."""
    return sum(round((s.forward_s + s.backward_input_s + s.weight_s) * 1e9) for s in result.stages)


def test_sms_for_communication_never_speed_compute(v3):
    """132 SMs: what communication holds, compute has not."""
    times = [compute_ns(v3("detail=chunk", FIXED, f"comm.sms={sms}")) for sms in (2, 12, 20, 66, 130)]
    assert times == sorted(times)
    assert times[0] < times[2] < times[-1]


@pytest.mark.parametrize("precision", ["fp8", "bf16"])
def test_sms_of_each_price(v3_file, precision):
    """Kernel by kernel: no compute price falls when communication takes more SMs."""
    from sim import assembly
    from sim.layout import plan
    from sim.models.layer import COMMUNICATION
    from sim.scenario import load

    kept = []
    for sms in (2, 20, 88):
        machine = assembly.machine(
            plan.lay_out(load(str(v3_file), [FIXED, f"comm.sms={sms}", f"precision={precision}"]))
        )
        stages = {unit.kind: unit for unit in machine.units}.values()
        kernels = [k for unit in stages for d in "FBW" for part in machine.parts(unit, d) for k in part.kernels]
        kept.append([machine.pricer.price(k.op).ns for k in kernels if k.lane != COMMUNICATION])
    for few, many in pairwise(kept):
        assert all(a <= b for a, b in zip(few, many, strict=True))


def test_fewer_communication_sms_move_less(v3):
    """Below the 20 SMs that saturate the NIC the exchange is slower, so the exposed part grows."""
    exposed = [v3("detail=chunk", FIXED, f"comm.sms={sms}").summary["exposed_communication_s"] for sms in (20, 12)]
    assert exposed == sorted(exposed)
    assert exposed[0] < exposed[-1]


def test_attention_pays_for_the_sms_it_lost(v3_file):
    from hwmodels.op import Attention
    from sim import assembly
    from sim.layout import plan
    from sim.scenario import load

    attention = Attention("forward", 1, 128, 4096, 192, 128)
    prices = [
        assembly.machine(plan.lay_out(load(str(v3_file), [FIXED, f"comm.sms={sms}"]))).pricer.price(attention).ns
        for sms in (20, 120)
    ]
    assert prices[1] > prices[0]


def test_v3_faster_memory_with_balanced_layers(v3):
    key = "cluster.node.device.hbm.bandwidth"
    times = [step(v3("detail=chunk", *override(key, f))) for f in (1.15, 1.2)]
    assert times == sorted(times, reverse=True)


def test_switch_ports_bound_the_nic(v3):
    slow = v3("detail=chunk", FIXED, "cluster.fabric.link.bandwidth=5GB/s")
    assert step(slow) > step(v3("detail=chunk", FIXED))
    both = ("cluster.node.nic.bandwidth=100GB/s", "cluster.fabric.link.bandwidth=50GB/s")
    assert step(v3("detail=chunk", FIXED, *both)) == step(v3("detail=chunk", FIXED))


def test_each_price_falls_with_memory_bandwidth(small_scenario):
    from hwmodels.op import cast_transpose
    from sim import assembly
    from sim.layout import plan

    op = cast_transpose(4096, 7168)
    prices = []
    for factor in (1.0, 1.5, 2.0, 2.1, 2.5):
        scenario = small_scenario(*override("cluster.node.device.hbm.bandwidth", factor))
        prices.append(assembly.machine(plan.lay_out(scenario)).pricer.price(op))
    assert [p.ns for p in prices] == sorted((p.ns for p in prices), reverse=True)
    assert [p.beside_ns for p in prices] == sorted((p.beside_ns for p in prices), reverse=True)
