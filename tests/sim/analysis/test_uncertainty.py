"""Intervals: against full runs with prices scaled, against the normal quantile, keyed by the seed."""

from dataclasses import fields
from functools import cache, partial

import numpy as np
import pytest

import sim
from hwmodels.price import Pricer
from hwmodels.units import NS_PER_S
from sim import assembly
from sim.analysis import graph, metrics, uncertainty
from sim.analysis.uncertainty import Cause, Sensitivity, draws
from sim.layout import plan
from sim.scenario import from_mapping
from sim.simulation import simulated as simulate
from sim.step.template import STREAMS
from tests.oracles.timelines import last_end

TINY = {
    "cluster": {"node": "h800x8", "nodes": 2},
    "model": {"base": "deepseek_v2_lite", "layers": 8, "mtp_depth": 1, "q_rank": 128, "vocabulary": 1024},
    "parallel": {"pipeline": 4, "expert": 4},
    "schedule": "dualpipe",
    "batch": {"micro_batches": 8, "sequence_length": 2048},
    "placement": "even",
    "outputs": ["result"],
}
SUMMARY = {
    "step_time_s": 10.0, "tokens_per_day": 100.0, "gpu_hours_per_trillion_tokens": 5.0,
    "tflops_per_gpu": {"causal": 300.0}, "mfu": {"causal": 0.3}, "phases_s": {"forward": 6.0, "bubble": 4.0},
}  # fmt: skip
Z90 = 1.6449
"""Normal quantile of 95 %: half a 90 % interval in standard deviations."""


@cache
def simulated(*overrides):
    laid = plan.lay_out(from_mapping(TINY, overrides))
    machine = assembly.machine(laid)
    ran = simulate(laid, machine)
    books = metrics.ledgers(ran.lowered, ran.timeline, machine.pricer)
    found = graph.graph(ran.lowered, ran.timeline, *([ran.times.pace] if ran.times else []))
    return ran.lowered, ran.timeline, uncertainty.sensitivity(ran.lowered, found, books, draw=partial(draws, seed=0))


@cache
def summary(*overrides):
    return sim.run(from_mapping(TINY, overrides)).summary


def intervals(sensitivity, summary):
    return uncertainty.intervals(sensitivity, summary, uncertainty.drawn(sensitivity, summary["step_time_s"]))


def cause(name, step_s):
    """Ten percent of it are `step_s` of the step, up and down."""
    return Cause(name, 0.1, step_s, -step_s)


def found(*causes):
    z = draws(causes, 0)
    longer_s = np.array([c.step_s for c in causes]) @ z
    return Sensitivity(tuple(causes), tuple({"forward": c.step_s} for c in causes), z, longer_s)


# --- sensitivities ----------------------------------------------------------------------------------------------------


def dearer(patch, family, rung, spread):
    """Every price of a family and rung raised by `spread`, alone and beside, gaps untouched."""
    plain = Pricer.price

    def price(self, op, on_comm_sms=False):
        quote = plain(self, op, on_comm_sms)
        if (quote.family, quote.rung) != (family, rung):
            return quote
        raised = (round(ns * (1 + spread)) for ns in (quote.ns, quote.beside_ns))
        return quote._replace(**dict(zip(("ns", "beside_ns"), raised, strict=True)))

    patch.setattr(Pricer, "price", price)


@pytest.mark.parametrize("schedule", ["dualpipe", "1f1b", "zb1p"])
@pytest.mark.parametrize("which", range(4))
def test_the_largest_causes_against_full_runs(monkeypatch, schedule, which):
    """The step with every price of a family one spread dearer, and cheaper, lowered and simulated anew. Dearer: to
    rounding, whichever path is then the longest. Cheaper: what happens inside a step is taken to be linear."""
    low, timeline, found = simulated(f"schedule={schedule}")
    prices = {(t.price.family, t.price.rung) for row in low.kits for kit in row for lane in kit.fine.tasks
              for t in lane if t.price}  # fmt: skip
    label = {f"{uncertainty.NAMES.get(f, f)} ({r})": (f, r) for f, r in prices}
    cause = [c for c in found.causes if c.name in label][which]

    def moved(spread):
        with monkeypatch.context() as patch:
            dearer(patch, *label[cause.name], spread)
            patch.setattr(assembly, "_prices", assembly._prices.__wrapped__)  # nothing kept from before, nor for after
            laid = plan.lay_out(from_mapping(TINY, [f"schedule={schedule}"]))
            again = simulate(laid, assembly.machine(laid)).timeline
        return (last_end(again) - last_end(timeline)) / NS_PER_S

    assert cause.step_s > 0 and cause.step_s == pytest.approx(moved(cause.spread), rel=0.001)
    assert cause.cheaper_s == pytest.approx(moved(-cause.spread), rel=0.05)


def test_causes_come_largest_first_and_each_once():
    causes = simulated()[2].causes
    sizes = [abs(c.step_s) for c in causes]
    assert sizes == sorted(sizes, reverse=True)
    assert len({c.name for c in causes}) == len(causes)
    assert {"pipeline messages", "optimizer and its traffic"} <= {c.name for c in causes}


def test_phases_move_with_the_prices_in_them():
    """What a cause adds to all phases of all ranks is positive and more than it adds to the step per rank."""
    for cause, phases in zip(*[getattr(simulated()[2], n) for n in ("causes", "phases_s")], strict=True):
        if cause.name not in ("pipeline messages",):
            assert sum(phases.values()) > 0, cause.name


def test_a_family_in_no_template_is_no_cause():
    causes = simulated("pricing=roofline")[2].causes
    assert {c.name.split(" (")[-1] for c in causes if "(" in c.name} == {"roofline)"}


# --- intervals --------------------------------------------------------------------------------------------------------


def test_one_cause_is_a_normal_interval():
    low, high = intervals(found(cause("a", 0.5)), SUMMARY)["intervals_90"]["step_time_s"]
    assert low == pytest.approx(10 - Z90 * 0.5, abs=0.05) and high == pytest.approx(10 + Z90 * 0.5, abs=0.05)


def test_causes_are_independent():
    """3 and 4 hundredths make 5, not 7."""
    low, high = intervals(found(cause("a", 0.3), cause("b", 0.4)), SUMMARY)["intervals_90"]["step_time_s"]
    assert (high - low) / 2 == pytest.approx(Z90 * 0.5, rel=0.05)


def test_a_wider_spread_is_a_wider_interval():
    widths = []
    for size in (0.0, 0.1, 0.2, 0.8):
        low, high = intervals(found(cause("a", size)), SUMMARY)["intervals_90"]["step_time_s"]
        assert low <= 10 <= high
        widths.append(high - low)
    assert widths[0] == 0 and widths == sorted(widths)
    assert widths[2] == pytest.approx(2 * widths[1]) and widths[3] == pytest.approx(8 * widths[1])


def test_what_goes_with_the_step_moves_with_it():
    out = intervals(found(cause("a", 0.5)), SUMMARY)["intervals_90"]
    low, high = out["step_time_s"]
    assert out["tokens_per_day"] == pytest.approx([100 * 10 / high, 100 * 10 / low], rel=1e-3)
    assert out["gpu_hours_per_trillion_tokens"] == pytest.approx([5 * low / 10, 5 * high / 10])
    assert out["mfu"]["causal"] == pytest.approx([0.3 * 10 / high, 0.3 * 10 / low], rel=1e-3)
    assert 0 <= out["bubble_fraction"][0] <= out["bubble_fraction"][1] <= 1


def test_a_phase_moves_with_its_causes_and_the_bubble_is_what_is_left():
    """All that a cause adds to the step it adds to forward: 6 s move as far as 10, and 4 s of bubble stay."""
    out = intervals(found(cause("a", 0.5)), SUMMARY)["intervals_90"]
    low, high = out["step_time_s"]
    assert out["phases_s"] == {
        "forward": pytest.approx([low - 4, high - 4]), "bubble": pytest.approx([4, 4]),
    }  # fmt: skip
    assert out["bubble_fraction"] == pytest.approx([4 / high, 4 / low], rel=1e-3)


def test_draws_are_keyed_by_seed_and_name_and_not_by_place():
    a, b = cause("a", 0.3), cause("b", 0.4)
    one, two = draws([a, b], 0), draws([b, a], 0)
    assert (one[0] == two[1]).all() and (one[1] == two[0]).all()
    assert (one[0] != draws([a], 1)[0]).any() and abs(np.corrcoef(one)[0, 1]) < 0.05
    assert one.shape == (2, uncertainty.DRAWS)


def test_no_draw_makes_a_step_negative():
    low, _ = intervals(found(cause("a", 50.0)), SUMMARY)["intervals_90"]["step_time_s"]
    assert low == 5.0


@pytest.mark.parametrize("schedule", ["dualpipe", "zb1p"])
def test_a_run_is_inside_its_own_intervals(schedule):
    s = summary(f"schedule={schedule}")
    out = s["intervals_90"]
    for name in ("step_time_s", "tokens_per_day", "gpu_hours_per_trillion_tokens", "bubble_fraction"):
        assert out[name][0] < s[name] < out[name][1], name
    for name in ("mfu", "tflops_per_gpu"):
        assert all(low < s[name][kind] < high for kind, (low, high) in out[name].items())
    for name, value in s["phases_s"].items():
        assert out["phases_s"][name][0] <= value <= out["phases_s"][name][1], name


def test_intervals_are_repeatable_and_move_with_the_seed():
    one, two = (sim.run(from_mapping(TINY)).summary["intervals_90"] for _ in range(2))
    assert one == two
    other = summary("seed=1")
    assert other["step_time_s"] == summary()["step_time_s"] and other["intervals_90"] != one


def test_doubtful_prices_are_a_wider_interval():
    def width(*overrides):
        s = summary(*overrides)
        low, high = s["interval_parts"]["prices"]
        return (high - low) / s["step_time_s"]

    assert width("pricing=roofline") > 2 * width()


# --- ranks that differ ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("uneven", ["routing={kind: sampled, spread: 0.6}", "jitter=0.1"])
def test_uneven_ranks_are_no_doubt_about_messages(uneven):
    """One spread of messages moves the step by little more than without: what a step takes is not on the wire."""

    def wires(*more):
        tornado = summary("schedule=1f1b", *more)["tornado"]
        return next(b["step_s"] for b in tornado if b["cause"] == "pipeline messages")

    assert 0 < wires(uneven) <= 1.5 * wires()


def test_prices_move_a_slow_rank_as_much_as_it_is_slow():
    """All compute of all ranks twice as slow: one spread of a product moves the step by twice as much."""

    def attention(slower):
        faults = ", ".join(f"{{kind: node, at: {n}, slower: {slower}}}" for n in (0, 1))
        return next(b["step_s"] for b in summary("schedule=1f1b", f"faults=[{faults}]")["tornado"]
                    if b["cause"].startswith("attention"))  # fmt: skip

    assert attention(2) == pytest.approx(2 * attention(1), rel=0.1)


def test_what_ifs_are_paired():
    """A rank that is 20 % slower: prices that make the healthy run long make this one long too, so their difference is
    surer than either."""
    chosen = ("schedule=1f1b", "faults=[{kind: gpu, at: 6, slower: 1.2}]")
    healthy, faulty = simulated(chosen[0])[2], simulated(*chosen)[2]
    one, two = healthy.longer_s, faulty.longer_s
    assert np.corrcoef(one, two)[0, 1] > 0.98
    assert np.ptp(np.percentile(two - one, (5, 95))) < 0.5 * np.ptp(np.percentile(one, (5, 95)))


def test_dearer_templates_keep_their_gaps():
    low = simulated()[0]
    kit = low.kits[0][0]
    price = next(t.price for lane in kit.fine.tasks for t in lane if t.price)
    raised = uncertainty._dearer(kit.fine, price.family, price.rung, 1.0)
    for lane in STREAMS:
        for old, new, gap, task in zip(kit.fine.alone[lane], raised.alone[lane], kit.fine.gap_ns[lane],
                                       kit.fine.tasks[lane], strict=True):  # fmt: skip
            mine = task.price and (task.price.family, task.price.rung) == (price.family, price.rung)
            assert new == (2 * (old - gap) + gap if mine else old)
    assert uncertainty._dearer(kit.fine, "nothing", "measured", 1.0) is kit.fine
    assert [list(lane) for lane in raised.tasks] == [list(lane) for lane in kit.fine.tasks]
    same = {field.name for field in fields(kit.fine)} - {"alone", "beside", "tasks"}
    assert all(getattr(raised, name) == getattr(kit.fine, name) for name in same)
