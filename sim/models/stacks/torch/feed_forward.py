"""Feed-forward networks in eager torch: products of gate and of up, the activation and its product by themselves."""

from sim.models.blocks.feed_forward import Network
from sim.models.layer import Kernel
from sim.models.stacks.cudnn import Shared
from sim.models.stacks.torch.kernels import (
    activated,
    bias_gradients,
    dgrad,
    elementwise,
    linear,
    rms_norm,
    rms_norm_backward,
    wgrad,
)  # fmt: skip
from sim.models.stacks.torch.sharing import gathered, summed


def forward(site: Shared, network: Network) -> list[Kernel]:
    """[tokens, hidden] -> [tokens, hidden], with the norm before it and the residual behind."""
    t, h, w, gated = site.tokens, site.shape.hidden, network.width, network.fan > 1
    out = [
        rms_norm("mlp_norm", site.own, h),
        *gathered(site, "x_mlp", h),
        *linear(site, "gate" if gated else "up", w, h),
    ]
    out += [activated(network.activation, t, w)]
    out += [*linear(site, "up", w, h), elementwise("gate_mul", t, w, 2)] if gated else []
    return [*out, *linear(site, "down", h, w), *summed(site, "mlp", h), elementwise("residual", site.own, h, 2)]


def backward(site: Shared, network: Network) -> list[Kernel]:
    """Input gradients; those of weights are `weight`."""
    t, own, h, w = site.tokens, site.own, site.shape.hidden, network.width
    out, mul = [*gathered(site, "dy_mlp", h), *dgrad(site, "down", h, w)], elementwise("gate_mul_bwd", t, w, 2)
    if network.fan > 1:
        out += [mul, mul, *dgrad(site, "up", w, h), activated(network.activation, t, w, back=True)]
        out += [*dgrad(site, "gate", w, h), elementwise("add_dx", t, h, 2)]
    else:
        out += [activated(network.activation, t, w, back=True), *dgrad(site, "up", w, h)]
    out += [*summed(site, "dx_mlp", h), *rms_norm_backward("mlp_norm_bwd", own, h)]
    return [*out, elementwise("add_residual", own, h, 2)]


def weight(site: Shared, network: Network) -> list[Kernel]:
    h, w = site.shape.hidden, network.width
    pairs = (("down", h, w), ("up", w, h), ("gate", w, h))[: network.fan + 1]
    sums = bias_gradients(site.tokens, network.bias, **{name: n for name, n, _ in pairs})
    return [*(kernel for name, n, k in pairs for kernel in wgrad(site, name, n, k)), *sums]


def tensors(network: Network, hidden: int) -> list[int]:
    """Elements of each of its parameters."""
    biases = [network.width] * network.fan + [hidden] if network.bias else []
    return [hidden * network.width] * (network.fan + 1) + biases
