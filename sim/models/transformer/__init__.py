"""Decoders of blocks: layers follow a pattern of mixers (grouped-query attention over all keys, a window or chunks;
latent attention; Mamba-2) and feed-forward networks (dense, or a mixture of experts).

Layers become parts: the mixer; the network with its norm, or the norm and gate, dispatch, experts and combine of a
mixture. Parts become kernels, for forward (F), input gradient (B) and weight gradient (W). Every rank holds whole
layers. Precision follows the recipe. Backward computes again what the blocks say: by the recipe nothing in
grouped-query attention and dense networks, up-projections in latent attention, convolution and states in Mamba-2, the
norm and activations in mixtures.
"""

from hwmodels.op import norm
from sim.models.layer import Kernel, Part, Unit, places
from sim.models.recompute import AGAIN
from sim.models.stacks.deepseek import experts, feed_forward, gate, gqa, mamba, mla
from sim.models.stacks.deepseek.ends import embedding, head, positions
from sim.models.stacks.deepseek.exchange import EXCHANGES, exchange, meets
from sim.models.stacks.deepseek.linear import dgrad, linear, norm_backward, post_norm, wgrad
from sim.models.stacks.deepseek.projection import projection
from sim.models.transformer.activations import kept, kept_for_weight, regained, workspace
from sim.models.transformer.layers import made, mistakes, mixture, units
from sim.models.transformer.parameters import cache, flop, weights
from sim.models.transformer.shape import Site, halves
from sim.models.transformer.shape import TransformerShape as Shape

__all__ = [
    "Shape", "cache", "flop", "kept", "kept_for_weight", "made", "mistakes", "mixture", "parts", "regained",
    "units", "weights", "workspace",
]  # fmt: skip

PLACES = places(
    (
        ("B", ("attn again", "mamba again", "gate again")),
        ("B", ("dispatch again",)),
        ("F", ("attn", "mamba", "gate", "embedding", "projection", "head")),
        ("B", ("mlp again",)),
        ("B", ("combine again",)),
        ("B", ("expand again",)),
        ("B", ("expand",)),
        ("B", ("combine",)),
        ("B", ("head", "projection", "mlp")),
        ("F", ("dispatch",)),
        ("W", ("head", "projection", "mlp")),
        ("B", ("dispatch",)),
        ("F", ("mlp",)),
        ("F", ("combine",)),
        ("F", ("expand",)),
        ("B", ("gate",)),
        ("B", ("attn", "mamba", "embedding")),
        ("W", ("attn", "mamba")),
    )
)  # fmt: skip
"""A round of an overlapped pair as in DeepSeek's published profile: exchanges run beside the other half's compute. What
is computed again beside that comes first; no such round is published."""


def parts(site: Site, unit: Unit, direction: str) -> tuple[Part, ...]:
    """The parts of a unit for direction F, B or W, in the order they depend on each other."""
    return tuple(
        Part(name, direction, unit.layer, tuple(kernels), meets(name), PLACES[direction, name])
        for name in _names(site, unit, direction) if (kernels := _kernels(site, unit, name, direction))
    )  # fmt: skip


def _names(site: Site, unit: Unit, direction: str) -> tuple[str, ...]:
    """Parts of a unit in order."""
    if unit.kind in _ENDS:
        return (unit.kind,)
    mixer, network = halves(unit.kind)
    first = ("mamba" if mixer == "mamba" else "attn",) if mixer else ("gate",) if network == "moe" else ()
    expanding = ("expand",) * bool(site.shape.expert_latent)
    routed = ("dispatch", "mlp", "combine", *expanding) if network == "moe" else ("mlp",) if network else ()
    if direction == "F":
        return (*first, *routed)
    if direction == "B":
        return (*_again(site, unit, (*first, *routed)), *routed[::-1], *first)
    return ("mlp",) * bool(network) + first * bool(mixer)


def _again(site: Site, unit: Unit, forward: tuple[str, ...]) -> tuple[str, ...]:
    """Parts of backward that run parts of forward a second time: all, or those of a module."""
    _, network = halves(unit.kind)
    own: tuple[str, ...] = ()
    if network == "moe" and experts.moe_again(site):
        own = ("gate", "dispatch", "mlp", "combine")
    elif network == "dense" and feed_forward.network_again(site):
        own = ("mlp",)
    return tuple(name + AGAIN for name in (forward if unit.checkpoint else own))


def _kernels(site: Site, unit: Unit, name: str, direction: str) -> list[Kernel]:
    if name in _ENDS:
        return _ENDS[name](site, direction) + _extra(site, name, direction)
    mixer, network = halves(unit.kind)
    if name.endswith(AGAIN):
        return _second(site, unit, name.removesuffix(AGAIN))
    if name in EXCHANGES:
        return exchange(site, site.shape.experts, name, direction)
    if name == "mlp":
        return _network(site, network, direction)
    if name == "expand":
        return _LATENT_PRODUCT[direction](site, "latent_up", site.shape.hidden, site.shape.expert_latent)
    mixing = _mixer(site, mixer, direction) if mixer else []
    gating = _gate(site, direction) if network == "moe" else []
    return mixing + gating if direction == "F" else gating + mixing


def _second(site: Site, unit: Unit, name: str) -> list[Kernel]:
    """Kernels of a part of forward that backward runs a second time."""
    _, network = halves(unit.kind)
    if not unit.checkpoint and name == "gate":
        return gate.again(site, site.shape.experts)
    if not unit.checkpoint and network == "dense":
        return feed_forward.again(site, site.shape.dense)
    return _kernels(site, unit, name, "F")


def _extra(site: Site, name: str, direction: str) -> list[Kernel]:
    return positions(site, site.shape.positions, direction) if name == "embedding" and site.shape.positions else []


def _mixer(site: Site, mixer: str, direction: str) -> list[Kernel]:
    """What mixes tokens; with a norm behind it where the model has such."""
    s = site.shape
    if mixer == "mamba":
        own = _MAMBA[direction](site, s.mamba)
    elif mixer == "latent":
        own = _LATENT[direction](site, s.latent)
    else:
        own = _ATTENTION[direction](site, s.attention(mixer))
    return post_norm(site, own, direction) if s.post_norms else own


def _network(site: Site, network: str, direction: str) -> list[Kernel]:
    """A feed-forward network; that after a combine is normalised beside the experts, which costs as much."""
    s = site.shape
    mixed = network == "moe"
    own = _EXPERTS[direction](site, s.mixed) if mixed else _FEED_FORWARD[direction](site, s.dense)
    if mixed and direction == "W" and s.expert_latent:
        own += [wgrad(site, "latent_up", s.hidden, s.expert_latent)]
        own += [wgrad(site, "latent_down", s.expert_latent, s.hidden)]
    return post_norm(site, own, direction) if s.post_norms else own


def _gate(site: Site, direction: str) -> list[Kernel]:
    """The norm before a mixture, which also adds the residual, and the gate; backward, the gradients of the routed and
    shared paths and of the residual meet at the norm."""
    s, t = site.shape, site.tokens
    if direction == "F":
        norms = [Kernel("rmsnorm2", norm(t, s.hidden, 2, 2)), *gate.forward(site, s.experts)]
        return norms + (linear(site, "latent_down", s.expert_latent, s.hidden) if s.expert_latent else [])
    if direction == "B":
        own = dgrad(site, "latent_down", s.expert_latent, s.hidden) if s.expert_latent else []
        return [*own, *gate.backward(site, s.experts), *norm_backward("rmsnorm2_bwd", t, s.hidden, 5)]
    return []


_ENDS = {"embedding": embedding, "head": head, "projection": projection}
_ATTENTION = {"F": gqa.forward, "B": gqa.backward, "W": gqa.weight}
_LATENT = {"F": mla.forward, "B": mla.backward, "W": mla.weight}
_MAMBA = {"F": mamba.forward, "B": mamba.backward, "W": mamba.weight}
_FEED_FORWARD = {"F": feed_forward.forward, "B": feed_forward.backward, "W": feed_forward.weight}
_LATENT_PRODUCT = {"F": linear, "B": dgrad}
_EXPERTS = {"F": experts.forward, "B": experts.backward, "W": experts.weight}
