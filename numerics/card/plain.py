"""A plain transformer of torch's own modules, as the measured steps of scenarios/measured/ ran it.

A block: RMSNorm, separate q, k and v products, rope, attention, o product, residual, RMSNorm, SwiGLU feed-forward (or
experts: softmax router, top-k, sort, grouped products, added back by index), residual; an untied head. BF16 throughout,
the loss in FP32. Tensors are [sequences, tokens, hidden].
"""

from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as f


class Size(NamedTuple):
    """A model: widths, heads, layers; experts: 0 for dense; seq: tokens of a sequence; mbs: sequences of a
    micro-batch."""

    hidden: int
    ffn: int
    heads: int
    kv: int
    head: int
    vocab: int
    layers: int
    seq: int
    mbs: int
    experts: int = 0
    top_k: int = 0


class Attention(nn.Module):
    """Causal attention of grouped queries with rope."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.width = size.head
        for name, heads in (("q", size.heads), ("k", size.kv), ("v", size.kv)):
            setattr(self, name, nn.Linear(size.hidden, heads * size.head, bias=False))
        self.o = nn.Linear(size.heads * size.head, size.hidden, bias=False)

    def forward(self, x: torch.Tensor, turns: torch.Tensor) -> torch.Tensor:
        """x: [sequences, tokens, hidden]; turns: cosines and sines [2, tokens, head / 2]."""
        q, k, v = (part(x).unflatten(-1, (-1, self.width)).transpose(1, 2) for part in (self.q, self.k, self.v))
        y = f.scaled_dot_product_attention(turned(q, turns), turned(k, turns), v, is_causal=True, enable_gqa=True)
        out: torch.Tensor = self.o(y.transpose(1, 2).flatten(2))
        return out


def turned(x: torch.Tensor, turns: torch.Tensor) -> torch.Tensor:
    """Rope on halves of each head; x: [sequences, heads, tokens, head]."""
    a, b = x.chunk(2, -1)
    cos, sin = turns
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


class FeedForward(nn.Module):
    """SwiGLU."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.gate, self.up = (nn.Linear(size.hidden, size.ffn, bias=False) for _ in range(2))
        self.down = nn.Linear(size.ffn, size.hidden, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: [sequences, tokens, hidden]."""
        out: torch.Tensor = self.down(f.silu(self.gate(x)) * self.up(x))
        return out


class Experts(nn.Module):
    """A mixture whose experts are split over a group of ranks (None: all here); tokens go by all-to-all."""

    def __init__(self, size: Size, group: Any = None) -> None:
        super().__init__()
        self.ranks = dist.get_world_size(group) if group else 1
        self.group, self.top_k, self.here = group, size.top_k, size.experts // self.ranks
        self.router = nn.Linear(size.hidden, size.experts, bias=False)
        self.up = nn.Parameter(torch.randn(self.here, size.hidden, 2 * size.ffn) * 0.02)
        self.down = nn.Parameter(torch.randn(self.here, size.ffn, size.hidden) * 0.02)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: [sequences, tokens, hidden]."""
        flat = x.flatten(0, 1)
        weights, chosen = self.router(flat).float().softmax(-1).topk(self.top_k)
        expert, order = chosen.flatten().sort()
        rows = order // self.top_k
        counts = torch.bincount(expert, minlength=self.here * self.ranks)
        sent = flat[rows]
        out = self._far(sent, counts) if self.group else self._near(sent, counts)
        out = out * weights.flatten()[order, None].to(x.dtype)
        return torch.zeros_like(flat).index_add(0, rows, out).view_as(x)

    def _near(self, rows: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
        """Rows, sorted by expert, through this rank's experts."""
        ends = counts.cumsum(0).to(torch.int32)
        gate, up = torch._grouped_mm(rows, self.up, offs=ends).chunk(2, -1)
        return torch._grouped_mm(f.silu(gate) * up, self.down, offs=ends)

    def _far(self, rows: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
        """The same through experts of all ranks: counts first, which the host has to know, then rows, and back."""
        theirs = torch.empty_like(counts)
        dist.all_to_all_single(theirs, counts, group=self.group)
        by_rank = torch.stack([counts, theirs]).view(2, self.ranks, self.here)
        going, coming = by_rank.sum(-1).tolist()
        got = _Exchange.apply(rows, coming, going, self.group)
        of = torch.arange(self.here, device=rows.device).repeat(self.ranks).repeat_interleave(by_rank[1].flatten())
        order = of.argsort(stable=True)
        done = torch.empty_like(got).index_copy(0, order, self._near(got[order], by_rank[1].sum(0)))
        out: torch.Tensor = _Exchange.apply(done, going, coming, self.group)
        return out


class _Exchange(torch.autograd.Function):
    """All-to-all of rows, and the reverse for their gradients."""

    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor, coming: list[int], going: list[int], group: Any) -> torch.Tensor:
        ctx.way = going, coming, group
        got = rows.new_empty(sum(coming), rows.shape[1])
        dist.all_to_all_single(got, rows.contiguous(), coming, going, group=group)
        return got

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        coming, going, group = ctx.way
        got = gradients[0].new_empty(sum(coming), gradients[0].shape[1])
        dist.all_to_all_single(got, gradients[0].contiguous(), coming, going, group=group)
        return got, None, None, None


class Block(nn.Module):
    """A layer."""

    def __init__(self, size: Size, group: Any = None) -> None:
        super().__init__()
        self.attention_norm, self.ffn_norm = nn.RMSNorm(size.hidden), nn.RMSNorm(size.hidden)
        self.attention = Attention(size)
        self.ffn = Experts(size, group) if size.experts else FeedForward(size)

    def forward(self, x: torch.Tensor, turns: torch.Tensor) -> torch.Tensor:
        """x: [sequences, tokens, hidden]."""
        x = x + self.attention(self.attention_norm(x), turns)
        return x + self.ffn(self.ffn_norm(x))


class Transformer(nn.Module):
    """Layers `first` to `last`, with the embedding before the first and the head behind the last. group: of experts."""

    def __init__(self, size: Size, group: Any = None, first: int = 0, last: int | None = None) -> None:
        super().__init__()
        last = size.layers if last is None else last
        self.blocks = nn.ModuleList(Block(size, group) for _ in range(first, last))
        self.embed = nn.Embedding(size.vocab, size.hidden) if first == 0 else None
        self.norm = nn.RMSNorm(size.hidden) if last == size.layers else None
        self.head = nn.Linear(size.hidden, size.vocab, bias=False) if last == size.layers else None
        angles = torch.arange(size.seq)[:, None] * 10_000.0 ** -(torch.arange(size.head // 2) / (size.head // 2))
        self.register_buffer("turns", torch.stack([angles.cos(), angles.sin()]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: tokens [sequences, tokens], or what the layers before made of them."""
        x = self.embed(x) if self.embed is not None else x
        for block in self.blocks:
            x = block(x, self.turns)
        return self.head(self.norm(x)) if self.head is not None and self.norm is not None else x


def loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy in FP32."""
    return f.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())
