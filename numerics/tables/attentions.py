"""The table of attention by kernel (hwmodels/tables/attention.json): how many times as long as cuDNN's each takes.

FlashAttention-2 was timed on an H200 beside cuDNN's, call by call (`numerics.card.attentions`); others by what was
published of them beside FlashAttention-2. Ratios are medians over numbers of heads, of calls long enough that what
stands around the kernel does not count.
"""

import json
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import median
from typing import Any

from hwmodels.refused import Refused
from numerics.tables import attention_formats, provenance
from numerics.tables.calibrate import Row, Table, rounded

TIMED = "attentions.json"
LONG_US = {"forward": 250.0, "backward": 1000.0}
"""Calls of cuDNN's from here on."""
LENGTHS = (512, 1024, 2048, 4096, 8192, 16384)
FLASH_3 = {
    ("forward", 64): ((180, 229, 262, 284, 295, 299), (197, 265, 371, 420, 460, 473)),
    ("forward", 128): ((191, 260, 298, 319, 333, 335), (292, 423, 521, 579, 602, 616)),
    ("backward", 64): ((198, 238, 264, 279, 287, 291), (272, 363, 422, 453, 472, 474)),
    ("backward", 128): ((214, 260, 291, 310, 318, 322), (316, 424, 501, 542, 559, 561)),
}
"""Direction and width -> TFLOP/s of FlashAttention-2 and -3 on an H100 at these lengths (arXiv:2407.08608, figures 5
and 6; forward causal, backward of all pairs, which alone was published; read from a transcription of the figures)."""
TRITON, TRITON_SPREAD = math.sqrt(1.3 * 2.5), 0.2
"""Times that FlashAttention-2 is faster than the first FlashAttention in Triton: "1.3-2.5x" over widths, lengths and
directions (arXiv:2307.08691 sec 4.1, A100); its middle, and a third of the way to either end."""
CLOCK = 0.05
"""Spread of a ratio of bursts in a training step: FlashAttention-2 draws less power than cuDNN's, so under load both
are slowed, but not alike (H200: clocks of 1,935 and 1,725 MHz, times of 0.97 and 1.00 of a burst's)."""
PAPER = 0.05
"""Spread of a ratio read off a figure."""
SOURCE = (
    "NVIDIA H200, torch 2.11.0+cu130: flash backend (FlashAttention-2) beside cuDNN's; FlashAttention-3 and Triton "
    "over it as arXiv:2407.08608 (figures 5, 6) and arXiv:2307.08691 (sec 4.1) have them"
)
ENTRIES = ("numerics.tables.attentions:compared", "numerics.card.attentions:main")


def compared(folder: Path) -> dict[str, Table]:
    """The table from what a card run left in a folder. Raises Refused."""
    file = folder / TIMED
    if not file.is_file():
        raise Refused(f"has no {TIMED}; `python -m numerics.card.attentions` writes it", str(folder))
    timed = json.loads(file.read_text(encoding="utf-8"))
    measured = list(flash_2(timed["rows"]))
    origin = {
        "command": "python -m numerics calibrate --attention DIR", "measured": timed["about"]["date"][:10],
        "inputs": {TIMED: provenance.digest_of(file)},
        "program": {"entries": list(ENTRIES), "files": provenance.program(ENTRIES)},
    }  # fmt: skip
    rows = [*measured, *flash_3(measured), *triton(measured)]
    formats = list(attention_formats.compared())
    source = f"{SOURCE}; formats: {attention_formats.SOURCE}"
    return {"attention": {"source": source, "provenance": origin, "rows": rows, "formats": formats}}


def flash_2(timed: list[Row]) -> Iterator[Row]:
    """By direction, width and length."""
    ratios: dict[tuple[str, int, int], list[float]] = defaultdict(list)
    for row in timed:
        for direction, least in LONG_US.items():
            us = row[direction]
            if us["cudnn"] >= least:
                ratios[direction, row["width"], row["sequence"]].append(us["flash2"] / us["cudnn"])
    for (direction, width, length), each in sorted(ratios.items()):
        spread = math.hypot(CLOCK, (math.log(max(each) / min(each)) / 2) if len(each) > 1 else 0.0)
        yield _row("flash2", direction, width, length, median(each), spread)


def flash_3(measured: list[Row]) -> Iterator[Row]:
    """As far from FlashAttention-2 as published, at the lengths of both."""
    known = {(row["direction"], row["width"], row["sequence"]): row for row in measured}
    for (direction, width), (second, third) in FLASH_3.items():
        for length, one, other in zip(LENGTHS, second, third, strict=True):
            if row := known.get((direction, width, length)):
                spread = math.hypot(row["spread"], PAPER)
                yield _row("flash3", direction, width, length, row["ratio"] * one / other, spread)


def triton(measured: list[Row]) -> Iterator[Row]:
    for row in measured:
        spread = math.hypot(row["spread"], TRITON_SPREAD)
        yield _row("triton", row["direction"], row["width"], row["sequence"], row["ratio"] * TRITON, spread)


def _row(kernel: str, direction: str, width: int, length: int, ratio: float, spread: float) -> Mapping[str, Any]:
    return {
        "kernel": kernel, "direction": direction, "width": width, "sequence": length, "ratio": rounded(ratio),
        "spread": rounded(spread),
    }  # fmt: skip
