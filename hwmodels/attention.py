"""Attention by kernels that a library's tables do not hold: how many times as long as cuDNN's they take.

A stack's attention is a choice of its own (torch's flash backend, flash-attn, cuDNN through TransformerEngine), and of
its year. `tables/attention.json` has, by kernel, direction, width of a head and length of a sequence, what each takes
over cuDNN's on Hopper; `python -m numerics calibrate --attention DIR` writes it. Between its rows a ratio goes by the
logarithm of the length, at the nearest width.

On other cards: an Ampere card's attention was published for FlashAttention-2's own instructions (mma.sync), and the
tables of such cards (hwmodels.kernels) are from those, so there flash2 is what tables say and the others keep their
distance to it.
"""

import json
import math
from collections.abc import Mapping
from functools import cache
from itertools import pairwise
from typing import NamedTuple

from hwmodels.device import Device
from hwmodels.op import Attention
from hwmodels.tables import FOLDER

FILE = FOLDER / "attention.json"
CUDNN, FLASH2 = "cudnn", "flash2"
KERNELS = (CUDNN, FLASH2, "flash3", "triton")
"""Kernels whose ratios are known. flash2, flash3: Dao-AILab/flash-attention 2 and 3 (arXiv:2307.08691, 2407.08608).
triton: the first FlashAttention as a Triton kernel (flash_attn_triton.py there, of 2022)."""
NATIVE = {"ampere": FLASH2}
"""Architecture -> the kernel that its published attention is of, where that is another than cuDNN's."""


class Off(NamedTuple):
    """How many times as long as the tables say, and the relative spread of that."""

    ratio: float
    spread: float


SAME = Off(1.0, 0.0)


def off(device: Device, kernel: str, op: Attention) -> Off:
    """Of a kernel on a device, over what tables of cuDNN's say of an operation there."""
    native = NATIVE.get(device.architecture, CUDNN)
    if kernel in (native, CUDNN):
        return SAME
    own, theirs = _ratio(kernel, op), _ratio(native, op)
    return Off(own.ratio / theirs.ratio, own.spread if native == CUDNN else math.hypot(own.spread, theirs.spread))


def _ratio(kernel: str, op: Attention) -> Off:
    """Over cuDNN's on Hopper."""
    if kernel == CUDNN:
        return SAME
    widths = _rows()[kernel, op.direction]
    width = min(widths, key=lambda known: abs(math.log(known / math.sqrt(op.qk * op.v))))
    return _between(widths[width], math.log2(math.sqrt(op.sequence * (op.keys or op.sequence))))


def _between(rows: tuple[tuple[float, Off], ...], at: float) -> Off:
    """A ratio at a length, in octaves; beyond the first and the last row theirs."""
    for (low, one), (high, other) in pairwise(rows):
        if at < high:
            part = min(1.0, max(0.0, (at - low) / (high - low)))
            return Off(one.ratio + part * (other.ratio - one.ratio), max(one.spread, other.spread))
    return rows[-1][1]


@cache
def _rows() -> Mapping[tuple[str, str], Mapping[int, tuple[tuple[float, Off], ...]]]:
    """(kernel, direction) -> width -> (octaves of a length, ratio), by length."""
    out: dict[tuple[str, str], dict[int, tuple[tuple[float, Off], ...]]] = {}
    for row in json.loads(FILE.read_text(encoding="utf-8"))["rows"]:
        widths = out.setdefault((row["kernel"], row["direction"]), {})
        at = math.log2(row["sequence"]), Off(row["ratio"], row["spread"])
        widths[row["width"]] = (*widths.get(row["width"], ()), at)
    return out
