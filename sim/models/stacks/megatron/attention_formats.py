"""Attention in FP8 of TransformerEngine: what is quantised around it, and what of it is kept.

`fp8_dpa` (pytorch/attention/dot_product_attention: backends.py, FusedAttnFunc; utils.py, combine_and_quantize and
mxfp8_quantize_fast_path, of 2.16): queries, keys and values are quantised before it and kept so, its output and the
gradients of the three are BF16, the gradient of its output is quantised before backward.

* MXFP8: each tensor by rows and by columns in one kernel; its scales are then put in the tensor cores' order.
* a scale a tensor: the three joined in one tensor first, and backward's one, quantised by rows; current scaling passes
  over them for the largest value before (S and dP, inside the kernel, go by delayed scaling, with nothing to launch).
"""

from hwmodels.formats import MXFP8, PLAIN_BF16, PLAIN_E4M3, Layout
from hwmodels.op import Attention, Memory, copy, small
from sim.models.layer import Kernel
from sim.models.stacks.cudnn import Shared, precision

FORMS: dict[str, Layout] = {"fp8": PLAIN_E4M3, "mxfp8": MXFP8}


def quantised(site: Shared, name: str, widths: tuple[int, ...]) -> list[Kernel]:
    """What attention reads, of so many columns a tensor; nothing in BF16."""
    word, rows = precision(site), site.tokens
    if word == "bf16":
        return []
    if word == "mxfp8":
        return [
            kernel for at, width in enumerate(widths) for kernel in _by_blocks(f"sdpa_cast_{name}{at}", rows, width)
        ]
    width = sum(widths)
    row, out = PLAIN_BF16.row_bytes(width), FORMS[word].row_bytes(width)
    joined = [Kernel(f"sdpa_join_{name}", copy(rows, width))] if len(widths) > 1 else []
    current = site.recipe.name != "fp8_delayed"
    largest = [Kernel(f"sdpa_amax_{name}", Memory("amax", rows, row, 0.0)), Kernel("sdpa_scale", small("tiny"))]
    return [*joined, *(largest if current else []), Kernel(f"sdpa_cast_{name}", Memory("cast", rows, row, out))]


def _by_blocks(name: str, rows: int, width: int) -> list[Kernel]:
    """A tensor by rows and columns, and the scales of both put in order."""
    row, out = PLAIN_BF16.row_bytes(width), MXFP8.row_bytes(width)
    scales = 2 * (out - width * MXFP8.element.bits / 8)
    cast = Kernel(name, Memory("cast_transpose", rows, row, 2 * out))
    return [cast, Kernel(f"{name}_order", Memory("elementwise", rows, scales, scales))]


def seeded(kernels: list[Kernel]) -> list[Kernel]:
    """Forward's, each behind a small one for its seed, dropped or not (csrc/extensions/attention.cpp, fused_attn_fwd:
    philox_unpack). Attention in single operations asks for none."""
    seed = Kernel("seed", small("tiny"), host=0.0)
    return [each for kernel in kernels for each in ([seed, kernel] if isinstance(kernel.op, Attention) else [kernel])]


def kept(site: Shared, plain: float, width: int) -> float:
    """Bytes of a token's queries, keys and values, of so many columns in all. plain: in BF16."""
    word = precision(site)
    return plain if word == "bf16" else FORMS[word].row_bytes(width) * (2 if word == "mxfp8" else 1)
