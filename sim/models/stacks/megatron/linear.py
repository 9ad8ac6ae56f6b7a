"""Linear layers of TransformerEngine: products in the recipe's format, with the casts that feed them."""

from hwmodels.formats import PLAIN_BF16
from hwmodels.op import Gemm, GroupedGemm, Memory, norm, small
from sim.models.layer import Kernel
from sim.models.stacks.cudnn import Shared
from sim.models.stacks.megatron.casts import quantised

HOST = {"F": 3.0, "B": 2.5}
"""The host's work for a module of TransformerEngine, over that of a simple elementwise operation: as much as torch's
own linear layer and its Python (assumed)."""


def product(site: Shared, name: str, n: int, k: int) -> list[Kernel]:
    """[tokens, k] -> [tokens, n], its input quantised already."""
    return [Kernel(name, Gemm(site.tokens, n, k, "fprop", site.recipe.linear), host=HOST["F"])]


def linear(site: Shared, name: str, n: int, k: int) -> list[Kernel]:
    """The same from a BF16 input."""
    return [*quantised(site, f"x_{name}", site.tokens, k), *product(site, name, n, k)]


def dgrad(site: Shared, name: str, n: int, k: int) -> list[Kernel]:
    """Gradient of its input, behind the cast of the output's gradient, which the weight gradient reads too."""
    op = Gemm(site.tokens, k, n, "dgrad", site.recipe.linear)
    return [*quantised(site, f"dy_{name}", site.tokens, n), Kernel(f"{name}_dgrad", op, host=HOST["B"])]


def wgrad(site: Shared, name: str, n: int, k: int) -> list[Kernel]:
    """Gradient of its weights, added to FP32 in the product (`gradient_accumulation_fusion`)."""
    return [Kernel(f"{name}_wgrad", Gemm(n, k, site.tokens, "wgrad", site.recipe.linear), host=HOST["B"])]


def grouped(site: Shared, name: str, n: int, k: int, role: str = "fprop") -> list[Kernel]:
    """A product a local expert, over their rows together (`TEGroupedMLP`), behind the cast of its input or gradient."""
    rows, local, cast = site.rows, site.local_experts, k if role == "fprop" else n
    before = quantised(site, f"rows_{name}_{role}", rows, cast) if role != "wgrad" else []
    shape = (n, k) if role == "fprop" else (k, n)
    op = GroupedGemm(local, rows, *shape, role, site.recipe.linear)
    return [*before, Kernel(f"{name}_{role}", op, host=HOST["F" if role == "fprop" else "B"])]


def plain_norm(name: str, rows: int, width: int) -> list[Kernel]:
    """A norm whose output stays in BF16."""
    return [Kernel(name, norm(rows, width))]


def norm_backward(name: str, rows: int, width: int) -> list[Kernel]:
    """Its gradient, and a small kernel that finishes that of its weights."""
    return [Kernel(name, norm(rows, width, 2, 1, "backward")), Kernel(f"{name}_finish", small("tiny"))]


def fused(name: str, rows: int, width: float, reads: float, writes: float, kind: str = "elementwise") -> Kernel:
    """One kernel over [rows, width] in BF16."""
    row = PLAIN_BF16.row_bytes(1) * width
    return Kernel(name, Memory(kind, rows, reads * row, writes * row))
