"""Reinforcement learning for tests: a small model on one node, that answers in turn with training or beside it."""

from collections.abc import Mapping
from typing import Any

from hwmodels.document import Document
from sim.campaign.rl.files import resolved
from sim.campaign.rl.values import Learning
from sim.scenario.overrides import merged

PLAN: Mapping[str, Any] = {
    "cluster": {"node": "h800x8", "nodes": 1, "fabric": "ndr"},
    "model": "deepseek_v2_lite",
    "precision": "bf16",
    "stack": "megatron",
    "schedule": "1f1b",
    "parallel": {"pipeline": 2, "expert": 4, "tensor": 1, "zero": 1},
    "batch": {"sequence_length": 512},
    "rl": {
        "groups": 4, "samples": 8, "prompt": 50, "response": {"kind": "lognormal", "median": 200, "sigma": 0.5},
        "most": 460, "steps": 2, "rollout": {"tensor": 8},
    },
}  # fmt: skip
"""32 answers of two hundred tokens."""


def learning(**changes: Any) -> Learning:
    """The plan with keys below `rl` changed; `__` stands for a dot."""
    words = {f"rl.{key.replace('__', '.')}": value for key, value in changes.items()}
    return resolved(merged(Document(PLAN), Document(words)), (), None)
