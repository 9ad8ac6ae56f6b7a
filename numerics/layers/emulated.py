"""Recipes of FP8 that no kernel here multiplies in: operands are rounded as the recipe says and multiplied in BF16.

What is emulated is the rounding of operands, which is what recipes differ in; the rounded values, codes times scales,
are rounded once more to BF16 (2^-9 of a value, against 2^-4 of E4M3), and sums are FP32 throughout, so the tensor
core's short accumulator is not in it. Activations wait in BF16 and are rounded anew for weight gradients.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from hwmodels.formats import TILE
from numerics import ops
from numerics.layers.precision import Precision


class Rounding(NamedTuple):
    """Elements that share a scale, `rows` by `columns` (0 by 0: all), across and along the contraction; a format."""

    rows: int = 1
    columns: int = TILE
    fmt: str = "e4m3"

    def of(self, x: Tensor, turned: bool = False) -> Tensor:
        """x [M, K] rounded, in x's type; turned: the contraction runs over M, so tiles are [columns, rows]."""
        tile = (self.columns, self.rows) if turned else (self.rows, self.columns)
        rounded: Tensor = ops.rounded(x, *tile, self.fmt)
        return rounded


TILES, BLOCKS, WHOLE = Rounding(), Rounding(TILE, TILE), Rounding(0, 0)
"""1x128 tiles, 128x128 blocks, and one scale a tensor."""


@dataclass(frozen=True)
class Emulated:
    """A recipe: how activations, gradients and weights are rounded. Stands where a Precision does."""

    name: str
    activations: Rounding = TILES
    gradients: Rounding = TILES
    weights: Rounding = BLOCKS
    dtype: torch.dtype = torch.bfloat16
    quantized: bool = False
    """What waits for the backward pass is not in codes."""

    @property
    def plain(self) -> Precision:
        return Precision.BF16


UNPROMOTED = Emulated("no promotion")
"""The one recipe here that is not rounding: numerics.layers.unpromoted multiplies for it, on Hopper as Hopper does."""
V3 = Emulated("fp8 as V3, emulated")
"""DeepSeek-V3's own (arXiv 2412.19437 sec 3.3.2): what the emulation is judged by, beside the kernels."""
RECIPES = {
    one.name: one
    for one in (
        V3,
        UNPROMOTED,
        Emulated("E5M2 gradients", gradients=Rounding(fmt="e5m2")),
        Emulated("a scale a tensor", WHOLE, WHOLE, WHOLE),
        Emulated("128x128 gradients", gradients=BLOCKS),
    )
}
"""Recipes of the study: E5M2 gradients as in Transformer Engine's hybrid format, one scale a tensor, and the blocks of
128x128 for activation gradients with which V3's authors saw a 16 B model diverge (app. B.2)."""


def rounded(x: Tensor, precision: Precision | Emulated, part: str, turned: bool = False) -> Tensor:
    """x [M, K], or weights [.., N, K], as a product of this precision reads them; part: a field of Emulated."""
    if not isinstance(precision, Emulated) or precision is UNPROMOTED:
        return x
    rounding: Rounding = getattr(precision, part)
    return rounding.of(x.flatten(0, -2), turned).view(x.shape) if x.dim() > 2 else rounding.of(x, turned)
