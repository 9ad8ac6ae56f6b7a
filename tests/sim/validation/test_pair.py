"""The pair of the profile: its measures fit together, and its interval comes from the spread of prices."""

from dataclasses import replace

import pytest

from sim.validation import pair
from sim.validation.answer import NINETY
from sim.validation.reference import PAIR_LAYERS, Reference


@pytest.fixture(scope="module")
def reference():
    return Reference("v3_2048gpu")


@pytest.fixture(scope="module")
def found(reference):
    return pair.measures(reference.pair)


def test_streams_fit_into_the_span(found):
    assert max(found["compute"], found["communication"]) <= found["either"] <= found["span"]
    assert found["either"] <= found["compute"] + found["communication"]


def test_parts_add_up_to_the_kernels_of_their_streams(reference, found):
    parts = sum(ms for name, ms in found.items() if name.startswith("part ") and name.endswith(("compute", "weight")))
    kit = reference.pair
    spans = sum(end - start for lane in (0, 2) for start, end in kit.timing.kernels[lane])
    gaps = sum(sum(kit.fine.gap_ns[lane]) for lane in (0, 2))
    assert parts * PAIR_LAYERS == pytest.approx((spans - gaps) / 1e6)


def test_the_streams_of_a_part_add_up_to_it(found):
    whole = found["part mlp(W)"]
    assert found["part mlp(W) compute"] + found["part mlp(W) weight"] == pytest.approx(whole)


def test_layers_follow_each_other_at_the_period(found):
    assert found["period forward"] * PAIR_LAYERS == pytest.approx(found["span"], rel=0.03)
    assert found["period backward"] == pytest.approx(found["period forward"], rel=0.01)


def test_dearer_prices_are_dearer_by_their_spread(reference):
    pricer = reference.machine.pricer
    raised = pair._raised(pricer, ("attention", "measured"))
    op, on_comm = next(key for key, p in pricer.known.items() if (p.family, p.rung) == ("attention", "measured"))
    before, after = pricer.price(op, on_comm), raised.price(op, on_comm)
    assert after.ns == round(before.ns * (1 + before.spread))
    other = next(key for key, p in pricer.known.items() if p.family == "gemm")
    assert raised.price(*other) == pricer.price(*other)


def test_a_single_kernel_has_the_interval_of_its_price(reference):
    answer = pair.answers(reference)["kernel flash_fwd"]
    spread = next(p.spread for (op, _), p in reference.machine.pricer.known.items() if p.family == "attention")
    assert answer.high / answer.value - 1 == pytest.approx(NINETY * spread, rel=1e-3)


def test_a_slower_network_lengthens_exchanges_alone(reference, found):
    slow = Reference("v3_2048gpu", ("cluster.node.nic.bandwidth=25GB/s",))
    other = pair.measures(slow.pair)
    assert other["part combine(F)"] > 1.5 * found["part combine(F)"]
    assert other["ratio"] < 0.7 * found["ratio"]


def test_sharing_a_machine_changes_nothing(reference, found):
    machine = replace(reference.machine, pricer=replace(reference.machine.pricer))
    assert pair.measures(pair.pair(machine)) == found
