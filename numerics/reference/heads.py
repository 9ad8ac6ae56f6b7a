"""Latent attention's heads: keys and values out of one up-projection, and their gradients back into one.

Source: DeepSeek-V3 report (arXiv 2412.19437) sec 2.1.1, eq. 4 to 8: one rotary key is shared by all heads.
"""

import torch
from torch import Tensor

from numerics.reference.rope import rope, rope_backward


def split_heads(q: Tensor, kv: Tensor, shared: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """q [B, S, H, n + r], kv [B, S, H, n + v], shared [B, S, r] (before rotation), cos and sin FP32 [S, r / 2] -> q,
    its last r elements turned in place, k [B, S, H, n + r], v [B, S, H, v]."""
    r = shared.shape[-1]
    n = q.shape[-1] - r
    q[..., n:] = rope(q[..., n:].contiguous(), cos, sin)
    key = rope(shared[:, :, None].contiguous(), cos, sin).expand(-1, -1, kv.shape[2], -1)
    return q, torch.cat([kv[..., :n], key], -1), kv[..., n:].contiguous()


def split_heads_backward(
    dq: Tensor, dk: Tensor, dv: Tensor, cos: Tensor, sin: Tensor
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """dq, dk [B, S, H, n + r], dv [B, S, H, v] -> dq with its last r elements turned back in place, dkv [B, S, H,
    n + v], dshared [B, S, r]: summed over heads in FP32, rounded, turned back."""
    r = 2 * cos.shape[1]
    n = dq.shape[-1] - r
    dq[..., n:] = rope_backward(dq[..., n:].contiguous(), cos, sin)
    shared = dk[..., n:].float().sum(2, keepdim=True).to(dk.dtype)
    return dq, torch.cat([dk[..., :n], dv], -1), rope_backward(shared, cos, sin)[:, :, 0]
