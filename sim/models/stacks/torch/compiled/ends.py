"""The ends of a model under torch.compile: log-softmax and loss read logits as they are, in BF16."""

from hwmodels.formats import PLAIN_BF16, PLAIN_FP32
from hwmodels.op import Memory
from sim.models.layer import Kernel
from sim.models.stacks.cudnn import Shared
from sim.models.stacks.stack import ALL, LOSS
from sim.models.stacks.torch.compiled.fused import fused, norm, norm_backward
from sim.models.stacks.torch.compiled.sharing import gathers, sums
from sim.models.stacks.torch.kernels import dgrad, linear, rms_norm, rms_norm_backward, tiny, wgrad
from sim.models.stacks.torch.sharing import logits, own_logits, token_numbers, whole_logits


def embedding(site: Shared, direction: str) -> list[Kernel]:
    """Forward is in the first norm. Backward: an FP32 table of zeros, to which that norm's gradient adds its rows, and
    the table in BF16."""
    h, v = site.shape.hidden, site.shape.vocabulary
    wide, row = PLAIN_FP32.row_bytes(h), PLAIN_BF16.row_bytes(h)
    shared = site.groups.tensor > 1
    if direction == "F" and shared:  # the sum over ranks parts it from the norm
        return [fused("embedding", site.tokens, h, 1, 1), *sums(site, "embedding", h)]
    if direction != "B":
        return []
    return [
        *gathers(site, "dy_embedding", h),
        Kernel("embedding_zeros", Memory("fused", v, 0.0, wide)),
        Kernel("embedding_bf16", Memory("fused", v, wide, row)),
    ]


def head(site: Shared, direction: str) -> list[Kernel]:
    """Two passes over the logits forward, one backward, which writes their gradient in BF16."""
    t, own, h, v = site.tokens, site.own, site.shape.hidden, site.shape.vocabulary
    if direction == "W":
        return wgrad(site, "head", v, h)
    if direction == "F":
        return [
            norm("final_norm", own, h) if site.stack.compiled_ends == ALL else rms_norm("final_norm", own, h),
            *gathers(site, "x_head", h),
            *linear(site, "head", v, h),
            *whole_logits(site),
            *_log_softmax(site),
            tiny("nll", "fused"),
            *(token_numbers(site, "losses") if site.stack.loss_parallel else []),
        ]
    out = [tiny("one"), fused("log_softmax_bwd", t, logits(site), 1, 1), *own_logits(site), *dgrad(site, "head", v, h)]
    last = norm_backward("final_norm_bwd", own, h, 1)
    if site.stack.compiled_ends == LOSS:
        last = rms_norm_backward("final_norm_bwd", own, h)
    return [*out, *sums(site, "dx_head", h), *last]


def _log_softmax(site: Shared) -> list[Kernel]:
    """A pass over the logits; of ranks that share the vocabulary one for their largest and one for their sums."""
    whole = fused("log_softmax", site.tokens, logits(site), 1, 0)
    if site.groups.tensor == 1 or not site.stack.loss_parallel:
        return [whole]
    return [whole._replace(name="logits_max"), *token_numbers(site, "max"), whole, *token_numbers(site, "sums")]
