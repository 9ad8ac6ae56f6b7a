"""What a step and a rank take at least is never more than what a run says, and near it where nothing is in the way."""

import pytest

from sim import assembly
from sim.experiments.least import computed_s, least_bytes, least_laid_out_s, least_s
from sim.layout.plan import lay_out
from sim.scenario import from_mapping
from sim.simulation import run

SMALL = {
    "cluster": {"node": "h800x8", "nodes": 4}, "model": {"base": "deepseek_v2_lite", "layers": 8},
    "parallel": {"pipeline": 4, "expert": 8}, "schedule": "1f1b", "batch": {"micro_batches": 8, "micro_batch": 4},
    "outputs": ["result"],
}  # fmt: skip
HEADY = "parallel.pipeline=8", "parallel.expert=4", "model.vocabulary=409600"
WAYS = {
    "1f1b": (), "dualpipe": ("schedule=dualpipe",), "dualpipev": ("schedule=dualpipev",), "zb1p": ("schedule=zb1p",),
    "gpipe": ("schedule=gpipe",), "interleaved": ("schedule=interleaved",), "recompute": ("recompute=full",),
    "waited": ("schedule=dualpipe", "comm.messages=waited"), "after": ("optimizer.reduce=after",),
    "offload": ("offload=1",), "megatron": ("stack=megatron", "precision=bf16", "overlap.gradients=true"),
    "tensor": ("stack=megatron", "precision=bf16", "parallel.tensor=2"), "few SMs": ("schedule=gpipe", "comm.sms=8"),
    "torch": ("stack=torch", "precision=bf16", "parallel.pipeline=1", "parallel.expert=1", "schedule=null"),
    "no exchanges": ("schedule=interleaved", "parallel.expert=1"),
    "some layers": ("recompute={layers: 1, method: block}",),
    "ends": (*HEADY, "schedule=1f1b"), "ends of dualpipe": (*HEADY, "schedule=dualpipe", "batch.micro_batches=16"),
    "ends of vee": ("model.vocabulary=409600", "schedule=dualpipev"),
    "letters": ("schedule=1f1b", "placement=Ettttt|t|t|tL", "model.vocabulary=409600"),
}  # fmt: skip


def least(words):
    scenario = from_mapping(SMALL, words)
    plan = lay_out(scenario)
    summary = run(scenario, interval=False).summary
    machine = assembly.machine(plan)
    priced = assembly.prices(scenario, assembly.held_always(plan))
    screened = least_s(plan, priced)
    seconds = screened, computed_s(plan, machine), least_laid_out_s(plan, machine), summary["step_time_s"]
    return seconds, (least_bytes(plan, priced), summary["worst_memory"]["peak_bytes"])


@pytest.mark.parametrize("words", WAYS.values(), ids=list(WAYS))
def test_no_step_takes_less(words):
    (screened, computed, laid_out, step), (bytes_at_least, peak) = least(words)
    assert 0.3 * step < screened <= step
    assert 0.5 * step < computed <= laid_out <= step
    assert laid_out > 0.9 * step
    assert 0.2 * peak < bytes_at_least <= peak


def test_a_last_stage_with_a_large_head_takes_what_it_takes():
    """The mean of all positions says nothing of it: here it has most of the work, and nothing else can be on it."""
    (screened, _, _, step), _ = least(WAYS["ends"])
    mean, _ = least(("parallel.pipeline=8", "parallel.expert=4"))
    assert 0.8 * step < screened <= step and screened > 1.5 * mean[0]
