"""Values as a format of 8 bits and a scale would give them back: what a recipe of FP8 does to an operand."""

import torch
from torch import Tensor

FORMATS = {"e4m3": torch.float8_e4m3fn, "e5m2": torch.float8_e5m2}
SMALLEST = 2.0**-126
"""Of a scale, as in numerics.reference.casts."""
TILES = ((1, 128), (128, 1), (128, 128), (0, 0))
"""Elements that share a scale, rows by columns; 0 by 0: all of them."""


def rounded(x: Tensor, rows: int, columns: int, fmt: str = "e4m3") -> Tensor:
    """x [M, K] in x's type: codes of `fmt` times the scale of their tile (largest magnitude over the format's), FP32,
    rounded to x's type at the end. Finite values. Raises ValueError for tiles that are none of TILES."""
    if (rows, columns) not in TILES or fmt not in FORMATS:
        raise ValueError(f"tiles are {TILES}, formats {tuple(FORMATS)}; got {(rows, columns)}, {fmt!r}")
    m, k = x.shape
    rows, columns = rows or max(m, 1), columns or max(k, 1)
    wide = torch.nn.functional.pad(x.float(), (0, -k % columns, 0, -m % rows))
    tiles = wide.view(wide.shape[0] // rows, rows, wide.shape[1] // columns, columns)
    top = torch.finfo(FORMATS[fmt]).max
    scale = (tiles.abs().amax((1, 3), keepdim=True) / top).clamp(min=SMALLEST)
    values = (tiles / scale).clamp(-top, top).to(FORMATS[fmt]).float() * scale
    return values.view(wide.shape)[:m, :k].to(x.dtype)
