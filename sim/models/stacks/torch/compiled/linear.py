"""Linear layers under torch.compile: BF16 products as they are, or torchao's float8 between casts that Inductor fuses.

torchao.float8 with dynamic tensorwise scaling (github.com/pytorch/ao, torchao/float8: Float8Linear): input, weight and
the output's gradient are cast with one scale each, from their largest value now. Backward keeps input and weight in
BF16 and casts them again. Hopper multiplies rows by rows, so the weight gradient's operands are transposed. How
Inductor fuses a cast (a pass for the largest value, and one that casts) is assumed: no trace of it was at hand.
"""

from collections.abc import Iterable

from hwmodels.formats import PLAIN_BF16, PLAIN_E4M3
from hwmodels.op import Gemm, Memory
from sim.models.layer import Kernel
from sim.models.stacks.cudnn import Shared
from sim.models.stacks.torch import kernels
from sim.models.stacks.torch.kernels import tiny

BF16 = "bf16"


def _cast(name: str, rows: int, width: int) -> list[Kernel]:
    """Largest value, scale, cast."""
    row, out = PLAIN_BF16.row_bytes(width), PLAIN_E4M3.row_bytes(width)
    amax = Kernel(f"amax_{name}", Memory("fused", rows, row, 0.0))
    return [amax, tiny(f"scale_{name}", "fused"), Kernel(f"cast_{name}", Memory("fused", rows, row, out))]


def _turned(name: str, rows: int, width: int) -> Kernel:
    """A float8 tensor transposed."""
    row = PLAIN_E4M3.row_bytes(width)
    return Kernel(f"transpose_{name}", Memory("copy", rows, row, row))


def linear(site: Shared, name: str, n: int, k: int) -> list[Kernel]:
    """[tokens, k] -> [tokens, n]."""
    if site.recipe.linear == BF16:
        return kernels.linear(site, name, n, k)
    op = Gemm(site.tokens, n, k, "fprop", site.recipe.linear)
    return [*_cast(f"x_{name}", site.tokens, k), *_cast(f"w_{name}", n, k), Kernel(name, op)]


def dgrad(site: Shared, name: str, n: int, k: int) -> list[Kernel]:
    """Gradient of its input; casts of the output's gradient and of the weight."""
    if site.recipe.linear == BF16:
        return kernels.dgrad(site, name, n, k)
    op, casts = Gemm(site.tokens, k, n, "dgrad", site.recipe.linear), _cast(f"dy_{name}", site.tokens, n)
    again = _cast(f"w_{name}_again", n, k)
    return [*casts, *again, _turned(f"w_{name}", n, k), Kernel(f"{name}_dgrad", op)]


def wgrad(site: Shared, name: str, n: int, k: int) -> list[Kernel]:
    """Gradient of its weights, in BF16; the input is cast again."""
    if site.recipe.linear == BF16:
        return kernels.wgrad(site, name, n, k)
    op = Gemm(n, k, site.tokens, "wgrad", site.recipe.linear, result=BF16)
    turned = [_turned(f"dy_{name}", site.tokens, n), _turned(f"x_{name}", site.tokens, k)]
    return [*_cast(f"x_{name}_again", site.tokens, k), *turned, Kernel(f"{name}_wgrad", op)]


def weights(site: Shared, products: Iterable[tuple[str, int, int]]) -> list[Kernel]:
    """Weight gradients of some products, each a name and its columns out and in."""
    return [kernel for name, n, k in products for kernel in wgrad(site, name, n, k)]
