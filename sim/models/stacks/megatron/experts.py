"""Mixtures of Megatron Core: a fused router, fused permutes, a grouped product each way, shared experts beside.

`moe_router_fusion`: scores and top-k in one kernel, the auxiliary loss in two. `moe_permute_fusion`:
TransformerEngine's permute behind maps of rows. The host waits for the counts of tokens where an all-to-all of unequal
sizes needs them; HybridEP's dispatch permutes too.
"""

from hwmodels.formats import PLAIN_BF16, PLAIN_FP32
from hwmodels.op import Gemm, Memory, permute, small, unpermute
from sim.models.blocks.experts import Experts
from sim.models.layer import Kernel
from sim.models.stacks.cudnn import Shared
from sim.models.stacks.megatron.casts import quantised
from sim.models.stacks.megatron.feed_forward import activate, activate_backward
from sim.models.stacks.megatron.linear import (
    dgrad,
    first,
    fused,
    grouped,
    last,
    last_dgrad,
    last_wgrad,
    norm_backward,
    plain_norm,
    wgrad,
)  # fmt: skip
from sim.models.stacks.sharing import gathered, row_collective, summed

MAPS = ("row_map", "row_map_sums", "row_map_final")
"""Kernels that say where each row goes (TransformerEngine, pytorch/triton/permutation.py)."""


def gate(site: Shared, experts: Experts) -> list[Kernel]:
    """The norm before a mixture, and its router."""
    t, h, e = site.tokens, site.shape.hidden, experts.number
    row = PLAIN_FP32.row_bytes(e)
    out = [*plain_norm("mlp_norm", t, h), Kernel("router", Gemm(t, e, h, "fprop", "bf16"))]
    out += [
        Kernel("router_topk", Memory("softmax", t, row, 2 * row)),
        Kernel("aux_scores", Memory("softmax", t, row, row)),
    ]
    return [*out, Kernel("aux_loss", small("tiny")), Kernel("counts", Memory("elementwise", t, row / 4, 0.0))]


def gate_backward(site: Shared, experts: Experts) -> list[Kernel]:
    """Gradients of the scores, of the router's input, and of the norm's."""
    t, h, e = site.tokens, site.shape.hidden, experts.number
    row = PLAIN_FP32.row_bytes(e)
    out = [
        Kernel("aux_loss_bwd", small("tiny")),
        Kernel("router_topk_bwd", Memory("softmax_backward", t, 2 * row, row)),
    ]
    out += [Kernel("router_dgrad", Gemm(t, h, e, "dgrad", "bf16")), fused("add_dx", t, h, 2, 1)]
    out += [fused("add_shared_dx", t, h, 2, 1)] if experts.shared.width else []
    return [*out, *norm_backward("mlp_norm_bwd", t, h), fused("add_residual", t, h, 2, 1)]


def gate_weight(site: Shared, experts: Experts) -> list[Kernel]:
    return [Kernel("router_wgrad", Gemm(experts.number, site.shape.hidden, site.tokens, "wgrad", "bf16"))]


def _permuted(site: Shared, name: str) -> list[Kernel]:
    """Rows in the order of experts; the host reads their counts before."""
    if site.group > 1 and site.stack.dispatcher == "hybridep":
        return []
    waiting = Kernel("counts_to_host", small("tiny"), waits=True)
    maps = [Kernel(f"{name}_{each}", small("tiny")) for each in MAPS]
    return [waiting, *maps, Kernel(name, permute(site.received, site.rows, site.shape.sent, PLAIN_BF16))]


def forward(site: Shared, experts: Experts) -> list[Kernel]:
    """Rows as dispatched -> their weighted sum for each token received; shared experts, and the residual behind."""
    own, h, net, shared = site.own, site.shape.hidden, experts.routed, experts.shared
    row = experts.sent(h)
    out = [*_permuted(site, "permute"), *_gathered(site, "rows"), *grouped(site, "experts_fc1", net.first, row)]
    out += [activate(site.expert_rows, net), *grouped(site, "experts_fc2", row, net.width), *_scattered(site, "rows")]
    out += [Kernel("unpermute", unpermute(site.received, site.rows, row))]
    if shared.width:
        out += [*quantised(site, "x_shared_fc1", own, h), *first(site, "shared_fc1", shared.first, h)]
        out += [activate(site.tokens, shared, "shared_act"), *last(site, "shared_fc2", h, shared.width)]
        out += [fused("add_shared", own, h, 2, 1)]
    return [*out, fused("residual", own, h, 2, 1)]


def _gathered(site: Shared, name: str) -> list[Kernel]:
    """Rows of all ranks that share the columns of experts (`MoEAlltoAllTokenDispatcher`, behind its all-to-all)."""
    return row_collective(site, "all_gather", f"gather_{name}", site.rows, PLAIN_BF16.row_bytes(site.shape.sent))


def _scattered(site: Shared, name: str) -> list[Kernel]:
    """Sums of rows, to whose rank they came to."""
    return row_collective(site, "reduce_scatter", f"scatter_{name}", site.rows, PLAIN_BF16.row_bytes(site.shape.sent))


def backward(site: Shared, experts: Experts) -> list[Kernel]:
    """Input gradients; those of weights are `weight`."""
    t, h, net, shared, rows = site.tokens, site.shape.hidden, experts.routed, experts.shared, site.rows
    out, row = [], experts.sent(h)
    if shared.width:
        out += [*last_dgrad(site, "shared_fc2", h, shared.width), activate_backward(t, shared, "shared_act_bwd")]
        out += [*dgrad(site, "shared_fc1", shared.first, h), *summed(site, "dx_shared_fc1", h)]
    out += [Kernel("unpermute_bwd", permute(site.received, rows, row, PLAIN_BF16)), *_gathered(site, "dy_rows")]
    out += [*grouped(site, "experts_fc2", row, net.width, "dgrad"), activate_backward(site.expert_rows, net)]
    out += [*grouped(site, "experts_fc1", net.first, row, "dgrad"), *_scattered(site, "dx_rows")]
    return [*out, Kernel("permute_bwd", unpermute(site.received, rows, row))]


def weight(site: Shared, experts: Experts) -> list[Kernel]:
    h, net, shared = site.shape.hidden, experts.routed, experts.shared
    out = []
    if shared.width:
        again = gathered(site, "x_shared_fc1_again", site.recipe.activation.row_bytes(h))
        out += [*last_wgrad(site, "shared_fc2", h, shared.width), *again, *wgrad(site, "shared_fc1", shared.first, h)]
    return [
        *out,
        *grouped(site, "experts_fc2", experts.sent(h), net.width, "wgrad"),
        *grouped(site, "experts_fc1", net.first, experts.sent(h), "wgrad"),
    ]


def tensors(experts: Experts, hidden: int, local: int) -> list[int]:
    """Elements of each of its parameters: a tensor an expert and product."""
    net, shared, row = experts.routed, experts.shared, experts.sent(hidden)
    routed = [net.first * row, net.width * row] * local + ([net.first, row] * local if net.bias else [])
    routed += [experts.latent * hidden] * (2 * bool(experts.latent))
    also = [shared.first * hidden, shared.width * hidden] if shared.width else []
    also += [shared.first, hidden] if shared.width and shared.bias else []
    return [*routed, experts.number * hidden, *also]
