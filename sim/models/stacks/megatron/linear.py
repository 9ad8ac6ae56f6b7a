"""Linear layers of TransformerEngine: products in the recipe's format, with the casts that feed them."""

from hwmodels.formats import FP32, PLAIN_BF16
from hwmodels.op import BY_BLOCK, Gemm, GroupedGemm, Memory, norm, small
from sim.models.layer import Kernel
from sim.models.stacks.cudnn import Shared
from sim.models.stacks.megatron import host
from sim.models.stacks.megatron.casts import apart, casting, one_scale, ordered, quantised, ways
from sim.models.stacks.sharing import GATHER, INPUT, drained, fed, gathered, piece, piped, summed
from sim.models.stacks.stack import ADDED

BF16, FP32_SUMS = "bf16", "fp32"
"""What a product of a weight's gradient writes, or adds to."""
HOST = {"F": host.work(host.LINEAR["F"], "F"), "B": host.work(host.LINEAR["B"] / 2, "B")}
"""The host's work for a product of TransformerEngine's Linear; backward makes two."""


def product(site: Shared, name: str, n: int, k: int) -> list[Kernel]:
    """[tokens, k] -> [tokens, n], its input quantised already."""
    return [*_ordered(site, name, n, k), *_product(site, name, n, k)]


def _product(site: Shared, name: str, n: int, k: int) -> list[Kernel]:
    return [Kernel(name, Gemm(site.tokens, n, k, _role(site, "fprop"), site.recipe.linear), host=HOST["F"])]


def _ordered(site: Shared, name: str, n: int, k: int) -> list[Kernel]:
    """Scales of its sides, once for all chunks of it."""
    return ordered(site, name, (site.tokens, k), weight=(n, k))


def _role(site: Shared, role: str) -> str:
    """Of a product whose recipe may scale by block. The gradient of weights, whose sums are over tokens, was not timed
    so, nor were groups of products: those are as with one scale."""
    return role + BY_BLOCK if site.recipe.name == "fp8_block" else role


def first(site: Shared, name: str, n: int, k: int) -> list[Kernel]:
    """The first product of a block: quantised input of each rank's own tokens, gathered so -> [tokens, n]."""
    gather = gathered(site, f"x_{name}", site.recipe.activation.row_bytes(k))
    return [*_ordered(site, name, n, k), *fed(site, gather, lambda at: _product(at, name, n, k))]


LENT = {"proj": 24}
LENT_BY_OTHERS = 16
"""SMs that a product in BF16, by its name, leaves to the sum of its output beside it, where that goes part by part
(TransformerEngine 2.1, pytorch/module/base.py, initialize_ub: method pipeline, num_sm, set_sm_margin). NeMo's settings
of H100s are 24 for attention's (16 at a width of 6,144) and 8 to 24 for the network's; those in FP8 send round a ring
instead, by one SM (NVIDIA/NeMo v2.5.0rc0, nemo/collections/llm/recipes/tp_overlap_configs/userbuffers.py)."""


def last(site: Shared, name: str, n: int, k: int) -> list[Kernel]:
    """The last one: [tokens, k] -> sums of each rank's own tokens, or of all."""
    before = [*quantised(site, f"x_{name}", site.tokens, k), *_ordered(site, name, n, k)]
    if not (site.groups.chunked and site.groups.sequence and casting(site) is None):
        return before + drained(site, lambda at: _product(at, name, n, k), name, n)
    lent = LENT.get(name, LENT_BY_OTHERS)
    return before + piped(site, lambda columns: _lending(_product(site, name, columns, k), lent), name, n)


def _lending(kernels: list[Kernel], lent: int) -> list[Kernel]:
    return [k._replace(op=k.op._replace(lent=lent)) if isinstance(k.op, Gemm) else k for k in kernels]


def linear(site: Shared, name: str, n: int, k: int) -> list[Kernel]:
    """The same from a BF16 input."""
    return [*quantised(site, f"x_{name}", site.tokens, k), *product(site, name, n, k)]


def dgrad(site: Shared, name: str, n: int, k: int) -> list[Kernel]:
    """Gradient of its input, behind the cast of the output's gradient, which the weight gradient reads too."""
    scales = _dgrad_ordered(site, name, n, k)
    return [*quantised(site, f"dy_{name}", site.tokens, n), *scales, *_dgrad(site, name, n, k)]


def _dgrad_ordered(site: Shared, name: str, n: int, k: int) -> list[Kernel]:
    return ordered(site, f"{name}_dgrad", (site.tokens, n), weight=(n, k))


def _dgrad(site: Shared, name: str, n: int, k: int) -> list[Kernel]:
    return [Kernel(f"{name}_dgrad", Gemm(site.tokens, k, n, _role(site, "dgrad"), site.recipe.linear), host=HOST["B"])]


def last_dgrad(site: Shared, name: str, n: int, k: int) -> list[Kernel]:
    """The same of the last product: the output's gradient is quantised where it is, and gathered for both products that
    read it."""
    row = site.recipe.activation.row_bytes(n) * (1 if one_scale(site) else ways(site))
    gather = gathered(site, f"dy_{name}", row)
    before = [*quantised(site, f"dy_{name}", site.own, n), *_dgrad_ordered(site, name, n, k)]
    return [*before, *fed(site, gather, lambda at: _dgrad(at, name, n, k))]


def first_dgrad(site: Shared, name: str, n: int, k: int) -> list[Kernel]:
    """Of the first product, a piece of its own: the sum over ranks runs beside the weights' gradient."""
    return piece(site, INPUT, [*dgrad(site, name, n, k), *summed(site, f"dx_{name}", k)])


def last_wgrad(site: Shared, name: str, n: int, k: int) -> list[Kernel]:
    """Of the last product's weights, from the gathered gradient of its output."""
    return [*_turned(site, f"dy_{name}", n), *wgrad(site, name, n, k)]


def first_wgrad(site: Shared, name: str, n: int, k: int) -> list[Kernel]:
    """Of the first one's, whose input is gathered again, beside the gradient of the input."""
    gather = gathered(site, f"x_{name}_again", site.recipe.activation.row_bytes(k))
    own = [*_turned(site, f"x_{name}", k), *wgrad(site, name, n, k)]
    return [*piece(site, GATHER, gather), *piece(site, INPUT, own)]


def _turned(site: Shared, name: str, width: int) -> list[Kernel]:
    """Columns of a tensor that was gathered by rows, of one scale."""
    if not (site.groups.sequence and one_scale(site) and ways(site) > 1):
        return []
    row = site.recipe.activation.row_bytes(width)
    return [Kernel(f"transpose_{name}", Memory("weight_transpose", site.tokens, row, row))]


def wgrad(site: Shared, name: str, n: int, k: int) -> list[Kernel]:
    """Gradient of its weights, added to FP32 in the product (`gradient_accumulation_fusion`) or behind it."""
    product = Kernel(f"{name}_wgrad", gradient(site, n, k, site.recipe.linear), host=HOST["B"])
    sides = (site.tokens, n), (site.tokens, k)
    return [*ordered(site, f"{name}_wgrad", *sides), product, *summed_up(site, name, n * k)]


def gradient(site: Shared, n: int, k: int, precision: str) -> Gemm:
    """The product of a weight's gradient over this rank's tokens."""
    return Gemm(n, k, site.tokens, "wgrad", precision, result=BF16 if site.stack.accumulation == ADDED else FP32_SUMS)


def summed_up(site: Shared, name: str, size: int, tensors: int = 1) -> list[Kernel]:
    """The gradients of so many tensors added to those that are there, a kernel each, where products do not do it."""
    if site.stack.accumulation != ADDED:
        return []
    kept = site.recipe.gradient.bits / 8
    op = Memory("elementwise", size, PLAIN_BF16.row_bytes(1) + kept, kept, tensors)
    return [Kernel(f"{name}_main_grad", op, host=host.work(tensors * (host.EMPTY + host.OPERATION), "B"))]


def bias_gradients(biased: bool, **columns: tuple[int, int]) -> list[Kernel]:
    """Sums over rows of the gradients of biases that are added outside of products: with the activation, and with the
    residual (`bias_activation_fusion`, `bias_dropout_fusion`: fused_bias_gelu.py and fused_bias_dropout.py in
    megatron/core/fusions give autograd a gradient as large as the tensor, which it sums up). The others' are made in
    products or casts. columns: rows and columns of each, by its product's name."""
    row = PLAIN_BF16.row_bytes(1)
    ops = {name: Memory("reduce", rows, row * n, 0.0) for name, (rows, n) in columns.items() if biased}
    return [Kernel(f"{name}_bias_grad", op) for name, op in ops.items()]


def grouped(site: Shared, name: str, n: int, k: int, role: str = "fprop") -> list[Kernel]:
    """A product a local expert (`TEGroupedMLP`), behind the cast of its input or gradient; or a product each by itself
    (`SequentialMLP`)."""
    rows, local, cast = site.expert_rows, site.local_experts, k if role == "fprop" else n
    direction = "F" if role == "fprop" else "B"
    before = apart(site, f"rows_{name}_{role}", rows, cast, direction) if role != "wgrad" else []
    shape = (n, k) if role == "fprop" else (k, n)
    summed_in = FP32_SUMS if site.recipe.gradient == FP32 else "added_bf16"
    result = summed_in if role == "wgrad" and site.stack.accumulation != ADDED else BF16
    op = GroupedGemm(local, rows, *shape, role, site.recipe.linear, result=result)
    scaled = "" if casting(site) is None else host.ONE_SCALE if one_scale(site) else host.BY_BLOCK
    forward, dgrad, wgrad = host.grouped(local, scaled, both=not one_scale(site) or ways(site) > 1)
    us = {"fprop": forward, "dgrad": dgrad, "wgrad": wgrad}[role]
    sides = ((rows, n), (rows, k)) if role == "wgrad" else ((rows, cast),)
    weight = None if role == "wgrad" else (local * n, k)
    scales = ordered(site, f"{name}_{role}", *sides, weight=weight)  # of all experts at once
    behind = summed_up(site, name, local * n * k, local) if role == "wgrad" else []
    if site.stack.sequential:
        return [*before, *scales, *_one_by_one(site, name, n, k, role), *behind]
    return [*before, *scales, Kernel(f"{name}_{role}", op, host=host.work(us, direction)), *behind]


def _one_by_one(site: Shared, name: str, n: int, k: int, role: str) -> list[Kernel]:
    """A product of each local expert."""
    rows = -(-site.expert_rows // site.local_experts)
    shape = {"fprop": (rows, n, k), "dgrad": (rows, k, n), "wgrad": (n, k, rows)}[role]
    result = BF16 if role == "wgrad" and site.stack.accumulation == ADDED else FP32_SUMS
    op = Gemm(*shape, role, site.recipe.linear, result=result)
    return [Kernel(f"{name}_{role}", op, host=HOST["F" if role == "fprop" else "B"])] * site.local_experts


def plain_norm(name: str, rows: int, width: int) -> list[Kernel]:
    """A norm whose output stays in BF16."""
    return [Kernel(name, norm(rows, width))]


def norm_backward(name: str, rows: int, width: int) -> list[Kernel]:
    """Its gradient, a small kernel that finishes that of its weights, and one that adds this to the sum of
    micro-batches, as products do by themselves (megatron/core/distributed/distributed_data_parallel.py,
    _make_backward_post_hook)."""
    tiny = [Kernel(f"{name}_{each}", small("tiny")) for each in ("finish", "added")]
    return [Kernel(name, norm(rows, width, 2, 1, "backward")), *tiny]


def fused(name: str, rows: int, width: float, reads: float, writes: float, kind: str = "elementwise") -> Kernel:
    """One kernel over [rows, width] in BF16."""
    row = PLAIN_BF16.row_bytes(1) * width
    return Kernel(name, Memory(kind, rows, reads * row, writes * row))
