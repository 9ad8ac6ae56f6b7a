"""The ends of a model: input embedding and output head, and what the head keeps."""

from hwmodels.formats import PLAIN_BF16, PLAIN_FP32
from hwmodels.op import Gemm, Memory, copy, elementwise, norm
from hwmodels.refused import Refused
from sim.models.layer import Kernel
from sim.models.stacks.deepseek.linear import BF16_WIDTH, Shared, norm_backward


def embedding(site: Shared, direction: str) -> list[Kernel]:
    t, h = site.tokens, site.shape.hidden
    if direction == "F":
        return [Kernel("embedding", copy(t, h))]
    # gradients scatter into an FP32 table: read dY and the rows, write the rows
    row = PLAIN_FP32.row_bytes(h)
    return [Kernel("embedding_bwd", Memory("elementwise", t, BF16_WIDTH * h + row, row))] if direction == "B" else []


def positions(site: Shared, learned: int, direction: str) -> list[Kernel]:
    """Learned positions, added to the embedding; their gradient sums over sequences into an FP32 table. Raises Refused
    for sequences that are longer."""
    t, h = site.tokens, site.shape.hidden
    if site.length > learned:
        beyond = f"is beyond the positions that {site.shape.name} learned"
        raise Refused(f"batch.sequence_length {site.length} {beyond}; legal: 1 to {learned}")
    if direction == "F":
        return [Kernel("positions", elementwise(t, h, 2))]
    row = PLAIN_FP32.row_bytes(h)
    op = Memory("elementwise", site.length, BF16_WIDTH * h * site.sequences + row, row)
    return [Kernel("positions_bwd", op)] if direction == "B" else []


def head(site: Shared, direction: str) -> list[Kernel]:
    """Final norm, logits in BF16, cross-entropy (logits read, their gradient written in place)."""
    t, h, v = site.tokens, site.shape.hidden, site.shape.vocabulary
    if direction == "F":
        loss = Memory("elementwise", t, 2.0 * BF16_WIDTH * v, BF16_WIDTH * v)
        return [Kernel("final_norm", norm(t, h)), Kernel("head", Gemm(t, v, h, "fprop", "bf16")), Kernel("loss", loss)]
    if direction == "B":
        dgrad = Kernel("head_dgrad", Gemm(t, h, v, "dgrad", "bf16"))
        return [dgrad, *norm_backward("final_norm_bwd", t, h, 2)]
    return [Kernel("head_wgrad", Gemm(v, h, t, "wgrad", "bf16"))]


def head_kept(site: Shared) -> float:
    """Bytes until backward, and again until a split weight gradient: input of the norm, and logits whose gradient is
    written in place."""
    return site.tokens * (PLAIN_BF16.row_bytes(site.shape.hidden) + PLAIN_BF16.row_bytes(site.shape.vocabulary))
