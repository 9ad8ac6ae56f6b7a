"""What a rank keeps of a transformer's unit while its gradients are due, and its largest temporaries, in bytes.

Each block says what it keeps, by what it computes again. In the recipe of dense layers that is nothing: Llama 3 trained
so (arXiv:2407.21783 sec 3.3.2: sequences of 8K without activation checkpointing).
"""

from hwmodels.formats import PLAIN_BF16
from sim.models.activations import Kept, layer_input
from sim.models.layer import Unit
from sim.models.stacks.deepseek import experts, feed_forward, gqa, mamba, mla, projection
from sim.models.stacks.deepseek.ends import head_kept
from sim.models.transformer.shape import Site, halves


def kept(site: Site, unit: Unit) -> Kept:
    """From a unit's forward to its input gradient, in the formats that the recipe keeps."""
    if unit.checkpoint:
        return layer_input(site, unit)
    if unit.kind in _ENDS:
        return Kept(_ENDS[unit.kind](site, False))
    mixer, network = halves(unit.kind)
    s, t = site.shape, site.tokens
    post = s.post_norms * (bool(mixer) + bool(network)) * PLAIN_BF16.row_bytes(s.hidden)
    own = Kept(t * (post + _mixer(site, mixer, False)))
    if network == "moe":
        return own + experts.kept(site, s.mixed)
    return own + Kept(t * feed_forward.kept(site, s.dense) if network else 0.0)


def regained(site: Site, unit: Unit) -> Kept:
    """What its backward computes again and holds until it is through, beside the workspace."""
    if unit.checkpoint:
        return kept(site, unit._replace(checkpoint="")) - layer_input(site, unit)
    _, network = ("", "") if unit.kind in _ENDS else halves(unit.kind)
    if network == "moe" and experts.moe_again(site):
        return experts.inside(site, site.shape.mixed)
    if network == "dense" and feed_forward.network_again(site):
        return Kept(site.tokens * feed_forward.inside(site, site.shape.dense))
    return Kept()


def kept_for_weight(site: Site, unit: Unit) -> Kept:
    """From a unit's input gradient to its weight gradient, when the two are split: both sides of each product."""
    if unit.kind in _ENDS:
        return Kept(_ENDS[unit.kind](site, True))
    mixer, network = halves(unit.kind)
    own = Kept(site.tokens * _mixer(site, mixer, True))
    if network == "moe":
        return own + experts.kept_for_weight(site, site.shape.mixed)
    return own + Kept(site.tokens * feed_forward.kept_for_weight(site, site.shape.dense) if network else 0.0)


def _mixer(site: Site, mixer: str, split: bool) -> float:
    """Bytes of a token in what mixes tokens, until the input gradient or until a split weight gradient."""
    s = site.shape
    if not mixer:
        return 0.0
    if mixer == "mamba":
        return mamba.kept_for_weight(site, s.mamba) if split else mamba.kept(site, s.mamba)
    if mixer == "latent":
        return mla.kept_for_weight(site, s.latent) if split else mla.kept(site, s.latent)
    heads = s.attention(mixer)
    return gqa.kept_for_weight(site, heads) if split else gqa.kept(site, heads)


def workspace(site: Site) -> float:
    """The largest of the backwards of the model's blocks."""
    halved = {half for kind in site.shape.kinds for half in halves(kind) if half}
    return max(_workspace(site, half) for half in halved)


def _workspace(site: Site, half: str) -> float:
    s = site.shape
    if half == "mamba":
        return mamba.workspace(site, s.mamba)
    if half == "latent":
        return mla.workspace(site, s.latent)
    if half == "moe":
        return experts.workspace(site, s.mixed)
    return feed_forward.workspace(site, s.dense) if half == "dense" else gqa.workspace(site, s.attention(half))


_ENDS = {
    "embedding": lambda site, split: 0.0, "head": lambda site, split: head_kept(site),
    "projection": lambda site, split: projection.kept_for_weight(site) if split else projection.kept(site),
}  # fmt: skip
