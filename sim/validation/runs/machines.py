"""The machine of a row: nodes of its GPU, as many as it used."""

import re
from typing import Any, NamedTuple

from hwmodels.document import unknown
from hwmodels.refused import Refused
from sim.validation.runs.rows import Run

NODES = {
    "A100-40GB": "a100x8_40gb", "A100-80GB": "a100x8", "H100": "h100x8", "H200": "h200x8", "H800": "h800x8",
    "H20": "h20x8", "B200": "b200x8", "B300": "b300x8", "GB200": "gb200x72", "GB300": "gb300x72",
    "MI300X": "mi300xx8", "MI355X": "mi355xx8",
}  # fmt: skip
"""GPU -> server with it."""


class Likeness(NamedTuple):
    """Names of a GPU (a pattern over capitals, with - for blanks), the one that stands for it, and what differs."""

    pattern: re.Pattern[str]
    gpu: str
    note: str = ""


LIKE = (
    Likeness(re.compile(r"GH200"), "H100", "a GH200's GPU: an H100 of a server with eight stands for it"),
    Likeness(re.compile(r"H100.*(PCIE|NVL(?!72))"), "H100", "an H100 on a card: one on a board (SXM) stands for it"),
    Likeness(re.compile(r"A100.*PCIE"), "A100-80GB", "an A100 on a card: one on a board (SXM) stands for it"),
    Likeness(re.compile(r"A800"), "A100-80GB", "an A800: an A100, whose NVLink is wider, stands for it"),
    Likeness(re.compile(r"B100(?!\d)"), "B200", "a B100: a B200, which may take more power, stands for it"),
    Likeness(re.compile(r"MI325X?"), "MI300X", "an MI325X: an MI300X, whose HBM is slower, stands for it"),
    Likeness(re.compile(r"MI350X?"), "MI355X", "an MI350X: an MI355X, which may take more power, stands for it"),
    Likeness(re.compile(r"A100.*40G"), "A100-40GB"),
    Likeness(re.compile(r"A100.*80G"), "A100-80GB"),
    Likeness(re.compile(r"A100"), "A100-80GB", "memory of the A100 not stated; 80 GB"),
    *(Likeness(re.compile(rf"(?<![A-Z]){name}(?!\d)"), name) for name in NODES if not name.startswith("A100")),
)
"""Other names, those that say more first."""
RACK, USED = 72, 64
"""GPUs of an NVL72 rack, and those of one that jobs of more take: groups of 8, 16, 32 and 64 divide no 72, and 64 x n
GPUs are what such jobs have (NVIDIA DGX SuperPOD, GB200: 16 of a rack's 18 trays a job)."""
RCCL = ("MI300X", "MI355X")
"""GPUs whose collectives are not NCCL's."""
MAKERS = re.compile(r"[\s_]|NVIDIA|AMD|INSTINCT|DGX-?|HGX-?")
"""What a name may have beside the GPU's own."""


def gpu(run: Run) -> Likeness:
    """The GPU that stands for a row's. Raises Refused."""
    if run.gpu in NODES:
        return Likeness(re.compile(run.gpu), run.gpu)
    name = MAKERS.sub("-", run.gpu.upper())
    if like := next((like for like in LIKE if like.pattern.search(name)), None):
        return like
    raise Refused(unknown(run.gpu, "GPU", NODES))


STATED = re.compile(r"(\d+) nodes of (\d+) GPUs", re.IGNORECASE)
"""How a row says that its nodes are not the ones that ship."""


def cluster(run: Run) -> dict[str, Any]:
    """Nodes without a fabric: where a row names none, nothing is said about switches. GPUs that fill no whole nodes
    are spread over as few alike as can be, unless the row says over how many. Raises Refused."""
    assert run.gpus is not None
    node = NODES[gpu(run).gpu]
    if stated := STATED.search(run.other):
        nodes, each = int(stated[1]), int(stated[2])
        if nodes * each != run.gpus:
            raise Refused(f"{stated[0]} are {nodes * each} GPUs, not {run.gpus}")
        return {"node": {"base": node, "gpus": each}, "nodes": nodes}
    size = (USED if run.gpus % USED == 0 or run.gpus % RACK else RACK) if node.endswith(f"x{RACK}") else 8
    each = next(each for each in range(min(size, run.gpus), 0, -1) if run.gpus % each == 0)
    return {"node": {"base": node, "gpus": each}, "nodes": run.gpus // each}


def multiplies_fp8(run: Run) -> bool:
    """Whether its GPU has kernels of attention in FP8 that somebody timed: NVIDIA's of Hopper and Blackwell."""
    return gpu(run).gpu.startswith(("H", "B", "GB"))


def collectives(run: Run) -> dict[str, Any]:
    """All of NVIDIA's run NCCL."""
    return {} if gpu(run).gpu in RCCL else {"comm.collectives": "nccl"}
