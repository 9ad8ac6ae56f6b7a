"""Mixtures of routed and shared experts as kernels; what they keep and weigh.

Order, names and what is computed again in backward (the norm before them, activations) are those of DeepSeek's
published H800 profile; what another choice keeps instead is an input of a product. Where the whole mixture is computed
again, that is parts of its own before these.
"""

from hwmodels.formats import PLAIN_BF16, PLAIN_E4M3
from hwmodels.op import (
    GroupedGemm,
    Memory,
    cast,
    cast_transpose,
    dequantize,
    permute,
    small,
    store,
    transpose_scales,
    unpermute,
)  # fmt: skip
from sim.models.activations import Kept
from sim.models.blocks.experts import Experts
from sim.models.blocks.feed_forward import Network
from sim.models.layer import WEIGHT, Kernel
from sim.models.stacks.deepseek.feed_forward import activate, activate_backward
from sim.models.stacks.deepseek.linear import (
    BF16_WIDTH,
    Shared,
    bias_gradients,
    dgrad,
    linear,
    norm_again,
    norm_before,
    quantized,
    transposed,
    weight_copy,
    wgrad,
)  # fmt: skip


def activation_again(site: Shared) -> bool:
    """Whether backward computes activations again."""
    return site.recompute.again("activation", published=True)


def moe_again(site: Shared) -> bool:
    """Whether backward computes the mixture again: gate, exchanges and experts."""
    return site.recompute.again("moe", published=False)


def shared_forward(site: Shared, network: Network) -> tuple[list[Kernel], list[Kernel]]:
    """First product, and then activation and down product."""
    h, t = site.shape.hidden, site.tokens
    if not network.width:
        return [], []
    first = linear(site, f"shared_{network.up}", network.first, h)
    rest = [activate(site, f"{network.activation}_cast_shared", t, network)]
    return first, rest + linear(site, "shared_down", h, network.width)


def save_shared(site: Shared, network: Network) -> list[Kernel]:
    """What backward needs of the first product, in the recipe's format."""
    keep = Kernel(f"save_{network.up}_shared_fp8", store(site.tokens, network.first, site.recipe.gate_up))
    return quantized(site, keep) if network.width else []


def shared_backward(site: Shared, network: Network) -> tuple[list[Kernel], list[Kernel]]:
    """Down product's gradient and the activation's, and then the first product's."""
    h, t, up = site.shape.hidden, site.tokens, network.up
    if not network.width:
        return [], []
    keep = Kernel(f"dequant_saved_shared_{up}", dequantize(t, network.first, site.recipe.gate_up))
    first = [*quantized(site, keep), *dgrad(site, "shared_down", h, network.width)]
    first += quantized(site, Kernel("castT_dY_shared", cast_transpose(t, h, PLAIN_E4M3)))
    if activation_again(site):
        first += [activate(site, f"{network.activation}_recompute_castT_shared", t, network)]
    else:
        first += quantized(site, Kernel("castT_act_shared", cast_transpose(t, network.width, site.recipe.activation)))
    first += [activate_backward(f"{network.activation}_bwd_shared", t, network)]
    last = quantized(site, Kernel("dequant_x_shared", dequantize(t, h)))
    tail = "GateUp" if network.fan > 1 else "Up"
    last += dgrad(site, f"shared_{up}", network.first, h, f"cast_d{tail}_shared")
    last += quantized(
        site, Kernel(f"castT_d{tail}_shared", cast_transpose(t, network.first)),
        Kernel("castT_x_shared", cast_transpose(t, h)),
    )  # fmt: skip
    return first, last + bias_gradients(t, network.bias, shared_down=h, **{f"shared_{up}": network.first})


def shared_weight(site: Shared, network: Network) -> tuple[list[Kernel], list[Kernel]]:
    """The two weight gradients, between which those of routed experts run."""
    h = site.shape.hidden
    if not network.width:
        return [], []
    last = wgrad(site, f"shared_{network.up}", network.first, h)
    return [wgrad(site, "shared_down", h, network.width)], [last]


def forward(site: Shared, experts: Experts) -> list[Kernel]:
    """Rows as dispatched -> outputs of routed experts, a row for each token received, and of shared ones."""
    h, net, lin = site.shape.sent, experts.routed, site.recipe.linear
    first, rest = shared_forward(site, experts.shared)
    rows, received, local = site.rows, site.received, site.local_experts
    index_bytes, up = 4.0 * experts.chosen, net.up
    out = [*first, Kernel("count_experts", small("expert_count", received, index_bytes))]
    out += [Kernel("build_mapping", small("expert_map", received, index_bytes))]
    out += [Kernel("permute_x", permute(received, rows, h, PLAIN_E4M3 if site.recipe.quantized else PLAIN_BF16))]
    out += transposed(site, "routed_W1T", net.first, h, local)
    out += quantized(site, Kernel("permute_scales", transpose_scales(rows, h)))
    out += [Kernel(f"routed_{up}", GroupedGemm(local, rows, net.first, h, "fprop", lin))]
    out += [Kernel("scale_topk_w", small("tiny")), activate(site, f"{net.activation}_cast_routed", rows, net)]
    out += transposed(site, "routed_W2T", h, net.width, local)
    out += quantized(site, Kernel("permute_scales2", transpose_scales(rows, net.width)))
    out += [Kernel("routed_down", GroupedGemm(local, rows, h, net.width, "fprop", lin))]
    out += [Kernel("unpermute_y", unpermute(received, rows, h)), *rest]
    out += quantized(site, Kernel(f"save_{up}_routed_fp8", store(rows, net.first, site.recipe.gate_up)))
    return out + save_shared(site, experts.shared)


def backward(site: Shared, experts: Experts) -> list[Kernel]:
    """Input gradients of shared and routed experts; activations and the norm before them are computed again."""
    h, net, lin, rows = site.shape.sent, experts.routed, site.recipe.linear, site.rows
    first, last = shared_backward(site, experts.shared)
    element, up, tail = PLAIN_E4M3 if site.recipe.quantized else PLAIN_BF16, net.up, "GateUp" if net.fan > 1 else "Up"
    saved = Kernel(f"dequant_saved_routed_{up}", dequantize(rows, net.first, site.recipe.gate_up))
    out = [*first, *quantized(site, saved)]
    out += [Kernel("permute_dY", permute(site.received, rows, h, element))]
    out += quantized(site, Kernel("permute_scales", transpose_scales(rows, h)))
    out += weight_copy(site, "routed_W2", h, net.width, site.local_experts)
    out += [Kernel("routed_down_dgrad", GroupedGemm(site.local_experts, rows, net.width, h, "dgrad", lin))]
    again = activation_again(site)  # for the weight gradient, and the gradient, in one kernel
    out += [activate_backward(f"{net.activation}_{'fwd_' * again}bwd_routed", rows, net, extra=int(again))]
    weight_row = 2 * BF16_WIDTH * net.width
    out += [Kernel(f"{net.activation}_topk_weight_bwd", Memory("gate_weight_gradient", rows, weight_row, 4.0))]
    source = PLAIN_BF16 if again else site.recipe.activation
    out += quantized(site, Kernel("castT_act_routed", cast_transpose(rows, net.width, source)))
    out += [Kernel("scale_topk_w", small("tiny"))]
    if not moe_again(site):
        out += norm_before(site)
    out += quantized(
        site, Kernel(f"cast_d{tail}_routed", cast(rows, net.first)),
        Kernel("permute_scales2", transpose_scales(rows, net.first)),
    )  # fmt: skip
    out += weight_copy(site, "routed_W1", net.first, h, site.local_experts)
    out += [Kernel(f"routed_{up}_dgrad", GroupedGemm(site.local_experts, rows, h, net.first, "dgrad", lin))]
    out += bias_gradients(rows, net.bias, routed_down=h, **{f"routed_{up}": net.first})
    out += [Kernel("unpermute_dX", unpermute(site.received, rows, h))]
    return out + quantized(site, Kernel(f"castT_d{tail}_routed", cast_transpose(rows, net.first))) + last


def weight(site: Shared, experts: Experts) -> list[Kernel]:
    """One GEMM a local expert, alternating between two streams; they follow each other on the SMs."""
    h, net = site.shape.sent, experts.routed
    each = max(1, site.rows // site.local_experts)
    first, last = shared_weight(site, experts.shared)
    out = first
    for name, cast_name, n, k in (
        ("routed_down", "castT_dY_routed", h, net.width), (f"routed_{net.up}", "castT_x_routed", net.first, h),
    ):  # fmt: skip
        out += quantized(site, Kernel(cast_name, cast_transpose(site.rows, h, PLAIN_E4M3)))
        lanes = [WEIGHT * (expert % 2) for expert in range(site.local_experts)]
        turns = [wgrad(site, name, n, k, each, lane) for lane in lanes]
        out += [kernel._replace(name=f"{kernel.name}_e{i}") for i, kernel in enumerate(turns)]
    return out + last


def kept(site: Shared, experts: Experts) -> Kept:
    """Until the input gradient: the norm's input, first products, and dispatched rows; outputs of the norm and of
    activations where they are not computed again. Of a mixture that is, the norm's alone."""
    r, h = site.recipe, site.shape.hidden
    norms = PLAIN_BF16.row_bytes(h) + (0.0 if norm_again(site) else r.activation.row_bytes(h))
    own = Kept(site.tokens * (norms + r.activation.row_bytes(experts.latent)))
    return own if moe_again(site) else own + inside(site, experts)


def inside(site: Shared, experts: Experts) -> Kept:
    """What the mixture itself keeps, or has again while its backward runs."""
    r, shared, routed = site.recipe, experts.shared, experts.routed
    widths = (0, 0) if activation_again(site) else (shared.width, routed.width)
    each, row = (
        r.gate_up.row_bytes(network.first) + r.activation.row_bytes(width)
        for network, width in zip((shared, routed), widths, strict=True)
    )
    return Kept(site.tokens * each, r.dispatch.row_bytes(site.shape.sent), row)


def kept_for_weight(site: Shared, experts: Experts) -> Kept:
    """Until a split weight gradient: both sides of each product."""
    r, h, shared, routed = site.recipe, site.shape.hidden, experts.shared, experts.routed
    row = r.activation.row_bytes
    latent = 2 * (experts.latent + h) * bool(experts.latent)
    fixed = site.tokens * row(2 * h + shared.first + shared.width + latent)
    return Kept(fixed, 2 * r.dispatch.row_bytes(site.shape.sent), row(routed.first + routed.width))


def workspace(site: Shared, experts: Experts) -> float:
    """Bytes in the backward of routed experts: the gradient of their outputs in expert order, and gradients of the
    activation and of the first product."""
    return site.rows * BF16_WIDTH * (site.shape.sent + experts.routed.width + experts.routed.first)
