"""Copies by CUDA, alone and beside compute: to the next GPU, to the host and from it, and within a GPU.

All ranks copy at once. A copy into another GPU's memory is torch's into symmetric memory, by the copy engine; where
there is none it is left out. A copy within a GPU may take SMs, as the driver likes. `python -m
numerics.card.node_copies --out DIR` under torchrun. Not run on GPUs yet.
"""

import sys
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.distributed as dist

from numerics.card import node
from numerics.card.node_window import Window, opened

SIZES = (node.MIB, 16 * node.MIB, 64 * node.MIB, 256 * node.MIB)
"""Bytes of a copy; the last one runs beside compute."""
WORD = 8


def copies(size: int, device: str, window: Window | None) -> Iterator[tuple[str, node.Call]]:
    """What is copied where, `size` bytes each."""
    here, there = (torch.zeros(size // WORD, dtype=torch.int64, device=device) for _ in range(2))
    host = torch.zeros(size // WORD, dtype=torch.int64, pin_memory=device != "cpu")
    if window:
        following = window.of((dist.get_rank() + 1) % dist.get_world_size())[: size // WORD]
        yield "to_next", lambda: following.copy_(here)
    yield "to_host", lambda: host.copy_(here, non_blocking=True)
    yield "from_host", lambda: here.copy_(host, non_blocking=True)
    yield "within", lambda: there.copy_(here)


def alone(device: str, window: Window | None, sizes: Sequence[int]) -> Iterator[dict[str, Any]]:
    for size in sizes:
        for name, call in copies(size, device, window):
            yield {"copy": name, "bytes": size, "us": node.Loop(call, 8, device).alone()}


def beside(device: str, window: Window | None, size: int, most: int | None) -> Iterator[dict[str, Any]]:
    """Each kernel beside each copy: what each takes alone, and beside the other."""
    stream = None if device == "cpu" else torch.cuda.Stream()
    with torch.cuda.stream(stream):
        works = list(node.kernels(device))[:most]
    for kernel, work in works:
        loop = node.Loop(work, 10, device, stream=stream)
        held = loop.alone()
        for name, call in copies(size, device, window):
            sent = node.Loop(call, 8, device)
            yield {"copy": name, "bytes": size, "kernel": kernel, **node.slowed(loop, held, sent)}


def main(words: Sequence[str] | None = None) -> int:
    """One rank of it."""
    asked = node.parser("node_copies").parse_args(words)
    device, few = asked.device, asked.device == "cpu"
    node.begin(device)
    sizes = SIZES[:1] if few else SIZES
    window = opened(sizes[-1] // WORD, device)
    rows: dict[str, Any] = {"alone": node.listed(alone(device, window, sizes))}
    rows["beside"] = node.listed(beside(device, window, sizes[-1], 1 if few else None))
    node.leave(asked.out / "node_copies.json", device, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
