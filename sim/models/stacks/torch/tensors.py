"""Parameters of a unit as torch modules hold them: a tensor a weight, of routed experts one a product."""

from sim.models.blocks.experts import Experts
from sim.models.blocks.gqa import Heads
from sim.models.blocks.made import EMBEDDING, PROJECTION, Made
from sim.models.blocks.mla import Latent
from sim.models.stacks.cudnn import Shared
from sim.models.stacks.torch import attention, experts, feed_forward, latent


def tensors(site: Shared, made: Made) -> list[int]:
    """Elements of each parameter of a unit on this rank, in the order of its modules."""
    h, table, norm = site.shape.hidden, site.shape.vocabulary * site.shape.hidden, made.norm_parameters
    if made.end == EMBEDDING:
        return [table, *([made.positions * h] if made.positions else [])]
    if made.end == PROJECTION:
        return [norm, norm, 2 * h * h]
    if made.end:
        return [norm] if made.tied else [norm, table]
    norms = [norm] * ((bool(made.mixer) + bool(made.network)) * (1 + made.post_norms))
    return norms + _mixer(made, h) + _network(site, made, h)


def _mixer(made: Made, hidden: int) -> list[int]:
    if isinstance(made.mixer, Heads):
        return attention.tensors(made.mixer, hidden)
    if isinstance(made.mixer, Latent):
        return latent.tensors(made.mixer, hidden)
    if not made.mixer:
        return []
    m = made.mixer
    single = [m.convolved * m.conv, m.convolved, m.heads, m.heads, m.heads, m.inner]
    return [hidden * m.columns, *single, m.inner * hidden]


def _network(site: Shared, made: Made, hidden: int) -> list[int]:
    if isinstance(made.network, Experts):
        correcting = [made.network.number] * made.gate_bias
        return experts.tensors(made.network, hidden, site.local_experts or made.network.number) + correcting
    return feed_forward.tensors(made.network, hidden) if made.network else []
