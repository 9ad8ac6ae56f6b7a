"""Linear layers with the casts, transposes and scale layouts that FP8 asks for, and norms' gradients."""

from hwmodels.formats import E4M3_BLOCKS, PLAIN_BF16, Layout
from hwmodels.op import Gemm, Memory, cast, cast_transpose, norm, small, transpose_scales, transpose_weight
from sim.models.layer import Kernel, Site
from sim.models.shape import ModelShape

Shared = Site[ModelShape]
"""Site of a layer of any family."""

BF16_WIDTH = 2
"""Bytes of a BF16 element."""


def linear(site: Shared, name: str, n: int, k: int, source: str = "") -> list[Kernel]:
    """Quantise the input by row, lay its scales out for the GEMM, multiply. [tokens, k] -> [tokens, n]."""
    t = site.tokens
    gemm = Kernel(name, Gemm(t, n, k, "fprop", site.recipe.linear))
    if not site.recipe.quantized:
        return [gemm]
    head = [Kernel(source, cast(t, k))] if source else []
    return [*weight_copy(site, f"{name}_W", n, k), *head, Kernel("scaleT", transpose_scales(t, k)), gemm]


def dgrad(site: Shared, name: str, n: int, k: int, gradient: str = "") -> list[Kernel]:
    """Gradient of the input of a [tokens, k] -> [tokens, n] layer; `gradient`: name of the cast of dY, if any."""
    t = site.tokens
    gemm = Kernel(f"{name}_dgrad", Gemm(t, k, n, "dgrad", site.recipe.linear))
    if not site.recipe.quantized:
        return [gemm]
    head = [Kernel(gradient, cast(t, n))] if gradient else []
    return [*transposed(site, f"{name}_WT", n, k), *head, Kernel("scaleT", transpose_scales(t, n)), gemm]


def weight_copy(site: Shared, name: str, n: int, k: int, groups: int = 1) -> list[Kernel]:
    """What makes weights that are held in BF16 ready for FP8 products that read them as they lie."""
    if site.recipe.weight != PLAIN_BF16:
        return []
    return quantized(site, Kernel(name, cast(groups * n, k, target=E4M3_BLOCKS)))


def transposed(site: Shared, name: str, n: int, k: int, groups: int = 1) -> list[Kernel]:
    """What makes weights ready for FP8 products that read them the other way round."""
    if site.recipe.weight == PLAIN_BF16:
        return quantized(site, Kernel(name, cast_transpose(groups * n, k)))
    return quantized(site, Kernel(name, transpose_weight(n, k, site.recipe.weight, groups)))


def wgrad(site: Shared, name: str, n: int, k: int, rows: int = 0, lane: int = 0) -> Kernel:
    return Kernel(f"{name}_wgrad", Gemm(n, k, rows or site.tokens, "wgrad", site.recipe.linear), lane)


def quantized(site: Shared, *kernels: Kernel) -> list[Kernel]:
    """Kernels that exist only to feed FP8 products."""
    return list(kernels) if site.recipe.quantized else []


def bias_gradients(rows: int, biased: bool, **columns: int) -> list[Kernel]:
    """Sums over rows of the gradients of products that have biases (forward adds them in the product), each read once.
    columns: of each product, by its name."""
    if not biased:
        return []
    return [
        Kernel(f"{name}_bias_grad", Memory("elementwise", rows, BF16_WIDTH * n, 0.0)) for name, n in columns.items()
    ]


def norm_backward(name: str, rows: int, width: int, reads: int) -> list[Kernel]:
    return [
        Kernel(name, norm(rows, width, reads, 1, "backward")),
        Kernel("norm_finalize", small("tiny")),
        Kernel("norm_acc", small("tiny")),
    ]


def norm_again(site: Shared, published: bool = True) -> bool:
    """Whether backward computes outputs of norms again. published: whether the recipe does."""
    return site.recompute.again("norm", published)


def norm_before(site: Shared, published: bool = True) -> list[Kernel]:
    """The norm before a network, computed again in front of the network that is."""
    t, h = site.tokens, site.shape.hidden
    if not norm_again(site, published):
        return []
    return [Kernel("rmsnorm2_recompute", norm(t, h, 2, 2)), *quantized(site, Kernel("cast_x_recompute", cast(t, h)))]


def norm_output(site: Shared, published: bool = True) -> Layout:
    """How backward finds outputs of norms: computed again in BF16, or kept as inputs of products."""
    return PLAIN_BF16 if norm_again(site, published) else site.recipe.activation


def post_norm(site: Shared, kernels: list[Kernel], direction: str) -> list[Kernel]:
    """The kernels of a mixer or network, whose output is normalised before it joins the residual."""
    t, h = site.tokens, site.shape.hidden
    if direction == "F":
        return [*kernels, Kernel("post_norm", norm(t, h))]
    return [*norm_backward("post_norm_bwd", t, h, 2), *kernels] if direction == "B" else kernels
