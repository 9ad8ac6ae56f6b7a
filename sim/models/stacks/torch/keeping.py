"""What torch's autograd keeps of a unit, and what is alive beside it at the peak.

Each operation keeps the tensors that its gradient needs, gathered where it reads them so: norms their input and
inverse deviations, products their input, attention q, k, v, its output and log-sum-exp, activations their input.
Compiled, the activation and its product are computed again. A unit's backward holds gradients of its inner tensors: of
the head, where log-softmax's gradient is made, those of its input and of its output, in FP32 beside the output itself.
"""

from collections.abc import Iterable

from hwmodels.formats import PLAIN_BF16, PLAIN_FP32
from sim.models.activations import Kept
from sim.models.blocks.experts import Experts
from sim.models.blocks.feed_forward import Network
from sim.models.blocks.gqa import Heads
from sim.models.blocks.made import EMBEDDING, HEAD, Made
from sim.models.blocks.mamba import Mamba
from sim.models.blocks.mla import Latent
from sim.models.layer import Unit
from sim.models.stacks import keeping
from sim.models.stacks.cudnn import Shared
from sim.models.stacks.deepseek import mamba
from sim.models.stacks.keeping import part
from sim.models.stacks.torch.experts import own_rows
from sim.models.stacks.torch.kernels import INDEX, WIDE, WIDTH


def _gradients(site: Shared, made: Made) -> float:
    """Bytes of a token that gradients take at most: of the logits; of a network's inner tensors or of attention's."""
    h, v = site.shape.hidden, site.shape.vocabulary
    if made.end == HEAD:
        return PLAIN_BF16.row_bytes(v) if site.stack.compiled else 2 * PLAIN_FP32.row_bytes(v)
    inner = (made.dense.fan + 1) * made.dense.width if made.dense else 0
    if made.routed:
        inner = made.routed.chosen * (h + made.routed.routed.first + made.routed.routed.width)
        inner = inner * site.own * site.groups.expert_tensor // site.tokens
    heads = made.mixer
    mixing = 0.0
    if isinstance(heads, Heads):
        mixing = PLAIN_BF16.row_bytes(heads.qkv + 2 * heads.q) + PLAIN_FP32.row_bytes(heads.q)
    elif isinstance(heads, Latent):
        mixing = PLAIN_BF16.row_bytes(2 * heads.q + heads.kv + heads.out) + PLAIN_FP32.row_bytes(heads.q)
    return PLAIN_BF16.row_bytes(2 * h) + max(PLAIN_BF16.row_bytes(inner), mixing)


def _norm(width: float) -> float:
    """Input, and an inverse deviation."""
    return PLAIN_BF16.row_bytes(1) * width + WIDE


def _end(site: Shared, made: Made) -> float:
    h, v = site.shape.hidden, site.shape.vocabulary
    if made.end == EMBEDDING:
        return float(INDEX)
    if made.end == HEAD:
        logits = PLAIN_BF16.row_bytes(v) if site.stack.compiled else PLAIN_FP32.row_bytes(v)
        return _norm(h) * part(site) + PLAIN_BF16.row_bytes(h) + logits
    return (2 * _norm(h) + PLAIN_BF16.row_bytes(2 * h)) * part(site) + INDEX


def _mixer(site: Shared, mixer: Heads | Latent | Mamba | None) -> float:
    """Bytes of a token. The output is kept twice: by head for attention, by token for the product behind it."""
    h = site.shape.hidden
    if isinstance(mixer, Mamba):
        return mamba.kept(site, mixer)
    if isinstance(mixer, Heads):
        again = PLAIN_BF16.row_bytes(mixer.q + mixer.kv) if mixer.normed else 0.0
        inner = PLAIN_BF16.row_bytes(h + mixer.qkv + 2 * mixer.q) + PLAIN_FP32.row_bytes(mixer.queries)
        return _norm(h) * part(site) + again + inner
    if isinstance(mixer, Latent):
        query = _norm(mixer.q_rank) + PLAIN_BF16.row_bytes(mixer.q_rank) if mixer.q_rank else 0.0
        latent = _norm(mixer.kv_rank) + PLAIN_BF16.row_bytes(mixer.kv_rank)
        # q and k joined, v inside the tensor that keys without position are in too
        inner = PLAIN_BF16.row_bytes(h + 2 * mixer.q + mixer.kv + 2 * mixer.out) + PLAIN_FP32.row_bytes(mixer.heads)
        return _norm(h) * part(site) + query + latent + inner
    return 0.0


def _network(site: Shared, network: Network) -> float:
    """Bytes of a token: of the activation's input, its output where it meets a gate, that gate, and their product."""
    h = site.shape.hidden
    inner = network.fan if site.stack.compiled else 2 * network.fan
    return _norm(h) * part(site) + PLAIN_BF16.row_bytes(h + inner * network.width)


def _experts(site: Shared, experts: Experts) -> Kept:
    """Scores in FP32 and chosen weights; of a row its input, the inner tensors, its output and its weight."""
    h, net = site.shape.hidden, experts.routed
    scores = PLAIN_FP32.row_bytes(experts.number) + (INDEX + WIDE) * experts.chosen
    shared = PLAIN_BF16.row_bytes(2 * experts.shared.fan * experts.shared.width) if experts.shared.width else 0.0
    whole = PLAIN_BF16.row_bytes(h) if experts.shared.width and site.groups.sequence else 0.0  # shared experts' input
    fixed = site.own * (_norm(h) + PLAIN_BF16.row_bytes(h) + scores) + site.tokens * (shared + whole)
    row = PLAIN_BF16.row_bytes(2 * h + 2 * net.fan * net.width) * site.groups.expert_tensor + 3 * INDEX + WIDTH
    return Kept(fixed + (own_rows(site, experts) * row if site.group == 1 else 0.0), 0.0, row * (site.group > 1))


KEEPING = keeping.Keeping(_end, _mixer, _network, _experts, _norm, _gradients)


def kept(site: Shared, made: Made, unit: Unit) -> Kept:
    """From a unit's forward to its input gradient."""
    return keeping.kept(KEEPING, site, made, unit)


def regained(site: Shared, made: Made, unit: Unit) -> Kept:
    """What the backward of a unit holds until it is through."""
    return keeping.regained(KEEPING, site, made, unit)


def kept_for_weight(site: Shared, made: Made, unit: Unit) -> Kept:
    """Between input and weight gradient, when a schedule splits them."""
    return keeping.kept_for_weight(PLAIN_BF16.row_bytes, site, made, gathered=True)


def workspace(site: Shared, made: Iterable[Made]) -> float:
    """cuBLAS's; what a unit's backward needs beside it is in `regained`."""
    return float(keeping.CUBLAS)
