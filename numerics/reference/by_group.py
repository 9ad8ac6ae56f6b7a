"""Products of rows that lie group by group (experts, or spans of tokens), in plain torch: what a training step adds to
numerics/reference/gemm.py. Groups are known to the device alone: their first rows are a tensor.

Rows are padded to whole tiles of 128 (numerics.reference.permute), and padding rows are zeros.
"""

from itertools import groupby, pairwise

import torch
from torch import Tensor

from hwmodels.formats import TILE


def grouped_product(x: Tensor, w: Tensor, group_of_row_block: Tensor, turned: bool = False) -> Tensor:
    """x [R, K] times the weight of each row's group, w [G, N, K] -> [R, N] in x's type, summed in FP32.

    turned: x [R, N] times w without transposing it -> [R, K]. group_of_row_block int32 [R / 128]; -1: zeros.
    """
    out = x.new_zeros(x.shape[0], w.shape[2 if turned else 1])
    first = 0
    for group, blocks in groupby(group_of_row_block.tolist()):
        rows = slice(first, first := first + TILE * len(list(blocks)))
        if group >= 0:
            out[rows] = x[rows] @ (w[group] if turned else w[group].t())
    return out


def grouped_outer(a: Tensor, b: Tensor, offsets: Tensor) -> Tensor:
    """a [R, N], b [R, K] -> FP32 [G, N, K]: a^T b over rows offsets[g] .. offsets[g + 1] (int32 [G + 1])."""
    spans = [slice(lo, hi) for lo, hi in pairwise(offsets.tolist())]
    return torch.stack([a[rows].t().float() @ b[rows].float() for rows in spans])


def grouped_wgrad(
    a: Tensor, a_s: Tensor, b: Tensor, b_s: Tensor, offsets: Tensor, promote: int = TILE
) -> Tensor:  # fmt: skip
    """a [N, R], b [K, R], E4M3 with a scale each 128 of R (a_s [N, R / 128]) -> FP32 [G, N, K], by group.

    Offsets are multiples of 128, so that no tile has rows of two groups. Sums as in numerics.reference.gemm.wgrad_gemm;
    promote 0: not promoted before a group's end, with one scale a row (a_s [N, 1]).
    """
    out = torch.zeros(len(offsets) - 1, a.shape[0], b.shape[0], dtype=torch.float32, device=a.device)
    for group, (lo, hi) in enumerate(pairwise(offsets.tolist())):
        for first in range(lo, hi, promote or max(hi - lo, 1)):
            rows, block = slice(first, first + promote if promote else hi), first // TILE if promote else 0
            scale = a_s[:, block, None] * b_s[None, :, block]
            out[group] += (a[:, rows].float() @ b[:, rows].float().t()) * scale
    return out


def spread(rows: int, tiles: int, programs: int = 264) -> int:
    """Spans that a weight gradient over so many rows is cut into, so that `tiles` outputs of each fill a device twice.

    264: two programs on each of Hopper's 132 SMs. A span has eight blocks of 128 rows at least.
    """
    return max(1, min(programs // max(tiles, 1), rows // (8 * TILE)))
