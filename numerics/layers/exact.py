"""Products in FP32 of a BF16 matrix on a GPU's tensor cores: the FP32 side goes in as three BF16 pieces.

The gate's product is FP32 (numerics/layers/gate.py), its activations are BF16. A number of 24 bits is the sum of three
of 8, products of two such are exact in FP32, and the tensor core adds them in FP32: what differs from an FP32 product
is the order of additions, and in `dgrad` terms below 2^-24 of the largest. Without it, T x K activations were widened
to FP32 and multiplied on CUDA cores, three times a layer.
"""

import torch
from torch import Tensor


def suits(x: Tensor) -> bool:
    """Whether x [M, K] is BF16 on a GPU, with rows that its matrix products take."""
    return x.is_cuda and x.dtype == torch.bfloat16 and x.shape[1] % 8 == 0


def pieces(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """x FP32 as a sum of three BF16 tensors."""
    first = x.bfloat16()
    rest = x - first.float()
    second = rest.bfloat16()
    return first, second, (rest - second.float()).bfloat16()


def fprop(x: Tensor, w: Tensor) -> Tensor:
    """x BF16 [M, K] times w FP32 [N, K] -> FP32 [M, N]."""
    return _wide(x, torch.cat(pieces(w)).t()).unflatten(1, (3, -1)).sum(1)


def dgrad(dy: Tensor, w: Tensor) -> Tensor:
    """dy FP32 [M, N] times w FP32 [N, K] -> BF16 [M, K]."""
    (a, b, c), (u, v, w_last) = pieces(dy), pieces(w)
    return torch.cat([a, a, a, b, b, c], 1) @ torch.cat([u, v, w_last, u, v, u])


def wgrad(dy: Tensor, x: Tensor) -> Tensor:
    """dy FP32 [M, N], x BF16 [M, K] -> dw FP32 [N, K]."""
    return _wide(torch.cat(pieces(dy), 1).t(), x).unflatten(0, (3, -1)).sum(0)


def _wide(a: Tensor, b: Tensor) -> Tensor:
    """a b of BF16 in FP32."""
    if a.is_cuda:
        return torch.mm(a, b, out_dtype=torch.float32)
    return a.float() @ b.float()
