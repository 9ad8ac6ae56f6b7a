"""The SwiGLU feed-forward layer: of dense layers and of shared experts.

Between forward and backward it keeps the inputs of SwiGLU, in FP8 when training in FP8, and runs SwiGLU again for the
down projection's weight gradient (arXiv 2412.19437 sec 3.3.3).
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from hwmodels.formats import TILE
from numerics import ops
from numerics.layers.config import Config
from numerics.layers.kept import Activated, Codes, Kept, Plain, Turned, load, save
from numerics.layers.products import Recipe, both, dgrad, fprop, operand, weight, wgrad


def activate(gate_up: Tensor, precision: Recipe) -> tuple[Plain | Codes, Plain | Codes]:
    """gate_up [M, 2 K] as it waits for the backward pass, and silu(gate) * up as the down projection reads it.

    In FP8 the casts are fused with SwiGLU: of both where no tile holds elements of gate and of up.
    """
    if not precision.quantized:
        return operand(gate_up, precision), Plain(ops.swiglu(gate_up))
    if gate_up.shape[1] % (2 * TILE):
        return operand(gate_up, precision), Codes(*ops.swiglu_quantize(gate_up), precision.dtype)
    kept, act = ops.swiglu_quantize_both(gate_up)
    return Codes(*kept, precision.dtype), Codes(*act, precision.dtype)


class Back(NamedTuple):
    """SwiGLU's gradient as the two products read it, the activation again for its weight gradient, and each row's dot
    product of activation and gradient where rows are weighed."""

    rows: Plain | Codes
    columns: Kept
    act: Kept
    dots: Tensor | None


def back(dact: Tensor, gate_up: Plain | Codes, p: Recipe, act: Plain | Codes | None, by_row: Tensor | None) -> Back:
    """dact [M, K], gate_up [M, 2 K] as kept; act: the activation where it was kept. by_row FP32 [M]: what each row of
    the activation is multiplied by behind SwiGLU, for experts."""
    if isinstance(gate_up, Codes) and act is None and not dact.shape[1] % TILE:
        rows, columns, again, dots = ops.swiglu_backward_both(dact, gate_up.q, gate_up.s, by_row)
        return Back(Codes(*rows, p.dtype), Turned(*columns), Turned(*again), dots)
    x, dots = gate_up.value(), None
    if by_row is None and (act is not None or p.quantized):
        again, dx = act or Activated(x), ops.swiglu_backward(dact, x)
    elif by_row is None:
        value, dx = ops.swiglu_forward_backward(dact, x)
        again = Plain(value)
    elif act is None:
        dx, value, dots = ops.swiglu_backward_weighed(dact, x, by_row)
        again = Plain(value)
    else:
        value, factor = act.value(), by_row[:, None].to(dact.dtype)
        again, dots, dx = Plain(value * factor), ops.gate_weight_gradient(dact, value), dact * factor
        dx = ops.swiglu_backward(dx, x)
    return Back(*both(dx, p), again, dots)


class _FeedForward(Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, w_in: Tensor, w_out: Tensor, again: Kept | None, p: Recipe,
        recompute: bool, cast: Codes | None = None,
    ) -> Tensor:  # fmt: skip
        a = cast or operand(x, p)
        ctx.weights = weight(w_in, p), weight(w_out, p)
        gate_up, act = activate(fprop(a, ctx.weights[0], p), p)
        save(ctx, x=again or a, gate_up=gate_up, act=None if recompute else act, precision=p)
        return fprop(act, ctx.weights[1], p)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        k, (w_in, w_out) = load(ctx), ctx.weights
        p = k["precision"]
        rows, columns = both(dy.contiguous(), p)
        b = back(dgrad(rows, w_out, p), k["gate_up"], p, k["act"], None)
        dw_out, dw_in = wgrad(columns, b.act, p), wgrad(b.columns, k["x"], p)
        return dgrad(b.rows, w_in, p), dw_in, dw_out, None, None, None, None


class FeedForward(nn.Module):
    """x [M, hidden] -> down(silu(gate x) * up x); gate and up lie in one weight [2 width, hidden], gate first."""

    def __init__(self, config: Config, width: int) -> None:
        super().__init__()
        hidden, std = config.shape.hidden, config.init_std
        self.gate_up = nn.Parameter(torch.randn(2 * width, hidden) * std)
        self.down = nn.Parameter(torch.randn(hidden, width) * std)
        self.precision, self.recompute = config.precision, config.recompute

    def forward(self, x: Tensor, again: Kept | None = None, cast: Codes | None = None) -> Tensor:
        """cast: x's row codes, where they are there already."""
        return _FeedForward.apply(x, self.gate_up, self.down, again, self.precision, self.recompute, cast)
