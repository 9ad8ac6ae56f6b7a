"""Attention of a serving step as kernels: latent attention, absorbed or plain, and grouped queries.

What runs is what engines of 2025 run (SGLang, TensorRT-LLM): residual and norm in one kernel, casts of inputs before
FP8 products, one product for both compressed projections, whose norms run beside each other (two streams of SGLang's
deepseek_v2.py, `forward_absorb_prepare`), rotation of queries and key in one kernel that also writes the cache.
"""

from hwmodels.op import Attention, Collective, Gemm, Memory, cast, copy, norm, rope
from hwmodels.refused import Refused
from sim.models.blocks.gqa import Heads
from sim.models.blocks.made import Made
from sim.models.blocks.mla import Latent
from sim.models.layer import COMMUNICATION
from sim.serving.cached import BF16, Cached, PerHead
from sim.serving.prices import Kernel
from sim.serving.rank import Batch, Rank

CORE = "attention"
"""The kernel that reads the cache, or all keys and values."""


def attention(rank: Rank, made: Made, batch: Batch, absorbed: bool) -> list[Kernel]:
    """[tokens, hidden] -> [tokens, hidden], reduced over the tensor group. absorbed: the form of latent attention.
    Raises Refused for what keeps no cache of keys and values."""
    t, h = batch.tokens, rank.part.hidden
    if isinstance(made.mixer, Latent):
        inner, width = latent(rank, made.mixer, batch, absorbed), made.mixer.out
    elif isinstance(made.mixer, Heads):
        inner, width = grouped(rank, made.mixer, batch), made.mixer.q
    elif made.mixer is None:
        return []
    else:
        raise Refused("layers of Mamba-2 are not served; legal: attention with a cache of keys and values")
    first = Kernel("rmsnorm1", norm(t, h, 2, 2))
    return [first, *inner, *product(rank, "o_proj", t, h, width), *post(made, t, h), *reduced(rank, t, h)]


def product(rank: Rank, name: str, tokens: int, n: int, k: int) -> list[Kernel]:
    """A product, with the cast of its input."""
    casts = [Kernel(f"cast_{name}", cast(tokens, k))] if rank.quantised else []
    return [*casts, Kernel(name, Gemm(tokens, n, k, precision=rank.precision))]


def reduced(rank: Rank, tokens: int, hidden: int) -> list[Kernel]:
    """The sum over the tensor group: whole, or each rank's own tokens where these travel on to experts."""
    if rank.tensor == 1:
        return []
    kind = "reduce_scatter" if rank.exchanges else "all_reduce"
    return [Kernel(kind, Collective(kind, BF16 * tokens * hidden, rank.tensor, rank.nodes), COMMUNICATION)]


def post(made: Made, tokens: int, hidden: int) -> list[Kernel]:
    """The norm behind, of models that have one."""
    return [Kernel("post_norm", norm(tokens, hidden))] if made.post_norms else []


def latent(rank: Rank, a: Latent, batch: Batch, absorbed: bool) -> list[Kernel]:
    """From the norm's output to what the output projection reads. Absorbed: each head's queries are turned into the
    latent's 512 columns and read the cache as it lies; plain: keys and values of all heads are made again from the
    latents of all keys, and attention is that of training."""
    t, h = batch.tokens, rank.part.hidden
    if a.q_rank:
        out = product(rank, "qkv_a", t, a.q_rank + a.down, h)
        out += _normed(rank, t, a)
        out += product(rank, "q_b", t, a.q, a.q_rank)
    else:
        out = [*product(rank, "qkv_a", t, a.q + a.down, h), Kernel("kv_a_norm", norm(t, a.kv_rank))]
    out += [Kernel("rope_and_cache", rope(t, a.heads * a.rotary + a.down))]
    if rank.apart:
        out += [Kernel("write_cache", copy(t, a.down))]
    if absorbed:
        core = Cached(
            batch.sequences,
            batch.keys,
            batch.queries,
            a.heads,
            1,
            a.down,
            a.kv_rank,
            rank.element,
            True,
            rank.attention == "fp8",
        )
        into, outof = PerHead(a.heads, t, a.kv_rank, a.nope), PerHead(a.heads, t, a.v, a.kv_rank)
        if not rank.apart:
            return [*out, Kernel("absorb_q", into), Kernel(CORE, core), Kernel("absorb_v", outof)]
        return [
            *out, Kernel("cast_q", cast(t * a.heads, a.nope)), Kernel("absorb_q", into), Kernel(CORE, core),
            Kernel("cast_attended", cast(t * a.heads, a.kv_rank)), Kernel("absorb_v", outof),
            Kernel("copy_heads", copy(t, a.heads * a.v)),
        ]  # fmt: skip
    keys = round(batch.sequences * batch.keys)
    out += product(rank, "kv_b", keys, a.kv, a.kv_rank)
    out += [Kernel("concatenate_k", Memory("concatenate", keys, BF16 * a.q, BF16 * a.q))]
    return [*out, Kernel(CORE, _whole(batch, a.heads, a.nope + a.rotary, a.v))]


def _normed(rank: Rank, t: int, a: Latent) -> list[Kernel]:
    """Both norms of what is compressed: beside each other, or one after another with the copy of the latents."""
    if not rank.apart:
        return [Kernel("latent_norms", norm(t, a.q_rank + a.kv_rank))]
    return [
        Kernel("q_a_norm", norm(t, a.q_rank)), Kernel("copy_latents", copy(t, a.kv_rank)),
        Kernel("kv_a_norm", norm(t, a.kv_rank)),
    ]  # fmt: skip


def grouped(rank: Rank, a: Heads, batch: Batch) -> list[Kernel]:
    """From the norm's output to what the output projection reads. A window or chunk bounds the keys that are read."""
    t, h = batch.tokens, rank.part.hidden
    out = product(rank, "qkv", t, a.qkv, h)
    if a.normed:
        out += [Kernel("qk_norm", norm(t * (a.queries + a.shared), a.width))]
    out += [Kernel("rope_and_cache", rope(t, a.q + 2 * a.kv))]
    span = a.window or a.chunk
    seen = min(batch.keys, float(span)) if span else batch.keys
    if not batch.prefill:
        core = Cached(batch.sequences, seen, batch.queries, a.queries, a.shared, a.width, a.width, rank.element)
        return [*out, Kernel(CORE, core)]
    shared = a.shared if a.shared != a.queries else 0
    return [*out, Kernel(CORE, _whole(batch, a.queries, a.width, a.width, shared, span))]


def _whole(batch: Batch, heads: int, qk: int, v: int, shared: int = 0, span: int = 0) -> Attention:
    """Attention of new tokens over themselves and what is before them, by the kernel of whole sequences."""
    keys = max(round(batch.keys), batch.queries)
    window = span if span and span < keys else 0
    return Attention("forward", batch.sequences, heads, batch.queries, qk, v, kv_heads=shared, window=window, keys=keys)
