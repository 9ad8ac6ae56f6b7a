"""The slowest of cards that are not alike: how far off it is, and whose prices that moves."""

from dataclasses import replace
from random import Random
from statistics import mean

import pytest

from hwmodels import device, node, unlike
from hwmodels.collectives import wires
from hwmodels.op import Attention, Gemm, Memory
from hwmodels.price import Pricer

LINKS = wires(node.load("h200x8"), None)
PRODUCT, ATTENTION = Gemm(8192, 7168, 4096, precision="bf16"), Attention("forward", 1, 32, 4096, 128, 128)
STREAM = Memory("elementwise", 2**26, 4, 2)


def test_the_largest_of_some_normal_numbers():
    """As drawn; one card is the mean one."""
    random = Random(0)
    assert unlike.largest(1) == 0.0
    for count, draws in ((2, 20000), (4, 20000), (64, 4000), (1024, 400)):
        drawn = mean(max(random.gauss(0, 1) for _ in range(count)) for _ in range(draws))
        assert unlike.largest(count) == pytest.approx(drawn, abs=0.05)


def test_products_and_attention_of_libraries_go_at_the_pace_of_the_slowest():
    """By 1.2 % for each deviation that it is off, with a wider spread; memory and DeepSeek's tables do not."""
    card = device.load("h200")
    one, many = (Pricer(card, LINKS, 0, library="torch", cards=cards) for cards in (1, 64))
    slower = 1 + 0.012 * unlike.largest(64)
    for op in (PRODUCT, ATTENTION):
        a, b = one.price(op), many.price(op)
        assert b.ns == pytest.approx(a.ns * slower, rel=1e-5) and b.spread > a.spread
        assert b.beside_ns == pytest.approx(a.beside_ns * slower, rel=1e-5)
    assert one.price(STREAM) == many.price(STREAM)
    own = [Pricer(card, LINKS, 0, cards=cards).price(PRODUCT) for cards in (1, 64)]
    alike = Pricer(replace(card, spread=0.0), LINKS, 0, library="torch", cards=64)
    assert own[0] == own[1] and alike.price(PRODUCT) == one.price(PRODUCT)
