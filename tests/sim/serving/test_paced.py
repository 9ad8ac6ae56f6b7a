"""The clock of steps of prompts: joules as an H200's kernels drew them, and what the power limit leaves."""

import json
import math
import statistics
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwmodels import device, pace, power, unlike
from hwmodels.op import Attention, Gemm, GroupedGemm, Memory
from hwmodels.units import MICRO, NS_PER_S, TERA
from sim.scenario.values import Routing
from sim.serving import paced
from sim.serving.cached import PerHead
from sim.serving.measured import card, multiplies
from sim.serving.rank import Batch
from tests.sim.serving.instances import stepper

TIMED = Path(__file__).parents[3] / "numerics" / "card" / "timed"
LIMIT_W = 700.0
SHORT_US, LONG_US = 100.0, 3000.0
"""Bursts between: longer ones meet the limit themselves."""
EVEN = Routing("balanced", redundant_experts=32)


@cache
def timed(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((TIMED / f"{name}.json").read_text(encoding="utf-8"))
    return content


def attended(row: dict[str, Any]) -> float:
    """FLOP of attention's forward kernel."""
    op = Attention("forward", row["batch"], row["heads"], row["sequence"], row["qk"], row["v"], row["causal"])
    return op.flop()


def drawn(name: str, row: dict[str, Any], flop: float) -> float | None:
    """Joules a FLOP of a kernel that was timed in a burst and without a pause."""
    if "loaded" not in row:
        return None
    us = row["us"] - timed(name)["events_us"]
    if not SHORT_US <= us <= LONG_US:
        return None
    return (LIMIT_W - power.IDLE_W) * (row["loaded"]["us"] / us) ** (1 / power.EXPONENT) * us * MICRO / flop


def test_joules_are_those_of_metered_kernels() -> None:
    """Medians of all kernels of 0.1 to 3 ms that ran under load."""
    blocks, bursts = timed("blocks")["rows"], timed("bursts")["rows"]
    scaled = [drawn("blocks", row, 2.0 * row["m"] * row["n"] * row["k"]) for row in blocks]
    plain = [drawn("bursts", row, 2.0 * row["m"] * row["n"] * row["k"]) for row in bursts if row["op"] == "gemm"]
    forward = [row for row in bursts if row["op"] == "attention" and row["direction"] == "forward"]
    attends = [drawn("bursts", row, attended(row)) for row in forward]
    for each, told in ((scaled, pace.BLOCKS_J), (plain, pace.BF16_J), (attends, pace.ATTENTION_J)):
        assert statistics.median(one for one in each if one is not None) == pytest.approx(told, rel=0.03)
    watts = [
        row["loaded"]["power.draw"] - power.IDLE_W
        for row in bursts if row["op"] == "memory" and "loaded" in row and "Adam" not in row["name"]
    ]  # fmt: skip
    assert len(watts) == 8 and statistics.median(watts) == pytest.approx(pace.MEMORY_W, rel=0.01)


def test_products_between_additions_slow_as_their_joules_say() -> None:
    """8,192 x 14,336 x 4,096 in BF16 for a part of the time, additions for the rest: nothing of these was fitted."""
    for each in timed("bursts")["mixed"]:
        if not each["counts"][0]:
            continue
        product_s, share = each["burst_us"][0] * MICRO, each["share"]
        of_product = pace.BF16_J * 2 * 8192 * 14336 * 4096 / product_s
        joules = share * of_product + (1 - share) * pace.MEMORY_W
        least = pace.least_ns(device.load("h200"), joules, 1)
        told = pace.clock(least, lambda clock, part=share: round((part * clock + 1 - part) * NS_PER_S))
        assert told == pytest.approx(each["us"][0] / each["burst_us"][0], rel=0.09)


def test_a_card_within_its_limit_is_as_fast_as_a_rested_one() -> None:
    """Products alone that draw twice what the limit leaves take the square root of two, which is the law of one kernel;
    the slowest of 32 cards a little more, those of other architectures nobody knows."""
    own, left = device.load("h100"), LIMIT_W - power.IDLE_W

    def alone(clock: float) -> int:
        return round(clock * NS_PER_S)

    assert pace.clock(pace.least_ns(own, 0.9 * left, 32), alone) == 1.0
    one, many = (pace.clock(pace.least_ns(own, 2 * left, cards), alone) for cards in (1, 32))
    assert one == pytest.approx(math.sqrt(2), rel=1e-4)
    assert many == pytest.approx(math.sqrt(2) * unlike.off(own, 32).ratio, rel=1e-4) and many > one
    assert pace.least_ns(device.load("b200"), 1e9, 32) == 0.0
    assert paced.attention_rested(device.load("b200")) == 1.0
    assert paced.attention_rested(own) == pytest.approx(1 / paced.TRAINING)


@given(st.floats(0.5, 2.0), st.lists(st.floats(0.0, 2.0), min_size=2, max_size=2, unique=True), st.floats(0.0, 1.0))
@settings(max_examples=50, deadline=None)
def test_what_shortens_a_step_at_every_clock_shortens_it(joules: float, waits: list[float], reads: float) -> None:
    """Less waiting makes the clock lower, never the step longer."""
    ends = []
    for wait in sorted(waits):

        def taken(clock: float, most: float = wait) -> int:
            return round(max(clock + reads, most) * NS_PER_S)

        clock = pace.clock(joules * NS_PER_S, taken)
        assert clock == 1 or clock * taken(clock) == pytest.approx(joules * NS_PER_S, rel=2e-5)
        ends.append(taken(clock))
    assert ends[0] <= ends[1] * (1 + 2e-5)


def test_a_product_draws_for_what_it_multiplies_and_others_for_their_sms() -> None:
    product, copy = Gemm(8192, 7168, 16384), Memory("copy", 8192, 14336.0, 14336.0)
    assert paced.joules(product, 10**6, 1.0) == paced.joules(product, 10**6, 0.5) == 0.67 / TERA * product.flop()
    assert paced.joules(copy, 10**9, 0.5) == pytest.approx(pace.MEMORY_W / 2)
    assert paced.joules(product, 10**9, 1.0, peaks_bound=False) == pytest.approx(pace.MEMORY_W)
    assert paced.joules(PerHead(128, 8192, 512, 128), 1, 1.0) > paced.joules(
        GroupedGemm(128, 128 * 8192, 512, 128), 1, 1.0
    )


def test_what_multiplies_and_what_reads() -> None:
    """16 rows of a product wait for its weights; those of a prompt do not. Nothing else multiplies."""
    where = card("h100")
    assert multiplies(Gemm(8192, 7168, 16384, precision="fp8"), where)
    assert not multiplies(Gemm(16, 7168, 16384, precision="fp8"), where)
    assert not multiplies(Memory("copy", 8192, 14336.0, 14336.0), where)


def test_prompts_that_never_pause_go_at_the_clock_of_the_limit() -> None:
    """Two micro-batches on H800s, of 32 cards the slowest; answers, and one micro-batch that waits for its exchanges,
    are not limited. Exchanges and kernels that read take what they did."""
    whole = Batch(4, 4096, 4096.0, True)
    both = stepper("h800x8", 1, 32, True, EVEN, prompts=True)
    there = both.at(whole)
    assert 1.08 < there.prices.clock < 1.15 and both.at(Batch(64, 1, 4096.0)) is both
    assert stepper("h800x8", 1, 32, False, EVEN).at(whole).prices.clock == 1.0
    product, reads = Gemm(8192, 7168, 16384, precision="fp8"), Memory("copy", 8192, 14336.0, 14336.0)
    assert there.prices.ns(product) == pytest.approx(both.prices.ns(product) * there.prices.clock, rel=0.01)
    assert there.prices.ns(reads) == both.prices.ns(reads)
    assert both.ns(whole) == there.ns_here(whole) > both.ns_here(whole)


def test_cards_that_draw_little_are_not_limited() -> None:
    """An H20 has a seventh of an H100's FLOPs, each of the same joules."""
    assert stepper("h20x8", 8, 1).at(Batch(4, 4096, 4096.0, True)).prices.clock == 1.0
