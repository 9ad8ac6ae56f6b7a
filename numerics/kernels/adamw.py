"""AdamW in one pass. `numerics.reference.adamw`.

Bound by memory: 12 bytes a weight read and 12 written with BF16 moments.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 1024


def adamw(
    w: Tensor, g: Tensor, m: Tensor, v: Tensor, scalars: Tensor, betas: tuple[float, float], eps: float, decay: float
) -> None:
    """In place, as in numerics.reference.adamw.adamw."""
    if w.dtype != torch.float32 or g.dtype != torch.float32:
        raise ValueError(f"masters and gradients are FP32; got {w.dtype} and {g.dtype}")
    if w.numel():
        grid = (triton.cdiv(w.numel(), BLOCK),)
        _adamw[grid](w, g, m, v, scalars, w.numel(), *betas, 1 - betas[0], 1 - betas[1], eps, decay, BLOCK)


@triton.jit
def _adamw(w, g, m, v, scalars, n, beta1, beta2, rest1, rest2, eps, decay, block: tl.constexpr):
    i = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    inside = i < n
    weight = tl.load(w + i, mask=inside, other=0.0)
    gradient = tl.load(g + i, mask=inside, other=0.0) * tl.load(scalars + 3)
    first = beta1 * tl.load(m + i, mask=inside, other=0.0).to(tl.float32) + rest1 * gradient
    second = beta2 * tl.load(v + i, mask=inside, other=0.0).to(tl.float32) + rest2 * gradient * gradient
    step = first * tl.load(scalars + 1) / (tl.sqrt_rn(second * tl.load(scalars + 2)) + eps)
    tl.store(w + i, weight - tl.load(scalars) * (step + decay * weight), mask=inside)
    tl.store(m + i, first.to(m.dtype.element_ty), mask=inside)
    tl.store(v + i, second.to(v.dtype.element_ty), mask=inside)
    tl.store(g + i, tl.zeros((block,), tl.float32), mask=inside)
