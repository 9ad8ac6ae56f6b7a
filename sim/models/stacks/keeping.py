"""What units keep on stacks that lower blocks, from what a stack says of blocks; bytes of a token where not told."""

from collections.abc import Callable
from typing import NamedTuple

from hwmodels.formats import PLAIN_BF16
from sim.models.activations import Kept, layer_input
from sim.models.blocks.experts import Experts
from sim.models.blocks.feed_forward import Network
from sim.models.blocks.gqa import Heads
from sim.models.blocks.made import EMBEDDING, HEAD, Made
from sim.models.blocks.mamba import Mamba
from sim.models.blocks.mla import Latent
from sim.models.layer import Unit
from sim.models.stacks.again import Tensor, total
from sim.models.stacks.cudnn import Shared
from sim.models.stacks.deepseek import mamba
from sim.models.stacks.unfused import MASK

Mixer = Heads | Latent | Mamba | None
CUBLAS = 32 * 2**20
"""Bytes of cuBLAS's workspace on Hopper (docs.nvidia.com/cuda/cublas, "cuBLAS workspace": 32 MiB)."""


class Keeping(NamedTuple):
    """What a stack keeps. end: of the embedding, the head, or a projection. mixer, network: of a layer's halves, norms
    before them included, with the modules that make them again; experts: of a mixture instead. norm: of one over so
    many columns. gradients: those of a unit's inner tensors at most."""

    end: Callable[[Shared, Made], float]
    mixer: Callable[[Shared, Mixer], list[Tensor]]
    network: Callable[[Shared, Network], list[Tensor]]
    experts: Callable[[Shared, Experts], list[Tensor]]
    norm: Callable[[float], float]
    gradients: Callable[[Shared, Made], float]


def scores(site: Shared, heads: int) -> list[Tensor]:
    """Of a token, where attention is not one kernel: the softmax's output, the dropout's and its mask, by head and key
    (arXiv:2205.05198 sec 4.1: five bytes); made again with core attention."""
    if site.stack.fuses_attention:
        return []
    each = 2 * PLAIN_BF16.row_bytes(1) + MASK
    return [Tensor(float(each * heads * site.attending[1]), ("core_attention",))]


def part(site: Shared) -> float:
    """Part of the tokens that products read whose place in the residual stream is this rank's."""
    return site.own / site.tokens


def kept(own: Keeping, site: Shared, made: Made, unit: Unit) -> Kept:
    """From a unit's forward to its input gradient."""
    if made.end:
        return Kept(site.tokens * own.end(site, made))
    if unit.checkpoint:
        return layer_input(site, unit)
    post = part(site) * made.post_norms * (bool(made.mixer) + bool(made.network)) * own.norm(site.shape.hidden)
    words = site.recompute.modules
    return sum((total(site, half, words) for half in _halves(own, site, made)), Kept(site.tokens * post))


def _halves(own: Keeping, site: Shared, made: Made) -> tuple[list[Tensor], list[Tensor]]:
    """Tensors of a layer's mixer and of its network."""
    if made.routed:
        return own.mixer(site, made.mixer), own.experts(site, made.routed)
    return own.mixer(site, made.mixer), own.network(site, made.dense) if made.dense else []


def regained(own: Keeping, site: Shared, made: Made, unit: Unit) -> Kept:
    """What the backward of a unit holds until it is through: gradients, and what it has computed again, of modules in
    the half of a layer where that is more."""
    gradients = Kept(site.tokens * own.gradients(site, made))
    if unit.checkpoint:
        return gradients + kept(own, site, made, unit._replace(checkpoint="")) - layer_input(site, unit)
    if made.end or not site.recompute.modules:
        return gradients
    halves = _halves(own, site, made)
    again = (total(site, half) - total(site, half, site.recompute.modules) for half in halves)
    return gradients + max(again, key=lambda each: each.at(site))


def kept_for_weight(row: Callable[[int], float], site: Shared, made: Made, gathered: bool) -> Kept:
    """Between input and weight gradient, when a schedule splits them: both sides of each product. row: bytes of so many
    elements of one. gathered: whether inputs are kept as products read them, and not as they were before."""
    t, h, share = site.tokens, site.shape.hidden, 1.0 if gathered else part(site)
    if made.end == EMBEDDING:
        return Kept()
    if made.end == HEAD:
        bf16 = PLAIN_BF16.row_bytes
        return Kept(t * (bf16(h) * share + bf16(site.shape.vocabulary)))
    if made.end:
        return Kept(site.own * PLAIN_BF16.row_bytes(3 * h))
    own = Kept(t * _sides(row, site, made.mixer, share))
    if isinstance(made.network, Experts):
        net, sent = made.network.routed, made.network.sent(h)
        latent = 2 * row(made.network.latent + h) * bool(made.network.latent) * site.own
        return own + Kept(latent, 0.0, row(2 * sent + net.first + net.width) * site.groups.expert_tensor)
    return own + Kept(t * (row(h) * share + row(h + made.network.first + made.network.width)) if made.network else 0.0)


def _sides(row: Callable[[int], float], site: Shared, mixer: Mixer, share: float) -> float:
    """Of a mixer's products, a token. share: of the tokens whose inputs are kept, for what is gathered again."""
    h = site.shape.hidden
    if isinstance(mixer, Mamba):
        return mamba.kept_for_weight(site, mixer)
    if isinstance(mixer, Heads):
        return row(h) * share + row(h + mixer.qkv + mixer.q)
    if isinstance(mixer, Latent):
        inner = row(2 * mixer.q_rank + mixer.down + mixer.kv_rank)
        return (row(h) + inner) * share + row(h + mixer.q + mixer.kv + mixer.out)
    return 0.0
