"""The DeepSeek family (V2, V2-Lite, V3): multi-head latent attention, DeepSeekMoE, multi-token prediction.

Layers become parts (attention, dispatch, experts, combine, the rest), parts become kernels, for forward (F), input
gradient (B) and weight gradient (W). Order, names and fusions follow the published H800 profile
(deepseek-ai/profile-data train.json: 69 + 19 + 29 + 12 + 101 + 5 kernels a MoE layer), precision follows the recipe.
Recomputed in backward (DeepSeek-V3 report sec 3.2.3 and the profile): norms, q and kv up-projections, rope, SwiGLU.
"""

from sim.models.deepseek.activations import kept, kept_for_weight, workspace
from sim.models.deepseek.attention import attention_backward, attention_forward, attention_weight
from sim.models.deepseek.dense import dense_backward, dense_forward, dense_weight
from sim.models.deepseek.layers import made, mixture, units
from sim.models.deepseek.parameters import cache, flop, weights
from sim.models.deepseek.rules import mistakes
from sim.models.deepseek.shape import DeepSeekShape as Shape
from sim.models.deepseek.shape import Site
from sim.models.layer import EXPERT, Kernel, Part, Unit, places
from sim.models.stacks.deepseek import experts
from sim.models.stacks.deepseek.ends import embedding, head
from sim.models.stacks.deepseek.exchange import EXCHANGES, exchange
from sim.models.stacks.deepseek.projection import projection

__all__ = [
    "Shape", "cache", "flop", "kept", "kept_for_weight", "made", "mistakes", "mixture", "parts", "units", "weights",
    "workspace",
]  # fmt: skip


PLACES = places(
    (
        ("F", ("attn", "embedding", "projection", "head")),
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
"""A round of an overlapped pair as in the published H800 profile: exchanges run beside the other half's compute."""


def parts(site: Site, unit: Unit, direction: str) -> tuple[Part, ...]:
    """The parts of a unit for direction F, B or W, in the order they depend on each other."""
    return tuple(
        Part(name, direction, unit.layer, tuple(kernels), EXPERT * (name in EXCHANGES), PLACES[direction, name])
        for name in _names(unit, direction) if (kernels := _kernels(site, unit, name, direction))
    )  # fmt: skip


def _names(unit: Unit, direction: str) -> tuple[str, ...]:
    """Parts of a unit in order."""
    if unit.kind in _REST:
        return (unit.kind,)
    forward = ("attn", "dispatch", "mlp", "combine") if unit.kind == "moe" else ("attn", "mlp")
    if direction == "F":
        return forward
    return forward[::-1] if direction == "B" else ("mlp", "attn")


def _kernels(site: Site, unit: Unit, name: str, direction: str) -> list[Kernel]:
    moe = unit.kind == "moe"
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
