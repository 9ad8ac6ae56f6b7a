"""Steps of plain torch that were measured over two H200s, simulated: DDP, FSDP2, parameters kept after forward, and a
pipeline; what cannot be said of a run is told instead."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from hwmodels.document import DocumentError, read
from hwmodels.refused import Refused
from hwmodels.units import GIGA, KILO
from sim.scenario.files import from_mapping
from sim.scenario.shelves import SCENARIOS
from sim.simulation import run as simulate
from sim.validation import torch_steps

FILE = SCENARIOS / "measured" / "h200x2_torch_steps.yaml"
"""The runs, with what was measured."""
CLUSTER = {"node": {"base": "h200x1", "gpus": 2}, "nodes": 1}
"""Two GPUs of one host."""
KINDS: Mapping[str, Mapping[str, Any]] = {
    "ddp": {"parallel": {"zero": 0}},
    "fsdp": {"parallel": {"zero": 3}},
    "zero2": {"parallel": {"zero": 2}},
    "tp2sp": {"parallel": {"tensor": 2, "zero": 0}},
    "pp2_1f1b": {"parallel": {"pipeline": 2, "zero": 0}, "placement": "even"},
}
"""Kind of a run -> its layout in a scenario's keys."""
HEAD = """
## Two GPUs

Seven steps over two H200s of one host (`scenarios/measured/h200x2_torch_steps.yaml`; NCCL 2.28.9), each as a scenario
with `comm.collectives: nccl`. Exposed: communication while nothing computes, simulated and of one profiled step.

| run | layout | step, ms | exposed communication, ms | peak, GB |
|---|---|--:|--:|--:|
"""
NOTES = """
* Nothing here is fitted. Which kernels copy gradients and parameters into and out of buffers, that they stream, and
  when whole gradients count against memory was settled after these steps had been seen.
* DDP's peak is a copy of the gradients higher than gradients and their buckets, and nothing here says whose it is.
* Compute beside NCCL is as much slower as beside exchanges in DeepSeek's profile of an H800 (BF16 products 1.154 times,
  memory-bound kernels 1.145), on the SMs that NCCL leaves (docs/COLLECTIVES.md). Nobody measured that beside NCCL.
* The measured pipeline waits for its messages between steps (`SendRecv` 275 of 595 ms); ours hides them.
"""


class Pair(NamedTuple):
    """Figures of a run over two GPUs: ms of a step, ms of communication beside no compute, bytes at the peak."""

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


def runs() -> list[dict[str, Any]]:
    """Dimensions and measured figures of each run."""
    return list(read(FILE).content["runs"])


def scenario(run: Mapping[str, Any]) -> dict[str, Any]:
    """The scenario of a run."""
    plain, layout = torch_steps.scenario(run), KINDS[run["kind"]]
    shared = any(axis in layout["parallel"] for axis in ("tensor", "pipeline"))
    sequences = run["mbs"] * run.get("micro_batches", 1) * (1 if shared else 2)
    batch = plain["batch"] | {"sequences": sequences}
    return {**plain, **layout, "cluster": CLUSTER, "batch": batch, "comm": {"collectives": "nccl"}}


def compared() -> Iterator[Compared]:
    """All runs."""
    for run in runs():
        measured = Pair(run["step_ms"], run["comm_alone_ms"], run["peak_allocated"])
        try:
            summary = simulate(from_mapping(scenario(run)), interval=False).summary
        except (Refused, DocumentError) as refused:
            yield Compared(run["name"], run["kind"], None, measured, str(refused).splitlines()[0])
            continue
        exposed, peak = summary["exposed_communication_s"] * KILO, summary["worst_memory"]["peak_bytes"]
        yield Compared(run["name"], run["kind"], Pair(summary["step_time_s"] * KILO, exposed, peak), measured)


def section(rows: Sequence[Compared]) -> str:
    """Their part of docs/TORCH_STEPS.md."""
    return HEAD + "".join(f"| {row.name} | {row.kind} | {' | '.join(_cells(row))} |\n" for row in rows) + NOTES


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
