"""What further runs of a card leave for a library's table (`calibrate --torch --only ...`).

Attention and groups of products of more sizes are rows like any other; those of other kernels than torch takes by
itself (flash-attention by name, windows) and of skewed groups are left out. Updates of parameters without a history
(gradients and moments that are zero, as an embedding's rows until a token names them) are a kind of their own: the
fused optimizer's division and root take longer for zeros than for numbers, so a launch is bound by the clock there and
takes twice as long, 193 us on a rested H200 in BF16, 222 us right after products, against 108 and 113 (torch 2.11).
Kernels of mamba_ssm's scan are kinds of their own, and so are those that Inductor makes of torchao's float8.
"""

import json
import math
from collections.abc import Iterator
from pathlib import Path

from hwmodels.op import BY_BLOCK, Memory
from numerics.tables.calibrate import Row, rounded

UPDATES, WIDER, BLOCKS = "optimizers.json", ("heads.json", "experts.json"), "blocks.json"
PROFILES = {"mamba.json": 5, "float8.json": 2}
"""Files of updates, of attention and groups of products, of products in FP8 with scales by block, and of kernels under
a profiler, in so many calls: of scans, and of torchao's casts."""
OTHERS = ("FLASH_ATTENTION", "_flash_attention", "skewed")
"""Parts of the names of calls that torch does not make by itself, or whose groups are not even."""
LAUNCH = 320 * 65536
"""Parameters of a launch of the fused optimizer at most: 320 chunks of 65,536 (aten MultiTensorApply.cuh)."""
UNSEEN = "one tensor, fused, {:.0f} bytes, 1.0 unseen"
"""What `torch_optimizers` calls an update all of whose gradients and moments are zero."""


def files(folder: Path) -> list[Path]:
    """Those that are there."""
    return [folder / name for name in (UPDATES, *WIDER, BLOCKS, *PROFILES) if (folder / name).is_file()]


def wider(folder: Path) -> list[Row]:
    """Calls as `torch_times` leaves them."""
    documents = [json.loads(path.read_text(encoding="utf-8")) for path in files(folder) if path.name in WIDER]
    rows = [row for document in documents for row in document["rows"] if "us" in row]
    return [row for row in rows if not any(word in row["name"] for word in OTHERS)]


def blocks(folder: Path) -> list[Row]:
    """Products with scales by block, as `torch_times` leaves them, their roles in the words of operations."""
    if not (folder / BLOCKS).is_file():
        return []
    rows = json.loads((folder / BLOCKS).read_text(encoding="utf-8"))["rows"]
    return [{**row, "role": row["role"] + BY_BLOCK} for row in rows if "us" in row]


def whole(folder: Path) -> list[Row]:
    """Rows that need nothing more: updates without a history, and what was profiled."""
    return [*zeros(folder), *profiled(folder)]


def profiled(folder: Path) -> Iterator[Row]:
    """Kernels timed by a profiler; none where nobody timed them."""
    for name, calls in PROFILES.items():
        file = folder / name
        yield from _profile(file, calls) if file.is_file() else ()


def _profile(file: Path, calls: int) -> Iterator[Row]:
    for row in json.loads(file.read_text(encoding="utf-8"))["rows"]:
        op = Memory(row["kind"], row["rows"], row["read"], row["write"])
        yield {"op": "memory", **op._asdict(), "us": row["us"], "names": [row["kernel"]], "samples": calls}


def zeros(folder: Path) -> Iterator[Row]:
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
