"""TransformerEngine's products in all formats on a B300, and what follows of other cards."""

import json
import math

import pytest

from hwmodels import device, pace
from hwmodels.tables import FOLDER
from hwmodels.tiles import Tiles
from numerics.tables import product_formats, published

CARDS = {card.name: card for card in published.CARDS}


def product(card: str, precision: str) -> dict:
    rows = json.loads((FOLDER / card / "torch" / "kernels.json").read_text(encoding="utf-8"))["rows"]
    return next(row for row in rows if row["op"] == "product" and row["precision"] == precision)


def test_a_layer_has_twelve_products_of_as_much_work() -> None:
    """Forward, and gradients of inputs and of weights; rates as the guide's figures have them."""
    every = list(product_formats.sides())
    assert len(every) == 12 and len({m * n * k for m, n, k in every}) == 3
    work = 2 * sum(m * n * k for m, n, k in every)
    assert work == 3 * 2 * 15872 * 4096 * (3 * 4096 + 4096 + 2 * 16384)
    rates = {form: work / product_formats.products(form).us.sum() / 1e6 for form in product_formats.MS}
    assert rates["bf16"] == pytest.approx(1483, rel=0.001) and rates["fp8"] == pytest.approx(2814, rel=0.001)


def test_a_block_format_is_without_what_orders_its_scales() -> None:
    """Twenty-four kernels at least, of some us each."""
    for form, with_them in (("mxfp8", 7.162 / 6.812), ("nvfp4", 3.764 / 6.812)):
        ratio = product_formats.over_fp8(CARDS["B300"], form)
        assert 24 * product_formats.ORDER_US / 6812 < with_them - ratio < 0.02


@pytest.mark.parametrize("card", ["b200", "b300", "gb200", "gb300"])
@pytest.mark.parametrize("form", ["mxfp8", "nvfp4"])
def test_committed_tables_have_them_everywhere(card: str, form: str) -> None:
    """All twelve together, at one clock, as many times as long as in FP8."""
    own = CARDS[card.upper()]
    us = {each: product_formats.rested_us(own, each, Tiles(**product(card, each)["tiles"])) for each in ("fp8", form)}
    assert us[form] / us["fp8"] == pytest.approx(product_formats.over_fp8(CARDS["B300"], form), rel=1e-3)
    assert product(card, form)["clock"] == product(card, "fp8")["clock"]


@pytest.mark.parametrize("form", ["bf16", "fp8"])
def test_clocks_of_blackwell_ultra_are_the_guides(form: str) -> None:
    """On the guide's card its times come back; the other has the same chip and draws as many joules for a product."""
    there, here = product("b300", form), product("gb300", form)
    us = {name: product_formats.rested_us(CARDS[name.upper()], form, Tiles(**row["tiles"]))
          for name, row in (("b300", there), ("gb300", here))}  # fmt: skip
    assert there["clock"] * us["b300"] == pytest.approx(product_formats.products(form).us.sum(), rel=1e-3)
    joules = [us[name] * row["clock"] ** 2 * (device.load(name).power_w - pace.BLACKWELL.idle)
              for name, row in (("b300", there), ("gb300", here))]  # fmt: skip
    assert math.log(joules[0] / joules[1]) == pytest.approx(0.0, abs=2e-3)
