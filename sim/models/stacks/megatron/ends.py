"""The ends of a model in Megatron Core: embedding, output layer in BF16 or, as one of TransformerEngine's, in MXFP8
(TELMHeadColumnParallelLinear of core/extensions/transformer_engine.py), TransformerEngine's fused cross-entropy or
Megatron Core's own, compiled or operation by operation."""

from hwmodels.formats import PLAIN_BF16, PLAIN_FP32
from hwmodels.op import Gemm, Memory, copy, small
from sim.models.blocks.made import EMBEDDING, HEAD, Made
from sim.models.layer import Kernel
from sim.models.stacks.cudnn import Shared
from sim.models.stacks.megatron.casts import casting, quantised
from sim.models.stacks.megatron.linear import (
    BF16,
    first,
    first_dgrad,
    first_wgrad,
    fused,
    gradient,
    norm_backward,
    plain_norm,
    summed_up,
)  # fmt: skip
from sim.models.stacks.sharing import END, GATHER, INPUT, collective, gathered, piece, summed
from sim.models.stacks.stack import MXFP8_OUTPUT, NATIVE, PLAIN_LOSS

SUMS = 3 * 4
"""Bytes of a token's largest logit, sum and right logit, in FP32."""
FP32 = 4.0
"""Bytes of a number in FP32."""
BY_ELEMENT = 2.34
"""Bytes of an element that a kernel would read, and write, if it went as fast as strided copies of BF16: of one in FP32
that reads a number a row beside (374 to 392 us of 131.6 million elements on an H200, docs/EVIDENCE.md, 270)."""
LABELS, LOSSES, LESS_ONE = 10, 2, 6
"""Small kernels of an unfused loss over a token's label: where it is in a rank's part of the vocabulary (two
comparisons, and their union), its place (a copy, a difference, zeros elsewhere), a row's number, its logit and a copy
of it, zeros elsewhere; a logarithm and a difference; and backward, the mask in FP32 and one less it, a row's number,
what is there, the difference, and its being put back."""


def end(site: Shared, made: Made, direction: str) -> list[Kernel]:
    """Kernels of the embedding, the head, or the projection of a prediction module."""
    if made.end == EMBEDDING:
        return _embedding(site, made, direction)
    return (_head if made.end == HEAD else _projection)(site, direction)


def _embedding(site: Shared, made: Made, direction: str) -> list[Kernel]:
    """Rows of the table, from [sequences, tokens] to [tokens, sequences]; its gradient goes to FP32 main gradients.
    Ranks that share the vocabulary have zeros for tokens of others, and add up (VocabParallelEmbedding)."""
    t, own, h, v = site.tokens, site.own, site.shape.hidden, site.shape.vocabulary
    row, learned = PLAIN_BF16.row_bytes(h), [fused("positions", own, h, 2, 1)] if made.positions else []
    if direction == "F":
        out = [Kernel("embedding", copy(t, h)), *_masked(site)]
        if site.groups.sequence:  # positions come behind the sum of a rank's own tokens
            return [*out, Kernel("embedding_transpose", copy(t, h)), *summed(site, "embedding", h), *learned]
        return [*out, *summed(site, "embedding", h), *learned, Kernel("embedding_transpose", copy(t, h))]
    if direction == "W":
        return []
    added = Memory("elementwise", v, row + PLAIN_FP32.row_bytes(h), PLAIN_FP32.row_bytes(h))
    grad = Kernel("embedding_bwd", Memory("elementwise", t, 2 * row, row))
    come = [*gathered(site, "dy_embedding", row), Kernel("embedding_transpose_bwd", copy(t, h))]
    return [*come, *learned, *_masked(site), grad, Kernel("main_grad_add", added)]


def _masked(site: Shared) -> list[Kernel]:
    """Rows of tokens that are not in this rank's part of the table."""
    return [fused("vocabulary_mask", site.tokens, site.shape.hidden, 1, 1)] if site.groups.tensor > 1 else []


def _head(site: Shared, direction: str) -> list[Kernel]:
    """Final norm, logits, and the loss."""
    t, own, h, v = site.tokens, site.own, site.shape.hidden, site.shape.vocabulary
    x = PLAIN_BF16.row_bytes(h)
    if site.stack.output_layer == MXFP8_OUTPUT and casting(site):
        return _quantised_head(site, direction)
    if direction == "W":
        product = [Kernel("head_wgrad", gradient(site, v, h, BF16)), *summed_up(site, "head", v * h)]
        return [*piece(site, GATHER, gathered(site, "x_head_again", x)), *piece(site, INPUT, product)]
    if direction == "F":
        logits = Kernel("head", Gemm(t, v, h, "fprop", "bf16"))
        return [*plain_norm("final_norm", own, h), *gathered(site, "x_head", x), logits, *_loss(site)]
    product = [Kernel("head_dgrad", Gemm(t, h, v, "dgrad", "bf16")), *summed(site, "dx_head", h)]
    end = norm_backward("final_norm_bwd", own, h)
    return [*_loss_backward(site), *piece(site, INPUT, product), *piece(site, END, end)]


def _quantised_head(site: Shared, direction: str) -> list[Kernel]:
    """The same, whose products are as those of layers: of the norm's output and of the logits' gradient, cast both."""
    own, h, v = site.own, site.shape.hidden, site.shape.vocabulary
    if direction == "W":
        return first_wgrad(site, "head", v, h)
    if direction == "F":
        norm = [*plain_norm("final_norm", own, h), *quantised(site, "x_head", own, h)]
        return [*norm, *first(site, "head", v, h), *_loss(site)]
    return [
        *_loss_backward(site),
        *first_dgrad(site, "head", v, h),
        *piece(site, END, norm_backward("final_norm_bwd", own, h)),
    ]


def _loss(site: Shared) -> list[Kernel]:
    """The loss. TransformerEngine's writes the logits' gradient in their place; ranks that share the vocabulary tell
    each other the largest logit of their part, its sum and the right one's (te_parallel_cross_entropy). Megatron
    Core's own copies logits to FP32, finds the largest, exponents and their sums, and divides by these: a compiled
    kernel each, around sums over the ranks; what it keeps is the softmax."""
    t, v, tensor = site.tokens, site.shape.vocabulary, site.groups.tensor
    if site.stack.cross_entropy == PLAIN_LOSS:
        return _plain_loss(site)
    if site.stack.cross_entropy != NATIVE:
        sums = [collective(site, "all_gather", "gather_sums", t * tensor * SUMS)] if tensor > 1 else []
        return [fused("softmax", t, v, 1, 0), *sums, fused("cross_entropy", t, v, 1, 1)]
    half, wide = PLAIN_BF16.row_bytes(v), PLAIN_FP32.row_bytes(v)
    largest, exponents, divided = (
        Kernel(name, Memory("elementwise", t, read, wide))
        for name, read in (("logits_fp32", half), ("exponents", wide), ("cross_entropy", wide))
    )
    if tensor == 1:
        return [largest, exponents, divided]
    shared = [collective(site, "all_reduce", f"reduce_{name}", float(t) * n) for name, n in (("max", 4), ("sums", 8))]
    return [largest, shared[0], exponents, shared[1], divided]


def _plain_loss(site: Shared) -> list[Kernel]:
    """Megatron Core's own loss, not compiled: a kernel of torch for each operation over all logits in FP32, in their
    place, and for each of a token's label (VocabParallelCrossEntropy)."""
    v, tensor = site.shape.vocabulary, site.groups.tensor
    half, wide = PLAIN_BF16.row_bytes(v), PLAIN_FP32.row_bytes(v)
    largest = [collective(site, "all_reduce", "reduce_max", site.tokens * FP32)] if tensor > 1 else []
    sums = [collective(site, "all_reduce", f"reduce_{name}", site.tokens * FP32) for name in ("right", "sums")]
    return [
        _over_logits(site, "logits_fp32", half, wide, "convert"), _over_logits(site, "logits_max", wide, 0.0, "reduce"),
        *largest, _by_row(site, "logits_less"), *_of_labels("label", LABELS),
        _over_logits(site, "exponents", wide, wide), _over_logits(site, "exponents_sum", wide, 0.0, "reduce"),
        *(sums if tensor > 1 else []), *_of_labels("loss", LOSSES), _by_row(site, "cross_entropy"),
    ]  # fmt: skip


def _over_logits(site: Shared, name: str, read: float, write: float, kind: str = "elementwise") -> Kernel:
    return Kernel(name, Memory(kind, site.tokens, read, write))


def _by_row(site: Shared, name: str) -> Kernel:
    """Logits and a number of their row."""
    row = BY_ELEMENT * site.shape.vocabulary
    return _over_logits(site, name, row, row, "strided")


def _of_labels(name: str, count: int) -> list[Kernel]:
    return [Kernel(f"{name}_{each}", small("tiny")) for each in range(count)]


def _loss_backward(site: Shared) -> list[Kernel]:
    """The gradient of logits: in their place, times that of the loss; or the softmax, less one where the label is and
    times that, in its place and in BF16; these by a kernel each where nothing fuses them."""
    t, v = site.tokens, site.shape.vocabulary
    if site.stack.cross_entropy not in (NATIVE, PLAIN_LOSS):
        return [fused("cross_entropy_bwd", t, v, 1, 1)]
    half, wide = PLAIN_BF16.row_bytes(v), PLAIN_FP32.row_bytes(v)
    if site.stack.cross_entropy == NATIVE:
        return [_over_logits(site, "cross_entropy_bwd", wide, wide + half)]
    narrow = _over_logits(site, "logits_bwd", wide, half, "convert")
    return [*_of_labels("label_bwd", LESS_ONE), _by_row(site, "cross_entropy_bwd"), narrow]


def _projection(site: Shared, direction: str) -> list[Kernel]:
    """Norms of the hidden state and of the next token's embedding, joined, and a product in BF16; of a rank's own
    tokens."""
    t, h = site.own, site.shape.hidden
    if direction == "W":
        product = Kernel("projection_wgrad", gradient(site, h, 2 * h, BF16))
        return [product, *summed_up(site, "projection", 2 * h * h)]
    if direction == "F":
        norms = plain_norm("hidden_norm", t, h) + plain_norm("next_norm", t, h)
        product = Kernel("projection", Gemm(t, h, 2 * h, "fprop", "bf16"))
        return [*_embedding(site, Made(EMBEDDING), "F"), *norms, Kernel("join", copy(t, 2 * h)), product]
    norms = norm_backward("hidden_norm_bwd", t, h) + norm_backward("next_norm_bwd", t, h)
    product = Kernel("projection_dgrad", Gemm(t, 2 * h, h, "dgrad", "bf16"))
    return [product, *norms, *_embedding(site, Made(EMBEDDING), "B")]
