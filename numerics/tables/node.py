"""What compute and collectives lose beside each other, from what a card run of several GPUs timed (`card.node`).

A factor is the geometric mean over what ran on the other side, of the largest vector that was timed there: a small one
spends its time waiting. A product keeps all SMs until it ends, so a collective that comes beside products waits for
about one of them before it begins (64 MiB, 0.2 ms alone: 1.3 ms beside products of 1.2 ms); that wait is in no factor.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from math import exp, log, sqrt
from pathlib import Path
from statistics import fmean
from typing import Any

from numerics.tables.calibrate import Row, rounded

NODE = "node.json"
"""File that a card run of several GPUs leaves."""
FAMILIES = {
    "fprop": "gemm_bf16", "dgrad": "gemm_bf16", "wgrad": "gemm_bf16", "attention_forward": "attention",
    "attention_backward": "attention", "elementwise": "memory", "copy": "memory", "norm_forward": "norm",
}  # fmt: skip
"""Kernel of `numerics.card.node` -> class of the contention table (hwmodels.beside.contention_family)."""
COLLECTIVES = "network"
"""Class of what is sent."""


def contention(folder: Path) -> list[Row]:
    """A row for each class, or none where no such run is in the folder."""
    if not (folder / NODE).is_file():
        return []
    return rows(json.loads((folder / NODE).read_text(encoding="utf-8"))["beside"])


def rows(beside: Iterable[Mapping[str, Any]]) -> list[Row]:
    """Rows of the table from pairs that ran at once."""
    pairs = list(beside)
    largest = max(pair["bytes"] for pair in pairs)
    ratios: dict[str, list[float]] = defaultdict(list)
    for pair in (pair for pair in pairs if pair["bytes"] == largest):
        ratios[FAMILIES[pair["kernel"]]].append(pair["kernel_beside_us"] / pair["kernel_us"])
        ratios[COLLECTIVES].append(pair["beside_us"] / pair["us"])
    return [_row(name, each) for name, each in sorted(ratios.items())]


def _row(name: str, ratios: list[float]) -> Row:
    """error: root mean square of the logarithm of one ratio over the mean."""
    mean = fmean(map(log, ratios))
    error = sqrt(fmean((log(ratio) - mean) ** 2 for ratio in ratios))
    return {"class": name, "factor": rounded(exp(mean)), "error": rounded(error), "kernels": len(ratios)}
