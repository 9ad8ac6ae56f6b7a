"""Multi-head latent attention under torch.compile; assumed, for no trace of it was at hand.

Assumed as it was seen of grouped-query attention and networks: Inductor makes one kernel of all that lies between two
products, so each inner norm is one, rope with the join of a tensor's parts is one, and backward splits gradients of
keys and values in one kernel and sums those of the shared rotary key over heads in another.
"""

from sim.models.blocks.mla import Latent
from sim.models.layer import Kernel
from sim.models.stacks.cudnn import Shared, attend, attend_backward
from sim.models.stacks.cudnn import latent as attention
from sim.models.stacks.torch.compiled.fused import fused, norm, norm_backward
from sim.models.stacks.torch.compiled.linear import weights, whole
from sim.models.stacks.torch.kernels import tiny


def forward(site: Shared, a: Latent) -> list[Kernel]:
    """[tokens, hidden] -> [tokens, hidden]; the residual is added by the norm behind."""
    t, h = site.tokens, site.shape.hidden
    out = [norm("attn_norm", t, h)]
    if a.q_rank:
        out += [*whole(site, "q_a", a.q_rank, h), fused("q_norm", t, a.q_rank, 1, 1)]
    out += [*whole(site, "q_b" if a.q_rank else "q", a.q, a.q_rank or h), *whole(site, "kv_a", a.down, h)]
    out += [fused("kv_norm", t, a.kv_rank, 1, 1), *whole(site, "kv_b", a.kv, a.kv_rank)]
    keys = a.heads * a.nope + a.rotary  # the rotary part is read once and written for every head
    out += [fused("rope_q", t, a.q, 1, 1), fused("rope_k", t, a.q, keys / a.q, 1)]
    return [*out, *attend(attention(site, a, "forward")), fused("join_heads", t, a.out, 1, 1),
            *whole(site, "o", h, a.out)]  # fmt: skip


def backward(site: Shared, a: Latent) -> list[Kernel]:
    """Input gradients; what joins the heads again is in rope's kernels."""
    t, h = site.tokens, site.shape.hidden
    out = [*whole(site, "o", h, a.out, True), *attend_backward(attention(site, a, "backward"))]
    out += [fused("rope_q_bwd", t, a.q, 1, 1), fused("rope_kv_bwd", t, a.kv, 1, 1)]
    out += [fused("sum_dk_rope", t, a.rotary, a.heads, 1)]
    out += [
        *whole(site, "kv_b", a.kv, a.kv_rank, True),
        *_inner("kv_norm_bwd", t, a.kv_rank),
        *whole(site, "kv_a", a.down, h, True),
    ]
    out += whole(site, "q_b" if a.q_rank else "q", a.q, a.q_rank or h, True)
    if a.q_rank:
        out += [*_inner("q_norm_bwd", t, a.q_rank), *whole(site, "q_a", a.q_rank, h, True)]
    return out + norm_backward("attn_norm_bwd", t, h, 2)


def _inner(name: str, rows: int, width: int) -> list[Kernel]:
    """Gradient of a norm without a residual; its weights' in two steps."""
    weight = [fused(f"{name}_weight", rows, width, 2, 0), tiny(f"{name}_weight_sum", "fused")]
    return [fused(name, rows, width, 2, 1), *weight]


def weight(site: Shared, a: Latent) -> list[Kernel]:
    h = site.shape.hidden
    apart = [("o", h, a.out), ("kv_b", a.kv, a.kv_rank), *([("q_b", a.q, a.q_rank)] if a.q_rank else [])]
    first = ("kv_a", a.down, h), ("q_a", a.q_rank, h) if a.q_rank else ("q", a.q, h)
    return [kernel for each in apart for kernel in weights(site, [each])] + weights(site, first)
