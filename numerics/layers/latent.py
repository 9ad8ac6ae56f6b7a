"""What latent attention is given, and how the latents become queries, keys and values (arXiv 2412.19437 sec 2.1.1)."""

from typing import NamedTuple

from torch import Tensor

from numerics import ops
from numerics.layers.kept import Codes, Plain
from numerics.layers.products import Recipe, Weight, fprop, operand
from numerics.layers.rotation import Rotation


class Site(NamedTuple):
    """What attention needs beside tensors: sequences, heads and their widths, the softmax scale, and how to compute."""

    batch: int
    heads: int
    nope: int
    rope: int
    value: int
    scale: float
    eps: float
    precision: Recipe
    recompute: bool


class Weights(NamedTuple):
    """FP32, or as `weight` makes them: norms of the latents; up-projections [H * (nope + rope), q_rank] and
    [H * (nope + value), kv_rank]; output."""

    q_norm: Tensor
    kv_norm: Tensor
    q_up: Tensor | Weight
    kv_up: Tensor | Weight
    out: Tensor | Weight


class Expanded(NamedTuple):
    """q, k [B, S, H, nope + rope], v [B, S, H, value], and the inputs of the up-projections with their norms' 1/rms."""

    q: Tensor
    k: Tensor
    v: Tensor
    q_in: Plain | Codes
    kv_in: Plain | Codes
    q_rstd: Tensor
    kv_rstd: Tensor


def expand(query: Tensor, latent: Tensor, w: Weights, rotation: Rotation, site: Site) -> Expanded:
    """query [T, q_rank], latent [T, kv_rank + rope] -> what attention reads (eq. 2, 4, 5, 7, 8)."""
    p, rank = site.precision, w.kv_norm.shape[0]
    q_in, q_rstd = normed(query, w.q_norm, site.eps, p)
    kv_in, kv_rstd = normed(latent[:, :rank], w.kv_norm, site.eps, p)
    q = fprop(q_in, w.q_up, p).view(site.batch, -1, site.heads, site.nope + site.rope)
    kv = fprop(kv_in, w.kv_up, p).view(site.batch, -1, site.heads, site.nope + site.value)
    shared = latent[:, rank:].unflatten(0, (site.batch, -1))
    return Expanded(*ops.split_heads(q, kv, shared, *rotation), q_in, kv_in, q_rstd, kv_rstd)


def normed(x: Tensor, w: Tensor, eps: float, precision: Recipe) -> tuple[Plain | Codes, Tensor]:
    """RMSNorm of x [M, H] as a product reads it, and its 1/rms."""
    if not precision.quantized:
        y, rstd = ops.rmsnorm(x, w, eps)
        return operand(y, precision), rstd
    (cast,), _, rstd = ops.rmsnorm_quantize(x, w, eps)
    return Codes(*cast, precision.dtype), rstd
