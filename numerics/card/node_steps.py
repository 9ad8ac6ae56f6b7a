"""Training steps of plain transformers over the GPUs of one node, layout by layout: time, communication, memory.

Every rank is a process: `torchrun --nproc-per-node N -m numerics.card.node_steps --out DIR`. A step is forward,
backward and fused AdamW (BF16 states). step_ms: wall clock, mean; gpu_step_ms: by events, median; comm_busy_ms,
comm_alone_ms, compute_busy_ms: of one profiled step, kernels named nccl, alone while no other kernel runs; memory as
torch's allocator says; all of rank 0. NVLink multicast stays off. With gloo and on CPUs the same program runs tiny
models without a profile, to be tested.
"""

import gzip
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.pipelining import PipelineStage, Schedule1F1B
from torch.distributed.tensor import Replicate, Shard
from torch.distributed.tensor import parallel as tensor
from torch.nn.parallel import DistributedDataParallel

from numerics.card import node
from numerics.card.plain import Size, Transformer, loss
from numerics.traces.intervals import common, length, union

Step = Callable[[], Any]
WARM, STEPS = 3, 8
"""Steps before the first that counts, and those that count."""
TOP = 24
"""Kernels that a row names, by time."""
L8 = Size(4096, 14336, 32, 8, 128, 128256, 8, 4096, 1)
L70 = Size(8192, 28672, 64, 8, 128, 128256, 3, 4096, 1)
QM = Size(2048, 768, 32, 4, 128, 151936, 4, 4096, 2, 128, 8)
TINY, TINY_MIXTURE = Size(32, 64, 4, 4, 8, 64, 4, 16, 1), Size(32, 64, 4, 4, 8, 64, 2, 16, 1, 8, 2)


class Run(NamedTuple):
    """A layout of a model. micro_batches: of a pipeline."""

    name: str
    kind: str
    size: Size
    micro_batches: int = 1


RUNS = (
    Run("l8_4L_4k2", "ddp", L8._replace(layers=4, mbs=2)),
    Run("l8_8L_4k2", "fsdp", L8._replace(mbs=2)),
    Run("l8_8L_4k1", "zero2", L8),
    Run("l8_8L_4k2", "tp_sp", L8._replace(mbs=2)),
    Run("l70_3L_4k1", "tp_sp", L70),
    Run("l8_8L_4k2", "tp2_fsdp", L8._replace(mbs=2)),
    Run("l8_8L_4k1", "1f1b", L8, 8),
    Run("qm_4L_4k2", "ep", QM),
    Run("l8_2L_4k1", "fsdp", L8._replace(layers=2)),
)
"""Eight layouts, and a small one whose trace is kept."""
KEPT = RUNS[-1]
DRY = (
    Run("tiny", "fsdp", TINY), Run("tiny", "tp_sp", TINY), Run("tiny", "1f1b", TINY, 4),
    Run("mixture", "ep", TINY_MIXTURE),
)  # fmt: skip


# --- layouts ----------------------------------------------------------------------------------------------------------


def step(run: Run, device: str) -> Step:
    """A training step of a run on this rank."""
    torch.manual_seed(dist.get_rank() if run.kind in ("ddp", "fsdp", "zero2", "ep") else 0)
    return (_pipeline if run.kind == "1f1b" else _single)(run, device)


def _single(run: Run, device: str) -> Step:
    """A step whose ranks hold all layers."""
    size, world = run.size, dist.get_world_size()
    with torch.device(device):
        whole = Transformer(size, dist.group.WORLD if run.kind == "ep" else None).to(torch.bfloat16)
    model: nn.Module = whole
    if run.kind == "tp_sp":
        _split(whole, init_device_mesh(device, (world,)))
    elif run.kind == "tp2_fsdp":
        mesh = init_device_mesh(device, (world // 2, 2), mesh_dim_names=("data", "tensor"))
        _split(whole, mesh["tensor"])
        _shard(whole, mesh["data"], True)
    elif run.kind in ("fsdp", "zero2"):
        _shard(whole, init_device_mesh(device, (world,)), run.kind == "fsdp")
    else:
        model = _replicated(whole, device, run.kind == "ep")
    update = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    tokens, targets = _batch(size, device, size.mbs)

    def once() -> None:
        loss(model(tokens), targets).backward()
        update.step()
        update.zero_grad(set_to_none=True)

    return once


def _replicated(model: Transformer, device: str, experts: bool) -> nn.Module:
    """Under DDP, experts not, which are this rank's own."""
    names = [name for name, _ in model.named_parameters() if experts and name.rpartition(".")[0].endswith("ffn")]
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(model, names)
    return DistributedDataParallel(model, device_ids=None if device == "cpu" else [torch.cuda.current_device()])


def _shard(model: Transformer, mesh: Any, again: bool) -> None:
    """FSDP2 by blocks; again: parameters are gathered for backward once more."""
    for block in model.blocks:
        fully_shard(block, mesh=mesh, reshard_after_forward=again)
    fully_shard(model, mesh=mesh, reshard_after_forward=again)


def _split(model: Transformer, mesh: Any) -> None:
    """Tensor and sequence parallel by DTensor; the loss is on whole logits."""
    tokens, whole = Shard(1), Replicate()
    column, row = tensor.ColwiseParallel(), tensor.RowwiseParallel(output_layouts=tokens)
    ends: dict[str, Any] = {
        "embed": tensor.RowwiseParallel(input_layouts=whole, output_layouts=tokens),
        "norm": tensor.SequenceParallel(),
        "head": tensor.ColwiseParallel(input_layouts=tokens, output_layouts=whole),
    }
    tensor.parallelize_module(model, mesh, ends)
    gathered = {"input_layouts": (tokens,), "desired_input_layouts": (whole,)}
    for block in model.blocks:
        plan: dict[str, Any] = {
            "attention_norm": tensor.SequenceParallel(), "ffn_norm": tensor.SequenceParallel(),
            "attention": tensor.PrepareModuleInput(input_layouts=(tokens, None), desired_input_layouts=(whole, None)),
            "ffn": tensor.PrepareModuleInput(**gathered),
            **{f"attention.{name}": column for name in "qkv"}, "attention.o": row,
            "ffn.gate": column, "ffn.up": column, "ffn.down": row,
        }  # fmt: skip
        tensor.parallelize_module(block, mesh, plan)


def _pipeline(run: Run, device: str) -> Step:
    """1F1B over all ranks, layers in equal parts."""
    size, world, rank = run.size, dist.get_world_size(), dist.get_rank()
    each = size.layers // world
    with torch.device(device):
        part = Transformer(size, None, rank * each, (rank + 1) * each).to(torch.bfloat16)
    here = torch.device("cpu") if device == "cpu" else torch.device(device, torch.cuda.current_device())
    stage = PipelineStage(part, rank, world, here)
    schedule = Schedule1F1B(stage, run.micro_batches, loss_fn=loss)
    update = torch.optim.AdamW(part.parameters(), lr=1e-4, fused=True)
    tokens, targets = _batch(size, device, size.mbs * run.micro_batches)

    def once() -> None:
        given = {"target": targets, "losses": []} if rank == world - 1 else {}
        schedule.step(*((tokens,) if rank == 0 else ()), **given)
        update.step()
        update.zero_grad(set_to_none=True)

    return once


def _batch(size: Size, device: str, sequences: int) -> tuple[torch.Tensor, torch.Tensor]:
    tokens = torch.randint(size.vocab, (2, sequences, size.seq), device=device)
    return tokens[0], tokens[1]


# --- what a step took -------------------------------------------------------------------------------------------------


def timed(run: Run, device: str, kept: Path | None = None) -> dict[str, Any]:
    """A row of a run. kept: where its trace goes."""
    once = step(run, device)
    for _ in range(WARM if device != "cpu" else 1):
        once()
    _wait(device)
    wall, gpu = [], []
    for _ in range(STEPS if device != "cpu" else 2):
        began = time.perf_counter()
        gpu.append(_events(once, device))
        wall.append((time.perf_counter() - began) * 1e3)
    row = {
        "name": run.name, "kind": run.kind, **run.size._asdict(), "micro_batches": run.micro_batches,
        "ranks": dist.get_world_size(), "step_ms": float(np.mean(wall)), "gpu_step_ms": float(np.median(gpu)),
        "spread": [min(wall), max(wall)],
    }  # fmt: skip
    if device == "cpu":
        return row
    row |= {"peak_allocated": torch.cuda.max_memory_allocated(), "peak_reserved": torch.cuda.max_memory_reserved()}
    return row | {"smi": _card()} | _profiled(once, kept)


def _events(once: Step, device: str) -> float:
    """Milliseconds of a step by the card's clock (a CPU: by the wall's)."""
    if device == "cpu":
        began = time.perf_counter()
        once()
        return (time.perf_counter() - began) * 1e3
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    first.record()
    once()
    last.record()
    last.synchronize()
    return first.elapsed_time(last)


def _profiled(once: Step, kept: Path | None) -> dict[str, Any]:
    """Communication and compute of one step, and its kernels by time."""
    kinds = [torch.profiler.ProfilerActivity.CUDA, torch.profiler.ProfilerActivity.CPU]
    dist.barrier()
    with torch.profiler.profile(activities=kinds, record_shapes=kept is not None) as profile:
        once()
        _wait("cuda")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "trace.json"
        profile.export_chrome_trace(str(file))
        text = file.read_text(encoding="utf-8")
    if kept is not None and dist.get_rank() == 0:
        kept.write_bytes(gzip.compress(text.encode(), 9))
    events = [e for e in json.loads(text)["traceEvents"] if e.get("cat") in ("kernel", "gpu_memcpy", "gpu_memset")]
    return communication(events)


def communication(events: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What kernels named nccl did, and the others. events: of a Chrome trace, in microseconds."""
    sides = [[e for e in events if ("nccl" in e["name"]) == sent] for sent in (True, False)]
    comm, compute = (
        union(*(np.array([round(1e3 * (e["ts"] + more * e["dur"])) for e in side], np.int64) for more in (0, 1)))
        for side in sides
    )
    by_name: Counter[str] = Counter()
    for event in events:
        by_name[event["name"][:90]] += event["dur"]
    count = Counter(event["name"][:90] for event in events)
    busy = length(comm)
    return {
        "comm_busy_ms": busy / 1e6, "comm_alone_ms": (busy - common(comm, compute)) / 1e6,
        "compute_busy_ms": length(compute) / 1e6,
        "top": [[round(us, 1), count[name], name] for name, us in by_name.most_common(TOP)],
    }  # fmt: skip


def _wait(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()


def _card() -> str:
    """SM clock, watts, degrees, memory clock of the first card."""
    query = "clocks.sm,power.draw,temperature.gpu,clocks.mem"
    question = ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader,nounits"]
    return subprocess.run(question, capture_output=True, text=True, check=False).stdout.partition("\n")[0]


def measured(runs: Sequence[Run], device: str, out: Path) -> Iterator[dict[str, Any]]:
    """A row a run; one that fails on a rank is told, and the others go on where it failed on all."""
    for run in runs:
        if device != "cpu":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        try:
            row = timed(run, device, out / "trace.json.gz" if run is KEPT else None)
        except (RuntimeError, ValueError, TypeError, AttributeError) as error:  # of torch's version: the next may run
            row = {"name": run.name, "kind": run.kind, "error": " ".join(str(error).split())[:300]}
        dist.barrier()
        if dist.get_rank() == 0:
            print(json.dumps({key: row[key] for key in row if key != "top"}), file=sys.stderr, flush=True)
        yield row


def main(words: Sequence[str] | None = None) -> int:
    """One rank of it."""
    asked = node.parser("node_steps").parse_args(words)
    node.begin(asked.device)
    asked.out.mkdir(parents=True, exist_ok=True)
    rows = list(measured(RUNS if asked.device == "cuda" else DRY, asked.device, asked.out))
    node.leave(asked.out / "node_steps.json", asked.device, {"runs": rows})
    return 0


if __name__ == "__main__":
    sys.exit(main())
