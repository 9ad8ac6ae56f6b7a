"""The closed form: against what a hand gets from its own constants, and in the directions that physics has."""

import pytest

from hwmodels.op import AllToAll, Attention, Gemm, GroupedGemm, Memory
from sim import assembly
from sim.layout.plan import lay_out
from sim.scenario import from_mapping
from sim.validation import rival
from sim.validation.rival import CARDS

LLAMA = {
    "cluster": {"node": "h100x8", "nodes": 1}, "model": "llama3_8b", "precision": "bf16", "stack": "megatron",
    "recompute": "none", "schedule": "1f1b", "batch": {"sequences": 128, "sequence_length": 4096},
}  # fmt: skip


def step(*overrides, **more):
    return rival.rival(from_mapping({**LLAMA, **more}, overrides))


def machine(*overrides):
    return assembly.unshared(lay_out(from_mapping(LLAMA, overrides)))


def test_a_product_is_its_arithmetic_over_what_such_sizes_reach():
    op = Gemm(8192, 8192, 8192, precision="bf16")
    wanted = rival.FIXED[0] + op.flop() * 1.05 / (0.70 * 989e12)  # between 1 and 3 TFLOP on an H100
    assert rival._seconds(machine(), op) == pytest.approx(wanted)
    sums = op._replace(role="wgrad")
    added = 0.8 * 8 * 8192**2 / 3.35e12
    assert rival._seconds(machine(), sums) == pytest.approx(wanted + added)
    few = GroupedGemm(8, 8 * 32, 4096, 4096, precision="bf16")
    assert rival._reached(CARDS["H"], few, True, False) == 0.12
    assert rival._reached(CARDS["H"], few._replace(rows=8 * 4096), True, False) == pytest.approx(0.95 * 0.70)


def test_memory_and_attention_go_by_their_rates():
    bytes_ = Memory("elementwise", 1 << 16, 1 << 14, 1 << 14)
    assert rival._seconds(machine(), bytes_) == pytest.approx(rival.FIXED[1] + bytes_.bytes() / (0.87 * 3.35e12))
    forward = Attention("forward", 1, 32, 8192, 128, 128)
    rate = 0.64 / (1 + 708 / 8192) * 989e12
    assert rival._seconds(machine(), forward) == pytest.approx(rival.FIXED[1] + forward.flop() / rate)
    exchange = AllToAll("dispatch", "", 4096, 8192, 1, 7.0, 8, 1)
    assert rival._seconds(machine(), exchange) == pytest.approx(2 * rival.FIXED[1] + exchange.nvlink_bytes() / 322e9)


def test_a_pipeline_adds_its_bubble_and_chunks_divide_it():
    """Stages are alike but for the ends, so the step goes with m + (p - 1) / v."""
    plan = {"cluster": {"node": "h100x8", "nodes": 2}, "model": {"base": "llama3_8b", "layers": 64}}
    one, two = (step(f"schedule={{name: interleaved, chunks: {chunks}}}", "parallel.pipeline=4", "batch.sequences=64",
                     **plan) for chunks in (1, 2))  # fmt: skip
    assert 1 < one / two < (16 + 3) / (16 + 1.5)


def test_exchanges_hide_where_the_scenario_says_so():
    mixed = {"model": "qwen3_30b_a3b", "parallel": {"expert": 8}}
    assert step("overlap.expert=true", "batch.micro_batches=null", **mixed) < step(**mixed)
    tensor = {"parallel": {"tensor": 4}}
    assert step("overlap.tensor=true", **tensor) < step(**tensor)


@pytest.mark.parametrize("device", ["A100 SXM 80 GB", "H20 SXM", "H800 SXM", "GB300", "MI355X"])
def test_every_device_has_a_card(device):
    assert rival._named(device) in CARDS.values()


def test_twice_the_sequences_is_twice_the_step():
    assert step("batch.sequences=256") == pytest.approx(2 * step(), rel=0.01)


def test_it_knows_neither_prices_nor_tables_of_the_simulator():
    """Which kernels there are is the simulator's; that they are priced otherwise changes nothing."""
    assert step("pricing=roofline") == step()
