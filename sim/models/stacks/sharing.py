"""What ranks that share a layer send each other: collectives of tensor and expert-tensor groups, and where they stand.

Ranks of a tensor group that also share tokens (sequence parallelism, arXiv:2205.05198 sec 4.2.2) gather the tokens of
all of them before the first product of a block and reduce-scatter the sums behind its last one; else each has all
tokens, and the sums are all-reduced. Backward the two change places.
"""

from collections.abc import Callable, Sequence

from hwmodels.formats import PLAIN_BF16
from hwmodels.op import Collective, Memory
from sim.models.layer import COMMUNICATION, Kernel
from sim.models.stacks.cudnn import Shared

TENSOR, CONTEXT, EXPERT_TENSOR = "tensor", "context", "expert_tensor"
"""Words for whom a kernel meets."""
SUMMED = "sum_chunks"
"""Name of what adds up chunks that came from other ranks."""
PIPED = 4
"""Parts of a product whose sums are piped (num_splits of all of NeMo's settings: NVIDIA/NeMo v2.5.0rc0,
nemo/collections/llm/recipes/tp_overlap_configs/userbuffers.py)."""
INPUT, END, GATHER = " input", " end", " gather"
"""Pieces of a half of a layer, backward: its first product, and what follows that; the input that its weights'
gradient needs again."""


def collective(site: Shared, kind: str, name: str, size: float) -> Kernel:
    """A collective of the tensor group, of a vector of `size` bytes."""
    groups = site.groups
    return Kernel(name, Collective(kind, size, groups.tensor, groups.tensor_nodes), COMMUNICATION, meets=TENSOR)


def in_order(kernels: Sequence[Kernel]) -> list[Kernel]:
    """Collectives that begin when all is through that was launched before them, as torch's functional ones do: NCCL's
    stream waits for the stream that they are called on (ProcessGroupNCCL::collective, `syncStream`, in
    torch/csrc/distributed/c10d/ProcessGroupNCCL.cpp), and autograd has launched the weights' gradients by then."""
    return [kernel._replace(behind=True) if kernel.lane == COMMUNICATION else kernel for kernel in kernels]


def gathered(site: Shared, name: str, row: float) -> list[Kernel]:
    """Tokens of all ranks, `row` bytes each, where each has some."""
    return [collective(site, "all_gather", f"gather_{name}", site.tokens * row)] if site.groups.sequence else []


def summed(site: Shared, name: str, width: int) -> list[Kernel]:
    """Sums over the group of [tokens, width] in BF16: each rank's own tokens, or all."""
    if site.groups.tensor == 1:
        return []
    kind, word = ("reduce_scatter", "scatter") if site.groups.sequence else ("all_reduce", "reduce")
    return [collective(site, kind, f"{word}_{name}", site.tokens * PLAIN_BF16.row_bytes(width))]


def fed(site: Shared, gather: list[Kernel], products: Callable[[Shared], list[Kernel]]) -> list[Kernel]:
    """Products behind the gather of their input; or beside it in chunks, the tokens of a rank each: the last one waits
    for all that is sent, as the first is there (TransformerEngine, CommOverlapP2P, split_overlap_ag)."""
    if not (site.groups.chunked and gather):
        return [*gather, *products(site)]
    chunk = products(_chunk(site))
    ahead = len(chunk) * (site.groups.tensor - 1)
    return [gather[0]._replace(ahead=ahead), *gather[1:], *chunk * site.groups.tensor]


def drained(site: Shared, products: Callable[[Shared], list[Kernel]], name: str, width: int) -> list[Kernel]:
    """Products before the sum of their output; or in chunks, each sent beside the next, and added up where it arrives
    (split_overlap_rs there)."""
    scatter = summed(site, name, width)
    if not (site.groups.chunked and scatter):
        return [*products(site), *scatter]
    chunk, row = products(_chunk(site)), PLAIN_BF16.row_bytes(width)
    others = chunk * (site.groups.tensor - 1)
    add = Kernel(SUMMED, Memory("reduce", site.own, site.groups.tensor * row, row))
    return [*chunk, scatter[0]._replace(ahead=len(others)), *others, add]


def piped(site: Shared, product: Callable[[int], list[Kernel]], name: str, width: int) -> list[Kernel]:
    """A product before the sum of its output, `PIPED` parts of its columns one after another: each is summed up beside
    the next, in the kernel that fetches it, the last one behind all (TransformerEngine, CommOverlapBase,
    split_overlap_rs). product: of so many columns."""
    sizes = [width // PIPED] * (PIPED - 1) + [width - width // PIPED * (PIPED - 1)]
    first, *others = [product(size) for size in sizes]
    beside, behind = (summed(site, name, columns) for columns in (sum(sizes[:-1]), sizes[-1]))
    rest = [kernel for kernels in others for kernel in kernels]
    return [*first, beside[0]._replace(ahead=len(rest)), *rest, *behind]


def _chunk(site: Shared) -> Shared:
    """The tokens of one rank."""
    return site.local


def piece(site: Shared, name: str, kernels: Sequence[Kernel]) -> list[Kernel]:
    """Kernels as a piece of their part, where it is cut: so that the sum of the input's gradients, and the gather of
    the input, run beside products (megatron/core/tensor_parallel/layers.py,
    LinearWithGradAccumulationAndAsyncCommunication; TransformerEngine does likewise)."""
    return [kernel._replace(piece=name) for kernel in kernels] if site.groups.tensor > 1 else list(kernels)


def row_collective(site: Shared, kind: str, name: str, rows: float, row: float) -> list[Kernel]:
    """A collective of the ranks that share the columns of routed experts: rows of each, `row` bytes each."""
    groups = site.groups
    if groups.expert_tensor == 1:
        return []
    op = Collective(kind, rows * groups.expert_tensor * row, groups.expert_tensor, groups.expert_tensor_nodes)
    return [Kernel(name, op, COMMUNICATION, meets=EXPERT_TENSOR)]
