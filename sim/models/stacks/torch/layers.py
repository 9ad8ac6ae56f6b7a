"""Parts of a unit in torch."""

from types import ModuleType

from hwmodels.refused import Refused
from sim.models.blocks.experts import Experts
from sim.models.blocks.feed_forward import Network
from sim.models.blocks.gqa import Heads
from sim.models.blocks.made import HEAD, PROJECTION, Made
from sim.models.blocks.mamba import Mamba
from sim.models.blocks.mla import Latent
from sim.models.layer import Kernel, Part, Unit
from sim.models.stacks import layers, mamba
from sim.models.stacks.cudnn import Shared
from sim.models.stacks.layers import Block
from sim.models.stacks.stack import ALL, LOSS
from sim.models.stacks.torch import attention, compiled, ends, experts, feed_forward, latent
from sim.models.stacks.torch.again import WORDS
from sim.models.stacks.torch.kernels import (
    AROUND,
    concatenated,
    dgrad,
    linear,
    rms_norm,
    rms_norm_backward,
    wgrad,
)  # fmt: skip
from sim.models.stacks.torch.written import norms

EAGER = {Heads: attention, Latent: latent, Mamba: mamba, Network: feed_forward, Experts: experts}
COMPILED = {Heads: compiled.attention, Latent: compiled.latent, Network: compiled.feed_forward}
"""Kind of block -> the module with its passes. Mixtures are not compiled: sizes of their groups are data (bincount),
where torch.compile breaks the graph, and what is fused on either side no trace says."""


def parts(site: Shared, made: Made, unit: Unit, direction: str) -> tuple[Part, ...]:
    """The parts of a unit for direction F, B or W, in the order they depend on each other. Raises Refused."""
    return layers.parts(STACK, site, made, unit, direction)


def _block(site: Shared, block: Block, direction: str) -> list[Kernel]:
    """Raises Refused for a block that is not known compiled."""
    known: dict[type, ModuleType] = COMPILED if site.stack.compiled else EAGER
    if type(block) not in known:
        legal = "grouped-query and latent attention, dense networks"
        raise Refused(f"stack.compiled is not built for {type(block).__name__.lower()} layers; legal: {legal}")
    module = known[type(block)]
    kernels: list[Kernel] = {"F": module.forward, "B": module.backward, "W": module.weight}[direction](site, block)
    return norms(site, kernels)


def _gate(site: Shared, made: Made, direction: str) -> list[Kernel]:
    """Router of a mixture, with the norm before it."""
    assert made.routed and made.gate
    if direction == "F":
        return norms(site, experts.gate(site, made.routed, made.gate))
    if direction == "W":
        return experts.gate_weight(site, made.routed)
    return norms(site, experts.gate_backward(site, made.routed))


def _end(site: Shared, made: Made, direction: str) -> list[Kernel]:
    if made.end == PROJECTION:
        return norms(site, _projection(site, direction))
    fused = site.stack.compiled and site.stack.compiled_ends == ALL
    if made.end == HEAD:
        own = compiled.ends.head if fused or (site.stack.compiled and site.stack.compiled_ends == LOSS) else ends.head
        return norms(site, own(site, direction))
    rows = compiled.ends.embedding(site, direction) if fused else ends.embedding(site, direction)
    return rows + (ends.positions(site, direction) if made.positions else [])


def _projection(site: Shared, direction: str) -> list[Kernel]:
    """Norms of the hidden state and of the next token's embedding, joined, and a product; of a rank's own tokens."""
    t, h, alone = site.own, site.shape.hidden, site.local
    if direction == "F":
        norms = [rms_norm("hidden_norm", t, h), rms_norm("next_norm", t, h), concatenated("join", t, 2 * h)]
        return [*ends.embedding(site, "F"), *norms, *linear(alone, "projection", h, 2 * h)]
    if direction == "W":
        return wgrad(alone, "projection", h, 2 * h)
    norms = rms_norm_backward("hidden_norm_bwd", t, h) + rms_norm_backward("next_norm_bwd", t, h)
    return [*dgrad(alone, "projection", h, 2 * h), *norms, *ends.embedding(site, "B")]


def _post_norm(site: Shared, direction: str) -> list[Kernel]:
    t, h = site.tokens, site.shape.hidden
    own = [rms_norm("post_norm", t, h)] if direction == "F" else rms_norm_backward("post_norm_bwd", t, h)
    return norms(site, own)


def _latent(site: Shared, name: str, n: int, k: int, direction: str) -> list[Kernel]:
    return {"F": linear, "B": dgrad, "W": wgrad}[direction](site, name, n, k)


STACK = layers.Stack(_block, _gate, _latent, _end, _post_norm, AROUND, words=WORDS, casts=compiled.linear.OF_A_PRODUCT)
