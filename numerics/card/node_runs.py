"""All that is timed over the GPUs of one node, as programs one after another: `python -m numerics calibrate --node`.

Files left in the folder: tokens_SHAPE.json (not measured: who receives how many tokens, drawn), node.json,
node_exchange.json, node_routed.json, node_copies.json, and steps of N ranks in steps_N/node_steps.json.
"""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from numerics.card.node_traffic import DRAWN, command

ROUTED = "node_routed"


def tokens(folder: Path, ranks: int) -> list[Path]:
    """Who receives how many tokens in each shape, by `python -m sim tokens`."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for shape in DRAWN:
        done = subprocess.run([sys.executable, "-m", *command(shape, ranks)], capture_output=True, check=True)
        files.append(folder / f"tokens_{shape}.json")
        files[-1].write_bytes(done.stdout)
    return files


def programs(folder: Path, gpus: int) -> Iterator[list[str]]:
    """Words of each program: all but steps over all GPUs, steps over 2, 4, ... of them too."""
    for part in ("node", "node_exchange", "node_copies", ROUTED):
        drawn = [f"--tokens={shape}={folder / f'tokens_{shape}.json'}" for shape in DRAWN] if part == ROUTED else []
        yield [*_torchrun(gpus), f"numerics.card.{part}", "--out", str(folder), *drawn]
    for ranks in (2**power for power in range(1, gpus.bit_length()) if 2**power <= gpus):
        yield [*_torchrun(ranks), "numerics.card.node_steps", "--out", str(folder / f"steps_{ranks}")]


def _torchrun(ranks: int) -> list[str]:
    return [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(ranks), "-m"]


def run(folder: Path) -> int:
    """Every program over the GPUs at hand, also behind one that failed; the largest of their answers."""
    import torch

    from numerics.card.measure import require_device

    require_device()
    gpus = torch.cuda.device_count()
    tokens(folder, gpus)
    return max(subprocess.run(words, check=False).returncode for words in programs(folder, gpus))
