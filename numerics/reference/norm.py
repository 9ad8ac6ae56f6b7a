"""Root-mean-square normalisation, forward and backward, in float32 with one rounding at the end.

Source: Zhang and Sennrich, arXiv 1910.07467, eq. 4. DeepSeek-V3 normalises before attention, before the MLP and after
both MLA down-projections, and recomputes all of them in the backward pass (arXiv 2412.19437 sec 3.2.3).
"""

import torch
from torch import Tensor


def rmsnorm(x: Tensor, w: Tensor, eps: float = 1e-6) -> tuple[Tensor, Tensor]:
    """x [M, H], w [H] -> y [M, H] in x's dtype, rstd float32 [M]; y = x * rstd * w, rstd = (mean x^2 + eps)^-1/2."""
    wide = x.float()
    rstd = torch.rsqrt(wide.square().mean(dim=-1) + eps)
    return (wide * rstd[:, None] * w.float()).to(x.dtype), rstd


def add_rmsnorm(x: Tensor, residual: Tensor, w: Tensor, eps: float = 1e-6) -> tuple[Tensor, Tensor, Tensor]:
    """x, residual [M, H], w [H] -> their sum and its norm y [M, H] in x's dtype, rstd float32 [M].

    What is normalised is the rounded sum, so that the backward pass finds the same y from what is kept.
    """
    total = (x.float() + residual.float()).to(x.dtype)
    return total, *rmsnorm(total, w, eps)


def rmsnorm_backward(
    dy: Tensor, x: Tensor, w: Tensor, rstd: Tensor, residual: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """dy, x [M, H], w [H], rstd [M] -> dx [M, H] in x's dtype, dw float32 [H].

    dy may be [G, M, H], the gradients of G consumers of the norm, which are summed. residual [M, H]: what the residual
    stream brings, added to dx before it is rounded.
    """
    normal = x.float() * rstd[:, None]
    upstream = dy.float() if dy.dim() == 2 else dy.float().sum(dim=0)
    inner = upstream * w.float()
    dx = rstd[:, None] * (inner - normal * (inner * normal).mean(dim=-1, keepdim=True))
    dx = dx if residual is None else dx + residual.float()
    return dx.to(x.dtype), (upstream * normal).sum(dim=0)
