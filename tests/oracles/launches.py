"""Kernels of a torch step by class: measured ones by their names, simulated ones by what they do."""

from collections import Counter
from collections.abc import Iterable

from hwmodels.op import Attention, Gemm, GroupedGemm, Memory
from sim.models.layer import Kernel

CLASSES = ("product", "attention", "norm", "softmax", "copy", "index", "elementwise", "fused", "optimizer", "memset")
"""product: cuBLAS, CUTLASS and what they launch around one. softmax: and the loss. copy: transposes, conversions,
concatenation, memory copies. index: sorts, top-k, gathers, scatters, scans. fused: torch.compile's."""
NAMED = (
    ("memset", ("Memset",)),
    ("fused", ("triton_",)),
    ("copy", ("Memcpy", "direct_copy", "bfloat16_copy", "CatArray")),
    ("product", ("nvjet", "cutlass", "splitKreduce", "prepare_grouped_gemm")),
    ("attention", ("cudnn", "fmha")),
    ("norm", ("layer_norm", "GammaBeta")),
    ("optimizer", ("multi_tensor_apply",)),
    ("softmax", ("SoftMax", "softmax_warp", "nll_loss")),
    ("index", ("radix_sort", "TopK", "bitonicSort", "::scan::", "unique_by_key", "Histogram1D", "gather", "index",
               "krn_", "compute_num_of", "compute_grad_weight", "sum_and_scatter", "embedding_backward",
               "fill_reverse")),
)  # fmt: skip
"""Class -> parts of the names of its kernels; the first that fits."""
KINDS = {
    "softmax_backward": "softmax", "copy": "copy", "convert": "copy", "concatenate": "copy", "join": "copy",
    "gather": "index", "scatter": "index", "sort": "index", "topk": "index", "index": "index", "adam": "optimizer",
    "adam_unseen": "optimizer",
    "softmax": "softmax",
    "fused": "fused", "memset": "memset",
}  # fmt: skip
"""Kind of a memory-bound operation -> class; those with a class in their name aside."""


def named(name: str) -> str:
    """Class of a measured kernel."""
    return next((label for label, words in NAMED if any(word in name for word in words)), "elementwise")


def classed(kernel: Kernel) -> str:
    """Class of a simulated kernel."""
    op = kernel.op
    if isinstance(op, Gemm | GroupedGemm) or kernel.name == "split_k_sum":
        return "product"
    if isinstance(op, Attention):
        return "attention"
    assert isinstance(op, Memory)
    first, _, rest = op.kind.partition("_")
    if first in ("attention", "norm"):
        return first
    return rest if first == "tiny" and rest else KINDS.get(op.kind, "elementwise")


def counted(kernels: Iterable[Kernel]) -> dict[str, int]:
    """Launches by class."""
    counts = Counter(classed(kernel) for kernel in kernels)
    return {label: counts[label] for label in CLASSES if counts[label]}
