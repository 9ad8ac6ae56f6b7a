"""Campaigns for tests: a small model on few nodes."""

from functools import cache
from typing import Any

from hwmodels.document import Document
from sim.campaign.resolve import resolved
from sim.campaign.values import Campaign

PLAN: dict[str, Any] = {
    "cluster": {"node": "h800x8", "nodes": 1},
    "model": "deepseek_v2_lite",
    "parallel": {"pipeline": 1, "expert": 8, "tensor": 1, "zero": 1},
    "campaign": {
        "phases": [{"name": "one", "steps": 1, "batch": 8}],
        "checkpoint": {"storage": "10 GB/s"},
        "power": {"busy": "700 W"},
    },
}


@cache
def small(nodes: int) -> Campaign:
    """A campaign on so many nodes, of which a test replaces what it is about."""
    document = {**PLAN, "cluster": {"node": "h800x8", "nodes": nodes}}
    document["campaign"] = {**PLAN["campaign"], "phases": [{"name": "one", "steps": 1, "batch": 8 * nodes}]}
    return resolved(Document(document), (), None)
