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
    norm_backward,
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


def backward(site: Shared, network: Network) -> list[Kernel]:
    """Input gradients; nothing is computed again, FP8 operands of the weight gradients come from what was kept."""
    t, h, r, up, width = site.tokens, site.shape.hidden, site.recipe, network.up, network.width
    tail = "GateUp" if network.fan > 1 else "Up"
    out = quantized(site, Kernel(f"dequant_saved_{up}", dequantize(t, network.first, r.gate_up)))
    out += dgrad(site, "down", h, width, "cast_dY_down")
    out += [activate_backward(f"{network.activation}_bwd", t, network)]
    out += dgrad(site, up, network.first, h, f"cast_d{tail}")
    out += quantized(
        site,
        Kernel("castT_dY_down", cast_transpose(t, h)), Kernel("castT_act", cast_transpose(t, width, r.activation)),
        Kernel(f"castT_d{tail}", cast_transpose(t, network.first)),
        Kernel(f"castT_x_{up}", cast_transpose(t, h, r.activation)),
    )  # fmt: skip
    out += bias_gradients(t, network.bias, down=h, **{up: network.first})
    return out + norm_backward("rmsnorm2_bwd", t, h, 3)


def weight(site: Shared, network: Network) -> list[Kernel]:
    h = site.shape.hidden
    return [wgrad(site, "down", h, network.width), wgrad(site, network.up, network.first, h)]


def kept(site: Shared, network: Network) -> float:
    """Bytes of a token until the input gradient: inputs of the norm and of both products, and of the activation."""
    r, h = site.recipe, site.shape.hidden
    inputs = r.activation.row_bytes(h) + r.activation.row_bytes(network.width)
    return BF16_WIDTH * h + inputs + r.gate_up.row_bytes(network.first)


def kept_for_weight(site: Shared, network: Network) -> float:
    """Bytes of a token until a split weight gradient: both sides of both products."""
    row, h = site.recipe.activation.row_bytes, site.shape.hidden
    return row(h) + row(network.first) + row(network.width) + row(h)


def workspace(site: Shared, network: Network) -> float:
    """Bytes of gradients of the activation and of the first product."""
    return site.tokens * BF16_WIDTH * (network.width + network.first)
