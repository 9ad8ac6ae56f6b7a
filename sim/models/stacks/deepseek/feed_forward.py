"""Feed-forward layers (SwiGLU, gated GELU, GELU, squared ReLU): activations, products, and the dense layer of them."""

from hwmodels.op import Memory, cast_transpose, dequantize, norm, store
from sim.models.blocks.feed_forward import Network
from sim.models.layer import Kernel
from sim.models.stacks.deepseek.linear import (
    BF16_WIDTH,
    Shared,
    bias_gradients,
    dgrad,
    linear,
    norm_again,
    norm_backward,
    norm_output,
    quantized,
    wgrad,
)  # fmt: skip


def activate(site: Shared, name: str, rows: int, network: Network) -> Kernel:
    """The activation, written in the next product's format: [rows, first] -> [rows, width]."""
    kind = "swiglu" if network.fan > 1 else "elementwise"
    return Kernel(name, Memory(kind, rows, BF16_WIDTH * network.first, site.recipe.activation.row_bytes(network.width)))


def activate_backward(name: str, rows: int, network: Network, extra: int = 0) -> Kernel:
    """Reads the first product and dY, writes the first product's gradient, and `extra` more tensors of `width`."""
    kind, row = "swiglu_backward" if network.fan > 1 else "elementwise", BF16_WIDTH * network.width
    return Kernel(name, Memory(kind, rows, (network.fan + 1) * row, (network.fan + extra) * row))


def forward(site: Shared, network: Network) -> list[Kernel]:
    """The norm before it, which also adds the residual, and the layer. [tokens, hidden] -> [tokens, hidden]."""
    t, h, up = site.tokens, site.shape.hidden, network.up
    out = [Kernel("rmsnorm2", norm(t, h, 2, 2)), *linear(site, up, network.first, h, f"cast_x_for_{up}")]
    out += [activate(site, network.activation, t, network), *linear(site, "down", h, network.width)]
    return out + quantized(site, Kernel(f"save_{up}", store(t, network.first, site.recipe.gate_up)))


def network_again(site: Shared) -> bool:
    """Whether backward computes a dense network again, without the norm before it."""
    return site.recompute.again("mlp", published=False)


def _activation_again(site: Shared) -> bool:
    return site.recompute.again("activation", published=False)


def again(site: Shared, network: Network) -> list[Kernel]:
    """The network a second time, from the norm's output where that is not computed again too."""
    return forward(site, network)[0 if norm_again(site, published=False) else 1 :]


def backward(site: Shared, network: Network) -> list[Kernel]:
    """Input gradients. The recipe computes nothing again: FP8 operands of the weight gradients come from what was
    kept."""
    t, h, r, up, width = site.tokens, site.shape.hidden, site.recipe, network.up, network.width
    tail = "GateUp" if network.fan > 1 else "Up"
    out = quantized(site, Kernel(f"dequant_saved_{up}", dequantize(t, network.first, r.gate_up)))
    out += dgrad(site, "down", h, width, "cast_dY_down")
    kept_act = not _activation_again(site)
    out += [] if kept_act else [activate(site, f"{network.activation}_recompute_castT", t, network)]
    out += [activate_backward(f"{network.activation}_bwd", t, network)]
    if norm_again(site, published=False) and not network_again(site):
        out += [Kernel("rmsnorm2_recompute", norm(t, h, 2, 2))]
    out += dgrad(site, up, network.first, h, f"cast_d{tail}")
    out += quantized(
        site,
        Kernel("castT_dY_down", cast_transpose(t, h)),
        *([Kernel("castT_act", cast_transpose(t, width, r.activation))] if kept_act else []),
        Kernel(f"castT_d{tail}", cast_transpose(t, network.first)),
        Kernel(f"castT_x_{up}", cast_transpose(t, h, norm_output(site, published=False))),
    )  # fmt: skip
    out += bias_gradients(t, network.bias, down=h, **{up: network.first})
    return out + norm_backward("rmsnorm2_bwd", t, h, 3)


def weight(site: Shared, network: Network) -> list[Kernel]:
    h = site.shape.hidden
    return [wgrad(site, "down", h, network.width), wgrad(site, network.up, network.first, h)]


def kept(site: Shared, network: Network) -> float:
    """Bytes of a token until the input gradient: inputs of the norm and of both products, and of the activation, but
    for what is computed again."""
    h = site.shape.hidden
    norms = BF16_WIDTH * h + (0.0 if norm_again(site, published=False) else site.recipe.activation.row_bytes(h))
    return norms if network_again(site) else norms + inside(site, network)


def inside(site: Shared, network: Network) -> float:
    """Bytes of a token that the network itself keeps, or has again while its backward runs."""
    r, width = site.recipe, 0 if _activation_again(site) else network.width
    return r.activation.row_bytes(width) + r.gate_up.row_bytes(network.first)


def kept_for_weight(site: Shared, network: Network) -> float:
    """Bytes of a token until a split weight gradient: both sides of both products."""
    row, h = site.recipe.activation.row_bytes, site.shape.hidden
    return row(h) + row(network.first) + row(network.width) + row(h)


def workspace(site: Shared, network: Network) -> float:
    """Bytes of gradients of the activation and of the first product."""
    return site.tokens * BF16_WIDTH * (network.width + network.first)
