"""Casts of TransformerEngine's recipes: what is quantised when, in how many kernels.

A product reads its input rows forward and its columns in the weight gradient, so each of input, weight and output
gradient is quantised both ways (nvidia.github.io/TransformerEngine, Performance considerations, table 2):

* delayed: one scale a tensor, from the history of largest values; norms write FP8; columns are transposed on Hopper.
* current: one scale a tensor, from a pass of its own over it.
* block: 1 x 128 for activations, 128 x 128 for weights; both ways in one kernel from the BF16 tensor.
* mxfp8: 1 x 32, both ways independently; no transposes; cuDNN's norms write both.
* nvfp4: 1 x 16 in E4M3 under one FP32 scale a tensor, so a pass for that; columns after a random Hadamard transform.

Whose norms, which scales and how many casts (`stack.norms`, `stack.scales`, `stack.casts`) are a release's.
"""

from typing import NamedTuple

from hwmodels.formats import PLAIN_BF16
from hwmodels.op import Memory, small
from sim.models.layer import Kernel
from sim.models.stacks.cudnn import Shared
from sim.models.stacks.megatron import host
from sim.models.stacks.stack import APART, BOTH, CUDNN_NORMS, NONE


class Casting(NamedTuple):
    """first: a pass finds the largest value before the cast. norms: norms write quantised rows. later: columns are
    transposed from quantised rows in backward, where a norm wrote those. largest: TransformerEngine's norms find the
    largest value of what they write. ordered: scales are of blocks, read by tensor cores in an order of their own."""

    first: bool = False
    norms: bool = False
    later: bool = False
    largest: bool = False
    ordered: bool = False


CASTINGS = {
    "bf16": None, "fp8_delayed": Casting(norms=True, later=True), "fp8_current": Casting(first=True, largest=True),
    "fp8_block": Casting(), "mxfp8": Casting(ordered=True), "nvfp4": Casting(first=True, ordered=True),
}  # fmt: skip
"""Recipe -> how it casts; None: it does not."""


def casting(site: Shared) -> Casting | None:
    """How the site's recipe casts, by its stack's norms."""
    own = CASTINGS[site.recipe.name]
    if own is None or site.stack.norms != CUDNN_NORMS:
        return own
    return own._replace(norms=own.norms or site.recipe.name == "mxfp8", largest=False)


def one_scale(site: Shared) -> bool:
    """Whether a tensor has one scale, or none: columns then are rows transposed."""
    return site.recipe.name in ("bf16", "fp8_delayed", "fp8_current")


def ways(site: Shared) -> int:
    """Quantised tensors of one: rows and columns, or one for both where the GPU reads either."""
    return 2 if site.recipe.both_ways else 1


def quantised(site: Shared, name: str, rows: int, width: int, largest: bool = False) -> list[Kernel]:
    """A BF16 tensor quantised, for both of its products. largest: that value is known."""
    own = casting(site)
    if own is None:
        return []
    casts = _casts(site, name, rows, width)
    if not own.first:
        return casts
    passes = [] if largest else [Kernel(f"amax_{name}", Memory("amax", rows, PLAIN_BF16.row_bytes(width), 0.0))]
    return [*passes, Kernel(f"scale_{name}", small("tiny")), *casts]


def _casts(site: Shared, name: str, rows: int, width: int) -> list[Kernel]:
    """Rows and columns by one kernel; or NVFP4's by one each, which read the tensor anew."""
    row, out = PLAIN_BF16.row_bytes(width), site.recipe.activation.row_bytes(width)
    if site.recipe.name == "nvfp4" and site.stack.casts == APART:
        return [Kernel(f"cast_{which}{name}", Memory("cast", rows, row, out)) for which in ("", "columns_")]
    kind = "cast_transpose" if ways(site) > 1 else "cast"
    return [Kernel(f"cast_{name}", Memory(kind, rows, row, ways(site) * out))]


def ordered(site: Shared, name: str, *sides: tuple[int, int], weight: tuple[int, int] | None = None) -> list[Kernel]:
    """Scales of a product's sides in the order of tensor cores, a kernel each, where their casts did not write them so.
    sides: rows and columns of activations and gradients; weight: of weights."""
    own = casting(site)
    if own is None or not own.ordered or site.stack.scales == NONE:
        return []
    kept = [*(sides if site.stack.scales == BOTH else ()), *([weight] if weight else [])]
    each = site.recipe.activation.row_bytes(1) - site.recipe.activation.element.bits / 8
    launch = host.work(host.LAUNCH, "F")
    return [
        Kernel(f"order_{name}", Memory("elementwise", rows, each * width, each * width), host=launch)
        for rows, width in kept
    ]


def apart(site: Shared, name: str, rows: int, width: int, direction: str) -> list[Kernel]:
    """Rows of experts quantised expert by expert, one behind the other (TransformerEngine 2.9, csrc/extensions/
    cast.cpp, `split_quantize`: only delayed scaling has a kernel for all); as one where a graph holds the whole step,
    for what runs there reads from the GPU how many rows each has."""
    whole = quantised(site, name, rows, width)
    if site.recipe.name == "fp8_delayed" or site.stack.cuda_graphs:
        return whole
    own, launch = site.local_experts, host.work(host.LAUNCH, direction)
    part = quantised(site, name, -(-rows // own), width)
    return [kernel._replace(host=launch) for kernel in part] * own


def normed(site: Shared, name: str, rows: int, width: int) -> list[Kernel]:
    """A norm before a product, with the cast of its output."""
    own, row = casting(site), PLAIN_BF16.row_bytes(width)
    if own is None or not own.norms:
        cast = quantised(site, name, rows, width, largest=own is not None and own.largest)
        return [Kernel(name, Memory("norm_forward", rows, row, row)), *cast]
    written = site.recipe.activation.row_bytes(width) * (1 if own.later else ways(site))
    return [Kernel(name, Memory("norm_forward", rows, row, written))]


def transposed(site: Shared, name: str, rows: int, width: int) -> list[Kernel]:
    """Columns of a norm's output, where backward makes them from its rows."""
    own = casting(site)
    if own is None or not own.later or ways(site) == 1 or site.groups.sequence:  # after the gather, with that of dY
        return []
    row = site.recipe.activation.row_bytes(width)
    return [Kernel(f"transpose_{name}", Memory("weight_transpose", rows, row, row))]
