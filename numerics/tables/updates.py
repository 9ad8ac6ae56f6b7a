"""Rows of a library's table for updates of parameters that have no history yet: gradients and moments that are zero.

The fused optimizer's division and root take longer for zeros than for numbers, so a launch is bound by the clock there
and takes twice as long: 193 us on a rested H200 in BF16, 222 us right after products, against 108 and 113 us (torch
2.11, `numerics.card.torch_optimizers`). Rows of an embedding are so until a token names them.
"""

import json
import math
from collections.abc import Iterator
from pathlib import Path

from hwmodels.op import Memory
from numerics.tables.calibrate import Row, rounded

UPDATES = "optimizers.json"
"""What a card run leaves of updates."""
LAUNCH = 320 * 65536
"""Parameters of a launch of the fused optimizer at most: 320 chunks of 65,536 (aten MultiTensorApply.cuh)."""
UNSEEN = "one tensor, fused, {:.0f} bytes, 1.0 unseen"
"""What `torch_optimizers` calls an update all of whose gradients and moments are zero."""


def of_folder(folder: Path) -> Iterator[Row]:
    """Full launches without a history, on a rested card and right after products; none where a run left none."""
    if not (folder / UPDATES).is_file():
        return
    for row in json.loads((folder / UPDATES).read_text(encoding="utf-8"))["rows"]:
        if row["name"].endswith(UNSEEN.format(row["read"] / 4)) and "us" in row:
            yield _row(row)


def _row(row: Row) -> Row:
    part, after = LAUNCH / row["rows"], row["after"]["us"]
    us = {"us": math.sqrt(row["us"] * after), "burst_us": row["us"], "loaded_us": after, "low_us": row["low_us"],
          "high_us": max(row["high_us"], after)}  # fmt: skip
    op = Memory("adam_unseen", LAUNCH, row["read"], row["write"])
    return {"op": "memory", **op._asdict(), **{key: rounded(value * part) for key, value in us.items()},
            "names": [row["name"]], "samples": row["samples"]}  # fmt: skip
