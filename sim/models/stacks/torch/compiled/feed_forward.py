"""Feed-forward networks under torch.compile: the activation is one kernel each way; backward computes it again."""

from sim.models.blocks.feed_forward import Network
from sim.models.layer import Kernel
from sim.models.stacks.cudnn import Shared
from sim.models.stacks.torch.compiled.fused import fused, norm
from sim.models.stacks.torch.compiled.linear import dgrad, gated, joins, scaled, weights
from sim.models.stacks.torch.compiled.sharing import entered, left, norm_gradients
from sim.models.stacks.torch.kernels import bias_gradients


def forward(site: Shared, network: Network) -> list[Kernel]:
    """[tokens, hidden] -> [tokens, hidden]; the residual is added by the norm behind."""
    t, h, w, fan = site.tokens, site.shape.hidden, network.width, network.fan
    products = (("gate", w, h), ("up", w, h)) if fan > 1 else (("up", w, h),)
    out = [norm("mlp_norm", site.own, h), *entered(site, products, "x_mlp")]
    if joins(site, fan):
        return out + left(site, [("down", h, w)], "mlp", read=gated(site, t, w))
    return [*out, fused(network.activation, t, w, fan, 1), *left(site, [("down", h, w)], "mlp")]


def backward(site: Shared, network: Network) -> list[Kernel]:
    """Input gradients."""
    t, h, w, fan = site.tokens, site.shape.hidden, network.width, network.fan
    out = [*entered(site, [("down", h, w)], "dy_mlp", dgrad), *(ready := scaled(site, "down_dgrad", t, w))]
    cast = gated(site, t, w, True) if joins(site, fan) else None
    out += [] if cast else [fused(f"{network.activation}_bwd", t, w, fan + (not ready), fan + 1)]
    out += left(site, (("up", w, h), ("gate", w, h))[:fan], "dx_mlp", dgrad, cast)
    return out + norm_gradients(site, "mlp_norm_bwd", fan)


def weight(site: Shared, network: Network) -> list[Kernel]:
    h, w = site.shape.hidden, network.width
    products = (("up", w, h), ("gate", w, h))[: network.fan]
    sums = bias_gradients(site.tokens, network.bias, down=h, **{name: n for name, n, _ in products})
    down = weights(site, [("down", h, w)], True, joins(site, network.fan))
    return down + weights(site, products) + sums
