"""Mixtures of experts in eager torch: softmax or sigmoid router, top-k, sort by expert, `torch._grouped_mm`, index_add.

The sizes of groups come from `bincount`, which asks the GPU for the least and the largest expert: the host waits for
both answers in every forward.
"""

from hwmodels.formats import PLAIN_BF16, PLAIN_FP32
from hwmodels.op import GroupedGemm, Memory
from sim.models.blocks.experts import Experts
from sim.models.blocks.feed_forward import Network
from sim.models.layer import Kernel
from sim.models.mixture import Mixture
from sim.models.stacks.cudnn import Shared
from sim.models.stacks.sharing import row_collective
from sim.models.stacks.torch import feed_forward
from sim.models.stacks.torch.kernels import (
    INDEX,
    VIEWS,
    WIDE,
    activated,
    dgrad,
    elementwise,
    joined,
    linear,
    product,
    radix_sort,
    rms_norm,
    rms_norm_backward,
    strided,
    tiny,
)  # fmt: skip

SORT_PASSES, PUT_PASSES = 8, 2
"""Sweeps of the sort of chosen experts (64-bit numbers), and of that of rows whose gradients are added (16 bits)."""


def grouped(name: str, groups: int, rows: int, n: int, k: int, role: str = "fprop") -> list[Kernel]:
    """`torch._grouped_mm`: addresses of the groups, and the product."""
    return [tiny(f"{name}_groups", "product"), Kernel(name, GroupedGemm(groups, rows, n, k, role, "bf16"))]


def gate(site: Shared, experts: Experts, mixture: Mixture) -> list[Kernel]:
    """The norm before a mixture, and its router: scores in FP32, and the chosen experts of each token."""
    t, h, e = site.tokens, site.shape.hidden, experts.number
    row = PLAIN_FP32.row_bytes(e)
    out = [rms_norm("mlp_norm", t, h), *linear(site, "router", e, h)]
    out += [
        Kernel("router_fp32", Memory("convert", t, row / 2, row)),
        Kernel("scores", Memory("softmax", t, row, row)),
    ]
    if mixture.groups > 1:  # groups by their best experts, and the others masked
        out += [
            tiny("groups_topk", "index"),
            tiny("groups_sort", "index"),
            tiny("mask_zeros"),
            tiny("mask"),
            tiny("masked"),
        ]
    return [*out, Kernel("topk", Memory("topk", t, row, WIDE * experts.chosen)), tiny("topk_sort", "index")]


def forward(site: Shared, experts: Experts) -> list[Kernel]:
    """Rows sorted by expert, both products, and their weighted sum; with the residual behind."""
    t, h, rows, net = site.received, site.shape.hidden, own_rows(site, experts), experts.routed
    k = experts.sent(h)
    local, row, all_rows = site.local_experts, PLAIN_BF16.row_bytes(k), rows * site.groups.expert_tensor
    index = Memory("elementwise", rows, INDEX, INDEX)
    out = [
        tiny("experts_copy", "copy"),
        Kernel("rows", index._replace(kind="index")),
        *radix_sort("experts", rows, SORT_PASSES),
    ]
    out += [tiny("least"), tiny("least_to_host", "copy")._replace(waits=True), tiny("most")]
    out += [
        tiny("most_to_host", "copy")._replace(waits=True),
        tiny("counts_zeros"),
        tiny("counts", "index"),
        tiny("sums_start", "index"),
        tiny("sums", "index"),
    ]
    out += [
        tiny("sums_int32", "copy"),
        Kernel("token_of_row", index),
        Kernel("permute", Memory("gather", rows, row, row), host=1 + VIEWS["F"]),
    ]
    out += row_collective(site, "all_gather", "gather_rows", rows, row)
    out += [*grouped("experts_gate_up", local, all_rows, net.first, k), *_activate(all_rows, net)]
    out += grouped("experts_down", local, all_rows, k, net.width)
    out += row_collective(site, "reduce_scatter", "scatter_rows", rows, row)
    out += [Kernel("chosen_weights", Memory("gather", rows, INDEX + WIDE, WIDE)), tiny("weights_bf16", "copy")]
    out += [strided("weighted", rows, k), Kernel("zeros", Memory("fill", t, 0.0, row)), Kernel("token_of_row", index)]
    out += [
        Kernel("zeros_copy", Memory("copy", t, row, row)),
        Kernel("index_add", Memory("scatter", rows, 2 * row, row)),
    ]
    if experts.shared.width:
        out += [*feed_forward.forward(site, experts.shared)[1:-1], elementwise("add_shared", site.own, h, 2)]
    return [*out, elementwise("residual", site.own, h, 2)]


def own_rows(site: Shared, experts: Experts) -> int:
    """Rows that came to the experts here, none of them padding."""
    return site.own * experts.chosen if site.group == 1 else site.rows


def _activate(rows: int, net: Network) -> list[Kernel]:
    """On halves of one tensor where gate and up are one product."""
    if net.fan == 1:
        return [activated(net.activation, rows, net.width)]
    return [strided(net.activation, rows, net.width, host=1 + VIEWS["F"]), strided("gate_mul", rows, net.width, 2)]


def _put(name: str, rows: int, add: Kernel) -> list[Kernel]:
    """Gradient of an index: rows sorted by where they go, and added there."""
    indices = [*(tiny(f"{name}_{step}") for step in ("remainder", "scale", "divide")), tiny(f"{name}_rows", "index")]
    return [*indices, *radix_sort(name, rows, PUT_PASSES), add]


def backward(site: Shared, experts: Experts) -> list[Kernel]:
    """Input gradients of the experts and of their weights in the sum; those of parameters are `weight`."""
    t, h, rows, net = site.received, site.shape.sent, own_rows(site, experts), experts.routed
    row, local, w, all_rows = PLAIN_BF16.row_bytes(h), site.local_experts, net.width, rows * site.groups.expert_tensor
    out = feed_forward.backward(site, experts.shared)[:-3] if experts.shared.width else []
    out += [Kernel("dy_of_rows", Memory("gather", rows, row, row)), elementwise("weighted_bwd", rows, h, 2)]
    out += [strided("weighted_dx", rows, h), Kernel("weights_grad", Memory("reduce", rows, row, 2.0))]
    out += [tiny("weights_grad_fp32", "copy"), tiny("weights_zeros")]
    out += _put("weights", rows, tiny("weights_add", "index"))
    out += row_collective(site, "all_gather", "gather_dy_rows", rows, row)
    out += [*grouped("experts_down_dgrad", local, all_rows, w, h, "dgrad"), *_activate_backward(all_rows, net)]
    out += grouped("experts_gate_up_dgrad", local, all_rows, h, net.first, "dgrad")
    out += row_collective(site, "reduce_scatter", "scatter_dx_rows", rows, row)
    out += [Kernel("dx_zeros", Memory("fill", t, 0.0, row))]
    return out + _put("dx", rows, Kernel("dx_add", Memory("scatter", rows, row, t * row / rows)))


def _activate_backward(rows: int, net: Network) -> list[Kernel]:
    """Gradient of the first product, of both halves joined."""
    w = net.width
    if net.fan == 1:
        return [activated(net.activation, rows, w, back=True)]
    out = [elementwise("gate_mul_bwd", rows, w, 2), strided("gate_mul_bwd", rows, w, 2)]
    return [*out, strided(f"{net.activation}_bwd", rows, w, 2), joined("join_d_gate_up", rows, net.first)]


def gate_backward(site: Shared, experts: Experts) -> list[Kernel]:
    """Gradients of the scores, of the router's input, and of the norm's."""
    t, h, e = site.tokens, site.shape.hidden, experts.number
    row = PLAIN_FP32.row_bytes(e)
    out = [Kernel("scores_zeros", Memory("fill", t, 0.0, row)), tiny("scores_scatter", "index")]
    out += [Kernel("scores_mul", Memory("elementwise", t, 2 * row, row))]
    out += [Kernel("scores_bwd", Memory("softmax_backward", t, 2 * row, row))]
    out += [Kernel("router_bf16", Memory("convert", t, row, row / 2)), *dgrad(site, "router", e, h)]
    out += [elementwise("add_dx", t, h, 2)] * (1 + bool(experts.shared.width))
    return [*out, *rms_norm_backward("mlp_norm_bwd", t, h), elementwise("add_residual", t, h, 2)]


def weight(site: Shared, experts: Experts) -> list[Kernel]:
    """Weight gradients of the experts: a grouped product each."""
    h, net, local = site.shape.sent, experts.routed, site.local_experts
    rows = own_rows(site, experts) * site.groups.expert_tensor
    shared = feed_forward.weight(site, experts.shared) if experts.shared.width else []
    out = [*shared, *grouped("experts_down_wgrad", local, rows, h, net.width, "wgrad")]
    return out + grouped("experts_gate_up_wgrad", local, rows, net.first, h, "wgrad")


def gate_weight(site: Shared, experts: Experts) -> list[Kernel]:
    """Weight gradient of the router."""
    return product("router_wgrad", experts.number, site.shape.hidden, site.tokens, "wgrad", 1)


def tensors(experts: Experts, hidden: int, local: int) -> list[int]:
    """Elements of each of its parameters, of so many routed experts as one tensor a product."""
    net, shared, row = experts.routed, experts.shared, experts.sent(hidden)
    routed = [local * net.first * row, local * net.width * row]
    biases = [local * net.first, local * row] if net.bias else []
    latent = [experts.latent * hidden] * (2 * bool(experts.latent))
    return [
        *routed,
        *biases,
        *latent,
        experts.number * hidden,
        *(feed_forward.tensors(shared, hidden) if shared.width else []),
    ]
