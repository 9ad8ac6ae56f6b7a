"""Power limits: what less power costs what the clock paces."""

import math

import pytest

from hwmodels import device, power
from hwmodels.document import Document, DocumentError
from hwmodels.op import Attention, Gemm, Memory
from hwmodels.price import Pricer
from tests.hwmodels.test_kernels import LINKS, SQUARE


def limited(watts, base="h100"):
    return device.build(Document({"base": base, "power": watts}))


@pytest.mark.parametrize(("part", "us"), [(1.0, 1399), (0.914, 1460), (0.84, 1499), (0.767, 1596), (0.714, 1650)])
def test_the_law_is_the_measured_one(part, us):
    """Parts of the 819 W that a product draws above 118 W at 1,980 MHz, and what it takes (H200, 8,192^3)."""
    there = limited(f"{118 + 819} W", "h200")
    assert us / 1399 == pytest.approx(math.sqrt((there.power_w - power.IDLE_W) / (part * 819)), rel=0.035)


def test_less_power_slows_products_and_attention_and_nothing_else():
    def price(card, op):
        return Pricer(card, LINKS, 0, library="torch").price(op)

    low, whole = limited("500 W"), device.load("h100")
    ratio = math.sqrt((700 - 118) / (500 - 118))
    for op in (SQUARE, Gemm(4096, 4096, 4096, precision="fp8"), Attention("forward", 1, 32, 4096, 128, 128)):
        assert price(low, op).ns / price(whole, op).ns == pytest.approx(ratio, rel=1e-4)
        assert price(low, op).spread > price(whole, op).spread
    stream = Memory("elementwise", 8192, 8192.0, 8192.0)
    assert price(low, stream) == price(whole, stream)


def test_cards_whose_limits_say_nothing_of_each_other_are_left_alone():
    assert power.off(device.load("h200"), "h200") == power.off(device.load("h800"), "h200") == power.SAME
    assert power.off(limited("500 W", "b200"), "h200") == power.SAME


def test_a_limit_is_a_power():
    with pytest.raises(DocumentError, match="'2 GHz' is frequency, expected power"):
        limited("2 GHz")
