"""Cards that a library was not measured on: priced by its tables of another card, as published kernels are off them."""

import pytest

from hwmodels import device, likeness, node
from hwmodels.collectives import wires
from hwmodels.op import Attention, Gemm, GroupedGemm, Memory
from hwmodels.price import Pricer

LINKS = wires(node.load("h200x8"), None)
SQUARE = Gemm(8192, 8192, 8192, precision="bf16")


def pricer(name, vendor="torch"):
    return Pricer(device.load(name), LINKS, 0, library=vendor)


@pytest.mark.parametrize(("name", "burst_us", "metered"), [
    ("a100", 4280, 1.0), ("a100_40gb", 4280, 1.0), ("b200", 699.7, 1.128), ("b300", 709.1, 1.128),
    ("gb200", 694.0, 1.126), ("gb300", 570.8, 1.202),
])  # fmt: skip
def test_products_run_as_published_ones_do(name, burst_us, metered):
    """8,192^3 in BF16 of NVIDIA aiconfigurator@095f58a51c4c (SGLang), and how much longer metered ones take."""
    price = pricer(name).price(SQUARE)
    assert price.ns / 1000 == pytest.approx(burst_us * metered**0.5, rel=0.085)
    assert price.rung == "transferred" and price.source.startswith("h200/torch/gemm")


def test_the_ratio_is_of_its_family_and_card():
    card, there = device.load("a100"), pricer("a100").shelf[0]
    assert likeness.off(card, there, SQUARE) == likeness.off(card, there, GroupedGemm(8, 8192, 4096, 4096))
    assert likeness.off(card, there, SQUARE) != likeness.off(card, there, Attention("forward", 1, 32, 4096, 128, 128))
    assert likeness.off(card, there, Memory("elementwise", 8192, 8192.0, 8192.0)) is None
    assert likeness.off(device.load("h200"), there, SQUARE) is None
    assert likeness.off(card, None, SQUARE) is None
    assert {each.device for each in likeness.likenesses()} >= {card.name, device.load("b200").name}


def test_spreads_are_the_published_rows_own():
    off = likeness.off(device.load("b200"), pricer("b200").shelf[0], SQUARE)
    assert off is not None and pricer("b200").price(SQUARE).spread == off[1] < 0.15


def test_other_makers_cards_are_not_like_it():
    for name in ("mi300x", "mi355x"):
        assert pricer(name).price(SQUARE) == pricer(name, "").price(SQUARE)
    assert pricer("a100", "").price(SQUARE).rung == "roofline"
