"""Multi-head latent attention in training form, and the module that also runs it absorbed (arXiv 2412.19437 sec 2.1.1).

Between forward and backward wait: the compressed queries and key-values (eq. 1, 3, 6), the attention output (in FP8
training as E5M6, sec 3.3.3) and the log-sum-exp of its rows. Queries, keys and values come back from the latents:
norms, up-projections and rotation run again (sec 3.2.3). A shape without q_rank (V2-Lite) projects queries from the
layer's normed input; here that input and that norm stand in for the query's latent and its norm.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from numerics import ops
from numerics.layers.absorbed import LatentCache, attend
from numerics.layers.config import Config
from numerics.layers.kept import Packed, Plain, load, save
from numerics.layers.latent import Site, Weights, beside, expand
from numerics.layers.linear import Linear
from numerics.layers.norm import RMSNorm
from numerics.layers.products import dgrad, fprop, operand, wgrad
from numerics.layers.rotation import Rotation, rotate_back


class _Core(Function):
    """From the latents to the layer's output."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, latent: Tensor, rotation: Rotation, site: Site, *weights: Tensor) -> Tensor:
        w, p = Weights(*weights), site.precision
        e = expand(query, latent, w, rotation, site)
        o, lse = ops.attention(e.q, e.k, e.v, site.scale)
        flat = o.reshape(query.shape[0], -1)
        out = Packed(*ops.store_e5m6(flat), flat.shape[1], flat.dtype) if p.quantized else Plain(flat)
        expanded = None if site.recompute else e
        save(ctx, query=query, latent=latent, rotation=rotation, site=site, w=w, out=out, lse=lse, expanded=expanded)
        return fprop(operand(flat, p), w.out, p)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        k, dy = load(ctx), dy.contiguous()
        site, w, query, latent, rotation = k["site"], k["w"], k["query"], k["latent"], k["rotation"]
        p = site.precision
        e = k["expanded"] or expand(query, latent, w, rotation, site)
        do = dgrad(operand(dy, p), w.out, p).view_as(e.v)
        dw_out = wgrad(Plain(dy), k["out"], p)
        o = k["out"].value().view_as(e.v)
        dq, dk, dv = ops.attention_backward(do, e.q, e.k, e.v, o, k["lse"], site.scale)
        dq[..., site.nope :] = rotate_back(dq[..., site.nope :].contiguous(), rotation)
        shared = dk[..., site.nope :].float().sum(2, keepdim=True).to(dk.dtype)  # one rotary key serves all heads
        dq, dkv = dq.flatten(2).flatten(0, 1), beside(dk[..., : site.nope], dv).flatten(2).flatten(0, 1)
        dq_normed, dkv_normed = dgrad(operand(dq, p), w.q_up, p), dgrad(operand(dkv, p), w.kv_up, p)
        dquery, dq_norm = ops.rmsnorm_backward(dq_normed, query, w.q_norm, e.q_rstd)
        rank = w.kv_norm.shape[0]
        dlatent, dkv_norm = ops.rmsnorm_backward(dkv_normed, latent[:, :rank].contiguous(), w.kv_norm, e.kv_rstd)
        dlatent = torch.cat([dlatent, rotate_back(shared, rotation).view(-1, site.rope)], -1)
        dw = wgrad(Plain(dq), e.q_in, p), wgrad(Plain(dkv), e.kv_in, p), dw_out
        return dquery, dlatent, None, None, dq_norm, dkv_norm, *dw


class LatentAttention(nn.Module):
    """x [T, hidden], the layer's normed input -> [T, hidden]. With a cache: absorbed form, for inference."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        s, p, std = config.shape, config.precision, config.init_std
        self.config = config
        self.q_down = Linear(s.hidden, s.q_rank, p, std) if s.q_rank else None
        self.q_norm = RMSNorm(s.q_rank, config.eps) if s.q_rank else None
        self.q_up = Linear(s.q_rank or s.hidden, s.heads * (s.qk_nope + s.qk_rope), p, std)
        self.kv_down = Linear(s.hidden, s.kv_rank + s.qk_rope, p, std)
        self.kv_norm = RMSNorm(s.kv_rank, config.eps)
        self.kv_up = Linear(s.kv_rank, s.heads * (s.qk_nope + s.v_head), p, std)
        self.out = Linear(s.heads * s.v_head, s.hidden, p, std)

    def forward(
        self, residual: Tensor, norm: RMSNorm, rotation: Rotation, batch: int, cache: LatentCache | None = None
    ) -> Tensor:
        """residual [batch * length, hidden] and the norm before attention -> attention's output, same shape."""
        x, again = norm.normed(residual)
        keep = again if self.config.recompute else None
        query = self.q_down(x, keep) if self.q_down else residual
        latent = self.kv_down(x, keep)
        weights = Weights(
            (self.q_norm or norm).weight, self.kv_norm.weight, self.q_up.weight, self.kv_up.weight, self.out.weight
        )
        if cache is not None:
            return attend(query, latent, weights, rotation, self._site(batch), cache)
        return _Core.apply(query, latent, rotation, self._site(batch), *weights)

    def _site(self, batch: int) -> Site:
        c, s = self.config, self.config.shape
        return Site(batch, s.heads, s.qk_nope, s.qk_rope, s.v_head, c.attention_scale, c.eps, c.precision, c.recompute)
