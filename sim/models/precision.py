"""Precision recipes as data: which tensor is kept and moved in which format.

Source of FP8: DeepSeek-V3 report (arXiv 2412.19437) sec 3.3: linear layers in E4M3 with 1x128 activations and 128x128
weights; attention output kept in E5M6; SwiGLU inputs kept in FP8 and its output recomputed; dispatch FP8, combine BF16;
embedding, head, gate, norms and attention in BF16; gradients and master weights FP32, AdamW moments BF16.
BF16 is the same recipe without quantisation. TransformerEngine's are in `sim.models.transformer_engine`.
"""

from dataclasses import dataclass, replace

from hwmodels.formats import BF16, E4M3, E4M3_BLOCKS, E4M3_ROWS, E5M6_ROWS, FP32, PLAIN_BF16, PLAIN_FP32, Format, Layout


@dataclass(frozen=True)
class Recipe:
    """Formats of one way to train.

    linear: what the linear layers multiply in (fp8, bf16, mxfp8 or nvfp4).  weight: how their weights lie in memory.
    activation: inputs of linear layers kept for the weight gradient.  attention_output, gate_up: kept activations.
    dispatch, combine: rows of the expert exchange.  gradient: that is summed over micro-batches and reduced.  master,
    moment: optimizer state.  gather: format in which updated parameters are gathered.  boundary: activations between
    pipeline stages. both_ways: rows and columns of a quantised tensor are two tensors.
    """

    name: str
    linear: str
    weight: Layout
    activation: Layout
    attention_output: Layout
    gate_up: Layout
    dispatch: Layout
    combine: Layout
    gradient: Format = FP32
    master: Format = FP32
    moment: Layout = PLAIN_BF16
    both_ways: bool = True
    gather: Format = BF16
    boundary: Layout = PLAIN_BF16

    @property
    def quantized(self) -> bool:
        return self.linear == "fp8"


RECIPES = {
    "fp8": Recipe(
        "fp8", "fp8", weight=E4M3_BLOCKS, activation=E4M3_ROWS, attention_output=E5M6_ROWS, gate_up=E4M3_ROWS,
        dispatch=E4M3_ROWS, combine=PLAIN_BF16,
    ),
    "bf16": Recipe(
        "bf16", "bf16", weight=PLAIN_BF16, activation=PLAIN_BF16, attention_output=PLAIN_BF16, gate_up=PLAIN_BF16,
        dispatch=PLAIN_BF16, combine=PLAIN_BF16,
    ),
}  # fmt: skip

NOTHING = Format("nothing", 0, 0, 0, 0.0)
"""Of what is not there: master weights where products read the parameters that the optimizer updates."""
MOMENTS_FP8 = Layout(E4M3, 2048)
"""Moments of 8 bits with an FP32 scale for 2,048 of them (Dettmers et al., 8-bit Optimizers via Block-wise
Quantization, arXiv:2110.02861, sec 2.1, whose 8-bit type is another one of as many bits)."""
PLAIN = {"fp32": FP32, "bf16": BF16}
MOMENTS = {"fp32": PLAIN_FP32, "bf16": PLAIN_BF16, "fp8": MOMENTS_FP8}
COPIES = {"bf16": PLAIN_BF16, "fp8": E4M3_BLOCKS}
TENSORWISE = ("fp8_delayed", "fp8_current")
"""Recipes with one scale a tensor, whose parameters may be kept and gathered in FP8 (Megatron Core's
--fp8-param-gather; those with scales of blocks gather BF16)."""
KEPT_FP8 = Layout(Format("e4m3 both ways", 16, E4M3.exponent, E4M3.mantissa, E4M3.max_finite, E4M3.kind))


@dataclass(frozen=True)
class States:
    """Formats of what a parameter has beside its activations, where they are not the recipe's: a word each, or None.
    master, gradients: of PLAIN. moments: of MOMENTS. parameters: the copies that products read, of COPIES."""

    master: str | None = None
    moments: str | None = None
    gradients: str | None = None
    parameters: str | None = None

    def of(self, recipe: Recipe) -> Recipe:
        """The recipe with these."""
        return replace(
            recipe, master=PLAIN[self.master] if self.master else recipe.master,
            moment=MOMENTS[self.moments] if self.moments else recipe.moment,
            gradient=PLAIN[self.gradients] if self.gradients else recipe.gradient,
            weight=self._copies(recipe), gather=E4M3 if self.gathered_fp8(recipe) else recipe.gather,
        )  # fmt: skip

    def gathered_fp8(self, recipe: Recipe) -> bool:
        """Whether parameters are cast before they are gathered, and kept so."""
        return self.parameters == "fp8" and recipe.name in TENSORWISE

    def _copies(self, recipe: Recipe) -> Layout:
        if self.gathered_fp8(recipe):
            return KEPT_FP8
        return COPIES[self.parameters] if self.parameters else recipe.weight


PUBLISHED = States()
