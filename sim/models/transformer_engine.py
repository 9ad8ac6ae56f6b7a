"""TransformerEngine's recipes: inputs of products are kept quantised, all else is BF16.

Formats and blocks: nvidia.github.io/TransformerEngine, Low-precision training (delayed and current scaling: one scale a
tensor; blockwise: 128; MXFP8: 32; NVFP4: 16, arXiv:2509.25149). What is cast when: `sim.models.stacks.megatron.casts`.
"""

from hwmodels.formats import BF16, E2M1, E4M3, E4M3_ROWS, MXFP8, NVFP4, PLAIN_BF16, PLAIN_E4M3, Format, Layout
from sim.models.precision import RECIPES, Recipe

TWO_FP8 = Layout(Format("bf16, and e4m3 both ways", 32, 4, 3, E4M3.max_finite, "fn"))
TWO_MXFP8 = Layout(TWO_FP8.element, 32, BF16)
TWO_NVFP4 = Layout(Format("bf16, and e2m1 both ways", 24, 2, 1, E2M1.max_finite, "all"), 16, BF16)
"""Weights in BF16 with quantised copies by rows and by columns beside them, two scales of 8 bits in one of 16
(nvidia.github.io/TransformerEngine, Performance considerations: weights are stored in high precision by default)."""
EVERY = RECIPES | {
    name: Recipe(name, linear, weight, activation, *(PLAIN_BF16,) * 4)
    for name, linear, weight, activation in (
        ("fp8_delayed", "fp8", TWO_FP8, PLAIN_E4M3), ("fp8_current", "fp8", TWO_FP8, PLAIN_E4M3),
        ("fp8_block", "fp8", TWO_FP8, E4M3_ROWS), ("mxfp8", "mxfp8", TWO_MXFP8, MXFP8),
        ("nvfp4", "nvfp4", TWO_NVFP4, NVFP4), ("fp8_rowwise", "fp8", TWO_FP8, PLAIN_BF16),
    )
}  # fmt: skip
"""Name -> recipe, DeepSeek's and plain BF16 among them."""
