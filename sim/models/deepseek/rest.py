"""Embedding, output head, and the projection of the multi-token-prediction module."""

from hwmodels.formats import PLAIN_FP32
from hwmodels.op import Gemm, Memory, cast_transpose, copy, norm
from sim.models.deepseek.linear import BF16_WIDTH, dgrad, linear, norm_backward, quantized, wgrad
from sim.models.deepseek.shape import Site
from sim.models.layer import Kernel


def embedding(site: Site, direction: str) -> list[Kernel]:
    t, h = site.tokens, site.shape.hidden
    if direction == "F":
        return [Kernel("embedding", copy(t, h))]
    # gradients scatter into an FP32 table: read dY and the rows, write the rows
    row = PLAIN_FP32.row_bytes(h)
    return [Kernel("embedding_bwd", Memory("elementwise", t, BF16_WIDTH * h + row, row))] if direction == "B" else []


def head(site: Site, direction: str) -> list[Kernel]:
    """Final norm, logits in BF16, cross-entropy (logits read, their gradient written in place)."""
    t, h, v = site.tokens, site.shape.hidden, site.shape.vocabulary
    if direction == "F":
        loss = Memory("elementwise", t, 2.0 * BF16_WIDTH * v, BF16_WIDTH * v)
        return [Kernel("final_norm", norm(t, h)), Kernel("head", Gemm(t, v, h, "fprop", "bf16")), Kernel("loss", loss)]
    if direction == "B":
        dgrad = Kernel("head_dgrad", Gemm(t, h, v, "dgrad", "bf16"))
        return [dgrad, *norm_backward("final_norm_bwd", t, h, 2)]
    return [Kernel("head_wgrad", Gemm(v, h, t, "wgrad", "bf16"))]


def projection(site: Site, direction: str) -> list[Kernel]:
    """Norms of the hidden state and of the next token's embedding, concatenated and projected to `hidden`."""
    t, h = site.tokens, site.shape.hidden
    if direction == "F":
        head = [Kernel("embedding", copy(t, h)), Kernel("mtp_norms", norm(2 * t, h))]
        return [*head, *linear(site, "mtp_projection", h, 2 * h, "cast_mtp")]
    if direction == "B":
        out = [*dgrad(site, "mtp_projection", h, 2 * h, "cast_dmtp"), *norm_backward("mtp_norms_bwd", 2 * t, h, 2)]
        casts = (Kernel("castT_mtp", cast_transpose(t, 2 * h)), Kernel("castT_dmtp", cast_transpose(t, h)))
        return [*out, *quantized(site, *casts), *embedding(site, "B")]
    return [wgrad(site, "mtp_projection", h, 2 * h)]
