"""Dense feed-forward layers of a DeepSeek model; its mixtures are `sim.models.stacks.deepseek.experts` as they are."""

from hwmodels.op import norm
from sim.models.deepseek.shape import Site
from sim.models.layer import Kernel
from sim.models.stacks.deepseek.experts import save_shared, shared_backward, shared_forward, shared_weight
from sim.models.stacks.deepseek.feed_forward import network_again
from sim.models.stacks.deepseek.linear import norm_again


def dense_forward(site: Site) -> list[Kernel]:
    first, rest = shared_forward(site, site.shape.dense)
    return [*first, *rest, *save_shared(site, site.shape.dense)]


def dense_backward(site: Site) -> list[Kernel]:
    first, last = shared_backward(site, site.shape.dense)
    again = norm_again(site) and not network_again(site)
    norms = [Kernel("rmsnorm2_recompute", norm(site.tokens, site.shape.hidden, 2, 2))] if again else []
    return [*first, *norms, *last]


def dense_weight(site: Site) -> list[Kernel]:
    first, last = shared_weight(site, site.shape.dense)
    return [*first, *last]
