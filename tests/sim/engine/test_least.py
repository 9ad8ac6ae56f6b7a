"""What a step takes at least is never more than what its run takes, and close to it where nothing is in the way."""

import pytest

from sim import assembly
from sim.engine import steps
from sim.engine.least import computed_ns, least_ns
from sim.engine.lowering import lower
from sim.layout.plan import lay_out
from sim.scenario import from_mapping

SMALL = {
    "cluster": {"node": "h800x8", "nodes": 4}, "model": {"base": "deepseek_v2_lite", "layers": 8},
    "parallel": {"pipeline": 4, "expert": 8}, "schedule": "1f1b", "batch": {"micro_batches": 8, "micro_batch": 4},
    "outputs": ["result"],
}  # fmt: skip
WAYS = {
    "1f1b": (), "dualpipe": ("schedule=dualpipe",), "dualpipev": ("schedule=dualpipev",), "zb1p": ("schedule=zb1p",),
    "gpipe": ("schedule=gpipe",), "interleaved": ("schedule=interleaved",), "recompute": ("recompute=full",),
    "waited": ("schedule=dualpipe", "comm.messages=waited"), "after": ("optimizer.reduce=after",),
    "offload": ("offload=1",), "megatron": ("stack=megatron", "precision=bf16", "overlap.gradients=true"),
}  # fmt: skip


def least(words):
    plan = lay_out(from_mapping(SMALL, words))
    lowered = lower(plan, machine := assembly.machine(plan))
    ends = steps.run(lowered.actors, lowered.kits).end
    return computed_ns(plan, machine), least_ns(lowered.actors), ends


@pytest.mark.parametrize("words", WAYS.values(), ids=list(WAYS))
def test_no_step_takes_less(words):
    computed, by_order, end = least(words)
    assert 0.5 * end < computed <= by_order <= end
    assert by_order > 0.97 * end
