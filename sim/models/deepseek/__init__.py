"""The DeepSeek family (V2, V2-Lite, V3): multi-head latent attention, DeepSeekMoE, multi-token prediction.

Layers become parts (attention, dispatch, experts, combine, the rest), parts become kernels, for forward (F), input
gradient (B) and weight gradient (W). Order, names and fusions follow the published H800 profile
(deepseek-ai/profile-data train.json: 69 + 19 + 29 + 12 + 101 + 5 kernels a MoE layer), precision follows the recipe.
Recomputed in backward (DeepSeek-V3 report sec 3.2.3 and the profile): norms, q and kv up-projections, rope, SwiGLU.
"""

from sim.models.deepseek.activations import kept, kept_for_weight, workspace
from sim.models.deepseek.attention import attention_backward, attention_forward, attention_weight
from sim.models.deepseek.exchange import exchange
from sim.models.deepseek.experts import (
    dense_backward,
    dense_forward,
    dense_weight,
    experts_backward,
    experts_forward,
    experts_weight,
)  # fmt: skip
from sim.models.deepseek.layers import mixture, units
from sim.models.deepseek.parameters import cache, flop, weights
from sim.models.deepseek.rest import embedding, head, projection
from sim.models.deepseek.rules import mistakes
from sim.models.deepseek.shape import DeepSeekShape as Shape
from sim.models.deepseek.shape import Site
from sim.models.layer import Part, Unit

__all__ = [
    "Shape", "cache", "flop", "kept", "kept_for_weight", "mistakes", "mixture", "parts", "units", "weights",
    "workspace",
]  # fmt: skip


def parts(site: Site, unit: Unit, direction: str) -> tuple[Part, ...]:
    """The parts of a unit for direction F, B or W, in the order they depend on each other."""
    if unit.kind in ("embedding", "projection", "head"):
        kernels = _REST[unit.kind](site, direction)
        return (Part(f"{unit.kind}({direction})", unit.layer, tuple(kernels)),) if kernels else ()
    moe = unit.kind == "moe"
    attn = Part(f"attn({direction})", unit.layer, tuple(_ATTENTION[direction](site, moe)))
    mlp = Part(f"mlp({direction})", unit.layer, tuple((_EXPERTS if moe else _DENSE)[direction](site)))
    if direction == "W":
        return (mlp, attn)
    ordered = (attn, mlp) if direction == "F" else (mlp, attn)
    if not moe:
        return ordered
    before, after = ("dispatch", "combine") if direction == "F" else ("combine", "dispatch")
    first = Part(f"{before}({direction})", unit.layer, tuple(exchange(site, before, direction)), True)
    last = Part(f"{after}({direction})", unit.layer, tuple(exchange(site, after, direction)), True)
    return (attn, first, mlp, last) if direction == "F" else (first, mlp, last, attn)


_REST = {"embedding": embedding, "head": head, "projection": projection}
_ATTENTION = {"F": attention_forward, "B": attention_backward, "W": attention_weight}
_DENSE = {"F": dense_forward, "B": dense_backward, "W": dense_weight}
_EXPERTS = {"F": experts_forward, "B": experts_backward, "W": experts_weight}
