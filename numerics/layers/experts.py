"""The routed experts of a mixture layer, and the layer: dispatch, two grouped products around SwiGLU, combine.

Precision of the exchange (arXiv 2412.19437 sec 3.3.3): what is dispatched, tokens forward and gradients backward, is
FP8 with power-of-two scales; what is combined is BF16. The gate's weights multiply SwiGLU's output (in FP8: its
scales), which equals multiplying the experts' outputs and lets their gradient come from what is recomputed anyway.
Here one process holds all experts, so dispatch is a permutation.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from hwmodels.formats import TILE
from numerics import ops
from numerics.layers.config import Config
from numerics.layers.feedforward import FeedForward, activate, back
from numerics.layers.gate import Choice, Gate
from numerics.layers.kept import Codes, Kept, Plain, load, save
from numerics.layers.products import Recipe, grouped_dgrad, grouped_fprop, grouped_wgrad, operand, weight
from numerics.reference.permute import Layout


def dispatch(x: Plain | Codes, layout: Layout) -> Plain | Codes:
    """Tokens [T, K] -> expert rows [R, K]; the codes and scales of a token travel, it is not cast again."""
    if isinstance(x, Plain):
        return Plain(ops.permute(x.x, layout))
    return x._replace(q=ops.permute(x.q, layout), s=ops.permute(x.s, layout))


def weigh(act: Plain | Codes, by_row: Tensor) -> Plain | Codes:
    """Rows of act [R, I] times by_row FP32 [R]."""
    if isinstance(act, Plain):
        return Plain(act.x * by_row[:, None].to(act.x.dtype))
    return act._replace(s=act.s * by_row[:, None])


class _Experts(Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weights: Tensor, idx: Tensor, w_in: Tensor, w_out: Tensor, p: Recipe,
        recompute: bool, cast: Codes | None = None,
    ) -> Tensor:  # fmt: skip
        layout = ops.layout(idx, w_in.shape[0], rows=_capacity(idx, w_in.shape[0]))
        a = cast or operand(x, p, power_of_two=True)
        ctx.weights = weight(w_in, p), weight(w_out, p)
        gate_up, act = activate(grouped_fprop(dispatch(a, layout), ctx.weights[0], layout, p), p)
        y = grouped_fprop(weigh(act, _by_row(weights, layout)), ctx.weights[1], layout, p)
        kept = {"x": a, "gate_up": gate_up, "act": None if recompute else act}
        save(ctx, weights=weights, layout=layout, precision=p, **kept)
        return ops.unpermute(y, layout, None)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        k, dy, (w_in, w_out) = load(ctx), dy.contiguous(), ctx.weights
        p, layout = k["precision"], k["layout"]
        d = dispatch(operand(dy, p, power_of_two=True), layout)
        b = back(grouped_dgrad(d, w_out, layout, p), k["gate_up"], p, k["act"], _by_row(k["weights"], layout))
        assert b.dots is not None
        by_pair = b.dots[layout.row_of_pair.long()]
        dw_out = grouped_wgrad(d, b.act, layout, p)
        dx = ops.unpermute(grouped_dgrad(b.rows, w_in, layout, p), layout, None)
        dw_in = grouped_wgrad(b.columns, dispatch(k["x"], layout), layout, p)
        return dx, by_pair.view_as(k["weights"]), None, dw_in, dw_out, None, None, None


def _capacity(idx: Tensor, experts: int) -> int | None:
    """Rows that hold any choice, so that a GPU is not waited for; None (as many as needed) where it costs nothing."""
    return -(-(idx.numel() + experts * (TILE - 1)) // TILE) * TILE if idx.is_cuda else None


def _by_row(weights: Tensor, layout: Layout) -> Tensor:
    """The gate's weight of each expert row, FP32 [R]; zero for padding."""
    out = torch.zeros(layout.rows, dtype=torch.float32, device=weights.device)
    return out.index_copy(0, layout.row_of_pair.flatten().long(), weights.float().flatten())


class MixtureOfExperts(nn.Module):
    """x [T, hidden] -> shared(x) + sum of weight * expert(x) over the chosen experts, and the Choice."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        s, std = config.shape, config.init_std
        self.gate = Gate(config)
        self.gate_up = nn.Parameter(torch.randn(s.experts, 2 * s.expert_intermediate, s.hidden) * std)
        self.down = nn.Parameter(torch.randn(s.experts, s.hidden, s.expert_intermediate) * std)
        self.shared = FeedForward(config, s.shared_experts * s.expert_intermediate) if s.shared_experts else None
        self.precision, self.recompute = config.precision, config.recompute

    def forward(
        self, x: Tensor, again: Kept | None = None, casts: tuple[Codes | None, Codes | None] = (None, None)
    ) -> tuple[Tensor, Choice]:
        """casts: x's row codes where they are there already, with scales of powers of two and of any value."""
        choice, (exchanged, own) = self.gate(x, again), casts
        parts = x, choice.weights, choice.idx, self.gate_up, self.down
        y = _Experts.apply(*parts, self.precision, self.recompute, exchanged)
        return (y + self.shared(x, again, own) if self.shared else y), choice
