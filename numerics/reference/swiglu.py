"""SwiGLU, forward and backward, alone and with the cast that follows it; float32 inside, one rounding at the end.

Source: Shazeer, arXiv 2002.05202, eq. 6. DeepSeek-V3 keeps SwiGLU's input in FP8 and recomputes its output in the
backward pass (arXiv 2412.19437 sec 3.3.3).
"""

import torch
from torch import Tensor

from numerics.reference.casts import quantize_columns, quantize_rows


def swiglu(x: Tensor) -> Tensor:
    """x [M, 2I] -> silu(x[:, :I]) * x[:, I:], [M, I] in x's dtype."""
    return _swiglu(x).to(x.dtype)


def swiglu_quantize(x: Tensor, power_of_two: bool = False) -> tuple[Tensor, Tensor]:
    """x [M, 2I] -> e4m3 [M, I] in 1x128 tiles, scales [M, ceil(I/128)], from the product in float32, not its BF16."""
    return quantize_rows(_swiglu(x), power_of_two)


def swiglu_quantize_columns(x: Tensor, power_of_two: bool = False) -> tuple[Tensor, Tensor]:
    """x [M, 2I] -> e4m3 [I, M] in 128x1 tiles of the product, scales [I, ceil(M/128)]: the recomputed wgrad operand."""
    return quantize_columns(_swiglu(x), power_of_two)


def swiglu_backward(dy: Tensor, x: Tensor) -> Tensor:
    """dy [M, I], x [M, 2I] -> dx [M, 2I] in x's dtype."""
    return _backward(dy, x).to(x.dtype)


def swiglu_forward_backward(dy: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """dy [M, I], x [M, 2I] -> the activation [M, I] again, for the weight gradient, and dx [M, 2I]; in x's dtype."""
    return swiglu(x), swiglu_backward(dy, x)


def swiglu_backward_weighed(dy: Tensor, x: Tensor, by_row: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """dy [M, I], x [M, 2I], by_row FP32 [M] (the gate's weight of each row, which multiplies the activation) -> dx
    [M, 2I], the weighed activation [M, I] again, and by_row's gradient, FP32 [M]; by_row is rounded to dy's type."""
    act, factor = swiglu(x), by_row[:, None].to(dy.dtype)
    return swiglu_backward(dy * factor, x), act * factor, gate_weight_gradient(dy, act)


def gate_weight_gradient(dy: Tensor, y: Tensor) -> Tensor:
    """dy, y [M, I] -> float32 [M]: the gradient of the weight that the gate gave a row, its dot product with dy."""
    return (dy.float() * y.float()).sum(dim=1)


def swiglu_backward_quantize(dy: Tensor, x: Tensor, power_of_two: bool = False) -> tuple[Tensor, Tensor]:
    """dy [M, I], x [M, 2I] -> dx as e4m3 [M, 2I] in 1x128 tiles (of each half), scales [M, 2 ceil(I/128)].

    I must be a multiple of 128, so that no tile spans both halves.
    """
    if dy.shape[1] % 128:
        raise ValueError(f"a fused cast takes I in multiples of 128; got {dy.shape[1]}")
    return quantize_rows(_backward(dy, x), power_of_two)


def _halves(x: Tensor) -> tuple[Tensor, Tensor]:
    if x.shape[1] % 2:
        raise ValueError(f"SwiGLU takes an even number of columns; got {list(x.shape)}")
    gate, up = x.float().chunk(2, dim=1)
    return gate, up


def _swiglu(x: Tensor) -> Tensor:
    gate, up = _halves(x)
    return gate * torch.sigmoid(gate) * up


def _backward(dy: Tensor, x: Tensor) -> Tensor:
    (gate, up), dy = _halves(x), dy.float()
    sigmoid = torch.sigmoid(gate)
    dgate = dy * up * (sigmoid * (1 + gate * (1 - sigmoid)))
    return torch.cat([dgate, dy * (gate * sigmoid)], dim=1)
