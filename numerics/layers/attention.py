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
from numerics.layers.kept import Packed, Plain, load, save, unpacked
from numerics.layers.latent import Site, Weights, expand
from numerics.layers.linear import Linear, linears
from numerics.layers.norm import Given, RMSNorm
from numerics.layers.products import both, dgrad, fprop, operand, weight, wgrad
from numerics.layers.rotation import Rotation


class _Core(Function):
    """From the latents to the layer's output."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, latent: Tensor, rotation: Rotation, site: Site, *weights: Tensor) -> Tensor:
        w, p = Weights(*weights), site.precision
        ctx.ups = ups = Weights(w.q_norm, w.kv_norm, *(weight(one, p) for one in weights[2:]))
        e = expand(query, latent, ups, rotation, site)
        o, lse = ops.attention(e.q, e.k, e.v, site.scale)
        flat = o.reshape(query.shape[0], -1)
        out = Packed(*ops.store_e5m6(flat), flat.shape[1], flat.dtype) if p.quantized else Plain(flat)
        expanded = None if site.recompute else e
        save(ctx, query=query, latent=latent, rotation=rotation, site=site, out=out, lse=lse, expanded=expanded)
        return fprop(operand(flat, p), ups.out, p)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        k, dy = load(ctx), dy.contiguous()
        site, w, query, latent, rotation = k["site"], ctx.ups, k["query"], k["latent"], k["rotation"]
        p = site.precision
        e = k["expanded"] or expand(query, latent, w, rotation, site)
        rows, columns = both(dy, p)
        do = dgrad(rows, w.out, p).view_as(e.v)
        out = k["out"].value()
        dw_out = wgrad(columns, k["out"] if isinstance(k["out"], Plain) else unpacked(out), p)
        o = out.view_as(e.v)
        dq, dk, dv = ops.attention_backward(do, e.q, e.k, e.v, o, k["lse"], site.scale)
        dq, dkv, shared = ops.split_heads_backward(dq, dk, dv, *rotation)
        dq, dkv = dq.flatten(2).flatten(0, 1), dkv.flatten(2).flatten(0, 1)
        dq_rows, dq_columns = both(dq, p)
        dkv_rows, dkv_columns = both(dkv, p)
        dq_normed, dkv_normed = dgrad(dq_rows, w.q_up, p), dgrad(dkv_rows, w.kv_up, p)
        dquery, dq_norm = ops.rmsnorm_backward(dq_normed, query, w.q_norm, e.q_rstd)
        rank = w.kv_norm.shape[0]
        dlatent, dkv_norm = ops.rmsnorm_backward(dkv_normed, latent[:, :rank], w.kv_norm, e.kv_rstd)
        dlatent = torch.cat([dlatent, shared.flatten(0, 1)], -1)
        dw = wgrad(dq_columns, e.q_in, p), wgrad(dkv_columns, e.kv_in, p), dw_out
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
        self, residual: Tensor, norm: RMSNorm, rotation: Rotation, batch: int, cache: LatentCache | None = None,
        given: Given | None = None,
    ) -> Tensor:  # fmt: skip
        """residual [batch * length, hidden] and the norm before attention -> attention's output, same shape.

        given: the norm's output, where it is there already.
        """
        p = self.config.precision
        x, again, (cast,) = given or norm.passed(residual, p)[1]
        downs = [layer.weight for layer in (self.q_down, self.kv_down) if layer]
        *queries, latent = linears(x, tuple(downs), p, again if self.config.recompute else None, cast)
        query = queries[0] if queries else residual
        weights = Weights(
            (self.q_norm or norm).weight, self.kv_norm.weight, self.q_up.weight, self.kv_up.weight, self.out.weight
        )
        if cache is not None:
            return attend(query, latent, weights, rotation, self._site(batch), cache)
        return _Core.apply(query, latent, rotation, self._site(batch), *weights)

    def _site(self, batch: int) -> Site:
        c, s = self.config, self.config.shape
        return Site(batch, s.heads, s.qk_nope, s.qk_rope, s.v_head, c.attention_scale, c.eps, c.precision, c.recompute)
