"""The recipes: what DeepSeek-V3 keeps and moves in which format (report sec 3.3), and the same without FP8."""

import pytest

from hwmodels.formats import BF16, E4M3, E5M6, FP32
from sim.models.precision import RECIPES

FP8, PLAIN = RECIPES["fp8"], RECIPES["bf16"]


def test_fp8():
    """Linear layers E4M3: activations 1x128, weights 128x128; attention output E5M6; combine BF16."""
    assert (FP8.activation.element, FP8.activation.block) == (E4M3, 128)
    assert (FP8.weight.element, FP8.weight.block) == (E4M3, 128 * 128)
    assert FP8.attention_output.element is E5M6 and FP8.gate_up.element is E4M3
    assert FP8.dispatch.element is E4M3 and FP8.combine.element is BF16
    assert FP8.quantized and not PLAIN.quantized


def test_rows_of_the_exchange():
    """7168 + 224 bytes of scales for dispatch, 14336 for combine: what the profile's rows hold."""
    assert (FP8.dispatch.row_bytes(7168), FP8.combine.row_bytes(7168)) == (7168 + 224, 14336)
    assert (PLAIN.dispatch.row_bytes(7168), PLAIN.combine.row_bytes(7168)) == (14336, 14336)


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=str)
def test_optimizer_state(recipe):
    """Gradients and master weights FP32, AdamW moments BF16 (sec 3.3.3): 12 bytes a parameter with the gradient."""
    assert (recipe.gradient, recipe.master, recipe.moment.element, recipe.gather) == (FP32, FP32, BF16, BF16)
    assert recipe.gradient.bits / 8 + recipe.master.bits / 8 + 2 * recipe.moment.row_bytes(1) == 12
    assert recipe.boundary.element is BF16


def test_bf16_has_no_scales():
    layouts = (PLAIN.weight, PLAIN.activation, PLAIN.attention_output, PLAIN.gate_up, PLAIN.dispatch, PLAIN.combine)
    assert all((layout.element, layout.block) == (BF16, 0) for layout in layouts)


def test_names():
    assert {name: recipe.name for name, recipe in RECIPES.items()} == {"fp8": "fp8", "bf16": "bf16"}
