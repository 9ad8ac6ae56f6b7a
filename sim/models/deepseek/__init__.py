"""The DeepSeek family (V2, V2-Lite, V3): multi-head latent attention, DeepSeekMoE, multi-token prediction.

Layers become parts (attention, dispatch, experts, combine, the rest), parts become kernels, for forward (F), input
gradient (B) and weight gradient (W). Order, names and fusions follow the published H800 profile
(deepseek-ai/profile-data train.json: 69 + 19 + 29 + 12 + 101 + 5 kernels a MoE layer), precision follows the recipe.
The recipe recomputes in backward (DeepSeek-V3 report sec 3.2.3 and the profile): norms, q and kv up-projections, rope,
SwiGLU.
"""

from sim.models.deepseek.activations import kept, kept_for_weight, regained, workspace
from sim.models.deepseek.attention import attention_backward, attention_forward, attention_weight
from sim.models.deepseek.dense import dense_backward, dense_forward, dense_weight
from sim.models.deepseek.layers import made, mixture, units
from sim.models.deepseek.parameters import cache, flop, weights
from sim.models.deepseek.rules import mistakes
from sim.models.deepseek.shape import DeepSeekShape as Shape
from sim.models.deepseek.shape import Site
from sim.models.layer import Kernel, Part, Unit, places
from sim.models.recompute import AGAIN
from sim.models.stacks.deepseek import experts, gate
from sim.models.stacks.deepseek.ends import embedding, head
from sim.models.stacks.deepseek.exchange import EXCHANGES, exchange, meets
from sim.models.stacks.deepseek.feed_forward import network_again
from sim.models.stacks.deepseek.linear import norm_before
from sim.models.stacks.deepseek.projection import projection

__all__ = [
    "Shape", "cache", "flop", "kept", "kept_for_weight", "made", "mistakes", "mixture", "parts", "regained",
    "units", "weights", "workspace",
]  # fmt: skip


PLACES = places(
    (
        ("B", ("attn again", "gate again")),
        ("B", ("dispatch again",)),
        ("F", ("attn", "embedding", "projection", "head")),
        ("B", ("mlp again",)),
        ("B", ("combine again",)),
        ("B", ("combine",)),
        ("B", ("head", "projection", "mlp")),
        ("F", ("dispatch",)),
        ("W", ("head", "projection", "mlp")),
        ("B", ("dispatch",)),
        ("F", ("mlp",)),
        ("F", ("combine",)),
        ("B", ("attn", "embedding")),
        ("W", ("attn",)),
    )
)  # fmt: skip
"""A round of an overlapped pair as in the published H800 profile: exchanges run beside the other half's compute. What
is computed again beside that comes first; no such round is published."""


def parts(site: Site, unit: Unit, direction: str) -> tuple[Part, ...]:
    """The parts of a unit for direction F, B or W, in the order they depend on each other."""
    return tuple(
        Part(name, direction, unit.layer, tuple(kernels), meets(name), PLACES[direction, name])
        for name in _names(site, unit, direction) if (kernels := _kernels(site, unit, name, direction))
    )  # fmt: skip


def _names(site: Site, unit: Unit, direction: str) -> tuple[str, ...]:
    """Parts of a unit in order."""
    if unit.kind in _REST:
        return (unit.kind,)
    forward = ("attn", "dispatch", "mlp", "combine") if unit.kind == "moe" else ("attn", "mlp")
    if direction == "F":
        return forward
    return (*_again(site, unit, forward), *forward[::-1]) if direction == "B" else ("mlp", "attn")


def _again(site: Site, unit: Unit, forward: tuple[str, ...]) -> tuple[str, ...]:
    """Parts of backward that run parts of forward a second time: all, or those of a module."""
    own: tuple[str, ...] = ()
    if unit.kind == "moe" and experts.moe_again(site):
        own = ("gate", *forward[1:])
    elif unit.kind == "dense" and network_again(site):
        own = ("mlp",)
    return tuple(name + AGAIN for name in (forward if unit.checkpoint else own))


def _kernels(site: Site, unit: Unit, name: str, direction: str) -> list[Kernel]:
    moe = unit.kind == "moe"
    if name == "gate" + AGAIN:
        return gate.again(site, site.shape.experts)
    if name.endswith(AGAIN):
        before = norm_before(site) if name == "mlp" + AGAIN and not (moe or unit.checkpoint) else []
        return before + _kernels(site, unit, name.removesuffix(AGAIN), "F")
    if name in _REST:
        return _REST[name](site, direction)
    if name in EXCHANGES:
        return exchange(site, site.shape.experts, name, direction)
    if name == "attn":
        return _ATTENTION[direction](site, moe)
    return _EXPERTS[direction](site, site.shape.mixed) if moe else _DENSE[direction](site)


_REST = {"embedding": embedding, "head": head, "projection": projection}
_ATTENTION = {"F": attention_forward, "B": attention_backward, "W": attention_weight}
_DENSE = {"F": dense_forward, "B": dense_backward, "W": dense_weight}
_EXPERTS = {"F": experts.forward, "B": experts.backward, "W": experts.weight}
