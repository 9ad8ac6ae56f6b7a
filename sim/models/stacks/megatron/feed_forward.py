"""Feed-forward networks of Megatron Core: gate and up in one product, the activation and its product in one kernel."""

from sim.models.blocks.feed_forward import Network
from sim.models.layer import Kernel
from sim.models.stacks.cudnn import Shared
from sim.models.stacks.megatron.casts import normed, transposed
from sim.models.stacks.megatron.linear import (
    bias_gradients,
    first,
    first_dgrad,
    first_wgrad,
    fused,
    last,
    last_dgrad,
    last_wgrad,
    norm_backward,
)  # fmt: skip
from sim.models.stacks.sharing import END, piece


def forward(site: Shared, network: Network) -> list[Kernel]:
    """[tokens, hidden] -> [tokens, hidden], with the norm before it and the residual behind."""
    own, h = site.own, site.shape.hidden
    out = [*normed(site, "mlp_norm", own, h), *first(site, "fc1", network.first, h), activate(site.tokens, network)]
    return [*out, *last(site, "fc2", h, network.width), fused("residual", own, h, 2, 1)]


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
    own, h = site.own, site.shape.hidden
    out = [*last_dgrad(site, "fc2", h, network.width), activate_backward(site.tokens, network)]
    out += first_dgrad(site, "fc1", network.first, h)
    end = [*transposed(site, "mlp_norm", own, h), *norm_backward("mlp_norm_bwd", own, h)]
    return out + piece(site, END, [*end, fused("add_residual", own, h, 2, 1)])


def weight(site: Shared, network: Network) -> list[Kernel]:
    h = site.shape.hidden
    sums = bias_gradients(network.bias, fc2=(site.own, h), fc1=(site.tokens, network.first))
    return [*sums, *last_wgrad(site, "fc2", h, network.width), *first_wgrad(site, "fc1", network.first, h)]


def tensors(network: Network, hidden: int) -> list[int]:
    """Elements of each of its parameters."""
    biases = [network.first, hidden] if network.bias else []
    return [hidden * network.first, hidden * network.width, *biases]
