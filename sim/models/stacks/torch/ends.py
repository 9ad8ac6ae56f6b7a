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

FEW_INDICES = 3072
"""Rows up to which one kernel adds up the embedding's gradient; more are sorted first
(aten/src/ATen/native/cuda/Embedding.cu)."""
KEY_PASSES = 8
"""Sweeps of the sort of 64-bit indices."""


def _contiguous(site: Shared, name: str) -> list[Kernel]:
    """Tokens or labels out of a tensor with one more token a sequence: a copy where there are several sequences."""
    return [tiny(name, "copy")] if site.sequences > 1 else []


def embedding(site: Shared, direction: str) -> list[Kernel]:
    t, h = site.tokens, site.shape.hidden
    row = PLAIN_BF16.row_bytes(h)
    if direction == "F":
        return [*_contiguous(site, "tokens"), Kernel("embedding", Memory("gather", t, row + INDEX, row))]
    return _embedding_backward(site) if direction == "B" else []


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
    t, h, v = site.tokens, site.shape.hidden, site.shape.vocabulary
    size = float(t) * v * WIDE
    if direction == "W":
        return wgrad(site, "head", v, h)
    if direction == "F":
        return [
            rms_norm("final_norm", t, h), *linear(site, "head", v, h),
            *halved(converted("logits_fp32", t, v, WIDTH, WIDE), size), *_contiguous(site, "labels"),
            Kernel("log_softmax", Memory("softmax", t, PLAIN_FP32.row_bytes(v), PLAIN_FP32.row_bytes(v))),
            tiny("nll", "softmax"),
        ]  # fmt: skip
    loss = Memory("softmax_backward", t, 2 * PLAIN_FP32.row_bytes(v), PLAIN_FP32.row_bytes(v))
    return [
        tiny("one"), *halved(Kernel("loss_zeros", Memory("fill", t, 0.0, PLAIN_FP32.row_bytes(v))), size),
        tiny("nll_bwd", "softmax"), Kernel("log_softmax_bwd", loss),
        *halved(converted("logits_bf16", t, v, WIDE, WIDTH), size),
        *dgrad(site, "head", v, h), *rms_norm_backward("final_norm_bwd", t, h),
    ]  # fmt: skip


def positions(site: Shared, direction: str) -> list[Kernel]:
    """Learned positions, added to the embedding; their gradient sums over sequences."""
    t, h = site.tokens, site.shape.hidden
    if direction == "F":
        return [elementwise("positions", t, h, 2)]
    return [elementwise("positions_bwd", t, h)] if direction == "B" else []
