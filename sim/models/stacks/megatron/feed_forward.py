"""Feed-forward networks of Megatron Core: gate and up in one product, the activation and its product in one kernel."""

from sim.models.blocks.feed_forward import Network
from sim.models.layer import Kernel
from sim.models.stacks.cudnn import Shared
from sim.models.stacks.megatron.casts import normed, transposed
from sim.models.stacks.megatron.linear import dgrad, fused, linear, norm_backward, product, wgrad


def forward(site: Shared, network: Network) -> list[Kernel]:
    """[tokens, hidden] -> [tokens, hidden], with the norm before it and the residual behind."""
    t, h = site.tokens, site.shape.hidden
    out = [*normed(site, "mlp_norm", t, h), *product(site, "fc1", network.first, h), activate(t, network)]
    return [*out, *linear(site, "fc2", h, network.width), fused("residual", t, h, 2, 1)]


def activate(rows: int, network: Network, name: str = "") -> Kernel:
    """[rows, first] -> [rows, width]."""
    kind = "swiglu" if network.fan > 1 else "elementwise"
    return fused(name or network.activation, rows, network.width, network.fan, 1, kind)


def activate_backward(rows: int, network: Network, name: str = "") -> Kernel:
    """Reads the first product and dY, writes the first product's gradient."""
    kind = "swiglu_backward" if network.fan > 1 else "elementwise"
    return fused(name or f"{network.activation}_bwd", rows, network.width, network.fan + 1, network.fan, kind)


def backward(site: Shared, network: Network) -> list[Kernel]:
    """Input gradients; those of weights are `weight`."""
    t, h = site.tokens, site.shape.hidden
    out = [*dgrad(site, "fc2", h, network.width), activate_backward(t, network)]
    out += [*dgrad(site, "fc1", network.first, h), *transposed(site, "mlp_norm", t, h)]
    return [*out, *norm_backward("mlp_norm_bwd", t, h), fused("add_residual", t, h, 2, 1)]


def weight(site: Shared, network: Network) -> list[Kernel]:
    h = site.shape.hidden
    return [*wgrad(site, "fc2", h, network.width), *wgrad(site, "fc1", network.first, h)]


def tensors(network: Network, hidden: int) -> list[int]:
    """Elements of each of its parameters."""
    biases = [network.first, hidden] if network.bias else []
    return [hidden * network.first, hidden * network.width, *biases]
