"""Feed-forward networks under torch.compile: the activation is one kernel each way; backward computes it again."""

from sim.models.blocks.feed_forward import Network
from sim.models.layer import Kernel
from sim.models.stacks.cudnn import Shared
from sim.models.stacks.torch.compiled.fused import fused, norm, norm_backward
from sim.models.stacks.torch.compiled.linear import dgrad, linear, weights


def forward(site: Shared, network: Network) -> list[Kernel]:
    """[tokens, hidden] -> [tokens, hidden]; the residual is added by the norm behind."""
    t, h, w, fan = site.tokens, site.shape.hidden, network.width, network.fan
    out = [norm("mlp_norm", t, h), *linear(site, "gate" if fan > 1 else "up", w, h)]
    out += linear(site, "up", w, h) if fan > 1 else []
    return [*out, fused(network.activation, t, w, fan, 1), *linear(site, "down", h, w)]


def backward(site: Shared, network: Network) -> list[Kernel]:
    """Input gradients."""
    t, h, w, fan = site.tokens, site.shape.hidden, network.width, network.fan
    out = [*dgrad(site, "down", h, w), fused(f"{network.activation}_bwd", t, w, fan + 1, fan + 1)]
    out += dgrad(site, "up", w, h) + (dgrad(site, "gate", w, h) if fan > 1 else [])
    return out + norm_backward("mlp_norm_bwd", t, h, fan)


def weight(site: Shared, network: Network) -> list[Kernel]:
    h, w = site.shape.hidden, network.width
    return weights(site, (("down", h, w), ("up", w, h), ("gate", w, h))[: network.fan + 1])
