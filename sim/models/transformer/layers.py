"""The units of a transformer in order, how tokens choose among its experts, and dimensions that no model has so."""

from collections.abc import Iterator
from functools import cache

from hwmodels.document import indivisible
from sim.models.blocks.made import Made
from sim.models.layer import Unit
from sim.models.mixture import Mixture
from sim.models.transformer.shape import GROUPED, MIXERS, NETWORKS, TransformerShape, halves


@cache
def units(shape: TransformerShape) -> tuple[Unit, ...]:
    """Embedding, layers, head; a multi-token-prediction module is projection, a layer (like the last one), head."""
    out = [Unit("embedding", -1), *(_block(shape.kind(i), i) for i in range(shape.layers)), Unit("head", -1)]
    for layer in range(shape.layers, shape.layers + shape.mtp_depth):
        out += [Unit("projection", layer, beside=True, title="MTP projection")]
        out += [
            _block(shape.mtp_layer or shape.kind(shape.layers - 1), layer)._replace(beside=True),
            Unit("head", layer, beside=True),
        ]
    return tuple(out)


def _block(kind: str, layer: int) -> Unit:
    """A layer. Reports call attention with a network behind it by the network, as papers do."""
    mixer, network = halves(kind)
    named = {"": mixer, "dense": "dense", "moe": "MoE"}[network]
    title = named if mixer in ("attention", "") or not network else f"{mixer}, {named}"
    return Unit(kind, layer, block=True, routed=network == "moe", title=title)


def mixture(shape: TransformerShape) -> Mixture | None:
    """Mixture of its routed layers; None also where `mistakes` will say that it has no experts."""
    routed = any(halves(kind)[1] == "moe" for kind in shape.kinds)
    if not (routed and shape.experts and shape.experts_per_token):
        return None
    return Mixture(
        shape.experts, shape.experts_per_token, shape.groups, shape.groups_per_token, shape.score, shape.capacity
    )


def mistakes(shape: TransformerShape) -> Iterator[tuple[str, str]]:
    """Key of a dimension, and what is wrong with it."""
    for key, pattern in (("pattern", shape.pattern), ("mtp_layer", shape.mtp_layer or shape.pattern)):
        if wrong := _odd_word(pattern):
            yield key, wrong
            return
    if shape.heads % shape.kv_heads:
        yield "kv_heads", indivisible(f"model.heads {shape.heads}", shape.heads, "model.kv_heads", shape.kv_heads)
    if shape.rotary is not None and shape.rotary > shape.head_width:
        yield "rotary", f"{shape.rotary} elements of {shape.head_width} (model.head_width)"
    if shape.dense_layers > shape.layers:
        yield "dense_layers", f"{shape.dense_layers} dense layers of {shape.layers} (model.layers)"
    words = {half for kind in shape.kinds for half in halves(kind)}
    for word, needed in _NEEDED.items():
        if word in words:
            yield from ((key, f"missing; {word} layers (model.pattern) need it") for key in needed
                        if not getattr(shape, key))  # fmt: skip
    if "moe" in words and shape.experts:
        yield from _routing(shape)
    if "mamba" in words and shape.mamba_heads % shape.mamba_groups:
        of = f"model.mamba_heads {shape.mamba_heads}"
        yield "mamba_groups", indivisible(of, shape.mamba_heads, "model.mamba_groups", shape.mamba_groups)


_NEEDED = {
    "dense": ("intermediate",), "window": ("window",), "chunk": ("chunk",),
    "moe": ("experts", "experts_per_token", "expert_intermediate"), "latent": ("kv_rank", "qk_nope", "v_head"),
    "mamba": ("mamba_heads", "mamba_width", "mamba_state"),
}  # fmt: skip
"""Word of the pattern -> dimensions that such layers need."""


def _odd_word(pattern: str) -> str:
    """What is wrong with the words of a pattern, "" for nothing."""
    legal = f"a mixer ({', '.join(MIXERS)}), a network ({', '.join(NETWORKS)}), or both as in attention+moe"
    for word in pattern.split() or [""]:
        mixer, network = halves(word)
        if word not in (mixer, network, f"{mixer}+{network}") or not word:
            return f"found {word!r} among its words; legal: {legal}"
    return ""


def _routing(shape: TransformerShape) -> Iterator[tuple[str, str]]:
    s = shape
    if s.experts % s.groups:
        yield "groups", indivisible(f"model.experts {s.experts}", s.experts, "model.groups", s.groups)
    for few, many in (("groups_per_token", "groups"), ("experts_per_token", "experts")):
        if getattr(s, few) > getattr(s, many):
            yield few, f"{getattr(s, few)} is too many; legal: 1 to {getattr(s, many)} (model.{many})"
    if 0 < s.capacity < 1:
        yield (
            "capacity",
            f"{s.capacity} drops tokens where experts are alike; legal: 0 (drop none), 1 or more",
        )
    within = s.experts // s.groups * min(s.groups_per_token, s.groups)
    if within < s.experts_per_token <= s.experts:
        holds = f"{s.groups_per_token} groups hold {within} experts"
        yield "groups_per_token", f"{holds}, fewer than model.experts_per_token {s.experts_per_token}"


def attends(shape: TransformerShape) -> Iterator[str]:
    """The mixer of each layer that attends."""
    mixers = (halves(shape.kind(i))[0] for i in range(shape.layers))
    return (mixer for mixer in mixers if mixer in (*GROUPED, "latent"))


def made(shape: TransformerShape, unit: Unit) -> Made:
    """What a unit is made of."""
    norm, (mixer, network) = shape.norm_parameters, halves(unit.kind)
    if not unit.block:
        return Made(unit.kind, norm_parameters=norm, positions=shape.positions, tied=shape.tied and not unit.beside)
    mixing = {"mamba": shape.mamba, "latent": shape.latent, "": None}.get(mixer, shape.attention(mixer))
    own = {"dense": shape.dense, "moe": shape.mixed, "": None}[network]
    gate = mixture(shape) if network == "moe" else None
    return Made("", mixing, own, gate, shape.gate_bias, norm, shape.post_norms)
