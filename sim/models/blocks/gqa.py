"""Grouped-query attention (arXiv:2305.13245): its norm, projections, rope, attention itself, and their gradients."""

from typing import NamedTuple

from hwmodels.op import Attention, Memory, cast_transpose, dequantize, norm, rope, store
from sim.models.blocks.linear import BF16_WIDTH, Shared, dgrad, linear, norm_backward, quantized, wgrad
from sim.models.layer import Kernel


class Heads(NamedTuple):
    """Heads of queries, heads of keys and values (equal: multi-head attention), and elements of each."""

    queries: int
    shared: int
    width: int

    @property
    def q(self) -> int:
        """Columns of queries, and of the output."""
        return self.queries * self.width

    @property
    def kv(self) -> int:
        """Columns of keys, and of values."""
        return self.shared * self.width

    @property
    def qkv(self) -> int:
        """Columns of the product that makes all three."""
        return self.q + 2 * self.kv


def forward(site: Shared, heads: Heads) -> list[Kernel]:
    """[tokens, hidden] -> [tokens, hidden]; the norm also adds the residual: two streams in, two out."""
    t, h = site.tokens, site.shape.hidden
    out = [Kernel("rmsnorm1", norm(t, h, 2, 2)), *linear(site, "qkv", heads.qkv, h, "cast_x_for_qkv")]
    out += [Kernel("rope_q", rope(t, heads.q)), Kernel("rope_k", rope(t, heads.kv))]
    out += [Kernel("flash_fwd", _attention(site, heads, "forward"))]
    out += quantized(site, Kernel("save_attn_out", store(t, heads.q, site.recipe.attention_output)))
    return out + linear(site, "o_proj", h, heads.q, "cast_attn_out")


def backward(site: Shared, heads: Heads) -> list[Kernel]:
    """Input gradients; nothing is computed again, FP8 operands of the weight gradients come from what was kept."""
    t, h, r = site.tokens, site.shape.hidden, site.recipe
    out = quantized(site, Kernel("dequant_attn_out", dequantize(t, heads.q, r.attention_output)))
    out += dgrad(site, "o_proj", h, heads.q, "cast_dO_proj")
    out += quantized(
        site, Kernel("castT_attn_out", cast_transpose(t, heads.q)), Kernel("castT_dY_o", cast_transpose(t, h))
    )
    out += _core_backward(site, heads)
    out += [Kernel("rope_q_bwd", rope(t, heads.q)), Kernel("rope_k_bwd", rope(t, heads.kv))]
    out += dgrad(site, "qkv", heads.qkv, h, "cast_dqkv")
    out += quantized(
        site, Kernel("castT_dqkv", cast_transpose(t, heads.qkv)),
        Kernel("castT_x_qkv", cast_transpose(t, h, r.activation)),
    )  # fmt: skip
    return out + norm_backward("rmsnorm1_bwd", t, h, 3)


def _core_backward(site: Shared, heads: Heads) -> list[Kernel]:
    """The attention kernel's backward, and the two small ones around it (as in `sim.models.deepseek.attention`)."""
    t, row = site.tokens, BF16_WIDTH * heads.q
    return [
        # reads O and dO, writes their row sums, and zeroes the FP32 accumulator of dQ
        Kernel("flash_bwd_pre", Memory("attention_prepare", t, 2 * row, 2 * row)),
        Kernel("flash_bwd", _attention(site, heads, "backward")),
        Kernel("flash_bwd_post", Memory("attention_finish", t, 2 * row, row)),
    ]


def weight(site: Shared, heads: Heads) -> list[Kernel]:
    h = site.shape.hidden
    return [wgrad(site, "o_proj", h, heads.q), wgrad(site, "qkv", heads.qkv, h)]


def _attention(site: Shared, heads: Heads, direction: str) -> Attention:
    shared = heads.shared if heads.shared != heads.queries else 0
    return Attention(direction, site.sequences, heads.queries, site.length, heads.width, heads.width, kv_heads=shared)
