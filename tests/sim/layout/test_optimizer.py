"""What follows the last backward: who shards what, and how long rings take, by hand."""

from dataclasses import replace
from pathlib import Path

import pytest

from hwmodels.node import Link
from hwmodels.op import Memory
from sim import assembly
from sim.layout import optimizer, plan
from sim.models.family import weights
from sim.scenario import from_mapping, load

V3 = str(Path(__file__).parents[3] / "scenarios" / "v3_2048gpu.yaml")
FIXED = "placement=[4,4,4,4,4,4,4,4,4,4,4,4,4,4,4,1]"
EXPERT = 3 * 7168 * 2048
ATTENTION = 7168 * 1536 + 1536 * 24576 + 7168 * 576 + 512 * 32768 + 16384 * 7168
SMALL = {
    "cluster": {"node": "h800x8", "nodes": 1},
    "model": {"base": "deepseek_v2_lite", "layers": 4, "vocabulary": 1024},
    "parallel": {"pipeline": 2, "expert": 4},
    "schedule": "1f1b",
    "batch": {"micro_batches": 4},
    "placement": "even",
}


def laid_out(scenario):
    laid = plan.lay_out(scenario)
    return laid, assembly.machine(laid)


@pytest.fixture(scope="module")
def main():
    return laid_out(load(V3, [FIXED]))


@pytest.fixture(scope="module")
def small():
    return laid_out(from_mapping(SMALL))


def test_shards_of_v3(main):
    """Stage 7, four MoE layers: dense parts over 128 replicas x 2 copies, 4 of 256 experts over 2 x 2."""
    held = optimizer.shards(*main, 7)
    assert held.dense == 4 * (ATTENTION + EXPERT + 256 * 7168 + 256 + 1536 + 512 + 2 * 7168)
    assert held.experts == 4 * 4 * EXPERT
    assert (held.dense_ranks, held.expert_ranks) == (256, 4)
    assert held.updated == held.dense / 256 + held.experts / 4


@pytest.mark.parametrize("schedule", ["1f1b", "dualpipe", "dualpipev", "interleaved"])
def test_every_parameter_is_updated_once(schedule):
    """Over all ranks, the shards that AdamW updates are the parameters."""
    changes = ["schedule=" + schedule, "model.mtp_depth=1", "model.layers=6"]
    laid, machine = laid_out(from_mapping(SMALL, changes))
    updated = sum(optimizer.shards(laid, machine, stage).updated * laid.data for held in laid.holds for stage in held)
    shape = machine.site.shape
    # the prediction module's embedding is a copy where its rank does not hold the first stage
    copy = 0 if schedule.startswith("dualpipe") else shape.vocabulary * shape.hidden
    assert updated == pytest.approx(weights(shape, machine.units).total + copy, rel=1e-12)


def test_rings_on_one_node(small):
    """Reduce-scatter of FP32 over 4 GPUs of a node: 3/4 of the bytes at 160 GB/s and three hops of 3.33 us; experts
    have no replica, so nothing to reduce."""
    laid, machine = small
    held = optimizer.shards(laid, machine, 0)
    assert (held.dense_ranks, held.expert_ranks) == (4, 1)
    expected = held.dense * 4 * 3 / 4 / 160e9 + 3 * 3.33e-6
    tail = optimizer.tail(laid, machine, 0)
    assert [stage for stage, _ in tail.reduce_ns] == [0]
    assert tail.reduce_ns[0][1] == pytest.approx(expected * 1e9, abs=3)
    gather = held.dense * 2 * 3 / 4 / 160e9 + 3 * 3.33e-6
    assert tail.gather_ns == pytest.approx(gather * 1e9, abs=3)


def test_the_norm_is_one_number_of_every_rank(small):
    """An all-reduce of 4 bytes over eight GPUs passes 7/8 of them twice; slow links make that microseconds."""
    laid, machine = small
    links = machine.pricer.wires
    slow = replace(links, nvlink=Link(1e6, 1.0, links.nvlink.latency_s))
    late = optimizer.tail(laid, replace(machine, pricer=machine.pricer.over(slow)), 0).norm_ns
    assert (late - optimizer.tail(laid, machine, 0).norm_ns) / 1e3 == pytest.approx(2 * 7 / 8 * 4, rel=1e-3)


def test_rings_across_nodes(main):
    """V3's stage 7: dense gradients over 256 GPUs on 32 nodes are bound by NVLink (160 against 8 x 40 GB/s), experts
    over 4 GPUs on 4 nodes by their NICs."""
    held = optimizer.shards(*main, 7)
    tail = optimizer.tail(*main, 7)
    dense = held.dense * 4 * 255 / 256 / 160e9 + (256 - 32) * 3.33e-6 + 32 * 3.7e-6
    experts = held.experts * 4 * 3 / 4 / 40e9 + 4 * 3.7e-6
    assert dict(tail.reduce_ns)[7] == pytest.approx((dense + experts) * 1e9, abs=3)


def test_average_is_copied_to_the_host(small):
    """The exponential moving average: BF16 of the shard over PCIe at 0.91 x 64 GB/s."""
    laid, machine = small
    updated = round(optimizer.shards(laid, machine, 0).updated)
    expected = updated * 2 / (0.91 * 64e9) + 1e-6
    assert optimizer.tail(laid, machine, 0).average_ns == pytest.approx(expected * 1e9, abs=2)


def test_update_reads_and_writes_each_state_once(small):
    """AdamW: gradient, master, two moments in (12 bytes); master, two moments, a BF16 parameter out (10 bytes): no
    faster than HBM, no slower than a fifth of it."""
    laid, machine = small
    updated = optimizer.shards(laid, machine, 0).updated
    seconds = optimizer.tail(laid, machine, 0).update_ns / 1e9
    assert updated * 22 / 3.35e12 < seconds < 5 * updated * 22 / 3.35e12


def test_the_last_rank_has_its_own_embedding_for_prediction():
    changes = [FIXED, "schedule=1f1b"]
    laid, machine = laid_out(load(V3, changes))
    table = 129280 * 7168
    held = optimizer.shards(laid, machine, 15)
    layers = 2 * (ATTENTION + EXPERT + 256 * 7168 + 256 + 1536 + 512 + 2 * 7168)
    projection = 2 * 7168 * 7168 + 2 * 7168
    assert held.dense == layers + projection + 2 * 7168 + table + table  # head and embedding


@pytest.mark.parametrize("zero", [0, 1, 3])
def test_megatron_sets_all_gradients_that_it_sums_to_zero(zero):
    """Those of all parameters of a rank, or of its shard where gradients are sharded."""
    scenario = {
        "cluster": {"node": "h100x8", "nodes": 1}, "model": "llama3_8b", "precision": "bf16", "stack": "megatron",
        "parallel": {"zero": zero}, "schedule": "1f1b", "outputs": ["result"],
        "batch": {"sequences": 8, "sequence_length": 4096},
    }  # fmt: skip
    laid, own = laid_out(from_mapping(scenario))
    shards = optimizer.shards(laid, own, 0)
    part = shards.updated / shards.dense
    around = [kernel.op for kernel in own.lowering.update(own.site, own.units, part)]
    adam = Memory("adam", round(shards.updated), 16, 14)
    zeros = Memory("fill", round(shards.updated if zero > 1 else shards.dense), 0, 4)
    expected = sum(own.pricer.price(op).ns for op in (adam, zeros, *around))
    assert optimizer.tail(laid, own, 0).update_ns == expected


TORCH = {
    "cluster": {"node": "h100x8", "nodes": 32}, "model": {"base": "llama3_8b", "layers": 2}, "schedule": "1f1b",
    "parallel": {"zero": 3}, "batch": {"sequences": 256, "sequence_length": 2048, "micro_batch": 1},
    "comm": {"collectives": "nccl"}, "precision": "bf16",
}  # fmt: skip


def update_ns(**stack):
    laid, machine = laid_out(from_mapping(TORCH | {"stack": {"name": "torch"} | stack}))
    return optimizer.tail(laid, machine, 0).update_ns


def test_a_loop_over_parameters_waits_for_each_ones_count():
    """The host is not ahead of the GPU behind such a wait, so that its own work for eight operations shows, tensor for
    tensor: two layers of nine, and three of the ends."""
    tensors, operation = 2 * 9 + 3, 0.72 * 12.4e3
    loop = update_ns(update="loop")
    assert loop >= tensors * 8 * operation
    assert loop - update_ns(update="foreach") > tensors * 7 * operation


def test_metrics_take_the_host_a_tensor_a_rank():
    """Zeros and a copy for each of 256 ranks, and two collectives whose bytes are nothing."""
    none, one, four = (update_ns(metrics=count) for count in (0, 1, 4))
    assert four - none == pytest.approx(4 * (one - none))
    launches = 256 * (0.72 + 0.2) * 12.4e3
    assert launches < one - none < launches + 600e3
