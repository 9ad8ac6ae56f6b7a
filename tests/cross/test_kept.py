"""What is kept from run to run changes no answer: any key moved after another run, as where nothing ran before."""

from functools import cache

import pytest

from sim import assembly
from sim.layout import plan
from sim.scenario import from_mapping
from sim.simulation import run

BASE = {
    "cluster": {"node": "h800x8", "nodes": 4, "fabric": "mrft"},
    "model": {"base": "deepseek_v2_lite", "layers": 12, "mtp_depth": 1, "q_rank": 128, "vocabulary": 1024},
    "parallel": {"pipeline": 4, "expert": 8},
    "schedule": "dualpipe",
    "batch": {"micro_batches": 8, "sequence_length": 512},
    "placement": "even",
    "outputs": ["result"],
}
MOVED = (
    "batch.micro_batches=12", "batch.sequence_length=1024", "batch.micro_batch=2", "placement=balanced",
    "schedule=zb1p", "schedule=dualpipev", "precision=bf16", "pricing=roofline", "parallel.expert=4",
    "parallel.pipeline=2",
    "comm.sms=12", "comm.hold=while_running", "comm.exchange=closed", "routing.redundant_experts=8", "cluster.nodes=8",
    "comm.messages=waited", "optimizer.reduce=after", "optimizer.name=muon", "comm.waits=measured",
    "recompute=none", "recompute=full", "recompute={modules: [moe]}", "recompute={layers: 2}",
    "recompute={layers: 1, method: block}", "states.moments=fp32", "states.gradients=bf16", "states.master=bf16",
    "states.parameters=bf16", "optimizer.offload=host",
    "cluster.node.nic.bandwidth=5GB/s", "cluster.node.nvlink.bandwidth=50GB/s",
    "cluster.node.device.hbm.bandwidth=1TB/s", "cluster.node.device.clock=1GHz", "cluster.node.device.sms=66",
    "cluster.fabric.link.efficiency=0.4", "cluster.node.nic.latency=1ms",
    "cluster.fabric=mpft", "cluster.routing=static", "model.layers=13", "model.mtp_depth=0", "limits.memory=1GB",
    "faults=[{kind: gpu, at: 3, slower: 1.5}]", "routing=sampled", "fold=false",
)  # fmt: skip
"""Every kind of key that decides placement, prices, kits or the run of ranks that are alike, or that leaves them be."""


def answer(*overrides, interval=False):
    found = run(from_mapping(BASE, overrides), interval)
    return found.summary, found.waterfall, [vars(stage) for stage in found.stages]


def test_a_limit_of_what_waits_is_no_other_limit():
    few, many = (answer(f"schedule={{name: zb1p, waiting: {n}}}")[0] for n in (0, 3))
    assert few["step_time_s"] > many["step_time_s"] and few["worst_memory"] != many["worst_memory"]


def forget():
    assembly._prices.cache_clear()
    plan._checked.cache_clear()


@cache
def fresh():
    """The answer where nothing ran before."""
    forget()
    return answer()


@pytest.mark.parametrize("moved", MOVED)
def test_a_run_after_others_answers_as_the_first(moved, monkeypatch):
    """Begins where the answer that is not moved came last, also behind another test, and so it ends. Intervals, which
    are of the same prices, are asked of what is moved."""
    expected = fresh()
    after = answer(moved, interval=True)
    assert answer() == expected
    for module, name in ((assembly, "_prices"), (plan, "_checked")):  # as if nothing had run
        monkeypatch.setattr(module, name, cache(getattr(module, name).__wrapped__))
    assert answer(moved, interval=True) == after
