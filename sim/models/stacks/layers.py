"""Parts of a unit on a stack that lowers blocks: attention, dispatch, network, combine, and the ends of the model."""

from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatchcase
from itertools import groupby
from types import MappingProxyType
from typing import NamedTuple

from hwmodels.op import Collective, Gemm
from hwmodels.refused import Refused
from sim.models.blocks.experts import Experts
from sim.models.blocks.feed_forward import Network
from sim.models.blocks.gqa import Heads
from sim.models.blocks.made import Made
from sim.models.blocks.mamba import Mamba
from sim.models.blocks.mla import Latent
from sim.models.layer import EXPERT, Kernel, Part, Unit, places
from sim.models.recompute import AGAIN, SELECTIVE
from sim.models.stacks.again import Words, named, unsaved
from sim.models.stacks.cudnn import Shared
from sim.models.stacks.exchange import EXCHANGES, all_to_all
from sim.models.stacks.sharing import END, GATHER, INPUT, SUMMED

Block = Heads | Latent | Mamba | Network | Experts
"""What a layer is made of."""


def _cut(*names: str) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Places of the pieces of parts that are cut: what is gathered again runs beside the gradient of the input, whose
    sum runs beside that of the weights."""
    order = (("W", GATHER), ("B", INPUT), ("W", INPUT), ("B", END))
    return tuple((direction, tuple(name + piece for name in names)) for direction, piece in order)


PLACES = places(
    (
        ("F", ("embedding", "projection", "attn", "head")),
        ("B", ("expand",)),
        ("B", ("combine",)),
        ("B", ("head", "projection", "mlp")),
        ("F", ("dispatch",)),
        ("W", ("head", "projection", "mlp")),
        *_cut("head", "mlp"),
        ("B", ("dispatch",)),
        ("F", ("mlp",)),
        ("F", ("combine",)),
        ("F", ("expand",)),
        ("B", ("attn", "embedding")),
        ("W", ("attn",)),
        *_cut("attn"),
    )
)  # fmt: skip
"""A round of an overlapped pair, as the schedule asks for it: exchanges run beside the other half's compute."""
BEGIN = PLACES["B", "expand"]
"""Place of what backward runs before anything else."""


class Stack(NamedTuple):
    """What a stack has kernels for. block: of a direction (F, B, W). gate: of a mixture's router, with the norm before
    it. latent: the products before and behind experts in a latent space, of a rank's own tokens: name, columns out and
    in, direction. end: of the embedding, the head, or a projection. post_norm: behind a block, or its gradient before
    it. around: names of kernels that belong to a product beside them. residual: name of the last kernel of a layer's
    forward. exchange: of a mixture's dispatch and combine. words: which kernels a module computed again is. stops: a
    second forward ends when all that backward needs is there, where the stack's key says so too (early_stop). casts:
    patterns of names of what is cast for a product alone."""

    block: Callable[[Shared, Block, str], list[Kernel]]
    gate: Callable[[Shared, Made, str], list[Kernel]]
    latent: Callable[[Shared, str, int, int, str], list[Kernel]]
    end: Callable[[Shared, Made, str], list[Kernel]]
    post_norm: Callable[[Shared, str], list[Kernel]]
    around: tuple[str, ...] = ()
    residual: str = "residual"
    exchange: Callable[[Shared, Experts, str, str], list[Kernel]] = all_to_all
    words: Words = MappingProxyType({})
    stops: bool = True
    casts: tuple[str, ...] = ()


def parts(stack: Stack, site: Shared, made: Made, unit: Unit, direction: str) -> tuple[Part, ...]:
    """The parts of a unit for direction F, B or W, in the order they depend on each other. Raises Refused."""
    if made.positions and site.length > made.positions:
        beyond = f"is beyond the positions that {site.shape.name} learned"
        raise Refused(f"batch.sequence_length {site.length} {beyond}; legal: 1 to {made.positions}")
    own = tuple(
        part for name in _names(site, made, direction)
        for part in _pieces(name, direction, unit.layer, _kernels(stack, site, made, name, direction))
    )  # fmt: skip
    return _with_again(stack, site, made, unit, own) if direction == "B" and not made.end else own


def _pieces(name: str, direction: str, layer: int, kernels: list[Kernel]) -> Iterator[Part]:
    """A part, or the pieces that it is cut in. What is gathered again stands beside the chain: behind all that runs
    before the gradient of the input, and before that of the weights."""
    for piece, own in groupby(kernels, key=lambda kernel: kernel.piece):
        meets, place = EXPERT * (name in EXCHANGES), PLACES[direction, name + piece]
        after = _behind(name, layer) if meets and direction == "B" else ()
        if direction == "W" and piece:
            before = (("B", name), ("W", name)) if piece == GATHER else (("W", name + GATHER),)
            after = tuple((*each, layer) for each in before)
        yield Part(name + piece, direction, layer, tuple(own), meets, place, piece != GATHER, after)


def _behind(name: str, layer: int) -> tuple[tuple[str, str, int], ...]:
    """Weight gradients that an exchange of backward stands behind: autograd makes them with those of inputs, and what
    is launched on one stream waits for what is there. A combine's are of the layer that backward was at before."""
    part, of = ("mlp", layer) if name == "dispatch" else ("attn", layer + 1)
    return tuple(("W", part + piece, of) for piece in ("", INPUT, GATHER))


def _with_again(stack: Stack, site: Shared, made: Made, unit: Unit, own: tuple[Part, ...]) -> tuple[Part, ...]:
    """A backward behind what it computes again: of the layer at its start, of a module at that of its half."""
    if unit.checkpoint or site.recompute.kind == SELECTIVE:
        forward = parts(stack, site, made, unit, "F")
        left = forward if unit.checkpoint else unsaved(forward, stack.around, site.stack.compiled)
        return _again(stack, site, left, BEGIN, _last(forward)) + own
    if not site.recompute.modules:
        return own
    network = _modules(stack, site, made._replace(mixer=None), unit, made.network)
    mixer = _modules(stack, site, made._replace(network=None, gate=None), unit, made.mixer)
    last = len(own) - (own[-1].name == "attn")
    again = _again(stack, site, mixer, PLACES["B", "attn"])
    return _again(stack, site, network, BEGIN) + own[:last] + again + own[last:]


def _modules(stack: Stack, site: Shared, half: Made, unit: Unit, block: Block | None) -> tuple[Part, ...]:
    """The forward of half a layer, only what is of the chosen modules. Exchanges are of a mixture that runs again."""
    words = stack.words.get(type(block), {})
    names = [words[word] for word in site.recompute.modules if word in words]
    whole = "moe" in site.recompute.modules
    return tuple(
        part._replace(
            kernels=(part.kernels if whole else ()) if part.meets else named(part.kernels, names, stack.around)
        )
        for part in parts(stack, site, half, unit, "F")
    )


def _again(stack: Stack, site: Shared, forward: tuple[Part, ...], place: int, last: str = "") -> tuple[Part, ...]:
    """Parts of a forward as parts of backward; where it stops early, without its last product and residual: nothing
    keeps their outputs. last: that product's name, where the forward may have lost it already."""
    left = [part for part in forward if part.kernels]
    if left and stack.stops and site.stack.early_stop:
        left[-1] = left[-1]._replace(kernels=_needed(stack, left[-1].kernels, last or _last(left)))
    return tuple(
        part._replace(
            direction="B", name=part.name + AGAIN, place=place,
            after=tuple(("B", name + AGAIN, layer) for _, name, layer in part.after),
        )
        for part in left if part.kernels
    )  # fmt: skip


def _last(forward: Sequence[Part]) -> str:
    """Name of its last product."""
    return next((k.name for part in reversed(forward) for k in reversed(part.kernels) if isinstance(k.op, Gemm)), "")


def _needed(stack: Stack, kernels: tuple[Kernel, ...], last: str) -> tuple[Kernel, ...]:
    """Kernels up to the last whose output backward reads: no residual, and not the last product right before it, with
    its casts (a cast that backward needs it makes itself)."""
    stop = len(kernels) - (kernels[-1].name == stack.residual)
    idle = (last, SUMMED, *stack.around)
    while stop and (isinstance(kernels[stop - 1].op, Collective) or kernels[stop - 1].name in idle):
        stop -= 1
    while stop and any(fnmatchcase(kernels[stop - 1].name, cast) for cast in stack.casts):
        stop -= 1
    return kernels[:stop]


def _names(site: Shared, made: Made, direction: str) -> tuple[str, ...]:
    """Parts of a unit in order. A rank that holds all experts exchanges nothing."""
    if made.end:
        return (made.end,)
    exchanging = made.routed is not None and site.group > 1
    expanding = ("expand",) * (made.routed is not None and made.routed.latent > 0)
    network = ("dispatch", "mlp", "combine", *expanding) if exchanging else ("mlp",) if made.network else ()
    first = ("attn",) if made.mixer or exchanging else ()
    if direction == "F":
        return (*first, *network)
    return (*network[::-1], *first) if direction == "B" else ("mlp",) * bool(made.network) + first


def _kernels(stack: Stack, site: Shared, made: Made, name: str, direction: str) -> list[Kernel]:
    if name in EXCHANGES and made.routed:
        return stack.exchange(site, made.routed, name, direction)
    if made.end:
        return stack.end(site, made, direction)
    if name == "expand" and made.routed:
        return _expanded(stack, site, made.routed, direction)
    alone = site.group == 1  # else the router is attention's affair: what is sent hangs on it
    mixing = _passes(stack, site, made, made.mixer, direction) if name == "attn" else []
    gating = _gated(stack, site, made, direction) if made.routed and (name == "mlp") == alone else []
    network = _passes(stack, site, made, made.network, direction) if name == "mlp" else []
    if made.routed and name == "mlp" and (alone or direction == "W"):
        behind = _expanded(stack, site, made.routed, direction)
        network = network + behind if direction == "F" else behind + network
    return mixing + gating + network if direction == "F" else network + gating + mixing


def _gated(stack: Stack, site: Shared, made: Made, direction: str) -> list[Kernel]:
    """Norm and router of a mixture, and what compresses tokens for its experts."""
    own, experts = stack.gate(site.local, made, direction), made.routed
    if experts is None or not experts.latent:
        return own
    product = stack.latent(site.local, "latent_down", experts.latent, site.shape.hidden, direction)
    return own + product if direction == "F" else product + own


def _expanded(stack: Stack, site: Shared, experts: Experts, direction: str) -> list[Kernel]:
    """What expands the outputs of routed experts, of a rank's own tokens."""
    if not experts.latent:
        return []
    return stack.latent(site.local, "latent_up", site.shape.hidden, experts.latent, direction)


def _passes(stack: Stack, site: Shared, made: Made, block: Block | None, direction: str) -> list[Kernel]:
    """Kernels of a block in one direction; with a norm of its own behind it where the model has such."""
    if block is None:
        return []
    kernels = stack.block(site, block, direction)
    if not made.post_norms or direction == "W":
        return kernels
    norm = stack.post_norm(site.local, direction)
    return kernels + norm if direction == "F" else norm + kernels
