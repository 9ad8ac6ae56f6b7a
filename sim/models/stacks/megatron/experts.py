"""Mixtures of Megatron Core behind their router: fused permutes, a grouped product each way, shared experts beside.

`moe_permute_fusion`: TransformerEngine's permute behind maps of rows, and chunks sorted where an all-to-all left them
in the order of ranks. What is sent, and what the host waits for before, is in `exchange`.
"""

from hwmodels.formats import PLAIN_BF16
from hwmodels.op import Memory, permute, small, unpermute
from sim.models.blocks.experts import Experts
from sim.models.layer import Kernel
from sim.models.stacks.cudnn import Shared
from sim.models.stacks.exchange import likely_bytes
from sim.models.stacks.megatron import unfused
from sim.models.stacks.megatron.casts import casting, quantised
from sim.models.stacks.megatron.clamp import clamped, clamped_backward
from sim.models.stacks.megatron.exchange import mapped
from sim.models.stacks.megatron.expert_bias import added, added_backward
from sim.models.stacks.megatron.feed_forward import activate, activate_backward
from sim.models.stacks.megatron.host import PADDED, PERMUTED, SORTED, work
from sim.models.stacks.megatron.linear import (
    dgrad,
    first,
    fused,
    grouped,
    last,
    last_dgrad,
    last_wgrad,
    wgrad,
)  # fmt: skip
from sim.models.stacks.sharing import gathered, row_collective, summed
from sim.models.stacks.stack import PLAIN_PERMUTE, WEIGHED_SUMS


def _permuted(site: Shared) -> list[Kernel]:
    """Rows in the order of experts. All-to-all has permuted them before; chunks from each rank are sorted."""
    row = site.shape.sent
    if site.group == 1:
        waiting = Kernel("counts_to_host", small("tiny"), waits=True)
        return [waiting, *mapped("permute", site.received, site.rows, row)]
    if site.stack.dispatcher == "alltoall":
        return _sorted(site, "F", likely=True)
    if site.stack.dispatcher == "hybridep":  # its own kernel, launched with the exchange
        return [Kernel("permute", permute(site.received, site.rows, row, PLAIN_BF16), host=0.0)]
    return mapped("permute", site.received, site.rows, row)


def _plain(site: Shared) -> bool:
    return site.stack.permute == PLAIN_PERMUTE and site.group > 1


def _sorted(site: Shared, direction: str, likely: bool = False) -> list[Kernel]:
    """Chunks of rows copied to another order (`sort_chunks_by_idxs`), as between ranks' order and experts'. likely:
    with their probabilities, which is the same kernel where it is fused."""
    if site.group == 1 or site.stack.dispatcher != "alltoall" or site.local_experts == 1:
        return []
    likely = likely and site.stack.weighting != WEIGHED_SUMS
    if site.stack.padded:
        return unfused.transposed(site, likely)
    if _plain(site):
        return unfused.ordered(site, direction, likely)
    copied = permute(site.rows, site.rows, site.shape.sent, PLAIN_BF16)
    return [Kernel("sort_rows", copied, host=work(SORTED[direction], direction))]


def _padded(site: Shared, direction: str) -> list[Kernel]:
    """Rows of each expert padded for the formats of products, or unpadded (`Fp8Padding`), where no dispatch does it."""
    if casting(site) is None or site.stack.padded or (site.stack.dispatcher == "hybridep" and site.group > 1):
        return []
    copied = permute(site.rows, site.rows, site.shape.sent, PLAIN_BF16)
    return [Kernel("pad_rows", copied, host=work(PADDED[direction], direction))]


def _unpermuted(site: Shared, name: str, direction: str) -> Kernel:
    """Sums of rows, a token each, of those that were sent or came."""
    sent = site.own if site.stack.dispatcher == "alltoall" and site.group > 1 else site.received
    return Kernel(name, unpermute(sent, site.rows, site.shape.sent), host=work(PERMUTED["B"], direction))


def forward(site: Shared, experts: Experts) -> list[Kernel]:
    """Rows as dispatched -> their weighted sum for each token received; shared experts, and the residual behind."""
    own, h, net, shared = site.own, site.shape.hidden, experts.routed, experts.shared
    row = site.shape.sent
    out = [*_permuted(site), *_gathered(site, "rows"), *_padded(site, "F")]
    products = grouped(site, "experts_fc1", net.first, row), grouped(site, "experts_fc2", row, net.width)
    activation = [*clamped(site, experts), activate(site.expert_rows, net)]
    out += [*_around(site, activation, *products), *added(site, experts), *_joined(site, "join_rows")]
    out += [*_padded(site, "F"), *_scattered(site, "rows")]
    out += _sorted(site, "F")
    out += _added_up(site, experts)
    if shared.width:
        out += [*quantised(site, "x_shared_fc1", own, h), *first(site, "shared_fc1", shared.first, h)]
        out += [activate(site.tokens, shared, "shared_act"), *last(site, "shared_fc2", h, shared.width)]
        out += [fused("add_shared", own, h, 2, 1)]
    return [*out, fused("residual", own, h, 2, 1)]


def _joined(site: Shared, name: str) -> list[Kernel]:
    """Rows of experts that went one by one, in one tensor again."""
    if not site.stack.sequential or site.local_experts == 1:
        return []
    row = PLAIN_BF16.row_bytes(site.shape.sent)
    return [Kernel(name, Memory("join", site.expert_rows, row, row))]


def _added_up(site: Shared, experts: Experts) -> list[Kernel]:
    """The sum of each token's rows, weighed there or before."""
    if not _plain(site):
        return [_unpermuted(site, "unpermute", "F")]
    weighed = unfused.weighed(site, experts.number) if site.stack.weighting == WEIGHED_SUMS else []
    return [*weighed, *unfused.summed(site, "unpermute", "strided")]


def _taken_back(site: Shared) -> list[Kernel]:
    """Gradients of rows, of their tokens' sums. Where those weigh them the fused kernel reads rows too, for the
    gradients of weights."""
    sent = site.own if site.stack.dispatcher == "alltoall" and site.group > 1 else site.received
    taken = permute(sent, site.rows, site.shape.sent, PLAIN_BF16)
    if _plain(site):
        weighed = unfused.weighed_backward(site) if site.stack.weighting == WEIGHED_SUMS else []
        return [Kernel("unpermute_bwd", taken), *weighed]
    if site.stack.weighting == WEIGHED_SUMS:
        taken = taken._replace(read=taken.read + taken.write)
    return [Kernel("unpermute_bwd", taken, host=work(PERMUTED["B"], "B"))]


def _around(site: Shared, activation: list[Kernel], one: list[Kernel], other: list[Kernel]) -> list[Kernel]:
    """Two products around an activation (or its gradient), which is cast before the second; or, fused, both in the
    first, which ends with them (grouped_gemm_swiglu and ..._dswiglu of cudnn-frontend, for MXFP8)."""
    if not site.stack.fused_experts:
        return [*one, *activation, *other]
    return [*one, *(kernel for kernel in other if not kernel.name.startswith("cast_"))]


def _gathered(site: Shared, name: str) -> list[Kernel]:
    """Rows of all ranks that share the columns of experts (`MoEAlltoAllTokenDispatcher`, behind its all-to-all)."""
    return row_collective(site, "all_gather", f"gather_{name}", site.rows, PLAIN_BF16.row_bytes(site.shape.sent))


def _scattered(site: Shared, name: str) -> list[Kernel]:
    """Sums of rows, to whose rank they came to."""
    return row_collective(site, "reduce_scatter", f"scatter_{name}", site.rows, PLAIN_BF16.row_bytes(site.shape.sent))


def backward(site: Shared, experts: Experts) -> list[Kernel]:
    """Input gradients; those of weights are `weight`."""
    t, h, net, shared, row = site.tokens, site.shape.hidden, experts.routed, experts.shared, site.shape.sent
    out = []
    if shared.width:
        out += [*last_dgrad(site, "shared_fc2", h, shared.width), activate_backward(t, shared, "shared_act_bwd")]
        out += [*dgrad(site, "shared_fc1", shared.first, h), *summed(site, "dx_shared_fc1", h)]
    out += [*_taken_back(site), *_sorted(site, "B"), *_gathered(site, "dy_rows"), *_padded(site, "B")]
    out += added_backward(site, experts)
    products = (("experts_fc2", row, net.width), ("experts_fc1", net.first, row))
    gradients = [grouped(site, *each, "dgrad") for each in products]
    out += _around(site, [activate_backward(site.expert_rows, net), *clamped_backward(site, experts)], *gradients)
    out += [*_joined(site, "join_dx_rows"), *_padded(site, "B"), *_scattered(site, "dx_rows")]
    if _plain(site):
        sums = [*unfused.summed(site, "permute_bwd", "scatter"), *unfused.likely_backward(site, experts.number)]
        return [*out, *_sorted(site, "B", likely=True), *sums]
    summed_up = _unpermuted(site, "permute_bwd", "B")
    if isinstance(summed_up.op, Memory):  # HybridEP's writes a whole row of probabilities' gradients for each
        likely = likely_bytes(site, experts) * site.received / max(site.rows, 1)
        summed_up = summed_up._replace(op=summed_up.op._replace(write=summed_up.op.write + likely))
    return [*out, *_sorted(site, "B"), summed_up]


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
