"""Attention by kernels that a library's tables do not hold: how many times as long as cuDNN's they take.

A stack's attention is a choice of its own (torch's flash backend, flash-attn, cuDNN through TransformerEngine), and of
its year. `tables/attention.json` has, by kernel, direction, width of a head and length of a sequence, what each takes
over cuDNN's on Hopper; `python -m numerics calibrate --attention DIR` writes it. Between its rows a ratio goes by the
logarithm of the length, at the nearest width.

On other cards: an Ampere card's attention was published for FlashAttention-2's own instructions (mma.sync), and the
tables of such cards (hwmodels.kernels) are from those, so there flash2 is what tables say and the others keep their
distance to it.

In FP8 (`Attention.precision`) it is cuDNN's, over cuDNN's in BF16 on the same card, by what was published of both on
an H200, a GB200 and a GB300; other cards of a generation go by one of these.
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
CUDNN, FLASH2, BF16 = "cudnn", "flash2", "bf16"
KERNELS = (CUDNN, FLASH2, "flash3", "triton")
"""Kernels whose ratios are known. flash2, flash3: Dao-AILab/flash-attention 2 and 3 (arXiv:2307.08691, 2407.08608).
triton: the first FlashAttention as a Triton kernel (flash_attn_triton.py there, of 2022)."""
NATIVE = {"ampere": FLASH2}
"""Architecture -> the kernel that its published attention is of, where that is another than cuDNN's."""


TIMED_IN_FP8 = {"hopper": ("H200 SXM",), "blackwell": ("GB200", "GB300")}
"""Architecture -> cards on which attention in FP8 was published."""
SAME_CHIP = {"B300 SXM": "GB300"}
"""Card -> the one of those whose chip it has, where that is not its architecture's first."""
SAME_GENERATION = 0.10
"""Spread of a ratio on another card of the generation."""


class Off(NamedTuple):
    """How many times as long as the tables say, and the relative spread of that."""

    ratio: float
    spread: float


SAME = Off(1.0, 0.0)


def off(device: Device, kernel: str, op: Attention) -> Off:
    """Of a kernel on a device, over what tables of cuDNN's say of an operation there in BF16."""
    if op.precision != BF16:
        return _in_format(device, op)
    native = NATIVE.get(device.architecture, CUDNN)
    if kernel in (native, CUDNN):
        return SAME
    own, theirs = _ratio(kernel, op), _ratio(native, op)
    return Off(own.ratio / theirs.ratio, own.spread if native == CUDNN else math.hypot(own.spread, theirs.spread))


def _in_format(device: Device, op: Attention) -> Off:
    """Of cuDNN's in another format, on the card or one of its generation; over windows that of a window."""
    cards = TIMED_IN_FP8[device.architecture]
    card = device.name if device.name in cards else SAME_CHIP.get(device.name, cards[0])
    windowed = bool(op.window) and op.window < (op.keys or op.sequence)
    known = _formats()[card, op.precision, op.direction]
    widths = {width: rows for (width, window), rows in known.items() if window == windowed} or {
        width: rows for (width, window), rows in known.items() if not window
    }
    width = min(widths, key=lambda known: abs(math.log(known / math.sqrt(op.qk * op.v))))
    off = _between(widths[width], math.log2(math.sqrt(op.sequence * (op.keys or op.sequence))))
    return off if card == device.name else off._replace(spread=math.hypot(off.spread, SAME_GENERATION))


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


@cache
def _formats() -> Mapping[tuple[str, str, str], Mapping[tuple[int, bool], tuple[tuple[float, Off], ...]]]:
    """(card, precision, direction) -> (width, of a window) -> (octaves of a length, ratio), by length."""
    out: dict[tuple[str, str, str], dict[tuple[int, bool], tuple[tuple[float, Off], ...]]] = {}
    for row in json.loads(FILE.read_text(encoding="utf-8"))["formats"]:
        kinds = out.setdefault((row["card"], row["precision"], row["direction"]), {})
        at = math.log2(row["sequence"]), Off(row["ratio"], row["spread"])
        key = row["width"], row["window"] > 0
        kinds[key] = (*kinds.get(key, ()), at)
    return out
