"""Attention in several kernels: its products, what it keeps, and what runs again."""

import pytest

from hwmodels.document import DocumentError
from hwmodels.op import Attention, Gemm, Memory
from sim.assembly import machine
from sim.layout.plan import lay_out
from sim.models.stacks import unfused
from sim.scenario import from_mapping

CAUSAL = Attention("forward", 2, 8, 1024, 96, 96)


def on(stack, attention, **changes):
    plain = {
        "cluster": {"node": "a100x8", "nodes": 1}, "model": "gpt3_175b", "schedule": "1f1b", "precision": "bf16",
        "stack": {"name": stack, "attention": attention}, "parallel": {"tensor": 8},
        "batch": {"micro_batches": 1, "micro_batch": 4, "sequence_length": 2048},
    }  # fmt: skip
    return machine(lay_out(from_mapping(plain | changes)))


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_products_work_on_all_pairs(direction):
    """Two products forward, four backward (the scores are kept); one kernel of all does five there."""
    op = CAUSAL._replace(direction=direction, causal=False)
    made = (unfused.attend if direction == "forward" else unfused.attend_backward)(op)
    flop = sum(kernel.op.flop() for kernel in made)
    assert flop == op.flop() * (1 if direction == "forward" else 4 / 5)
    assert sum(isinstance(kernel.op, Gemm) for kernel in made) == (2 if direction == "forward" else 4)


def test_a_causal_softmax_reads_half_of_each_row():
    softmax = next(k.op for k in unfused.attend(CAUSAL) if k.name == "sdpa_softmax")
    assert softmax == Memory("softmax", 2 * 8 * 1024, 1024.0, 2048.0)


@pytest.mark.parametrize("stack", ["megatron", "torch"])
def test_it_keeps_five_bytes_a_score_until_core_attention_runs_again(stack):
    """arXiv:2205.05198 sec 4.1: 5 a s^2 b, which selective recomputation does without."""
    tokens, heads, length = 4 * 2048, 96 // 8, 2048

    def kept(attention, **changes):
        own = on(stack, attention, **changes)
        unit = next(unit for unit in own.units if unit.block)
        return own.lowering.kept(own.site, unit).fixed

    again = {"recompute": {"modules": ["core_attention"]}}
    assert kept("unfused") - kept("cudnn") == 5 * heads * length * tokens
    assert kept("unfused", **again) == kept("cudnn", **again)


def test_core_attention_again_is_all_of_its_kernels():
    own = on("megatron", "unfused", recompute={"modules": ["core_attention"]})
    unit = next(unit for unit in own.units if unit.block)
    again = [k.name for p in own.parts(unit, "B") if p.name.endswith("again") for k in p.kernels]
    assert again == ["sdpa_scores", "sdpa_softmax", "sdpa_dropout", "sdpa"]


def test_another_stack_has_its_own():
    with pytest.raises(DocumentError, match=r"stack\.attention: deepseek runs without it; it goes with: torch, m"):
        on("deepseek", "flash2", parallel={})
