"""Causal multi-head attention with separate query/key and value widths, in plain torch (FP32 inside).

DeepSeek-V3's MLA in training form (arXiv 2412.19437 sec 2.1.1, eq. 10): queries and keys of 192 elements (128 without
and 64 with position), values of 128. The backward pass keeps the log-sum-exp of every row instead of the probabilities
(FlashAttention-2, arXiv 2307.08691, sec 2.3): P = exp(S - lse), dS = P * (dP - sum(dO * O)).
"""

import torch
from torch import Tensor


def attention(q: Tensor, k: Tensor, v: Tensor, scale: float, causal: bool = True) -> tuple[Tensor, Tensor]:
    """q [B,S,H,Dqk], k [B,T,G,Dqk], v [B,T,G,Dv] -> o [B,S,H,Dv] in q's dtype, lse [B,H,S] FP32, natural logarithm.

    G divides H: each head of keys serves H / G heads of queries that lie side by side (arXiv 2305.13245). causal: query
    i sees keys 0 .. i + T - S (the last query sees every key; T >= S). Raises ValueError on shapes that do not fit.
    """
    check(q, k, v, causal)
    s = _scores(q, k, scale, causal)
    lse = torch.logsumexp(s, -1)
    p = torch.exp(s - lse[..., None])
    return torch.einsum("bhst,bthd->bshd", p, _served(v, q).float()).to(q.dtype), lse


def backward_prepare(do: Tensor, o: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """do, o [B,S,H,Dv] -> delta FP32 [B,H,S], the rows' sums of dO * O, and FP32 zeros [B,S,H,width] to sum dQ in.

    What FlashAttention's backward pass starts with; numerics.kernels.attention sums dQ in registers and needs no zeros.
    """
    return (do.float() * o.float()).sum(-1).transpose(1, 2), o.new_zeros(*o.shape[:3], width, dtype=torch.float32)


def attention_backward(
    do: Tensor, q: Tensor, k: Tensor, v: Tensor, o: Tensor, lse: Tensor, scale: float, causal: bool = True
) -> tuple[Tensor, Tensor, Tensor]:
    """dq, dk, dv in the dtypes of q, k, v; o and lse as `attention` gave them, do like o."""
    check(q, k, v, causal)
    p = torch.exp(_scores(q, k, scale, causal) - lse[..., None])
    dv = torch.einsum("bhst,bshd->bthd", p, do.float())
    dp = torch.einsum("bshd,bthd->bhst", do.float(), _served(v, q).float())
    delta = (do.float() * o.float()).sum(-1).transpose(1, 2)
    ds = p * (dp - delta[..., None]) * scale
    dq = torch.einsum("bhst,bthd->bshd", ds, _served(k, q).float())
    dk = torch.einsum("bhst,bshd->bthd", ds, q.float())
    dk, dv = (x.unflatten(2, (k.shape[2], -1)).sum(3) for x in (dk, dv))
    return dq.to(q.dtype), dk.to(k.dtype), dv.to(v.dtype)


def check(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> None:
    """ValueError where the operands do not fit; shared with the kernel."""
    fits = q.ndim == k.ndim == v.ndim == 4 and q.shape[0] == k.shape[0] == v.shape[0] and q.shape[3] == k.shape[3]
    if not fits or k.shape[1:3] != v.shape[1:3] or (q.shape[2] % k.shape[2] if k.shape[2] else q.shape[2]):
        shapes = f"{list(q.shape)}, {list(k.shape)}, {list(v.shape)}"
        raise ValueError(f"q is [B,S,H,Dqk], k [B,T,G,Dqk], v [B,T,G,Dv], G divides H; got {shapes}")
    if causal and k.shape[1] < q.shape[1]:
        raise ValueError(f"causal attention needs as many keys as queries; got {k.shape[1]} for {q.shape[1]}")


def _served(x: Tensor, q: Tensor) -> Tensor:
    """x [B,T,G,D] for every head of queries: [B,T,H,D]."""
    return x.repeat_interleave(q.shape[2] // x.shape[2], 2) if x.shape[2] != q.shape[2] else x


def _scores(q: Tensor, k: Tensor, scale: float, causal: bool) -> Tensor:
    """FP32 [B,H,S,T]; -inf where a query may not look."""
    s = torch.einsum("bshd,bthd->bhst", q.float(), _served(k, q).float()) * scale
    if not causal:
        return s
    seen = torch.ones(s.shape[-2:], dtype=torch.bool, device=s.device).tril(s.shape[-1] - s.shape[-2])
    return s.masked_fill(~seen, float("-inf"))
