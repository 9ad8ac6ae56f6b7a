"""A bias-free linear layer with an FP32 master weight: three products in one precision, its input kept as FP8 codes."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from numerics.layers import exact
from numerics.layers.kept import Codes, Kept, Plain, load, save
from numerics.layers.precision import Precision
from numerics.layers.products import Recipe, both, dgrad, fprop, operand, turned, weight, wgrad


class _Linear(Function):
    """One input times several weights: it is cast once for all, either way."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, cast: Codes | None, again: Kept | None, precision: Recipe, *weights: Tensor
    ) -> tuple[Tensor, ...]:
        a = cast or operand(x, precision)
        save(ctx, x=again or a, precision=precision, dtype=x.dtype)
        ctx.weights = [weight(w, precision) for w in weights]
        return tuple(fprop(a, w, precision) for w in ctx.weights)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *dys: Tensor) -> tuple[Tensor | None, ...]:
        k = load(ctx)
        dw: list[Tensor] = []
        dx: Tensor | None = None
        p, x = k["precision"], turned(k["x"], k["precision"])
        for dy, w in zip(dys, ctx.weights, strict=True):
            rows, columns = both(dy.contiguous(), p)
            one = dgrad(rows, w, p).to(k["dtype"])
            dx = one if dx is None else dx + one
            dw.append(wgrad(columns, x, p))
        return dx, None, None, None, *dw


class _Exact(Function):
    """A BF16 input times a weight in FP32, on a GPU."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, again: Kept | None) -> Tensor:
        save(ctx, x=again or Plain(x), weight=weight)
        return exact.fprop(x, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor, None]:
        k = load(ctx)
        return exact.dgrad(dy, k["weight"]), exact.wgrad(dy, k["x"].value()), None


def linear(x: Tensor, weight: Tensor, precision: Recipe, again: Kept | None = None) -> Tensor:
    """x [M, K], weight FP32 [N, K] -> [M, N]. again: how to get x in the backward pass, instead of keeping it."""
    if precision is Precision.FP32 and exact.suits(x):
        product: Tensor = _Exact.apply(x, weight, again)
        return product
    return linears(x, (weight,), precision, again)[0]


def linears(
    x: Tensor, weights: tuple[Tensor, ...], precision: Recipe, again: Kept | None = None, cast: Codes | None = None
) -> tuple[Tensor, ...]:
    """x [M, K] times each of weights FP32 [N, K] -> [M, N] each. cast: x's row codes, where they are there already."""
    made: tuple[Tensor, ...] = _Linear.apply(x, cast, again, precision, *weights)
    return made


class Linear(nn.Module):
    """x [..., inputs] -> [..., outputs] in `precision`; the weight and its gradient are FP32."""

    def __init__(self, inputs: int, outputs: int, precision: Recipe, std: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) * std)
        self.precision = precision

    def forward(self, x: Tensor, again: Kept | None = None) -> Tensor:
        y = linear(x.reshape(-1, x.shape[-1]), self.weight, self.precision, again)
        return y.view(*x.shape[:-1], -1)
