"""The arms of the FP8 study: what each changes in the study's settings, and in which order arms and seeds run."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from numerics.layers import emulated
from numerics.training.schedules import Switch
from numerics.training.settings import Settings

SEEDS = 4
"""Pairs of the main arms: same weights, data and order within a seed."""
ORDERS = 10
"""Seed of the first order of the data behind the turn: none that the start has seen its data in."""


@dataclass(frozen=True)
class Arm:
    """A name, what it changes, and what it is compared with. moved: weights begin one ulp of FP32 away."""

    name: str
    changes: Mapping[str, Any] = field(hash=False)
    against: str = "bf16"
    moved: bool = False
    note: str = ""

    def settings(self, of: Settings, seed: int) -> Settings:
        return replace(of, seed=seed, **self.changes)


BF16: dict[str, Any] = {"precision": "bf16", "recompute": False}
MAIN = (
    Arm("bf16", BF16, note="BF16 products, FP32 masters; nothing runs again in the backward pass (the same bits)"),
    Arm("null", BF16, moved=True, note="the same, every weight an ulp of FP32 away: what chaos alone makes of it"),
    Arm("fp8", {"precision": "fp8"}, note="as V3: 1x128 and 128x128 scales, promoted every 128, E5M6 for attention"),
)
"""Four seeds each."""
SIDE = (
    Arm("fp8 emulated", {"precision": emulated.V3.name, "recompute": False}, "fp8", note="what emulation itself moves"),
    Arm("no promotion", {"precision": emulated.UNPROMOTED.name, "recompute": False}, "fp8",
        note="a scale a row, sums left in the tensor core to the end; on Hopper's own FP8 instructions"),
    Arm("E5M2 gradients", {"precision": "E5M2 gradients", "recompute": False}, "fp8 emulated", note="emulated"),
    Arm("a scale a tensor", {"precision": "a scale a tensor", "recompute": False}, "fp8 emulated", note="emulated"),
    Arm("128x128 gradients", {"precision": "128x128 gradients", "recompute": False}, "fp8 emulated", note="emulated"),
    Arm("FP32 moments", {"precision": "fp8", "moments": "fp32"}, "fp8", note="of AdamW, where the others have BF16"),
    Arm("balance by a loss", {"precision": "fp8", "bias_speed": Switch(0.0, 0.0, 1.0), "balance": 1e-3}, "fp8",
        note="no bias; alpha 1e-3 (arXiv 2408.15664 sec 4.1) on the sequence-wise loss"),
)  # fmt: skip
"""One seed each."""
ARMS = {arm.name: arm for arm in (*MAIN, *SIDE)}


def plan(seeds: int = SEEDS) -> list[tuple[Arm, int]]:
    """All runs, the main arms seed by seed first."""
    return [(arm, seed) for seed in range(seeds) for arm in MAIN] + [(arm, 0) for arm in SIDE]


def behind_plan() -> list[tuple[Arm, int]]:
    """All runs behind the turn: the main arms order by order, then each side arm in the first order."""
    return [(arm, ORDERS + seed) for seed in range(SEEDS) for arm in MAIN] + [(arm, ORDERS) for arm in SIDE]
