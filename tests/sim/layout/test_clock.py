"""The clock that a step's own kernels leave."""

from dataclasses import replace

import pytest

from sim.assembly import machine
from sim.layout import clock
from sim.layout.plan import lay_out
from sim.scenario.files import from_mapping
from sim.validation import torch_steps


def built(node="h100x8", stack="megatron", precision="bf16", sequences=64, parallel=None, **more):
    return machine(lay_out(from_mapping({
        "cluster": {"node": node, "nodes": 1}, "model": "llama3_8b", "precision": precision, "schedule": "1f1b",
        "stack": stack, "parallel": parallel or {}, "outputs": ["result"], "comm": {"collectives": "nccl"},
        "batch": {"sequences": sequences, "sequence_length": 8192, "micro_batch": 1}, **more,
    })))  # fmt: skip


def of(**given):
    return built(**given).pricer.clock


def test_clocks_of_steps_that_were_measured():
    """One sample of each, at a moment of its step; time goes by the clock to -0.57 (1,399 and 1,650 us of a product at
    1,980 and 1,479 MHz, hwmodels/power.py). Nothing of these runs is an input."""
    offs = []
    for run in torch_steps.runs()[::2]:
        own = machine(lay_out(from_mapping(torch_steps.scenario(run)))).pricer.clock
        offs.append(own / (1980 / run["clock_mhz"]) ** 0.57 - 1)
    assert max(map(abs, offs)) < 0.07 and abs(sum(offs) / len(offs)) < 0.04
    bound = next(run for run in torch_steps.runs() if run["name"] == "sm_24L_1k1")
    assert machine(lay_out(from_mapping(torch_steps.scenario(bound)))).pricer.clock == 1.0


@pytest.mark.parametrize(("node", "paced"), [("h100x8", True), ("h200x8", True), ("b200x8", False), ("a100x8", False)])
def test_only_cards_whose_joules_are_known_have_one(node, paced):
    own = of(node=node)
    assert (1.1 < own < 1.25) if paced else own == 0.0


def test_kernels_of_the_profile_keep_their_prices():
    assert of(stack="deepseek", precision="fp8") == 0.0


def test_a_lower_limit_and_more_work_before_an_update_leave_less():
    one, more = (of(sequences=count) for count in (8, 64))
    assert one < more
    capped = of(cluster={"node": {"base": "h100x8", "device": {"power": "500 W"}}, "nodes": 1})
    assert capped > 1.1 * more


def test_waiting_for_exchanges_is_a_rest():
    """Of a tensor group; chunks beside products wait for nobody."""
    waits, hidden = (of(parallel={"tensor": 8}, overlap={"tensor": chunked}) for chunked in (False, True))
    assert waits < hidden


def test_a_rested_card_is_the_least():
    own = built()
    rested, unit = clock.rested(own), own.units[1]
    assert rested.pricer.clock == clock.RESTED and rested.unit_ns(unit) < own.unit_ns(unit)
    assert rested.stages == own.stages and clock.rested(own).pricer is rested.pricer
    other = built(node="b200x8")
    assert clock.rested(other) is other
    assert not clock.paces(replace(own.pricer, mode="roofline"))
