"""Parameters of a unit as modules hold them, on stacks that lower blocks."""

from collections.abc import Callable
from typing import NamedTuple

from sim.models.blocks.experts import Experts
from sim.models.blocks.feed_forward import Network
from sim.models.blocks.gqa import Heads
from sim.models.blocks.made import EMBEDDING, PROJECTION, Made
from sim.models.blocks.mla import Latent
from sim.models.stacks.cudnn import Shared


class Modules(NamedTuple):
    """Elements of each parameter of a stack's modules, from the block and the columns of the residual stream; experts:
    also from how many of them are here."""

    attention: Callable[[Heads, int], list[int]]
    network: Callable[[Network, int], list[int]]
    experts: Callable[[Experts, int, int], list[int]]


def tensors(of: Modules, site: Shared, made: Made) -> list[int]:
    """Elements of each parameter of a unit on this rank, in the order of its modules."""
    h, table, norm = site.shape.hidden, site.shape.vocabulary * site.shape.hidden, made.norm_parameters
    if made.end == EMBEDDING:
        return [table, *([made.positions * h] if made.positions else [])]
    if made.end == PROJECTION:
        return [norm, norm, 2 * h * h]
    if made.end:
        return [norm] if made.tied else [norm, table]
    norms = [norm] * ((bool(made.mixer) + bool(made.network)) * (1 + made.post_norms))
    return norms + _mixer(of, made, h) + _network(of, site, made, h)


def _mixer(of: Modules, made: Made, hidden: int) -> list[int]:
    if isinstance(made.mixer, Heads):
        return of.attention(made.mixer, hidden)
    if isinstance(made.mixer, Latent):
        return _latent(made.mixer, hidden)
    if not made.mixer:
        return []
    m = made.mixer
    return [hidden * m.columns, m.convolved * m.conv, m.convolved, m.heads, m.heads, m.heads, m.inner, m.inner * hidden]


def _latent(a: Latent, hidden: int) -> list[int]:
    query = [a.q_rank * hidden, a.q_rank, a.q * a.q_rank] if a.q_rank else [a.q * hidden]
    return [*query, a.down * hidden, a.kv_rank, a.kv * a.kv_rank, a.out * hidden]


def _network(of: Modules, site: Shared, made: Made, hidden: int) -> list[int]:
    if isinstance(made.network, Experts):
        correcting = [made.network.number] * made.gate_bias
        return of.experts(made.network, hidden, site.local_experts or made.network.number) + correcting
    return of.network(made.network, hidden) if made.network else []
