"""Parameters of Megatron Core's modules, and what follows their update: weights quantised anew, once a step.

TransformerEngine keeps weights in BF16 and casts them before the first micro-batch of a step; later ones reuse that
(`is_first_microbatch`).
"""

from collections.abc import Sequence

from hwmodels.formats import PLAIN_BF16
from hwmodels.op import Memory
from sim.models.blocks.experts import Experts
from sim.models.blocks.gqa import Heads
from sim.models.blocks.made import Made
from sim.models.blocks.mla import Latent
from sim.models.layer import Kernel
from sim.models.stacks import tensors as units
from sim.models.stacks.cudnn import Shared
from sim.models.stacks.megatron import attention, experts, feed_forward
from sim.models.stacks.megatron.casts import casting, ways

MODULES = units.Modules(attention.tensors, feed_forward.tensors, experts.tensors)


def tensors(site: Shared, made: Made) -> list[int]:
    """Elements of each parameter of a unit on this rank."""
    return units.tensors(MODULES, site, made)


def update(site: Shared, made: Sequence[Made], part: float = 1.0) -> list[Kernel]:
    """Weights of products quantised after their update, all of them whatever part a rank updates; the update itself is
    the plan's (`sim.layout.optimizer`)."""
    own = casting(site)
    if own is None:
        return []
    row, out = PLAIN_BF16.row_bytes(1), ways(site) * site.recipe.activation.row_bytes(1)
    read = 2 * row if own.first else row
    sizes = [size for unit in made for size in _products(site, unit)]
    return [Kernel("cast_weights", Memory("cast_transpose", size, read, out)) for size in sizes]


def _products(site: Shared, made: Made) -> list[int]:
    """Elements of the weights of each quantised product of a unit."""
    h, mixer, network = site.shape.hidden, made.mixer, made.network
    out = [mixer.qkv * h, mixer.q * h] if isinstance(mixer, Heads) else []
    if isinstance(mixer, Latent):
        query = [mixer.q_rank * h, mixer.q * mixer.q_rank] if mixer.q_rank else [mixer.q * h]
        out = [*query, mixer.down * h, mixer.kv * mixer.kv_rank, mixer.out * h]
    if isinstance(network, Experts):
        net, shared, local = network.routed, network.shared, site.local_experts or network.number
        row = network.sent(h)
        both = [local * net.first * row, local * net.width * row, *[network.latent * h] * (2 * bool(network.latent))]
        return out + both + [shared.first * h, shared.width * h] * bool(shared.width)
    return out + ([network.first * h, network.width * h] if network else [])
