"""What Megatron Core with TransformerEngine keeps of a unit: inputs of products in the recipe's format, else BF16.

Of what a tensor group shares tokens of, each rank keeps its own, and gathers again (sequence parallelism). Norms keep
their input and inverse deviations; products their input, quantised by columns; attention q, k, v, its output
and log-sum-exp (the product behind it keeps a quantised copy beside); activations their input in BF16.
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
from sim.models.stacks.again import Tensor
from sim.models.stacks.cudnn import Shared, precision
from sim.models.stacks.keeping import part
from sim.models.stacks.megatron import attention_formats, clamp, mamba
from sim.models.stacks.megatron.casts import casting
from sim.models.stacks.megatron.formats import of_unit
from sim.models.stacks.stack import MXFP8_OUTPUT, NATIVE, PLAIN_LOSS, WEIGHED_SUMS

DEVIATION, INDEX = 4, 8
"""Bytes of a norm's inverse deviation, and of a token's number."""


def _gradients(site: Shared, made: Made) -> float:
    """Bytes of a token that gradients of a unit's inner tensors take at most; those of logits are in their place."""
    h, mixer, inner = site.shape.hidden, made.mixer, 0
    if made.dense:
        inner = made.dense.first + made.dense.width
    if made.routed:
        inner = made.routed.chosen * (made.routed.sent(h) + made.routed.routed.first + made.routed.routed.width)
        inner = inner * site.own * site.groups.expert_tensor // site.tokens
    mixing = 0.0
    if isinstance(mixer, Heads):
        mixing = PLAIN_BF16.row_bytes(2 * mixer.qkv + mixer.q) + PLAIN_FP32.row_bytes(mixer.q)
    elif isinstance(mixer, Latent):
        mixing = PLAIN_BF16.row_bytes(2 * mixer.q + mixer.kv + mixer.out) + PLAIN_FP32.row_bytes(mixer.q)
    again = PLAIN_BF16.row_bytes(h) if site.groups.sequence else 0.0  # the gathered input, for the weights' gradient
    return PLAIN_BF16.row_bytes(2 * h) + again + max(PLAIN_BF16.row_bytes(inner), mixing)


def _norm(width: float) -> float:
    """Input, and an inverse deviation."""
    return PLAIN_BF16.row_bytes(1) * width + DEVIATION


def _end(site: Shared, made: Made) -> float:
    h, v = site.shape.hidden, site.shape.vocabulary
    if made.end == EMBEDDING:
        return float(INDEX)
    if made.end == HEAD:
        kept_as = PLAIN_FP32 if site.stack.cross_entropy in (NATIVE, PLAIN_LOSS) else PLAIN_BF16  # else a gradient
        input_as = site.recipe.activation if site.stack.output_layer == MXFP8_OUTPUT else PLAIN_BF16
        return (_norm(h) + input_as.row_bytes(h)) * part(site) + kept_as.row_bytes(v)
    return (2 * _norm(h) + PLAIN_BF16.row_bytes(2 * h)) * part(site) + INDEX


def _mixer(site: Shared, mixer: Heads | Latent | Mamba | None) -> list[Tensor]:
    h, row, bf16 = site.shape.hidden, site.recipe.activation.row_bytes, PLAIN_BF16.row_bytes
    if isinstance(mixer, Mamba):
        return [Tensor(mamba.kept(site, mixer))]
    if isinstance(mixer, Heads):
        # values lie in the product's output, which stays whole; queries and keys are turned (or normed) copies
        again = bf16(mixer.q + mixer.kv) * (mixer.normed + bool(mixer.rotary))
        before = Tensor((_norm(h) + row(h)) * part(site))
        normed = bf16(mixer.qkv) * (mixer.normed and precision(site) != "bf16")  # norms of heads keep their input
        inputs = attention_formats.kept(site, again + bf16(mixer.qkv), mixer.qkv)
        return [before, Tensor(normed + inputs), *_attended(site, mixer.q, mixer.queries)]
    if isinstance(mixer, Latent):
        compressed, own = [width for width in (mixer.q_rank, mixer.kv_rank) if width], part(site)
        read = 2 * mixer.q + mixer.out
        return [
            Tensor(bf16(h) * own), Tensor((DEVIATION + row(h)) * own, ("norm",)),
            *(Tensor(bf16(width) * own) for width in compressed),
            *(Tensor((DEVIATION + row(width)) * own, ("mla_up_projection",)) for width in compressed),
            Tensor(attention_formats.kept(site, bf16(read), read), ("mla_up_projection",)),
            *_attended(site, mixer.out, mixer.heads),
        ]  # fmt: skip
    return []


def _attended(site: Shared, width: int, heads: int) -> list[Tensor]:
    """Attention's output and log-sum-exp. The product behind keeps the output in BF16, or quantised beside."""
    again = ("core_attention",)
    copy = [Tensor(site.recipe.activation.row_bytes(width))] if casting(site) else []
    return [
        Tensor(PLAIN_BF16.row_bytes(width), again if copy else ()),
        Tensor(PLAIN_FP32.row_bytes(heads), again),
        *copy,
        *keeping.scores(site, heads),
    ]


def _network(site: Shared, network: Network) -> list[Tensor]:
    h, row, bf16, own = site.shape.hidden, site.recipe.activation.row_bytes, PLAIN_BF16.row_bytes, part(site)
    inner = bf16(network.first) + row(network.width)
    return [Tensor(bf16(h) * own), Tensor((DEVIATION + row(h)) * own + inner, ("mlp",))]


def _experts(site: Shared, experts: Experts) -> list[Tensor]:
    """Scores; of a row its input, first product and activation, and its output for the weight's gradient; and, where
    sums weigh it, its output."""
    h, net, shared, own = site.shape.hidden, experts.routed, experts.shared, part(site)
    row, bf16, beside = site.recipe.activation.row_bytes, PLAIN_BF16.row_bytes, ("moe", "shared_experts")
    out = [
        Tensor(bf16(h) * own),
        Tensor((DEVIATION + bf16(h)) * own, ("norm",)),
        Tensor(2 * PLAIN_FP32.row_bytes(experts.number) * own, ("moe",)),
    ]
    if shared.width:
        copy = row(h) * own if casting(site) else 0.0  # in BF16 it is the router's input
        out += [Tensor(copy, (*beside, "norm")), Tensor(bf16(shared.first) + row(shared.width), beside)]
    if experts.latent:  # inputs of both products; of the first in BF16, the router's
        out += [
            Tensor(row(h) * own if casting(site) else 0.0, ("moe", "norm")),
            Tensor(row(experts.latent) * own, ("moe",)),
        ]
    ranks = site.groups.expert_tensor  # whose rows are gathered
    return [
        *out, Tensor(0.0, ("moe",), (row(experts.sent(h)) + bf16(net.first)) * ranks),
        Tensor(0.0, ("moe", "activation"), clamp.kept(site, experts) * ranks),
        Tensor(0.0, ("moe", "activation"), row(net.width) * ranks),
        Tensor(0.0, ("moe",), bf16(experts.sent(h)) * (site.stack.weighting == WEIGHED_SUMS)),
    ]  # fmt: skip


KEEPING = keeping.Keeping(_end, _mixer, _network, _experts, _norm, _gradients)


def kept(site: Shared, made: Made, unit: Unit) -> Kept:
    """From a unit's forward to its input gradient."""
    return keeping.kept(KEEPING, of_unit(site, unit), made, unit)


def regained(site: Shared, made: Made, unit: Unit) -> Kept:
    """What the backward of a unit holds until it is through."""
    return keeping.regained(KEEPING, of_unit(site, unit), made, unit)


def kept_for_weight(site: Shared, made: Made, unit: Unit) -> Kept:
    """Between input and weight gradient, when a schedule splits them."""
    site = of_unit(site, unit)
    return keeping.kept_for_weight(site.recipe.activation.row_bytes, site, made, gathered=False)


def workspace(site: Shared, made: Iterable[Made]) -> float:
    """cuBLAS's; what a unit's backward needs beside it is in `regained`."""
    return float(keeping.CUBLAS)
