"""The GPUs of one node: collectives by size, ranks and channels, and what compute and they slow each other by.

Every rank is a process (`torchrun --nproc-per-node N -m numerics.card.node --out DIR`, or `python -m numerics calibrate
--node --out DIR`, which starts them). Collectives are torch's by NCCL, each timed in a CUDA graph of many calls, so
that no launch is in the time; sizes are of the whole vector (all_gather: what each rank has in the end; reduce_scatter:
what each begins with; all_reduce, all_to_all, send_recv: of a rank). NVLink multicast stays off. With gloo and on CPUs
the same program runs without graphs, to be tested.

Beside: a loop of one kernel and a loop of one collective run at once on two streams, each long enough to hold while
the other is timed; what each loses is its time then over its time alone.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.nn import functional as f

Call = Callable[[], Any]
KIB, MIB = 2**10, 2**20
SIZES = (*(4 * KIB * 4**power for power in range(9)), 1024 * MIB)
"""Bytes from 4 KiB to 1 GiB."""
BESIDE = (64 * MIB, 436 * MIB)
"""Bytes of collectives that run beside compute: a pipeline's bucket, and the parameters of a layer of an 8B model."""
CHANNELS = (1, 2, 4, 8, 16, 32)
"""Most thread blocks (one a channel) that a communicator may have; 0: as many as NCCL takes."""
REPEATS, ROUNDS = 3, 20
"""Times that a graph is timed, the median counts; calls of a small collective in a graph."""
NO_MULTICAST = {"NCCL_NVLS_ENABLE": "0", "TORCH_SYMM_MEM_DISABLE_MULTICAST": "1", "NVSHMEM_DISABLE_NVLS": "1"}
"""Environment in which no library asks for NVLink multicast."""
LONG_S = 0.03
"""Seconds that a loop in the background goes on after the timed one has ended."""


# --- calls ------------------------------------------------------------------------------------------------------------


def collectives(size: int, group: Any, ranks: int, device: str) -> Iterator[tuple[str, Call]]:
    """Each collective on BF16 vectors of `size` bytes."""
    whole = torch.zeros(max(ranks, size // 2 // ranks * ranks), dtype=torch.bfloat16, device=device)
    part = torch.zeros(len(whole) // ranks, dtype=torch.bfloat16, device=device)
    other = torch.zeros_like(whole)
    yield "all_reduce", lambda: dist.all_reduce(whole, group=group)
    yield "all_gather", lambda: dist.all_gather_into_tensor(whole, part, group=group)
    yield "reduce_scatter", lambda: dist.reduce_scatter_tensor(part, whole, group=group)
    yield "all_to_all", lambda: dist.all_to_all_single(other, whole, group=group)
    yield "send_recv", lambda: _pass_on(whole, other, group, ranks)


def _pass_on(mine: torch.Tensor, theirs: torch.Tensor, group: Any, ranks: int) -> None:
    """Each rank sends to the next and receives from the one before."""
    rank = dist.get_rank(group)
    following, before = (dist.get_global_rank(group, (rank + step) % ranks) for step in (1, -1))
    pair = [dist.P2POp(dist.isend, mine, following, group), dist.P2POp(dist.irecv, theirs, before, group)]
    for work in dist.batch_isend_irecv(pair):
        work.wait()


def kernels(device: str) -> Iterator[tuple[str, Call]]:
    """What runs beside: products of a layer, attention, and kernels bound by memory."""
    b = lambda *shape: torch.randn(*shape, device=device, dtype=torch.bfloat16)
    few = device == "cpu"
    t, h, w = (64, 32, 64) if few else (8192, 4096, 14336)
    x, up, dy = b(t, h), b(w, h), b(t, w)
    q, k, v = (b(2, 8, t // 2, 16 if few else 128).requires_grad_() for _ in range(3))
    attend: Call = lambda: f.scaled_dot_product_attention(q, k, v, is_causal=True)
    out, gain = attend(), b(h)
    dout = torch.randn_like(out)
    yield "fprop", lambda: f.linear(x, up)
    yield "dgrad", lambda: dy @ up
    yield "wgrad", lambda: dy.t() @ x
    yield "attention_forward", lambda: _quietly(attend)
    yield "attention_backward", lambda: torch.autograd.grad(out, (q, k, v), dout, retain_graph=True)
    yield "elementwise", lambda: dy + dy
    yield "norm_forward", lambda: _quietly(lambda: f.rms_norm(x, (h,), gain))
    yield "copy", lambda: dy.t().contiguous()


def _quietly(call: Call) -> Any:
    with torch.no_grad():
        return call()


# --- timing -----------------------------------------------------------------------------------------------------------


class Loop:
    """A call so many times, as a CUDA graph on a stream, its own unless given (on a CPU: one after another)."""

    def __init__(self, call: Call, count: int, device: str, group: Any = None, stream: Any = None) -> None:
        self.call, self.count, self.device, self.group = call, count, device, group
        if device == "cpu":
            return
        self.stream = stream or torch.cuda.Stream()
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            call()
        torch.cuda.synchronize()
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph, stream=self.stream):
            for _ in range(count):
                call()

    def start(self) -> None:
        """Launch it once."""
        if self.device == "cpu":
            for _ in range(self.count):
                self.call()
            return
        with torch.cuda.stream(self.stream):
            self.graph.replay()

    def timed(self) -> float:
        """Microseconds of a call, over one run of the loop, all ranks at once."""
        if self.device == "cpu":
            began = time.perf_counter()
            self.start()
            return (time.perf_counter() - began) / self.count * 1e6
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        with torch.cuda.stream(self.stream):
            first.record()
            self.graph.replay()
            last.record()
        last.synchronize()
        return first.elapsed_time(last) / self.count * 1e3

    def meet(self) -> None:
        """Until all ranks of its group are here, and nothing runs."""
        _settle(self.device)
        dist.barrier(self.group)
        _settle(self.device)

    def alone(self) -> float:
        """The median of REPEATS."""
        times = []
        for _ in range(REPEATS):
            self.meet()
            times.append(self.timed())
        return sorted(times)[len(times) // 2]


def _settle(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()


def beside(timed: Loop, other: Loop, other_us: float, timed_us: float) -> float:
    """Microseconds of a call of one loop while the other runs, which is started first and runs on behind it."""
    needed = (4 * timed_us * timed.count / 1e6 + LONG_S) / (other_us * other.count / 1e6)
    runs = 1 if timed.device == "cpu" else _alike(max(1, round(needed)))
    times = []
    for _ in range(REPEATS):
        timed.meet()
        for _ in range(runs):
            other.start()
        times.append(timed.timed())
        busy = timed.device == "cpu" or not other.stream.query()
        times[-1] = times[-1] if busy else float("nan")
        _settle(timed.device)
    held = sorted(t for t in times if t == t)
    return held[len(held) // 2] if held else float("nan")


def slowed(loop: Loop, loop_us: float, sent: Loop) -> dict[str, float]:
    """Microseconds of a call of a kernel's loop and of what is sent, alone and each beside the other."""
    sent_us = sent.alone()
    return {
        "kernel_us": loop_us, "us": sent_us, "kernel_beside_us": beside(loop, sent, sent_us, loop_us),
        "beside_us": beside(sent, loop, loop_us, sent_us),
    }  # fmt: skip


def _alike(number: int) -> int:
    """The largest of all ranks' numbers: collectives must be called as often by each."""
    held = torch.tensor([number], device="cuda")
    dist.all_reduce(held, op=dist.ReduceOp.MAX)
    return int(held.item())


# --- what is measured -------------------------------------------------------------------------------------------------


def by_size(ranks: int, group: Any, device: str, sizes: Sequence[int]) -> Iterator[dict[str, Any]]:
    """Every collective at every size over so many ranks."""
    for size in sizes:
        for name, call in collectives(size, group, ranks, device):
            loop = Loop(call, max(2, min(ROUNDS, 256 * MIB // size)), device, group)
            yield {"op": name, "ranks": ranks, "bytes": size, "us": loop.alone()}


def by_channels(ranks: int, device: str, sizes: Sequence[int]) -> Iterator[dict[str, Any]]:
    """All-gather and reduce-scatter with so many channels at most."""
    for most in CHANNELS if device != "cpu" else ():
        options = dist.ProcessGroupNCCL.Options()
        options.config.max_ctas = most
        group = dist.new_group(list(range(ranks)), pg_options=options)
        for size in sizes:
            for name, call in collectives(size, group, ranks, device):
                if name in ("all_gather", "reduce_scatter"):
                    us = Loop(call, 4, device, group).alone()
                    yield {"op": name, "ranks": ranks, "bytes": size, "channels": most, "us": us}


def in_company(ranks: int, group: Any, device: str, sizes: Sequence[int], most: int | None) -> Iterator[dict[str, Any]]:
    """Each kernel beside each collective, and the reverse."""
    stream = None if device == "cpu" else torch.cuda.Stream()
    with torch.cuda.stream(stream):  # autograd runs backward where forward ran
        works = list(kernels(device))[:most]
    for kernel, work in works:
        loop = Loop(work, 10, device, stream=stream)
        alone = loop.alone()
        for size in sizes:
            for name, call in collectives(size, group, ranks, device):
                sent = Loop(call, 4, device)
                yield {"op": name, "ranks": ranks, "bytes": size, "kernel": kernel, **slowed(loop, alone, sent)}


def measured(
    device: str, sizes: Sequence[int], company: Sequence[int], most: int | None = None
) -> dict[str, list[dict[str, Any]]]:
    """All of it, on every rank; sizes: of collectives alone; company: of those beside compute; most: kernels."""
    world = dist.get_world_size()
    smaller = {ranks: dist.new_group(list(range(ranks))) for ranks in _powers(world)}
    group, mine = dist.group.WORLD, dist.get_rank()
    alone = [
        row for ranks, part in smaller.items() if mine < ranks for row in listed(by_size(ranks, part, device, sizes))
    ]
    dist.barrier()
    alone += listed(by_size(world, group, device, sizes))
    return {
        "sizes": alone, "beside": listed(in_company(world, group, device, company, most)),
        "channels": listed(by_channels(world, device, company)),
    }  # fmt: skip


def _powers(world: int) -> list[int]:
    """Numbers of ranks below the whole."""
    return [2**power for power in range(1, world.bit_length()) if 2**power < world]


def listed(rows: Iterator[dict[str, Any]]) -> list[dict[str, Any]]:
    """All rows, rounded, each told by rank 0 as it comes."""
    held = []
    for row in rows:
        held.append({key: _plain(value) for key, value in row.items()})
        if dist.get_rank() == 0:
            print(json.dumps(held[-1]), file=sys.stderr, flush=True)
    return held


def _plain(value: Any) -> Any:
    """As JSON has it; none where it could not be timed."""
    if isinstance(value, float):
        return round(value, 3) if value == value else None
    return value


def parser(name: str) -> argparse.ArgumentParser:
    """Options of a rank of numerics.card.<name>."""
    options = argparse.ArgumentParser(prog=f"python -m numerics.card.{name}")
    options.add_argument("--out", type=Path, required=True)
    options.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    return options


def main(words: Sequence[str] | None = None) -> int:
    """One rank of it."""
    options = parser("node")
    options.add_argument("--quick", action="store_true", help="one size, two kernels")
    asked = options.parse_args(words)
    begin(asked.device)
    few = (SIZES[:1], SIZES[:1], 2) if asked.quick else (SIZES, BESIDE)
    leave(asked.out / "node.json", asked.device, measured(asked.device, *few))
    return 0


def begin(device: str) -> None:
    """This process as a rank of those that torchrun started, on its own device."""
    os.environ.update(NO_MULTICAST)
    if device == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if device == "cuda" else "gloo")


def leave(file: Path, device: str, rows: Mapping[str, Any]) -> None:
    """Rank 0 writes what was measured, and all end together."""
    if dist.get_rank() == 0:
        file.parent.mkdir(parents=True, exist_ok=True)
        about = {"world": dist.get_world_size(), "torch": torch.__version__} | (card() if device == "cuda" else {})
        file.write_text(json.dumps({"about": about, **rows}, indent=1) + "\n", encoding="utf-8")
    dist.barrier()
    dist.destroy_process_group()


def card() -> dict[str, Any]:
    """What the card, its driver and NCCL are."""
    nccl = ".".join(map(str, torch.cuda.nccl.version()))
    query = ["nvidia-smi", "--query-gpu=driver_version,clocks.max.sm", "--format=csv,noheader"]
    return {
        "device": torch.cuda.get_device_name(), "nccl": nccl, "multicast": os.environ.get("NCCL_NVLS_ENABLE", ""),
        "card": subprocess.run(query, capture_output=True, text=True, check=False).stdout.splitlines()[:1],
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
