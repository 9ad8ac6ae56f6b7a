"""Latent attention for inference: the up-projections of keys and values absorbed into the query and the output.

arXiv 2405.04434 sec 2.1.2: since q k = q (W_uk c) = (W_uk^T q) c, all heads attend over the cached latent itself,
kv_rank + rope elements a token, and W_uv acts once on what they return. Exact in real arithmetic; in rounding it
differs from the training form, most of all in FP8, as W_uk and W_uv stay BF16 here. Plain torch: no kernel does this.
"""

import torch
from torch import Tensor

from numerics import ops
from numerics.layers.latent import Site, Weights
from numerics.layers.products import fprop, operand
from numerics.layers.rotation import Rotation, rotate


class LatentCache:
    """What one layer remembers: the normed latent [B, S, kv_rank] and the rotated key [B, S, rope]."""

    def __init__(self) -> None:
        self.latent: Tensor | None = None
        self.key: Tensor | None = None

    def __len__(self) -> int:
        return 0 if self.latent is None else self.latent.shape[1]

    def append(self, latent: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        """Add tokens; return all of them."""
        if self.latent is not None and self.key is not None:
            latent, key = torch.cat([self.latent, latent], 1), torch.cat([self.key, key], 1)
        self.latent, self.key = latent, key
        return latent, key


@torch.no_grad()
def attend(query: Tensor, latent: Tensor, w: Weights, rotation: Rotation, site: Site, cache: LatentCache) -> Tensor:
    """query [B * s, q_rank], latent [B * s, kv_rank + rope] of s new tokens -> [B * s, hidden]; they join the cache."""
    p, rank = site.precision, w.kv_norm.shape[0]
    q = fprop(operand(ops.rmsnorm(query, w.q_norm, site.eps)[0], p), w.q_up, p)
    q = q.view(site.batch, -1, site.heads, site.nope + site.rope)
    normed = ops.rmsnorm(latent[:, :rank].contiguous(), w.kv_norm, site.eps)[0]
    key = rotate(latent[:, rank:].reshape(site.batch, -1, 1, site.rope), rotation)[:, :, 0]
    c, key = cache.append(normed.view(site.batch, -1, rank), key)
    assert isinstance(w.kv_up, Tensor)
    up = w.kv_up.to(c.dtype).view(site.heads, site.nope + site.value, rank)
    absorbed = torch.einsum("bshn,hnr->bshr", q[..., : site.nope], up[:, : site.nope])
    scores = torch.einsum("bshr,btr->bhst", absorbed.float(), c.float())
    scores += torch.einsum("bshd,btd->bhst", rotate(q[..., site.nope :].contiguous(), rotation).float(), key.float())
    probabilities = torch.softmax(_causal(scores * site.scale), -1)
    read = torch.einsum("bhst,btr->bshr", probabilities, c.float()).to(c.dtype)
    o = torch.einsum("bshr,hvr->bshv", read, up[:, site.nope :])
    return fprop(operand(o.reshape(query.shape[0], -1), p), w.out, p)


def _causal(scores: Tensor) -> Tensor:
    """[B, H, s, t]: the last s of t tokens ask, and see no token after themselves."""
    s, t = scores.shape[-2:]
    seen = torch.ones(s, t, dtype=torch.bool, device=scores.device).tril(t - s)
    return scores.masked_fill(~seen, float("-inf"))
