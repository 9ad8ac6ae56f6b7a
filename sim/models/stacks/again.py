"""Kernels of a unit's forward that backward runs a second time, where it runs no whole layers again.

Words of `sim.models.recompute` name kernels of a block by patterns, so that a block's passes need not know of them.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

from hwmodels.formats import PLAIN_BF16, PLAIN_FP32
from hwmodels.op import AllToAll, Attention, Collective, Gemm
from sim.models.activations import Kept
from sim.models.layer import Kernel, Part
from sim.models.stacks.context import AROUND
from sim.models.stacks.cudnn import MEMSET, Shared
from sim.models.stacks.sharing import CONTEXT, SUMMED

Words = Mapping[type, Mapping[str, tuple[str, ...]]]
"""Kind of block -> word -> patterns of names of its forward's kernels; ! before a pattern takes such kernels out."""


PLAIN = "bf16"
"""Precision of products that are `aten.mm`."""


class Tensor(NamedTuple):
    """What a unit keeps: bytes of a token, or of a row of its experts, and the words with which it is made again."""

    token: float
    again: tuple[str, ...] = ()
    row: float = 0.0


def total(site: Shared, tensors: Iterable[Tensor], words: Sequence[str] = ()) -> Kept:
    """What is kept of tensors, where some words are computed again."""
    left = [each for each in tensors if not set(each.again) & set(words)]
    return Kept(site.tokens * sum(each.token for each in left), 0.0, sum(each.row for each in left))


def _owners(kernels: Sequence[Kernel], around: Sequence[str]) -> list[int]:
    """Of each kernel the one that it belongs to: itself, or the product that it is launched around."""
    own = list(range(len(kernels)))
    for i in reversed(range(len(own) - 1)):
        own[i] = own[i + 1] if kernels[i].name == MEMSET else i
    for i in range(1, len(own)):
        own[i] = own[i - 1] if kernels[i].name in around and kernels[i].name != MEMSET else own[i]
    return own


def named(kernels: Sequence[Kernel], words: Collection[Sequence[str]], around: Sequence[str]) -> tuple[Kernel, ...]:
    """Kernels that patterns of any word name. around: what belongs to a product: MEMSET before it, others behind."""
    own = _owners(kernels, around)
    taken = [any(_matches(kernels[i].name, patterns) for patterns in words) for i in own]
    return tuple(kernel for kernel, there in zip(kernels, taken, strict=True) if there)


def _matches(name: str, patterns: Iterable[str]) -> bool:
    taken = [pattern for pattern in patterns if fnmatchcase(name, pattern.removeprefix("!"))]
    return bool(taken) and not any(pattern.startswith("!") for pattern in taken)


LARGEST = ("amax_*", "scale_*")
"""Kernels that find the largest value of what is cast, and its scale."""


def _saved(kernels: Sequence[Kernel]) -> set[int]:
    """Places of the kernels whose outputs torchtitan's selective policy saves: attention, exchanges, and the first,
    third, fifth ... product of a layer, neither grouped ones nor those of float8 counted, reduce-scatters, and largest
    values for casts (github.com/pytorch/torchtitan, `_save_list` and `_custom_policy`: `aten.mm`, of which "every
    second" is computed again, and not `_scaled_mm`). What comes of a context group with attention stays too."""
    products = {i: kernel.name for i, kernel in enumerate(kernels)
                if isinstance(kernel.op, Gemm) and kernel.op.precision == PLAIN}  # fmt: skip
    saved = set([*dict.fromkeys(products.values())][::2])  # by name: a product may be cut in chunks
    return {i for i, kernel in enumerate(kernels) if products.get(i) in saved or _stays(kernel)}


def _stays(kernel: Kernel) -> bool:
    around = kernel.meets == CONTEXT or any(fnmatchcase(kernel.name, name) for name in (*AROUND, *LARGEST))
    return _scattered(kernel) or around or isinstance(kernel.op, Attention | AllToAll)


def _scattered(kernel: Kernel) -> bool:
    return isinstance(kernel.op, Collective) and kernel.op.kind == "reduce_scatter"


def unsaved(parts: Sequence[Part], around: Sequence[str], pruned: bool = False) -> tuple[Part, ...]:
    """Parts of a layer's forward without what that policy saves; nobody is met a second time. pruned: what is made for
    a saved output alone is not made again either, as torch.compile finds."""
    kernels = [kernel for part in parts for kernel in part.kernels]
    saved, own, out, first = _saved(kernels), _owners(kernels, around), [], 0
    idle = _idle(kernels) if pruned else frozenset()
    for part in parts:
        left = [i for i in range(first, first + len(part.kernels)) if not (own[i] in saved or part.meets or i in idle)]
        out.append(part._replace(kernels=tuple(_ahead(kernels, i, left) for i in left)))
        first += len(part.kernels)
    return tuple(out)


def _ahead(kernels: Sequence[Kernel], i: int, left: Sequence[int]) -> Kernel:
    """A kernel that does not wait for as many behind it as are left of them."""
    kernel = kernels[i]
    return kernel._replace(ahead=sum(i < j <= i + kernel.ahead for j in left)) if kernel.ahead else kernel


def _idle(kernels: Sequence[Kernel]) -> frozenset[int]:
    """Places of products, with their casts and what puts their output in order, that only a reduce-scatter reads."""
    scatters = [i for i, kernel in enumerate(kernels) if _scattered(kernel)]
    names: set[str] = set()
    for scatter in scatters:
        product = next(kernel.name for kernel in reversed(kernels[:scatter]) if isinstance(kernel.op, Gemm))
        names |= {product, f"{kernels[scatter].name}_cat", *(f"cast_{of}_{product}" for of in "xw")}
    return frozenset(
        i for i, kernel in enumerate(kernels) if kernel.name in names or (scatters and kernel.name == SUMMED)
    )


def saved_bytes(site: Shared, parts: Iterable[Part]) -> Kept:
    """Outputs that the policy saves: of products and of attention (with a log-sum-exp a head) in BF16, rows of
    exchanges."""
    kernels, out = [kernel for part in parts for kernel in part.kernels], Kept()
    row = PLAIN_BF16.row_bytes(site.shape.sent)
    for op in (kernels[i].op for i in sorted(_saved(kernels))):
        if isinstance(op, Gemm):
            out += Kept(op.m * PLAIN_BF16.row_bytes(op.n))
        elif isinstance(op, Attention):
            each = PLAIN_BF16.row_bytes(op.heads * op.v) + PLAIN_FP32.row_bytes(op.heads)
            out += Kept(op.batch * op.sequence * each)
        elif isinstance(op, Collective) and op.kind == "reduce_scatter":
            out += Kept(op.size / op.ranks)
        elif isinstance(op, AllToAll):
            out += Kept(row=row) if op.direction == "dispatch" else Kept(op.tokens * op.ranks_reached * row)
    return out
