"""The projection that begins a multi-token-prediction module."""

from hwmodels.formats import PLAIN_BF16
from hwmodels.op import cast_transpose, copy, norm
from sim.models.layer import Kernel
from sim.models.stacks.deepseek.ends import embedding
from sim.models.stacks.deepseek.linear import Shared, dgrad, linear, norm_backward, quantized, wgrad


def projection(site: Shared, direction: str) -> list[Kernel]:
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


def kept(site: Shared) -> float:
    """Bytes until the input gradient: what both norms read."""
    return 2 * site.tokens * PLAIN_BF16.row_bytes(site.shape.hidden)


def kept_for_weight(site: Shared) -> float:
    """Bytes until a split weight gradient: both sides of the product."""
    return site.tokens * site.recipe.activation.row_bytes(3 * site.shape.hidden)
