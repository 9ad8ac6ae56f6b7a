"""The SwiGLU feed-forward layer: of dense layers and of shared experts.

Between forward and backward it keeps the inputs of SwiGLU, in FP8 when training in FP8, and runs SwiGLU again for the
down projection's weight gradient (arXiv 2412.19437 sec 3.3.3).
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from numerics import ops
from numerics.layers.config import Config
from numerics.layers.kept import Activated, Codes, Kept, Plain, load, save
from numerics.layers.products import Recipe, dgrad, fprop, operand, wgrad


def activate(gate_up: Tensor, precision: Recipe) -> Plain | Codes:
    """silu(gate) * up as the down projection reads it; in FP8 the cast is fused with SwiGLU."""
    if not precision.quantized:
        return Plain(ops.swiglu(gate_up))
    return Codes(*ops.swiglu_quantize(gate_up), precision.dtype)


class _FeedForward(Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, w_in: Tensor, w_out: Tensor, again: Kept | None, p: Recipe, recompute: bool
    ) -> Tensor:
        a = operand(x, p)
        gate_up = fprop(a, w_in, p)
        act = activate(gate_up, p)
        kept = {"x": again or a, "gate_up": operand(gate_up, p), "act": None if recompute else act}
        save(ctx, w_in=w_in, w_out=w_out, precision=p, **kept)
        return fprop(act, w_out, p)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        k, dy = load(ctx), dy.contiguous()
        p, gate_up = k["precision"], k["gate_up"].value()
        dact = dgrad(operand(dy, p), k["w_out"], p)
        dw_out = wgrad(Plain(dy), k["act"] or Activated(gate_up), p)
        dgate_up = ops.swiglu_backward(dact, gate_up)
        dx = dgrad(operand(dgate_up, p), k["w_in"], p)
        return dx, wgrad(Plain(dgate_up), k["x"], p), dw_out, None, None, None


class FeedForward(nn.Module):
    """x [M, hidden] -> down(silu(gate x) * up x); gate and up lie in one weight [2 width, hidden], gate first."""

    def __init__(self, config: Config, width: int) -> None:
        super().__init__()
        hidden, std = config.shape.hidden, config.init_std
        self.gate_up = nn.Parameter(torch.randn(2 * width, hidden) * std)
        self.down = nn.Parameter(torch.randn(hidden, width) * std)
        self.precision, self.recompute = config.precision, config.recompute

    def forward(self, x: Tensor, again: Kept | None = None) -> Tensor:
        return _FeedForward.apply(x, self.gate_up, self.down, again, self.precision, self.recompute)
