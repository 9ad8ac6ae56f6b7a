"""Linear layers under torch.compile: BF16 products as they are, or torchao's float8 between casts that Inductor fuses.

torchao.float8 with dynamic tensorwise scaling (github.com/pytorch/ao, torchao/float8: Float8Linear): input, weight and
the output's gradient are cast with one scale each, from their largest value now. Forward and backward are one graph
whose equal parts are found (torch/_functorch/compile_utils.py, fx_graph_cse): an input is cast once for all products
that read it, and what backward needs of it is kept in float8, or comes of the layer that is computed again. Over ranks
that share a layer tokens are cast before they are gathered (torchao/float8/float8_tensor_parallel.py), each by its own
rank. Hopper multiplies rows by rows, so the weight gradient's operands are transposed: an output's gradient in the
kernel that casts it, as Inductor was profiled on an H200 (numerics/card/timed/float8.json), unless it is gathered
behind. Parameters may come in float8 (`states.parameters`; WeightWithDynamicFloat8CastTensor of torchao/float8/
fsdp_utils.py: shards are cast before a gather, their largest values found for all at once behind an update). A gated
activation is never written in BF16: the kernels that find its largest value, that cast it, and both that do so of its
gradients (with what the weights' gradient needs of it) work it out anew.

torchao's MXFP8 (torchao/prototype/mx_formats/mx_linear.py @06f5ff434, mx_mm) has scales of 32 elements along a
product's depth: what forward reads is cast by rows, and BF16 is what it keeps; backward casts an output's gradient by
rows and by columns, and weights and input by columns, each in one pass over the BF16 tensor. A product reads scales in
an order of their own, into which a kernel puts those of each of its sides (mx_ops.py, to_blocked).

torchao.float8 by rows (Float8LinearRecipeName.ROWWISE; @624304080 of June 2025) has a scale a row of what a product
reads, so rows and columns of each tensor are cast apart, out of BF16, which is what ranks gather of each other and what
backward keeps. A row's largest value and its cast are one kernel; of an output's gradient both casts are, behind one
that finds its columns' largest values. Gradients are multiplied by cuBLAS without scales, and scaled behind
(torchao/float8/float8_ops.py, addmm_float8_unwrapped: "The rowwise CUTLASS-based kernel is so slow without
fast-accum"), in kernels that work out both scales for each element in FP64 and take many times as long as their bytes
do: of an input's gradients one that adds them up, of an activation's that which begins its own. So profiled and timed
on an H200 (numerics/card/timed/float8.json), and what pytorch/torchtitan issue 1207 is about; forward's products
(CUTLASS) take 0.91 to 1.22 of those with a scale a tensor there, 0.97 in the median of 21, and are priced as those.
"""

from collections.abc import Sequence

from hwmodels.formats import E4M3, MXFP8, PLAIN_BF16, PLAIN_E4M3
from hwmodels.op import Gemm, Memory
from sim.models.layer import Kernel
from sim.models.stacks.cudnn import Shared
from sim.models.stacks.torch import kernels
from sim.models.stacks.torch.kernels import tiny

OF_A_PRODUCT = tuple(f"{what}_[xw]_*" for what in ("amax", "scale", "cast", "order"))
"""Patterns of names of what makes operands of a forward product."""
BF16, BLOCKS, ROWS = "bf16", "mxfp8", "fp8_rowwise"


def blocks(site: Shared) -> bool:
    """Whether scales are of blocks along a product's depth, so that rows and columns are cast apart."""
    return bool(site.recipe.linear == BLOCKS)


def by_rows(site: Shared) -> bool:
    """Whether each row that a product reads has a scale, so that tensors of BF16 are gathered and cast behind."""
    return bool(site.recipe.name == ROWS)


def _columns(name: str, rows: int, width: int) -> list[Kernel]:
    """A BF16 tensor cast along its columns, transposed: largest values, scales, cast."""
    row, out = PLAIN_BF16.row_bytes(width), PLAIN_E4M3.row_bytes(width)
    cast = Kernel(f"cast_columns_{name}", Memory("scaled_columns", rows, row, out))
    return [*_largest(name, rows, row), cast]


def _largest(name: str, rows: int, row: float) -> list[Kernel]:
    """Largest values of columns."""
    amax = Kernel(f"amax_columns_{name}", Memory("fused", rows, row, 0.0))
    return [amax, tiny(f"scale_columns_{name}", "fused")]


def _blocks(name: str, rows: int, width: int) -> list[Kernel]:
    """A BF16 tensor cast along one of its sides, and its scales put in order."""
    row, out = PLAIN_BF16.row_bytes(width), MXFP8.row_bytes(width)
    scales = out - PLAIN_E4M3.row_bytes(width)
    return [
        Kernel(f"cast_{name}", Memory("fused", rows, row, out)),
        Kernel(f"order_{name}", Memory("fused", rows, scales, scales)),
    ]


def _cast(site: Shared, name: str, rows: int, width: int) -> list[Kernel]:
    """Largest value, scale, cast; or a cast by rows, of blocks or of whole ones."""
    if blocks(site):
        return _blocks(name, rows, width)
    row, out = PLAIN_BF16.row_bytes(width), PLAIN_E4M3.row_bytes(width)
    if by_rows(site):
        return [Kernel(f"cast_{name}", Memory("scaled_rows", rows, row, out))]
    amax = Kernel(f"amax_{name}", Memory("fused", rows, row, 0.0))
    return [amax, tiny(f"scale_{name}", "fused"), Kernel(f"cast_{name}", Memory("fused", rows, row, out))]


def _turned(site: Shared, name: str, rows: int, width: int) -> list[Kernel]:
    """A float8 tensor transposed; or the BF16 tensor cast by columns."""
    if blocks(site):
        return _blocks(f"columns_{name}", rows, width)
    if by_rows(site):
        return _columns(name, rows, width)
    row = PLAIN_E4M3.row_bytes(width)
    return [Kernel(f"transpose_{name}", Memory("copy", rows, row, row))]


def casts(site: Shared) -> bool:
    """Whether products are between casts."""
    return bool(site.recipe.linear != BF16)


def cast(site: Shared, name: str, rows: int, width: int) -> list[Kernel]:
    """Of what products read, where they are between casts."""
    return _cast(site, name, rows, width) if casts(site) else []


def cast_gradient(site: Shared, name: str, rows: int, width: int) -> list[Kernel]:
    """Of the gradient of an output: as it is and transposed, for that of the weights, unless scales are of blocks."""
    if blocks(site) or not casts(site):
        return cast(site, name, rows, width)
    row, out = PLAIN_BF16.row_bytes(width), PLAIN_E4M3.row_bytes(width)
    both = Kernel(f"cast_{name}", Memory("scaled_both" if by_rows(site) else "cast_both", rows, row, 2 * out))
    return [*(_largest(name, rows, row) if by_rows(site) else _cast(site, name, rows, width)[:-1]), both]


def gated(site: Shared, t: int, w: int, backward: bool = False) -> list[Kernel]:
    """An activation with a gate, cast, out of both halves of its input; backward its gradients, from that of its
    output, both ways, and itself transposed. [tokens, w], with a scale a tensor."""
    row, byte = PLAIN_BF16.row_bytes(w), PLAIN_E4M3.row_bytes(w)
    if backward:
        largest = Kernel("amax_dy_gated", Memory("gated_largest_backward", t, 3 * row, 0.0))
        cast = Kernel("cast_dy_gated", Memory("gated_cast_backward", t, 3 * row, 5 * byte))
        return [largest, *[tiny(f"scale_dy_{name}", "fused") for name in ("gate", "up")], cast]
    largest = Kernel("amax_x_down", Memory("gated_largest", t, 2 * row, 0.0))
    return [largest, tiny("scale_x_down", "fused"), Kernel("cast_x_down", Memory("gated_cast", t, 2 * row, byte))]


def joins(site: Shared, fan: int) -> bool:
    """Whether an activation is in the casts around it: one with a gate, where a tensor has a scale."""
    return fan > 1 and casts(site) and not blocks(site) and not by_rows(site)


def linear(site: Shared, name: str, n: int, k: int) -> list[Kernel]:
    """[tokens, k] -> [tokens, n], of what is cast already."""
    if not casts(site):
        return kernels.linear(site, name, n, k)
    return [Kernel(name, Gemm(site.tokens, n, k, "fprop", site.recipe.linear))]


def dgrad(site: Shared, name: str, n: int, k: int) -> list[Kernel]:
    """Gradient of its input, of what is cast already."""
    if not casts(site):
        return kernels.dgrad(site, name, n, k)
    return [Kernel(f"{name}_dgrad", Gemm(site.tokens, k, n, "dgrad", site.recipe.linear))]


def ready(site: Shared, products: Sequence[tuple[str, int, int]], backward: bool) -> list[Kernel]:
    """Weights of products as those read them: cast; backward transposed, or cast by columns, for gradients of the
    input."""
    if not casts(site):
        return []
    if backward:
        return [kernel for name, n, k in products for kernel in _turned(site, f"w_{name}", n, k)]
    if site.recipe.gather == E4M3:  # they came so
        return []
    return [kernel for name, n, k in products for kernel in _cast(site, f"w_{name}", n, k)]


def whole(site: Shared, name: str, n: int, k: int, backward: bool = False) -> list[Kernel]:
    """A product of a rank's own with the casts before it; backward, the gradient of its input."""
    if backward:
        read = cast_gradient(site, f"dy_{name}", site.tokens, n)
        return [
            *read,
            *ready(site, [(name, n, k)], True),
            *dgrad(site, name, n, k),
            *scaled(site, name, site.tokens, k),
        ]
    read = cast(site, f"x_{name}", site.tokens, k)
    return [*read, *ready(site, [(name, n, k)], False), *linear(site, name, n, k)]


def wgrad(site: Shared, name: str, n: int, k: int, gathered: bool = False) -> list[Kernel]:
    """Gradient of its weights, in BF16, of an input that is transposed already. gathered: its output's gradient was,
    where ranks share tokens."""
    if not casts(site):
        return kernels.wgrad(site, name, n, k)
    op = Gemm(n, k, site.tokens, "wgrad", site.recipe.linear, result=BF16)
    whole = gathered and site.groups.sequence and not by_rows(site)
    turned = _turned(site, f"dy_{name}", site.tokens, n) if blocks(site) or whole else []
    return [*turned, Kernel(f"{name}_wgrad", op), *scaled(site, f"{name}_wgrad", n, k)]


def scaled(site: Shared, name: str, rows: int, width: int) -> list[Kernel]:
    """A gradient multiplied by the scales of what it is the product of, where they were left out; rows of all that are
    added up."""
    row = PLAIN_BF16.row_bytes(width)
    return [Kernel(f"{name}_scaled", Memory("scaled_gradient", rows, row, row))] if by_rows(site) else []


def weights(
    site: Shared, products: Sequence[tuple[str, int, int]], gathered: bool = False, turned: bool = False
) -> list[Kernel]:
    """Weight gradients of products that read one input, each a name, columns out and in. gathered: of `wgrad`.
    turned: the input is there transposed."""
    name, _, k = products[0]
    before = _turned(site, f"x_{name}", site.tokens, k) if casts(site) and not turned else []
    return before + [kernel for each in products for kernel in wgrad(site, *each, gathered)]
