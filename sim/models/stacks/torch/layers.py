"""Parts of a unit in torch: attention (or Mamba-2) with its norm and residual, the network with its own, exchanges."""

from types import ModuleType

from hwmodels.op import Gemm
from hwmodels.refused import Refused
from sim.models.blocks.experts import Experts
from sim.models.blocks.feed_forward import Network
from sim.models.blocks.gqa import Heads
from sim.models.blocks.made import HEAD, PROJECTION, Made
from sim.models.blocks.mamba import Mamba
from sim.models.blocks.mla import Latent
from sim.models.layer import EXPERT, Kernel, Part, Unit, places
from sim.models.recompute import AGAIN
from sim.models.stacks.deepseek import mamba
from sim.models.stacks.exchange import EXCHANGES, all_to_all
from sim.models.stacks.torch import attention, compiled, ends, experts, feed_forward, latent
from sim.models.stacks.torch.kernels import (
    AROUND,
    Shared,
    concatenated,
    dgrad,
    linear,
    rms_norm,
    rms_norm_backward,
    wgrad,
)

Block = Heads | Latent | Mamba | Network | Experts | None
"""What a layer is made of."""
PLACES = places(
    (
        ("F", ("embedding", "projection", "attn", "head")),
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
"""A round of an overlapped pair, as the schedule asks for it: exchanges run beside the other half's compute."""


def parts(site: Shared, made: Made, unit: Unit, direction: str) -> tuple[Part, ...]:
    """The parts of a unit for direction F, B or W, in the order they depend on each other. Raises Refused."""
    if site.recompute.kind == "modules":
        raise Refused("recompute.modules are not built for the torch stack; legal: recompute none or full, or layers")
    again = _again(site, made, unit) if direction == "B" and unit.checkpoint else ()
    return again + tuple(
        Part(name, direction, unit.layer, tuple(kernels), EXPERT * (name in EXCHANGES), PLACES[direction, name])
        for name in _names(site, made, direction) if (kernels := _kernels(site, made, name, direction))
    )  # fmt: skip


def _again(site: Shared, made: Made, unit: Unit) -> tuple[Part, ...]:
    """The forward of a layer that backward computes again, without its last product and residual: nothing keeps their
    outputs, and checkpointing stops when all that backward needs is there."""
    *before, last = parts(site, made, unit, "F")
    whole = (*before, last._replace(kernels=_needed(last.kernels)))
    return tuple(part._replace(direction="B", name=part.name + AGAIN, place=PLACES["B", "mlp"]) for part in whole)


def _needed(kernels: tuple[Kernel, ...]) -> tuple[Kernel, ...]:
    """Kernels up to the last whose output backward reads: no residual, and no product right before it."""
    stop = len(kernels) - (kernels[-1].name == "residual")
    while stop and (isinstance(kernels[stop - 1].op, Gemm) or kernels[stop - 1].name in AROUND):
        stop -= 1
    return kernels[:stop]


def _names(site: Shared, made: Made, direction: str) -> tuple[str, ...]:
    """Parts of a unit in order. A rank that holds all experts exchanges nothing."""
    if made.end:
        return (made.end,)
    network = ("dispatch", "mlp", "combine") if made.routed and site.group > 1 else ("mlp",) if made.network else ()
    first = ("attn",) if made.mixer or (made.routed and site.group > 1) else ()
    if direction == "F":
        return (*first, *network)
    return (*network[::-1], *first) if direction == "B" else ("mlp",) * bool(made.network) + first


def _kernels(site: Shared, made: Made, name: str, direction: str) -> list[Kernel]:
    if name in EXCHANGES and made.routed:
        return all_to_all(site, made.routed, name, direction)
    if made.end:
        return _end(site, made, direction)
    alone = site.group == 1  # else the router is attention's affair: what is sent hangs on it
    mixing = _passes(site, made, made.mixer, direction) if name == "attn" else []
    gating = _gate(site, made, direction) if (name == "mlp") == alone else []
    network = _passes(site, made, made.network, direction) if name == "mlp" else []
    return mixing + gating + network if direction == "F" else network + gating + mixing


def _passes(site: Shared, made: Made, block: Block, direction: str) -> list[Kernel]:
    """Kernels of a block in one direction; with a norm of its own behind it where the model has such."""
    if block is None:
        return []
    module = lowered(site, block)
    kernels: list[Kernel] = {"F": module.forward, "B": module.backward, "W": module.weight}[direction](site, block)
    t, h = site.tokens, site.shape.hidden
    if made.post_norms and direction == "F":
        return [*kernels, rms_norm("post_norm", t, h)]
    return [*(rms_norm_backward("post_norm_bwd", t, h) if made.post_norms and direction == "B" else []), *kernels]


def _gate(site: Shared, made: Made, direction: str) -> list[Kernel]:
    """Router of a mixture, with the norm before it."""
    if not made.routed or not made.gate:
        return []
    if direction == "F":
        return experts.gate(site, made.routed, made.gate)
    return experts.gate_backward(site, made.routed) if direction == "B" else experts.gate_weight(site, made.routed)


def _end(site: Shared, made: Made, direction: str) -> list[Kernel]:
    if made.end == PROJECTION:
        return _projection(site, direction)
    fused = site.stack.compiled
    if made.end == HEAD:
        return compiled.ends.head(site, direction) if fused else ends.head(site, direction)
    rows = compiled.ends.embedding(site, direction) if fused else ends.embedding(site, direction)
    return rows + (ends.positions(site, direction) if made.positions else [])


def _projection(site: Shared, direction: str) -> list[Kernel]:
    """Norms of the hidden state and of the next token's embedding, joined, and a product."""
    t, h = site.tokens, site.shape.hidden
    if direction == "F":
        norms = [rms_norm("hidden_norm", t, h), rms_norm("next_norm", t, h), concatenated("join", t, 2 * h)]
        return [*ends.embedding(site, "F"), *norms, *linear(site, "projection", h, 2 * h)]
    if direction == "W":
        return wgrad(site, "projection", h, 2 * h)
    norms = rms_norm_backward("hidden_norm_bwd", t, h) + rms_norm_backward("next_norm_bwd", t, h)
    return [*dgrad(site, "projection", h, 2 * h), *norms, *ends.embedding(site, "B")]


EAGER = {Heads: attention, Latent: latent, Mamba: mamba, Network: feed_forward, Experts: experts}
COMPILED = {Heads: compiled.attention, Network: compiled.feed_forward}
"""Kind of block -> the module with its passes."""


def lowered(site: Shared, block: Block) -> ModuleType:
    """Raises Refused for a block that is not known compiled."""
    known = COMPILED if site.stack.compiled else EAGER
    if type(block) not in known:
        legal = "grouped-query attention and dense networks"
        raise Refused(f"stack.compiled is not built for {type(block).__name__.lower()} layers; legal: {legal}")
    return known[type(block)]
