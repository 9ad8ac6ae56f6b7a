"""What torch's autograd keeps of a unit, and what is alive beside it at the peak.

Each operation keeps the tensors that its gradient needs, gathered where it reads them so: norms their input and
inverse deviations, products their input, attention q, k, v, its output and log-sum-exp, activations their input.
Compiled, the activation and its product are computed again. A unit's backward holds gradients of its inner tensors: of
the head, where log-softmax's gradient is made, those of its input and of its output, in FP32 beside the output itself;
a compiled loss has them in BF16 and one at a time (`stack.compiled_ends`).
"""

from collections.abc import Iterable

from hwmodels.formats import PLAIN_BF16, PLAIN_FP32
from sim.models.activations import Kept, layer_input
from sim.models.blocks.experts import Experts
from sim.models.blocks.feed_forward import Network
from sim.models.blocks.gqa import Heads
from sim.models.blocks.made import EMBEDDING, HEAD, Made
from sim.models.blocks.mamba import Mamba
from sim.models.blocks.mla import Latent
from sim.models.layer import Unit
from sim.models.recompute import FIRST, SELECTIVE
from sim.models.stacks import keeping
from sim.models.stacks.again import Tensor, saved_bytes
from sim.models.stacks.cudnn import Shared
from sim.models.stacks.deepseek import mamba
from sim.models.stacks.keeping import part
from sim.models.stacks.stack import NOTHING, PLAIN_NORMS
from sim.models.stacks.torch.experts import own_rows
from sim.models.stacks.torch.kernels import INDEX, WIDE, WIDTH
from sim.models.stacks.torch.layers import parts
from sim.models.stacks.torch.sharing import logits


def _compiled_loss(site: Shared) -> bool:
    return site.stack.compiled and site.stack.compiled_ends != NOTHING


def _gradients(site: Shared, made: Made) -> float:
    """Bytes of a token that gradients take at most: of the logits; of a network's inner tensors or of attention's."""
    h, v = site.shape.hidden, logits(site)
    if made.end == HEAD:
        return PLAIN_BF16.row_bytes(v) if _compiled_loss(site) else 2 * PLAIN_FP32.row_bytes(v)
    inner = (made.dense.fan + 1) * made.dense.width if made.dense else 0
    if made.routed:
        inner = made.routed.chosen * (made.routed.sent(h) + made.routed.routed.first + made.routed.routed.width)
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
    h, v = site.shape.hidden, logits(site)
    if made.end == EMBEDDING:
        return float(INDEX)
    if made.end == HEAD:
        read = PLAIN_BF16.row_bytes(v) if _compiled_loss(site) else PLAIN_FP32.row_bytes(v)
        return _norm(h) * part(site) + PLAIN_BF16.row_bytes(h) + read
    return (2 * _norm(h) + PLAIN_BF16.row_bytes(2 * h)) * part(site) + INDEX


def _mixer(site: Shared, mixer: Heads | Latent | Mamba | None) -> list[Tensor]:
    h, bf16 = site.shape.hidden, PLAIN_BF16.row_bytes
    if isinstance(mixer, Mamba):
        return [Tensor(mamba.kept(site, mixer))]
    if isinstance(mixer, Heads):
        turned = bf16(mixer.q + mixer.kv) if mixer.normed else 0.0
        turned += bf16(2 * (mixer.q - mixer.kv)) if site.stack.repeated else 0.0
        inner = Tensor(turned + bf16(mixer.qkv))
        return [*_normed(site, h, part(site)), inner, *_attended(site, mixer.q, mixer.queries)]
    if isinstance(mixer, Latent):
        latents = [each for width in (mixer.q_rank, mixer.kv_rank) if width for each in _normed(site, width)]
        # q and k joined, v inside the tensor that keys without position are in too
        up = Tensor(bf16(2 * mixer.q + mixer.kv), ("mla_up_projection",))
        return [*_normed(site, h, part(site)), *latents, up, *_attended(site, mixer.out, mixer.heads)]
    return []


def _normed(site: Shared, width: int, own: float = 1.0) -> list[Tensor]:
    """Input of a norm, its inverse deviation, and its output, which the product behind it keeps; of one that is written
    in single operations the input in FP32, and what is multiplied by the weights. own: part of the tokens that are
    normed here, before those of all are gathered."""
    row, written = PLAIN_BF16.row_bytes(width), site.stack.norms == PLAIN_NORMS and not site.stack.compiled
    between = PLAIN_FP32.row_bytes(width) if written else 0.0
    return [Tensor(row * own), Tensor((WIDE + between) * own + row, ("norm",))]


def _attended(site: Shared, width: int, heads: int) -> list[Tensor]:
    """Attention's output by head, and by token for the product behind it; log-sum-exp of its heads."""
    row = PLAIN_BF16.row_bytes(width)
    own = Tensor(row + PLAIN_FP32.row_bytes(heads), ("core_attention",))
    return [Tensor(row), own, *keeping.scores(site, heads)]


def _network(site: Shared, network: Network) -> list[Tensor]:
    """The activation's input, its output where it meets a gate, that gate, and their product."""
    row = PLAIN_BF16.row_bytes(network.fan * network.width)
    made = [] if site.stack.compiled else [Tensor(row, ("mlp", "activation"))]
    return [*_normed(site, site.shape.hidden, part(site)), Tensor(row, ("mlp",)), *made]


def _experts(site: Shared, experts: Experts) -> list[Tensor]:
    """Scores in FP32 and chosen weights; of a row its input, the inner tensors, its output and its weight."""
    h, net, shared, bf16 = site.shape.hidden, experts.routed, experts.shared, PLAIN_BF16.row_bytes
    scores = PLAIN_FP32.row_bytes(experts.number) + (INDEX + WIDE) * experts.chosen
    beside, inner = (bf16(each.fan * each.width) for each in (shared, net))
    ranks, own = site.groups.expert_tensor, part(site)
    row, inner = bf16(2 * experts.sent(h)) * ranks + inner * ranks + 3 * INDEX + WIDTH, inner * ranks
    tokens = own_rows(site, experts) / site.tokens if site.group == 1 else 0.0  # rows of a token that are here
    of_rows = [
        Tensor(size * tokens, ("moe", *again), 0.0 if tokens else size)
        for size, again in ((row, ()), (inner, ("activation",)))
    ]
    before = [each._replace(token=each.token * own) for each in _normed(site, h)]
    gathered = [Tensor(bf16(h))] if own < 1 and shared.width else []  # shared experts' input; routers read their own
    expanded = [Tensor(bf16(experts.latent) * own)] * bool(experts.latent)  # what expands reads; routers read the other
    return [
        *before,
        *gathered,
        *expanded,
        Tensor(scores * own + beside, ("moe",)),
        Tensor(beside, ("moe", "activation")),
        *of_rows,
    ]


KEEPING = keeping.Keeping(_end, _mixer, _network, _experts, _norm, _gradients)


def kept(site: Shared, made: Made, unit: Unit) -> Kept:
    """From a unit's forward to its input gradient; by the selective policy a layer's input and what that saves."""
    if site.recompute.kind != SELECTIVE or made.end:
        return keeping.kept(KEEPING, site, made, unit)
    forward = parts(site, made, unit, "F")
    return layer_input(site, unit._replace(checkpoint=FIRST)) + saved_bytes(site, forward)


def regained(site: Shared, made: Made, unit: Unit) -> Kept:
    """What the backward of a unit holds until it is through; by the selective policy all that a layer keeps without it,
    a bound: some of that is saved anyway."""
    gradients = keeping.regained(KEEPING, site, made, unit)
    if site.recompute.kind != SELECTIVE or made.end:
        return gradients
    return gradients + keeping.kept(KEEPING, site, made, unit) - layer_input(site, unit._replace(checkpoint=FIRST))


def kept_for_weight(site: Shared, made: Made, unit: Unit) -> Kept:
    """Between input and weight gradient, when a schedule splits them."""
    return keeping.kept_for_weight(PLAIN_BF16.row_bytes, site, made, gathered=True)


def workspace(site: Shared, made: Iterable[Made]) -> float:
    """cuBLAS's; what a unit's backward needs beside it is in `regained`."""
    return float(keeping.CUBLAS)
