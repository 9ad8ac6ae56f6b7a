"""The ends of a model in eager torch: embedding, final norm and head, cross-entropy in FP32."""

from hwmodels.formats import PLAIN_BF16, PLAIN_FP32
from hwmodels.op import Memory
from sim.models.layer import Kernel
from sim.models.stacks.cudnn import Shared
from sim.models.stacks.torch.kernels import (
    BARE,
    INDEX,
    WIDE,
    WIDTH,
    converted,
    dgrad,
    elementwise,
    halved,
    linear,
    radix_sort,
    rms_norm,
    rms_norm_backward,
    tiny,
    wgrad,
)  # fmt: skip
from sim.models.stacks.torch.sharing import gathered, logits, own_logits, summed, token_numbers, whole_logits

FEW_INDICES = 3072
"""Rows up to which one kernel adds up the embedding's gradient; more are sorted first
(aten/src/ATen/native/cuda/Embedding.cu)."""
MASKS = 3
"""Kernels that mask numbers of tokens: two comparisons, and their difference from the first (assumed)."""
KEY_PASSES = 8
"""Sweeps of the sort of 64-bit indices."""


def _contiguous(site: Shared, name: str) -> list[Kernel]:
    """Tokens or labels out of a tensor with one more token a sequence: a copy where there are several sequences."""
    return [tiny(name, "copy")] if site.sequences > 1 else []


def embedding(site: Shared, direction: str) -> list[Kernel]:
    t, h = site.tokens, site.shape.hidden
    row = PLAIN_BF16.row_bytes(h)
    if direction == "F":
        rows = Kernel("embedding", Memory("gather", t, row + INDEX, row))
        return [
            *_contiguous(site, "tokens"),
            *_masked(site, MASKS),
            rows,
            *_masked(site),
            *summed(site, "embedding", h),
        ]
    come = [*gathered(site, "dy_embedding", h), *_masked(site)]
    return [*come, *_embedding_backward(site)] if direction == "B" else []


def _masked(site: Shared, tiny_ones: int = 0) -> list[Kernel]:
    """Of ranks that share the vocabulary: numbers of tokens that are not in this rank's part of the table, in so many
    kernels; or their rows (torch/distributed/tensor/_ops/_embedding_ops.py, MaskPartial)."""
    if site.groups.tensor == 1:
        return []
    rows = elementwise("vocabulary_mask", site.tokens, site.shape.hidden)
    return [tiny("mask_tokens")] * tiny_ones if tiny_ones else [rows]


def _embedding_backward(site: Shared) -> list[Kernel]:
    """A table of zeros, to which rows are added: sorted, and by the stretches of a token."""
    t, h, v = site.tokens, site.shape.hidden, site.shape.vocabulary
    row = PLAIN_BF16.row_bytes(h)
    zeros = Kernel("embedding_zeros", Memory("fill", v, 0.0, row))
    if t <= FEW_INDICES:
        add = Kernel("embedding_add", Memory("scatter", t, 2 * row, row))
        return [*_contiguous(site, "tokens"), zeros, add]
    search = [
        tiny(f"embedding_{name}", "index", BARE)
        for name in ("compact", "unique", "partials", "scan_start", "scan", "count", "offset")
    ]
    adds = [Kernel(f"embedding_{name}", Memory("scatter", t, row, row)) for name in ("grad", "sum")]
    return [
        *_contiguous(site, "tokens"),
        tiny("positions", "index"),
        *radix_sort("embedding", t, KEY_PASSES),
        zeros,
        *search,
        *adds,
    ]


def head(site: Shared, direction: str) -> list[Kernel]:
    """Logits in BF16, copied to FP32 for log-softmax and the loss; the gradient comes back the same way."""
    t, own, h, v, read = site.tokens, site.own, site.shape.hidden, site.shape.vocabulary, logits(site)
    size = float(t) * read * WIDE
    if direction == "W":
        return wgrad(site, "head", v, h)
    if direction == "F":
        return [
            rms_norm("final_norm", own, h), *gathered(site, "x_head", h), *linear(site, "head", v, h),
            *whole_logits(site), *halved(converted("logits_fp32", t, read, WIDTH, WIDE), size),
            *_contiguous(site, "labels"), *_log_softmax(site), tiny("nll", "softmax"), *_losses(site),
        ]  # fmt: skip
    return [
        tiny("one"), *halved(Kernel("loss_zeros", Memory("fill", t, 0.0, PLAIN_FP32.row_bytes(read))), size),
        tiny("nll_bwd", "softmax"), *_log_softmax_backward(site),
        *halved(converted("logits_bf16", t, read, WIDE, WIDTH), size), *own_logits(site),
        *dgrad(site, "head", v, h), *summed(site, "dx_head", h), *rms_norm_backward("final_norm_bwd", own, h),
    ]  # fmt: skip


def _losses(site: Shared) -> list[Kernel]:
    """Of ranks that share the loss: each token's, of the rank that has its label."""
    return token_numbers(site, "losses") if site.stack.loss_parallel else []


def _log_softmax(site: Shared) -> list[Kernel]:
    """One kernel; or, of ranks that share the vocabulary, operation by operation, with the largest logits and the sums
    of all (torch/distributed/tensor/parallel/loss.py)."""
    t, row = site.tokens, PLAIN_FP32.row_bytes(logits(site))
    if site.groups.tensor == 1 or not site.stack.loss_parallel:
        return [Kernel("log_softmax", Memory("softmax", t, row, row))]
    largest, total = (Kernel(name, Memory("reduce", t, row, WIDE)) for name in ("logits_max", "logits_sum"))
    first, exp, last = (Kernel(f"logits_{n}", Memory("elementwise", t, row, row)) for n in ("shift", "exp", "norm"))
    return [largest, *token_numbers(site, "max"), first, exp, total, *token_numbers(site, "sums"), tiny("log"), last]


def _log_softmax_backward(site: Shared) -> list[Kernel]:
    t, row = site.tokens, PLAIN_FP32.row_bytes(logits(site))
    if site.groups.tensor == 1 or not site.stack.loss_parallel:
        return [Kernel("log_softmax_bwd", Memory("softmax_backward", t, 2 * row, row))]
    each = Memory("elementwise", t, row, row)
    kernels = {"exp": each, "scale": each, "sub": each._replace(read=2 * row)}
    return [Kernel(f"logits_{name}_bwd", op) for name, op in kernels.items()]


def positions(site: Shared, direction: str) -> list[Kernel]:
    """Learned positions, added to the embedding; their gradient sums over sequences."""
    t, h = site.own, site.shape.hidden
    if direction == "F":
        return [elementwise("positions", t, h, 2)]
    return [elementwise("positions_bwd", t, h)] if direction == "B" else []
