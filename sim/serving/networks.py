"""The feed-forward halves and the ends of a model in a serving step, as kernels."""

from typing import NamedTuple

from hwmodels.op import (
    AllToAll,
    Collective,
    Gemm,
    GroupedGemm,
    Memory,
    cast,
    copy,
    elementwise,
    norm,
    small,
    transpose_scales,
)
from sim.communication.exchange.direct import Decode
from sim.models.blocks.experts import Experts
from sim.models.blocks.feed_forward import Network
from sim.models.blocks.made import EMBEDDING, HEAD, Made
from sim.models.layer import COMMUNICATION
from sim.models.mixture import Mixture
from sim.routing import balanced
from sim.routing.balanced import PADDING
from sim.serving.attention import post, product, reduced
from sim.serving.cached import BF16, MASKED, Block, Notify
from sim.serving.prices import Kernel, Uneven
from sim.serving.rank import Batch, Load, Rank

SCALES, META = 4.0 / 128, 16
"""Bytes of scales for each FP8 element sent, and of a row's metadata (DeepEP, csrc/kernels/internode_ll.cu)."""


def dense(rank: Rank, made: Made, network: Network, tokens: int) -> list[Kernel]:
    """A dense layer's network with the norm before it."""
    h = rank.part.hidden
    inner = [Kernel("rmsnorm2", norm(tokens, h, 2, 2)), *multiplied(rank, network, tokens, "")]
    return [*inner, *post(made, tokens, h), *reduced(rank._replace(expert=1), tokens, h)]


def multiplied(rank: Rank, network: Network, tokens: int, name: str) -> list[Kernel]:
    """Both products of a network and the activation between."""
    h = rank.part.hidden
    return [
        *product(rank, f"{name}{network.up}", tokens, network.first, h),
        Kernel(f"{name}act", _activation(network, tokens)),
        *product(rank, f"{name}down", tokens, h, network.width),
    ]


def _activation(network: Network, rows: int, element: float = BF16) -> Memory:
    """element: bytes of what it writes."""
    return Memory("silu", rows, BF16 * network.first, element * network.width)


def gate(rank: Rank, mixture: Mixture, tokens: int) -> list[Kernel]:
    """The norm before a mixture, the gate's product in BF16, and the choice in one kernel."""
    h = rank.part.hidden
    choose = Kernel("choose", small("tiny", tokens, BF16 * mixture.experts))
    return [Kernel("rmsnorm2", norm(tokens, h, 2, 2)), Kernel("gate", _plain(tokens, mixture.experts, h)), choose]


def _plain(m: int, n: int, k: int) -> Gemm:
    return Gemm(m, n, k, precision="bf16")


def routed(rank: Rank, made: Made, batch: Batch, tokens: int, load: Load) -> list[Kernel]:
    """Routed experts on the rows of the busiest rank, with what brings rows in order before them and together behind.
    Where a tensor group shares the columns of every expert, the shared expert is one more of them (SGLang:
    --disable-shared-experts-fusion turns that off); else see `shared`."""
    assert made.routed
    experts, net, h = made.routed, made.routed.routed, rank.part.sent
    rows, hits = load.rows, load.hits
    if fused(rank, experts):
        rows, hits = rows + tokens * experts.shared.width // net.width, hits + experts.shared.width // net.width
    if not rows:
        return []
    if rank.whole:
        return [Kernel("experts", Block(hits, rows, h, net.width))]
    ordered, summed = _sorted(rank, made, batch, tokens, rows, load)
    rows = _padded(rank, batch, rows, hits)
    role = MASKED if rank.exchanges and rank.quantised and not batch.prefill else "fprop"
    first, second = (GroupedGemm(hits, rows, n, k, role, rank.precision) for n, k in ((net.first, h), (h, net.width)))
    between = _between(rank, net, batch, rows)
    if rank.apart and rank.exchanges and not batch.prefill:
        # scales of all places that rows may have come to are brought in order for DeepGEMM's second product
        between += [Kernel("order_scales", transpose_scales(hits * rank.expert * tokens, net.width))]
    return [*ordered, Kernel(f"routed_{net.up}", first), *between, Kernel("routed_down", second), *summed]


def _padded(rank: Rank, batch: Batch, rows: int, hits: int) -> int:
    """Rows that products multiply. Of prompts that came by exchanges each expert's fill whole tiles of DeepGEMM's
    contiguous layout (its README, `get_m_alignment_for_contiguous_layout`; SGLang's dispatch aligns them so): half a
    tile more on average, and one at least."""
    if not (rank.exchanges and batch.prefill and rank.quantised):
        return rows
    return round(hits * max(PADDING, rows / hits + PADDING / 2))


def _between(rank: Rank, net: Network, batch: Batch, rows: int) -> list[Kernel]:
    """The activation, and the cast of what it gives: in one kernel where rows came by low-latency exchanges (SGLang's
    `silu_and_mul_masked_post_quant_fwd`), else in two."""
    if not rank.quantised:
        return [Kernel("routed_act", _activation(net, rows))]
    if rank.exchanges and not batch.prefill:
        return [Kernel("routed_act", _activation(net, rows, 1.0))]
    return [Kernel("routed_act", _activation(net, rows)), Kernel("routed_cast", cast(rows, net.width))]


def _sorted(
    rank: Rank, made: Made, batch: Batch, tokens: int, rows: int, load: Load
) -> tuple[list[Kernel], list[Kernel]]:
    """What precedes the experts' products and what follows. Low-latency exchanges hand rows over by expert, and sum
    them up again. Normal ones hand over each token that a rank's experts share once: it is copied to where each of them
    reads it, and their outputs are summed (SGLang's `ep_scatter` and `ep_gather`, ep_moe/kernels.py). Without exchanges
    rows are sorted by index, and summed."""
    assert made.gate and made.routed
    h, index = rank.part.sent, [Kernel("sort", small("tiny")), Kernel("align", small("tiny"))]
    if not rank.exchanges:
        casts = [Kernel("cast_x", cast(tokens, h))] if rank.quantised else []
        return [*index, *casts], [Kernel("sum", Memory("elementwise", tokens, BF16 * h * made.routed.chosen, BF16 * h))]
    if not batch.prefill:
        return index[: 1 if rank.apart else 2], []
    own = -(-batch.tokens // rank.tensor)
    come = max(1, round(own * batch.mean * load.received * _reach(rank, made.gate)[1]))
    row = (1 + SCALES) * h if rank.quantised else BF16 * h
    scatter = Memory("permute", rows, row * come / rows, row)
    gather = Memory("unpermute", rows, BF16 * h, BF16 * h * come / rows)
    return [Kernel("scatter", scatter)], [Kernel("gather", gather)]


def _cast_before(rank: Rank, batch: Batch) -> list[Kernel]:
    """The cast of what normal kernels send; low-latency ones cast by themselves."""
    tokens = -(-batch.tokens // rank.tensor)
    casts = rank.quantised and batch.prefill and not rank.gathers
    return [Kernel("cast_sent", cast(tokens, rank.part.sent))] if casts else []


def fused(rank: Rank, experts: Experts) -> bool:
    """Whether the shared expert is one of the routed ones' products."""
    return rank.expert == 1 and bool(experts.shared.width) and experts.shared.width % experts.routed.width == 0


def shared(rank: Rank, experts: Experts, tokens: int) -> list[Kernel]:
    """Shared experts by themselves. Where the routed ones' outputs come by an exchange they are added to these in a
    kernel of its own (SGLang's deepseek_v2.py, `x.add_`; DeepEP's combine adds since June 2025, pull request 257),
    which is counted here, though it follows the combine."""
    if fused(rank, experts) or not experts.shared.width:
        return []
    inner, h = multiplied(rank, experts.shared, tokens, "shared_"), rank.part.hidden
    added = Kernel("shared_sum", Memory("elementwise", tokens, 2 * BF16 * h, BF16 * h))
    scaled = [Kernel("scale_routed", elementwise(tokens, h))] if rank.apart else []
    return [*inner, *scaled, added] if rank.exchanges else inner


def exchange(rank: Rank, mixture: Mixture, batch: Batch, load: Load, combine: bool) -> list[Kernel]:
    """Dispatch (FP8) or combine (BF16): low-latency kernels for tokens of a decode step, normal ones for prompts, which
    between nodes follow a kernel in which all ranks meet."""
    if not rank.exchanges:
        return []
    if rank.gathers:
        own = -(-batch.tokens // rank.tensor)
        size = BF16 * max(1, round(own * batch.mean)) * rank.expert * rank.part.sent
        kind = "reduce_scatter" if combine else "all_gather"
        return [Kernel(kind, Collective(kind, size, rank.expert, 1), COMMUNICATION)]
    width, name = rank.part.sent, "combine" if combine else "dispatch"
    row = BF16 * width if combine else (1 + SCALES) * width + META if rank.quantised else BF16 * width + META
    if not batch.prefill:
        tokens = _arriving(rank, batch, load)
        op: Decode | Uneven = Decode(
            combine, tokens, mixture.chosen, row, rank.expert, rank.gpus_per_node, rank.nvlink
        )  # fmt: skip
    else:
        own, reach = -(-batch.tokens // rank.tensor), _reach(rank, mixture)
        even = AllToAll(name, f"{name}(F)", own, row, *reach, rank.expert, rank.expert_nodes)
        op = Uneven(even, load.received * batch.mean, load.reached * batch.mean)
        if rank.expert_nodes > 1:
            meeting = Notify(combine, max(1, round(own * batch.mean)), rank.expert)
            return [Kernel(f"notify_{name}", meeting, COMMUNICATION), Kernel(name, op, COMMUNICATION)]
    return [Kernel(name, op, COMMUNICATION)]


def _arriving(rank: Rank, batch: Batch, load: Load) -> int:
    """Tokens of the ranks whose rows the busiest one receives, each with its part: it gets `load.above` times the mean,
    the fullest group sends its own."""
    return max(1, round(-(-batch.tokens // rank.tensor) * max(1.0, load.above * batch.mean)))


def _reach(rank: Rank, m: Mixture) -> tuple[float, float]:
    """Nodes and ranks that a token goes to, on average."""
    per_node = min(rank.expert, rank.gpus_per_node)
    return balanced.spread(m.experts, m.groups, m.chosen_groups, m.chosen, m.score, rank.expert, per_node)


class Lists(NamedTuple):
    """Kernels that follow attention in a layer. gate: with the norm before it. shared: experts that see every token.
    experts: routed ones, or a dense layer. combine: with what a tensor group gathers behind it."""

    gate: list[Kernel]
    dispatch: list[Kernel]
    shared: list[Kernel]
    experts: list[Kernel]
    combine: list[Kernel]


def parts(rank: Rank, made: Made, batch: Batch, load: Load | None) -> Lists:
    """What follows attention in a layer. load: of its experts, where it has some."""
    if made.dense:
        return Lists([], [], [], dense(rank, made, made.dense, batch.tokens), [])
    if made.routed is None or made.gate is None or load is None:
        return Lists([], [], [], [], [])
    own = -(-batch.tokens // rank.tensor) if rank.exchanges else batch.tokens
    sent, back = (exchange(rank, made.gate, batch, load, combine) for combine in (False, True))
    inner, whole = routed(rank, made, batch, own, load), shared(rank, made.routed, own)
    chosen = gate(rank, made.gate, own) + (_cast_before(rank, batch) if rank.exchanges else [])
    return Lists(chosen, sent, whole, inner, back + gathered(rank, batch.tokens))


def gathered(rank: Rank, tokens: int) -> list[Kernel]:
    """What follows the experts where a tensor group had shared out the tokens, or holds parts of outputs."""
    if rank.tensor == 1:
        return []
    kind = "all_gather" if rank.exchanges else "all_reduce"
    size = BF16 * tokens * rank.part.hidden
    return [Kernel(kind, Collective(kind, size, rank.tensor, rank.nodes), COMMUNICATION)]


def end(rank: Rank, made: Made, batch: Batch) -> list[Kernel]:
    """Embedding or head; of a prompt only the last token has logits."""
    h, v = rank.part.hidden, rank.part.vocabulary
    if made.end == EMBEDDING:
        return [Kernel("embedding", copy(batch.tokens, h)), *reduced(rank._replace(expert=1), batch.tokens, h)]
    if made.end != HEAD:
        return []
    t = batch.sequences if batch.prefill else batch.tokens
    logits = Collective("all_gather", BF16 * t * v * rank.tensor, rank.tensor, rank.nodes)
    gather = [Kernel("gather_logits", logits, COMMUNICATION)] if rank.tensor > 1 else []
    sample = Kernel("sample", Memory("softmax", t, BF16 * v * rank.tensor, 4.0))
    return [Kernel("final_norm", norm(t, h)), Kernel("head", _plain(t, v, h)), *gather, sample]
