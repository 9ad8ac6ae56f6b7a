"""What kernels draw, as they did on the card that metered them."""

import json
import math
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hwmodels import pace, power, unlike
from hwmodels.attention import CUDNN, FLASH2
from hwmodels.collectives import wires
from hwmodels.device import load
from hwmodels.node import load as node
from hwmodels.op import Attention, Gemm, Memory
from hwmodels.price import Pricer
from hwmodels.units import KILO, MICRO, NS_PER_S

TIMED = Path(__file__).parents[2] / "numerics" / "card" / "timed"
LIMIT_W, SHORT_US, LONG_US = 700.0, 100.0, 3000.0


def watts(name: str, op: str) -> dict[str, list[float]]:
    """Above an idle card, of kernels of 0.1 to 3 ms in a burst, by how much longer they took under the limit."""
    document: dict[str, Any] = json.loads((TIMED / f"{name}.json").read_text(encoding="utf-8"))
    out: dict[str, list[float]] = {}
    for row in document["rows"]:
        us = row.get("us", 0.0) - document["events_us"]
        if row["op"] == op and "loaded" in row and SHORT_US <= us <= LONG_US:
            key = "flash" if row["name"].startswith("FLASH") else row.get("direction", row.get("role", ""))
            drawn = (LIMIT_W - power.IDLE_W) * (row["loaded"]["us"] / us) ** (1 / power.EXPONENT)
            out.setdefault(key, []).append(drawn)
    return out


def test_watts_are_those_of_metered_kernels() -> None:
    """Medians of all that ran under load; of updates what was drawn, which no limit reached."""
    fp8 = [each for some in watts("scaled", "gemm").values() for each in some]
    attention: dict[str, list[float]] = {}
    for name in ("bursts", "heads"):
        for key, some in watts(name, "attention").items():
            attention.setdefault(key, []).extend(some)
    told = {"forward": pace.FORWARD_W, "backward": pace.BACKWARD_W, "flash": pace.FLASH2_W}
    assert statistics.median(fp8) == pytest.approx(pace.FP8_W, rel=0.01) and len(fp8) == 20
    for key, one in told.items():
        assert statistics.median(attention[key]) == pytest.approx(one, rel=0.01), key
    rows = json.loads((TIMED / "bursts.json").read_text(encoding="utf-8"))["rows"]
    updates = [row["loaded"]["power.draw"] - power.IDLE_W for row in rows if "Adam" in row["name"] and "loaded" in row]
    assert len(updates) == 4 and statistics.median(updates) == pytest.approx(pace.UPDATE_W, rel=0.01)


def test_what_draws_by_its_work_and_what_by_its_time() -> None:
    plain, scaled = Gemm(8192, 8192, 8192, "fprop", "bf16"), Gemm(8192, 8192, 8192, "fprop", "fp8")
    assert pace.joules(plain, 10**6) == pace.joules(plain, 2 * 10**6) == pace.BF16_J * plain.flop()
    assert pace.joules(scaled, NS_PER_S) == pace.FP8_W
    assert pace.joules(scaled._replace(role="fprop by block"), 1) == pace.BLOCKS_J * scaled.flop()
    heads = [Attention(direction, 1, 32, 4096, 128, 128) for direction in ("forward", "backward")]
    assert [pace.joules(op, NS_PER_S) for op in heads] == [pace.FORWARD_W, pace.BACKWARD_W]
    assert (
        pace.joules(heads[0], NS_PER_S, attention=FLASH2) == pace.FLASH2_W != pace.joules(heads[0], NS_PER_S, 1, CUDNN)
    )
    assert pace.joules(Memory("adam", 8, 1, 1), NS_PER_S, 0.5) == pace.UPDATE_W / 2
    assert pace.joules(Memory("copy", 8, 1, 1), NS_PER_S) == pace.MEMORY_W


def test_what_a_limit_allows_is_that_of_the_slowest_card() -> None:
    """Joules over the watts between the limit and an idle card; of several, those of the card that draws most: time
    goes by power to -0.5, so a card that is slower by a part draws as much as if by twice that."""
    card = load("h100")
    alone, many = (pace.least_ns(card, 291.0, cards) for cards in (1, 64))
    assert alone == pytest.approx(291.0 / (card.power_w - power.IDLE_W) * NS_PER_S)
    assert many / alone == pytest.approx(unlike.off(card, 64).ratio ** 2) and many > 1.02 * alone
    assert pace.least_ns(load("b200"), 291.0, 1) == 0.0


@pytest.mark.parametrize(("m", "n", "k", "tflops"), [
    (6144, 17920, 2816, 792.1), (1024, 12288, 8192, 786.3), (1024, 13312, 8192, 779.5), (2048, 2048, 13312, 794.5),
])  # fmt: skip
def test_a_rested_h100_is_as_fast_as_published_bests(m: int, n: int, k: int, tflops: float) -> None:
    """The fastest products in BF16 that searches found on H100s with CUDA 12.1, 12.4 (two) and 12.6
    (github.com/stas00/ml-engineering compute/accelerator/README.md @dacf05a, @2c2b28c), by tables of an H200."""
    rested = Pricer(load("h100"), wires(node("h100x8"), None), 0, library="torch", clock=1.0)
    op = Gemm(m, n, k, "fprop", "bf16")
    assert op.flop() / rested.price(op).ns / KILO == pytest.approx(tflops, rel=0.05)


def test_a_clock_paces_products_and_attention_alone() -> None:
    """In proportion, and at a rested card's as long as the burst that was timed."""
    prices = {
        clock: Pricer(load("h200"), wires(node("h200x8"), None), 0, library="torch", cards=64, clock=clock)
        for clock in (0.0, 1.0, 1.25)
    }
    product = Gemm(8192, 4096, 4096, "fprop", "bf16")
    rows = json.loads((TIMED.parents[2] / "hwmodels/tables/h200/torch/gemm.json").read_text(encoding="utf-8"))["rows"]
    row = next(
        r
        for r in rows
        if (r["m"], r["n"], r["k"], r["role"]) == (8192, 4096, 4096, "fprop") and r["precision"] == "bf16"
    )
    assert prices[1.0].price(product).ns == pytest.approx(row["burst_us"] * MICRO * NS_PER_S, rel=1e-3)
    for op in (product, product._replace(precision="fp8"), Attention("backward", 1, 32, 4096, 128, 128)):
        one, other = (prices[clock].price(op) for clock in (1.0, 1.25))
        assert other.ns == pytest.approx(1.25 * one.ns, rel=1e-4)
        assert other.beside_ns == pytest.approx(1.25 * one.beside_ns, rel=1e-4)
        assert one.ns < prices[0.0].price(op).ns < other.ns
    copy = Memory("copy", 8192, 8192.0, 8192.0)
    assert len({pricer.price(copy) for pricer in prices.values()}) == 1
    capped = Pricer(replace(load("h200"), power_w=500.0), prices[1.0].wires, 0, library="torch", clock=1.0)
    assert capped.price(product).ns == prices[1.0].price(product).ns  # a limit is in the clock, not beside it
    assert math.isclose(capped.price(copy).ns, prices[1.0].price(copy).ns)
