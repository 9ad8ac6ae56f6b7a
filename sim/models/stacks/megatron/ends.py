"""The ends of a model in Megatron Core: embedding, output layer in BF16, TransformerEngine's fused cross-entropy."""

from hwmodels.formats import PLAIN_BF16, PLAIN_FP32
from hwmodels.op import Gemm, Memory, copy
from sim.models.blocks.made import EMBEDDING, HEAD, Made
from sim.models.layer import Kernel
from sim.models.stacks.cudnn import Shared
from sim.models.stacks.megatron.linear import fused, norm_backward, plain_norm


def end(site: Shared, made: Made, direction: str) -> list[Kernel]:
    """Kernels of the embedding, the head, or the projection of a prediction module."""
    if made.end == EMBEDDING:
        return _embedding(site, made, direction)
    return (_head if made.end == HEAD else _projection)(site, direction)


def _embedding(site: Shared, made: Made, direction: str) -> list[Kernel]:
    """Rows of the table, from [sequences, tokens] to [tokens, sequences]; its gradient goes to FP32 main gradients."""
    t, h, v = site.tokens, site.shape.hidden, site.shape.vocabulary
    row, learned = PLAIN_BF16.row_bytes(h), [fused("positions", t, h, 2, 1)] if made.positions else []
    if direction == "F":
        return [Kernel("embedding", copy(t, h)), *learned, Kernel("embedding_transpose", copy(t, h))]
    if direction == "W":
        return []
    added = Memory("elementwise", v, row + PLAIN_FP32.row_bytes(h), PLAIN_FP32.row_bytes(h))
    grad = Kernel("embedding_bwd", Memory("elementwise", t, 2 * row, row))
    return [Kernel("embedding_transpose_bwd", copy(t, h)), *learned, grad, Kernel("main_grad_add", added)]


def _head(site: Shared, direction: str) -> list[Kernel]:
    """Final norm, logits, and the loss, which writes their gradient in their place."""
    t, h, v = site.tokens, site.shape.hidden, site.shape.vocabulary
    if direction == "W":
        return [Kernel("head_wgrad", Gemm(v, h, t, "wgrad", "bf16"))]
    if direction == "F":
        logits = Kernel("head", Gemm(t, v, h, "fprop", "bf16"))
        loss = [fused("softmax", t, v, 1, 0), fused("cross_entropy", t, v, 1, 1)]
        return [*plain_norm("final_norm", t, h), logits, *loss]
    scaled = fused("cross_entropy_bwd", t, v, 1, 1)
    return [scaled, Kernel("head_dgrad", Gemm(t, h, v, "dgrad", "bf16")), *norm_backward("final_norm_bwd", t, h)]


def _projection(site: Shared, direction: str) -> list[Kernel]:
    """Norms of the hidden state and of the next token's embedding, joined, and a product in BF16."""
    t, h = site.tokens, site.shape.hidden
    if direction == "W":
        return [Kernel("projection_wgrad", Gemm(h, 2 * h, t, "wgrad", "bf16"))]
    if direction == "F":
        norms = plain_norm("hidden_norm", t, h) + plain_norm("next_norm", t, h)
        product = Kernel("projection", Gemm(t, h, 2 * h, "fprop", "bf16"))
        return [*_embedding(site, Made(EMBEDDING), "F"), *norms, Kernel("join", copy(t, 2 * h)), product]
    norms = norm_backward("hidden_norm_bwd", t, h) + norm_backward("next_norm_bwd", t, h)
    product = Kernel("projection_dgrad", Gemm(t, 2 * h, h, "dgrad", "bf16"))
    return [product, *norms, *_embedding(site, Made(EMBEDDING), "B")]
