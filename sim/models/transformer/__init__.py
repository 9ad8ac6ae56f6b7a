"""Dense transformers of the kind of Llama 3 (arXiv:2407.21783): grouped-query attention and SwiGLU, RMS norms, rope.

Layers become two parts, attention and feed-forward, each with the norm before it; parts become kernels, for forward
(F), input gradient (B) and weight gradient (W). Every rank holds whole layers: tensor and context parallelism, with
which Llama 3 trained, are not here. Precision follows the recipe; nothing is computed again in backward.
"""

from collections.abc import Iterator

from hwmodels.document import indivisible
from sim.models.blocks import gqa, swiglu
from sim.models.blocks.ends import embedding, head
from sim.models.layer import Kernel, Part, Unit, places
from sim.models.transformer.activations import kept, kept_for_weight, workspace
from sim.models.transformer.parameters import cache, flop, weights
from sim.models.transformer.shape import Site
from sim.models.transformer.shape import TransformerShape as Shape

__all__ = [
    "Shape", "cache", "flop", "kept", "kept_for_weight", "mistakes", "mixture", "parts", "units", "weights",
    "workspace",
]  # fmt: skip

PLACES = places(
    (
        ("F", ("attn", "embedding", "head")),
        ("B", ("head", "mlp")),
        ("W", ("head", "mlp")),
        ("F", ("mlp",)),
        ("B", ("attn", "embedding")),
        ("W", ("attn",)),
    )
)  # fmt: skip
"""A round of an overlapped pair: nothing is exchanged, so the halves take turns on one stream."""


def units(shape: Shape) -> tuple[Unit, ...]:
    """Embedding, layers, head."""
    layers = (Unit("dense", layer, block=True) for layer in range(shape.layers))
    return Unit("embedding", -1), *layers, Unit("head", -1)


def mixture(shape: Shape) -> None:
    """No layer has experts."""


def mistakes(shape: Shape) -> Iterator[tuple[str, str]]:
    """Key of a dimension, and what is wrong with it."""
    if shape.heads % shape.kv_heads:
        yield "kv_heads", indivisible(f"model.heads {shape.heads}", shape.heads, "model.kv_heads", shape.kv_heads)


def parts(site: Site, unit: Unit, direction: str) -> tuple[Part, ...]:
    """The parts of a unit for direction F, B or W, in the order they depend on each other."""
    names = (unit.kind,) if unit.kind in _ENDS else ("attn", "mlp") if direction == "F" else ("mlp", "attn")
    pieces = ((name, _kernels(site, name, direction)) for name in names)
    return tuple(
        Part(name, direction, unit.layer, tuple(kernels), place=PLACES[direction, name])
        for name, kernels in pieces if kernels
    )  # fmt: skip


def _kernels(site: Site, name: str, direction: str) -> list[Kernel]:
    if name in _ENDS:
        return _ENDS[name](site, direction)
    if name == "attn":
        return _ATTENTION[direction](site, site.shape.attention)
    return _FEED_FORWARD[direction](site, site.shape.intermediate)


_ENDS = {"embedding": embedding, "head": head}
_ATTENTION = {"F": gqa.forward, "B": gqa.backward, "W": gqa.weight}
_FEED_FORWARD = {"F": swiglu.forward, "B": swiglu.backward, "W": swiglu.weight}
