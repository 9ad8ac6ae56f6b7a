"""The machine of a row: nodes of its GPU, as many as it used."""

from typing import Any

from hwmodels.document import indivisible, unknown
from hwmodels.refused import Refused
from sim.validation.runs.rows import Run

NODES = {
    "A100-40GB": "a100x8_40gb", "A100-80GB": "a100x8", "H100": "h100x8", "H200": "h200x8", "B200": "b200x8",
    "B300": "b300x8", "GB200": "gb200x72", "GB300": "gb300x72", "MI300X": "mi300xx8", "MI355X": "mi355xx8",
}  # fmt: skip
"""GPU -> server with it."""
RACK, USED = 72, 64
"""GPUs of an NVL72 rack, and those of one that jobs of more take: groups of 8, 16, 32 and 64 divide no 72, and 64 x n
GPUs are what such jobs have (NVIDIA DGX SuperPOD, GB200: 16 of a rack's 18 trays a job)."""
RCCL = ("MI300X", "MI355X")
"""GPUs whose collectives are not NCCL's."""


def cluster(run: Run) -> dict[str, Any]:
    """Nodes without a fabric: where a row names none, nothing is said about switches. Raises Refused."""
    assert run.gpus is not None
    if run.gpu not in NODES:
        raise Refused(unknown(run.gpu, "GPU", NODES))
    node = NODES[run.gpu]
    size = (USED if run.gpus % USED == 0 or run.gpus % RACK else RACK) if node.endswith(f"x{RACK}") else 8
    each = min(size, run.gpus)
    if run.gpus % each:
        raise Refused(indivisible(f"{run.gpus} GPUs", run.gpus, "GPUs of a node", each))
    return {"node": {"base": node, "gpus": each}, "nodes": run.gpus // each}


def collectives(run: Run) -> dict[str, Any]:
    """All of NVIDIA's run NCCL."""
    return {} if run.gpu in RCCL else {"comm.collectives": "nccl"}
