"""What ranks of a tensor group hold alike, by hand, and what it takes to sum its gradients."""

import pytest

from sim import assembly
from sim.layout import duplicated, optimizer
from sim.layout.plan import lay_out
from sim.scenario import from_mapping


def built(model="llama3_70b", stack="megatron", precision="bf16", schedule="1f1b", **parallel):
    plan = lay_out(from_mapping({
        "cluster": {"node": "h100x8", "nodes": 2}, "model": model, "precision": precision, "stack": stack,
        "parallel": parallel, "schedule": schedule, "outputs": ["result"],
        "batch": {"sequences": 32, "sequence_length": 1024},
    }))  # fmt: skip
    return plan, assembly.machine(plan)


def test_norms_and_gates_are_held_by_all():
    """Llama-3 70B over two positions: two norms a layer, and the last one behind them. Qwen3 has norms of queries and
    of keys, 128 wide, and the gate of 128 experts."""
    plan, machine = built(tensor=8, pipeline=2)
    layers = [sum(unit.block for unit in machine.stages[stage]) for stage in range(2)]
    held = [duplicated.parameters(plan, machine, position) for position in range(2)]
    assert held == [2 * 8192 * layers[0], 2 * 8192 * layers[1] + 8192]
    plan, machine = built("qwen3_30b_a3b", tensor=2, expert=8)
    assert duplicated.parameters(plan, machine, 0) == 48 * (2 * 2048 + 2 * 128 + 128 * 2048) + 2048


def test_latents_are_not_divided():
    """DeepSeek-V2-Lite compresses keys and values to 512, with a rotary key of 64, on every rank."""
    plan, machine = built("deepseek_v2_lite", tensor=2, expert=8)
    each = 2048 * 576 + 2 * 2048 + 512
    assert duplicated.parameters(plan, machine, 0) == 27 * each + 26 * 64 * 2048 + 2048


def test_their_gradients_are_summed_before_the_norm():
    """In FP32, over the eight ranks of a node."""
    plan, machine = built(tensor=8)
    took, count = duplicated.sync_ns(plan, machine, 0), duplicated.parameters(plan, machine, 0)
    bound = count * 4 * 2 * 7 / 8 / machine.pricer.wires.nvlink.effective * 1e9
    assert bound < took < bound + 200_000
    alone = built(tensor=8, sequence=False)
    assert duplicated.sync_ns(*alone, 0) == 0
    assert optimizer.tail(plan, machine, 0).norm_ns == optimizer.tail(*alone, 0).norm_ns + took


@pytest.mark.parametrize("parallel", [{"tensor": 1}, {"tensor": 8, "sequence": False}])
def test_nothing_is_summed_where_all_have_used_them_alike(parallel):
    assert duplicated.sync_ns(*built(**parallel), 0) == 0


def test_a_tied_table_of_torch_is_summed_too():
    """Before its update, which follows no norm."""
    tied, untied = ({"base": "llama3_70b", "layers": 8, "tied": each} for each in (True, False))
    took, none = (optimizer.tail(*built(model, "torch", pipeline=2), 0).norm_ns for model in (tied, untied))
    assert took > none == 0
