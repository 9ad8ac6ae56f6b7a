"""Steps of plain torch that were measured over two and four H200s, simulated: DDP, FSDP2, tensor and sequence parallel,
pipelines, experts; what cannot be said of a run is told instead."""

from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

from hwmodels.document import DocumentError, read
from hwmodels.refused import Refused
from hwmodels.units import GIGA, KILO
from sim.scenario.files import from_mapping
from sim.scenario.shelves import SCENARIOS
from sim.simulation import run as simulate
from sim.validation import torch_steps

FILES: Mapping[int, Path] = {
    gpus: SCENARIOS / "measured" / f"h200x{gpus}_torch_steps.yaml" for gpus in (2, 4)
}  # fmt: skip
"""GPUs -> the runs, with what was measured."""
WHOLE = {"name": "torch", "loss_parallel": False}
"""Each rank of a tensor group has all logits."""
KINDS: Mapping[str, Mapping[str, Any]] = {
    "ddp": {"parallel": {"zero": 0}},
    "fsdp": {"parallel": {"zero": 3}},
    "zero2": {"parallel": {"zero": 2}},
    "tp2sp": {"parallel": {"tensor": 2, "zero": 0}, "stack": WHOLE},
    "tp_sp": {"parallel": {"tensor": 4, "zero": 0}, "stack": WHOLE},
    "tp2_fsdp": {"parallel": {"tensor": 2, "zero": 3}, "stack": WHOLE},
    "pp2_1f1b": {"parallel": {"pipeline": 2, "zero": 0}, "placement": "even"},
    "1f1b": {"parallel": {"pipeline": 4, "zero": 0}, "placement": "even"},
    "ep": {"parallel": {"expert": 4, "zero": 0}},
}
"""Kind of a run -> its layout in a scenario's keys."""
HEAD = """
## {words} GPUs

Steps over {gpus} H200s of one host (`scenarios/measured/h200x{gpus}_torch_steps.yaml`; NCCL 2.28.9), each as a scenario
with `comm.collectives: nccl`. Exposed: communication while nothing computes, simulated and of one profiled step.

| run | layout | step, ms | exposed communication, ms | peak, GB |
|---|---|--:|--:|--:|
"""
NOTES = """
* Nothing here is fitted. Which kernels copy gradients and parameters into and out of buffers, that they stream, and
  when whole gradients count against memory was settled after these steps had been seen.
* Memory is that of rank 0. DDP's peak is twice the gradients higher than that of the same model without it (to the
  kilobyte in `l8_4L_4k2`): one is the buckets'; whose the other is no document says, and over gloo it is not there.
* Compute beside NCCL is as much slower as beside exchanges in DeepSeek's profile of an H800 (BF16 products 1.154 times,
  memory-bound kernels 1.145), on the SMs that NCCL leaves (docs/COLLECTIVES.md). Nobody measured that beside NCCL.
* A receive is a kernel that runs while it waits, so a rank's bubble is communication that is exposed. Rank 0 waits for
  the last one, which has the head: most of what `SendRecv` takes of its steps.
"""


class Pair(NamedTuple):
    """Figures of a run over several GPUs: ms of a step, ms of communication beside no compute (a wait for another
    rank too), bytes at the peak; of rank 0 as measured."""

    step_ms: float
    exposed_ms: float
    peak_bytes: float


class Compared(NamedTuple):
    """A run, simulated and measured. refused: why it is not simulated; "": it is."""

    name: str
    kind: str
    simulated: Pair | None
    measured: Pair
    refused: str = ""


def runs(gpus: int) -> list[dict[str, Any]]:
    """Dimensions and measured figures of each run over so many GPUs."""
    return list(read(FILES[gpus]).content["runs"])


def scenario(run: Mapping[str, Any], gpus: int, layout: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The scenario of a run over so many GPUs. layout: its keys instead of those of its kind."""
    plain, layout = torch_steps.scenario(run), layout or KINDS[run["kind"]]
    replicas = gpus // prod(layout["parallel"].get(axis, 1) for axis in ("tensor", "pipeline"))
    batch = plain["batch"] | {"sequences": run["mbs"] * run.get("micro_batches", 1) * replicas}
    cluster = {"node": {"base": "h200x1", "gpus": gpus}, "nodes": 1}
    unseen = {"unseen": torch_steps.unseen(run["vocab"], batch["sequences"] * run["seq"])}
    return {**plain, **layout, "cluster": cluster, "batch": batch, "comm": {"collectives": "nccl"}, "optimizer": unseen}


def compared(gpus: int) -> Iterator[Compared]:
    """All runs over so many GPUs."""
    for run in runs(gpus):
        measured = Pair(run["step_ms"], run["comm_alone_ms"], run["peak_allocated"])
        try:
            ours = simulated(scenario(run, gpus))
        except (Refused, DocumentError) as refused:
            yield Compared(run["name"], run["kind"], None, measured, str(refused).splitlines()[0])
            continue
        yield Compared(run["name"], run["kind"], ours, measured)


def simulated(content: Mapping[str, Any]) -> Pair:
    """The figures of a scenario. Raises Refused or DocumentError where it cannot be said."""
    summary = simulate(from_mapping(dict(content)), interval=False).summary
    exposed = summary["exposed_communication_s"] + summary["phases_per_rank"]["bubble"][0]
    return Pair(summary["step_time_s"] * KILO, exposed * KILO, summary["peak_memory_bytes"][0]["total"])


def section() -> str:
    """Their part of docs/TORCH_STEPS.md."""
    text = ""
    for gpus, words in zip(FILES, ("Two", "Four"), strict=True):
        text += HEAD.format(words=words, gpus=gpus)
        text += "".join(f"| {row.name} | {row.kind} | {' | '.join(_cells(row))} |\n" for row in compared(gpus))
    return text + NOTES


def _cells(row: Compared) -> tuple[str, str, str]:
    ours, theirs = row.simulated, row.measured
    if ours is None:
        return f"- / {theirs.step_ms:.2f}", f"- / {theirs.exposed_ms:.2f}", f"refused: {row.refused}"
    off = ours.step_ms / theirs.step_ms - 1
    step = f"{ours.step_ms:.2f} / {theirs.step_ms:.2f}, {off:+.1%}"
    peak = (
        f"{ours.peak_bytes / GIGA:.2f} / {theirs.peak_bytes / GIGA:.2f}, {ours.peak_bytes / theirs.peak_bytes - 1:+.1%}"
    )
    return step, f"{ours.exposed_ms:.2f} / {theirs.exposed_ms:.2f}", peak
