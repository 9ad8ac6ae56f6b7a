"""The clock that a step's own kernels leave."""

from dataclasses import replace

import pytest

from hwmodels import pace, unlike
from hwmodels.price import PACED
from hwmodels.units import NS_PER_S
from sim.assembly import machine
from sim.layout import clock, optimizer
from sim.layout.plan import lay_out
from sim.models.layer import COMMUNICATION, COMPUTE, WEIGHT
from sim.scenario.files import from_mapping
from sim.validation import torch_steps

RACK = {"base": "gb200x72", "gpus": 4}


def plan(node="h100x8", stack="megatron", precision="bf16", sequences=64, parallel=None, **more):
    return lay_out(from_mapping({
        "cluster": {"node": node, "nodes": 1}, "model": "llama3_8b", "precision": precision, "schedule": "1f1b",
        "stack": stack, "parallel": parallel or {}, "outputs": ["result"], "comm": {"collectives": "nccl"},
        "batch": {"sequences": sequences, "sequence_length": 8192, "micro_batch": 1}, **more,
    }))  # fmt: skip


def built(**given):
    return machine(plan(**given))


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


@pytest.mark.parametrize(("node", "least", "most"), [
    ("h100x8", 1.1, 1.25), ("h200x8", 1.1, 1.25), ("b200x8", 1.05, 1.15),
    (RACK, 1.05, 1.2), ("a100x8", 0.0, 0.0),
])  # fmt: skip
def test_only_cards_whose_joules_are_known_have_one(node, least, most):
    assert least <= of(node=node) <= most


def test_a_blackwell_step_draws_what_its_limit_allows():
    """Products as they were metered, one by one, in a step without tensor groups; less of them in FP8."""
    laid = plan(node=RACK, sequences=16)
    own = machine(laid)
    card = clock.rested(own)
    price, device, kernels = card.pricer.price, card.pricer.device, card.pricer.published
    step = [k for unit in card.units for way in "FBW" for part in card.parts(unit, way) for k in part.kernels]
    step = [kernel for kernel in step if kernel.lane in (COMPUTE, WEIGHT)]
    above = device.power_w - pace.BLACKWELL.idle
    watts = {"Gemm": above * kernels.products["bf16"].clock ** 2, "Memory": pace.MEMORY_W}
    drawn = sum(
        price(k.op).ns * watts.get(type(k.op).__name__, watts["Gemm"] * pace.BLACKWELL[1 + (k.op[0] == "backward")])
        for k in step
    )
    update = optimizer.tail(laid, card, 0).update_ns
    least = (4 * drawn + pace.UPDATE_W * update) / above * unlike.off(device, 4).ratio ** 2
    slowed = sum(price(kernel.op).ns for kernel in step if isinstance(kernel.op, PACED))
    each = sum(price(k.op).ns for k in step) + card.pricer.launch_gap_ns * sum(k.op.kernels for k in step)
    at = own.pricer.clock
    assert at > 1.03 and at * (4 * (each + (at - 1) * slowed) + update) == pytest.approx(least, rel=2e-3)
    assert of(node=RACK, sequences=16, precision="mxfp8") < at


def test_a_slower_card_and_a_lower_limit_of_blackwell():
    """A card of a lower clock draws less, so that its limit leaves it as it is; a lower limit takes its part."""

    def device(**keys):
        return {"node": {**RACK, "device": keys}, "nodes": 1}

    whole = of(node=RACK)
    assert of(cluster=device(clock="1.5 GHz")) == 1.0 < whole < of(cluster=device(power="900 W"))


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


def mixed(sequences, paired):
    return lay_out(from_mapping({
        "cluster": {"node": "h100x8", "nodes": 4}, "model": "qwen3_30b_a3b", "precision": "bf16", "stack": "megatron",
        "schedule": {"name": "interleaved", "chunks": 2}, "parallel": {"pipeline": 4, "expert": 8},
        "batch": {"sequences": sequences, "sequence_length": 4096}, "comm": {"collectives": "nccl"},
        "overlap": {"expert": paired}, "outputs": ["result"],
    }))  # fmt: skip


def test_exchanges_of_no_pair_are_a_rest():
    """Those of forwards that fill a pipeline and of gradients that drain it; with 64 micro-batches they are fewer."""
    few, many = mixed(64, True), mixed(512, True)
    steps = [step.kind for position in few.program.steps for step in position]
    exchanged = [step.kind.count("F") + step.kind.count("B") for position in few.program.steps for step in position]
    alone = sum(count for kind, count in zip(steps, exchanged, strict=True) if "+" not in kind)
    assert clock.waiting(few) == pytest.approx(alone / sum(exchanged)) and 0 < alone < sum(exchanged)
    assert clock.waiting(many) < 0.5 * clock.waiting(few)
    assert clock.waiting(mixed(64, False)) == 1.0
    one, more, none = (machine(each).pricer.clock for each in (few, many, mixed(64, False)))
    assert none < one < more


@pytest.mark.parametrize(("tensor", "watts"), [(1, 700), (8, 450)])
def test_the_clock_times_the_time_it_makes_is_what_the_limit_allows(tensor, watts):
    """Joules of micro-batches, of awaited exchanges and of updates, one by one, for one stage of a rank."""
    sequences = 16
    cluster = {"node": {"base": "h100x8", "device": {"power": f"{watts} W"}}, "nodes": 1}
    laid = plan(sequences=sequences, parallel={"tensor": tensor}, cluster=cluster)
    own = machine(laid)
    card, times = clock.rested(own), sequences * tensor // 8
    price, device = card.pricer.price, card.pricer.device
    kernels = [k for unit in card.units for direction in "FBW" for p in card.parts(unit, direction) for k in p.kernels]
    computing = [kernel for kernel in kernels if kernel.lane in (COMPUTE, WEIGHT)]
    awaited = [k for k in kernels if k.lane == COMMUNICATION and not (k.ahead or k.piece)]
    assert bool(awaited) == (tensor > 1)
    drawn = sum(pace.joules(kernel.op, price(kernel.op).ns) for kernel in computing)
    sms = {k.op: max(card.pricer.comm_sms, card.pricer.nccl.take(k.op, card.pricer.wires).sms) for k in awaited}
    drawn += sum(pace.joules(k.op, price(k.op).ns, sms[k.op] / device.sms) for k in awaited)
    slowed = sum(price(kernel.op).ns for kernel in computing if isinstance(kernel.op, PACED))
    gaps = card.pricer.launch_gap_ns * sum(kernel.op.kernels for kernel in computing)
    each = sum(price(kernel.op).ns for kernel in (*computing, *awaited)) + gaps
    update = optimizer.tail(laid, card, 0).update_ns
    least = pace.least_ns(device, times * drawn + pace.UPDATE_W * update / NS_PER_S, 8)
    at = own.pricer.clock
    assert at > 1.02 and at * (times * (each + (at - 1) * slowed) + update) == pytest.approx(least, rel=2e-3)


def test_a_rested_card_is_the_least():
    own = built()
    rested, unit = clock.rested(own), own.units[1]
    assert rested.pricer.clock == clock.RESTED and rested.unit_ns(unit) < own.unit_ns(unit)
    assert rested.stages == own.stages and clock.rested(own).pricer is rested.pricer
    other = built(node="a100x8")
    assert clock.rested(other) is other
    assert not clock.paces(replace(own.pricer, mode="roofline"))
