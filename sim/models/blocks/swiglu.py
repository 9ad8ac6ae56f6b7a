"""SwiGLU, and the dense feed-forward layer around it: gate and up in one product, and down."""

from hwmodels.op import Memory, cast_transpose, dequantize, norm, store
from sim.models.blocks.linear import BF16_WIDTH, Shared, dgrad, linear, norm_backward, quantized, wgrad
from sim.models.layer import Kernel


def swiglu(site: Shared, name: str, rows: int, width: int) -> Kernel:
    """Gate times up, written in the next product's format: [rows, 2*width] -> [rows, width]."""
    return Kernel(name, Memory("swiglu", rows, 2 * BF16_WIDTH * width, site.recipe.activation.row_bytes(width)))


def swiglu_backward(name: str, rows: int, width: int, extra: int = 0) -> Kernel:
    """Reads gate, up and dY, writes dGate and dUp, and `extra` more tensors of `width` columns."""
    return Kernel(name, Memory("swiglu_backward", rows, 3 * BF16_WIDTH * width, (2 + extra) * BF16_WIDTH * width))


def forward(site: Shared, width: int) -> list[Kernel]:
    """The norm before it, which also adds the residual, and the layer. [tokens, hidden] -> [tokens, hidden]."""
    t, h = site.tokens, site.shape.hidden
    out = [Kernel("rmsnorm2", norm(t, h, 2, 2)), *linear(site, "gateup", 2 * width, h, "cast_x_for_gateup")]
    out += [swiglu(site, "swiglu", t, width), *linear(site, "down", h, width)]
    return out + quantized(site, Kernel("save_gateup", store(t, 2 * width, site.recipe.gate_up)))


def backward(site: Shared, width: int) -> list[Kernel]:
    """Input gradients; nothing is computed again, FP8 operands of the weight gradients come from what was kept."""
    t, h, r = site.tokens, site.shape.hidden, site.recipe
    out = quantized(site, Kernel("dequant_saved_gateup", dequantize(t, 2 * width, r.gate_up)))
    out += dgrad(site, "down", h, width, "cast_dY_down")
    out += [swiglu_backward("swiglu_bwd", t, width), *dgrad(site, "gateup", 2 * width, h, "cast_dGateUp")]
    out += quantized(
        site,
        Kernel("castT_dY_down", cast_transpose(t, h)), Kernel("castT_act", cast_transpose(t, width, r.activation)),
        Kernel("castT_dGateUp", cast_transpose(t, 2 * width)),
        Kernel("castT_x_gateup", cast_transpose(t, h, r.activation)),
    )  # fmt: skip
    return out + norm_backward("rmsnorm2_bwd", t, h, 3)


def weight(site: Shared, width: int) -> list[Kernel]:
    h = site.shape.hidden
    return [wgrad(site, "down", h, width), wgrad(site, "gateup", 2 * width, h)]
