"""Operands and answers shared by the tests of the tensor-core kernels."""

import torch
from torch import Tensor

from numerics.reference import casts


def rows(m: int, k: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Gaussian [m, k], its 1x128 codes and scales; rows of different size, so that a scale of the wrong row is seen."""
    x = torch.randn(m, k, generator=torch.Generator().manual_seed(seed)) * (1 + torch.arange(m) % 7)[:, None]
    return x, *casts.quantize_rows(x)


def blocks(n: int, k: int, seed: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """The same in 128x128 blocks, each of its own size."""
    size = 1 + (torch.arange(n)[:, None] // 128 + 2 * (torch.arange(k)[None, :] // 128)) % 5
    w = torch.randn(n, k, generator=torch.Generator().manual_seed(seed)) * size
    return w, *casts.quantize_blocks(w)


def stacked(groups: int, n: int, k: int) -> tuple[Tensor, Tensor]:
    """Codes [groups, n, k] and scales of as many different weights."""
    each = [blocks(n, k, seed=10 + g)[1:] for g in range(groups)]
    codes = torch.stack([q.view(torch.uint8) for q, _ in each]).view(torch.float8_e4m3fn)
    return codes, torch.stack([s for _, s in each])


def exact(*shape: int, seed: int = 0, spans: int | None = None) -> tuple[Tensor, Tensor]:
    """Whole numbers with power-of-two scales: every sum is exact in FP32 in any order, so answers are equal bitwise."""
    generator = torch.Generator().manual_seed(seed)
    q = torch.randint(-4, 5, shape, generator=generator).float().to(torch.float8_e4m3fn)
    columns = -(-shape[-1] // 128) if spans is None else spans
    s = 2.0 ** torch.randint(-2, 3, (*shape[:-1], columns), generator=generator)
    return q, s


def product(a: Tensor, a_s: Tensor, b: Tensor, b_s: Tensor, block_rows: int = 128) -> Tensor:
    """FP64 product of the dequantised operands, written without any code of numerics.reference.gemm."""
    left = a.double() * a_s.double().repeat_interleave(128, 1)[:, : a.shape[1]]
    right = b_s.double().repeat_interleave(128, 1)[:, : b.shape[1]].repeat_interleave(block_rows, 0)[: b.shape[0]]
    return left @ (b.double() * right).t()
