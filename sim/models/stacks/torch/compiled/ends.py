"""The ends of a model under torch.compile: log-softmax and loss read logits as they are, in BF16."""

from hwmodels.formats import PLAIN_BF16, PLAIN_FP32
from hwmodels.op import Memory
from sim.models.layer import Kernel
from sim.models.stacks.cudnn import Shared
from sim.models.stacks.torch.compiled.fused import fused, norm, norm_backward
from sim.models.stacks.torch.kernels import dgrad, linear, tiny, wgrad


def embedding(site: Shared, direction: str) -> list[Kernel]:
    """Forward is in the first norm. Backward: an FP32 table of zeros, to which that norm's gradient adds its rows, and
    the table in BF16."""
    h, v = site.shape.hidden, site.shape.vocabulary
    wide, row = PLAIN_FP32.row_bytes(h), PLAIN_BF16.row_bytes(h)
    if direction != "B":
        return []
    return [
        Kernel("embedding_zeros", Memory("fused", v, 0.0, wide)),
        Kernel("embedding_bf16", Memory("fused", v, wide, row)),
    ]


def head(site: Shared, direction: str) -> list[Kernel]:
    """Two passes over the logits forward, one backward, which writes their gradient in BF16."""
    t, h, v = site.tokens, site.shape.hidden, site.shape.vocabulary
    if direction == "W":
        return wgrad(site, "head", v, h)
    if direction == "F":
        return [
            norm("final_norm", t, h),
            *linear(site, "head", v, h),
            fused("log_softmax", t, v, 1, 0),
            tiny("nll", "fused"),
        ]
    out = [tiny("one"), fused("log_softmax_bwd", t, v, 1, 1), *dgrad(site, "head", v, h)]
    return out + norm_backward("final_norm_bwd", t, h, 1)
