"""Expert exchanges over the GPUs of one node by NCCL's all-to-all: a token's row to each of its experts, and back.

Rows go as many times as a token has experts (no GPU is sent a row once for several). Balanced: every rank's experts
receive as many; skewed: shares as `SKEW` says. Alone, with fewer channels, and beside compute, each what the other
slows. `python -m numerics.card.node_exchange --out DIR` under torchrun.
"""

import sys
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
import torch.distributed as dist

from numerics.card import node

SKEW = 1.6
"""Times as many rows as an average rank that the hottest receives, the others falling evenly to 2 - SKEW."""
CHANNELS = (0, 4, 8, 16)
"""Most channels of a communicator; 0: NCCL's choice."""


class Exchange(NamedTuple):
    """Rows of one direction of a layer's exchange: tokens of a rank, experts of each, bytes of a row."""

    name: str
    tokens: int
    top_k: int
    row_bytes: int


EXCHANGES = (
    Exchange("v3 dispatch fp8", 4096, 8, 7168 + 224),
    Exchange("v3 dispatch bf16", 4096, 8, 2 * 7168),
    Exchange("v3 combine bf16", 4096, 8, 2 * 7168),
    Exchange("qwen3-30b dispatch fp8", 8192, 8, 2048 + 64),
    Exchange("qwen3-30b dispatch bf16", 8192, 8, 2 * 2048),
    Exchange("qwen3-30b combine bf16", 8192, 8, 2 * 2048),
)
"""DeepSeek-V3 (hidden 7,168, a micro-batch of one sequence) and Qwen3-30B-A3B (hidden 2,048, two); FP8 rows carry an
FP32 scale for 128 values."""


def shares(ranks: int, skew: float) -> list[float]:
    """What part of all rows each rank receives."""
    return [(skew + (2 - 2 * skew) * rank / (ranks - 1)) / ranks for rank in range(ranks)]


def call(exchange: Exchange, skew: float, group: Any, device: str) -> node.Call:
    """One exchange; the way back (combine) has the splits of the way out turned round."""
    ranks, rank = dist.get_world_size(group), dist.get_rank(group)
    rows = exchange.tokens * exchange.top_k
    going = [round(rows * part) for part in shares(ranks, skew)]
    coming = [going[rank]] * ranks
    if "combine" in exchange.name:
        going, coming = coming, going
    sent, got = (torch.zeros(sum(n), exchange.row_bytes, dtype=torch.uint8, device=device) for n in (going, coming))
    return lambda: dist.all_to_all_single(got, sent, coming, going, group=group)


def alone(device: str, exchanges: Sequence[Exchange]) -> Iterator[dict[str, Any]]:
    """Each exchange by channels, balanced and skewed."""
    for most in CHANNELS if device != "cpu" else (0,):
        group = _limited(most)
        for exchange in exchanges:
            for skew in (1.0, SKEW):
                loop = node.Loop(call(exchange, skew, group, device), 6, device, group)
                yield {**exchange._asdict(), "skew": skew, "channels": most, "us": loop.alone()}


def beside(device: str, exchanges: Sequence[Exchange], most: int | None) -> Iterator[dict[str, Any]]:
    """Each kernel beside each exchange, with NCCL's own channels and with eight."""
    stream = None if device == "cpu" else torch.cuda.Stream()
    with torch.cuda.stream(stream):
        works = list(node.kernels(device))[:most]
    for channels in (0, 8) if device != "cpu" else (0,):
        group = _limited(channels)
        for kernel, work in works:
            loop = node.Loop(work, 10, device, stream=stream)
            held = loop.alone()
            for exchange in exchanges:
                sent = node.Loop(call(exchange, 1.0, group, device), 6, device, group)
                about = {"name": exchange.name, "channels": channels, "kernel": kernel}
                yield {**about, **node.slowed(loop, held, sent)}


def _limited(most: int) -> Any:
    """A group of all ranks with so many channels at most."""
    if not most:
        return dist.group.WORLD
    options = dist.ProcessGroupNCCL.Options()
    options.config.max_ctas = most
    return dist.new_group(list(range(dist.get_world_size())), pg_options=options)


def main(words: Sequence[str] | None = None) -> int:
    """One rank of it."""
    asked = node.parser("node_exchange").parse_args(words)
    device, few = asked.device, asked.device == "cpu"
    node.begin(device)
    exchanges = [each._replace(tokens=16) for each in EXCHANGES[:1]] if few else EXCHANGES
    rows: dict[str, Any] = {"skew": SKEW, "alone": node.listed(alone(device, exchanges))}
    rows["beside"] = node.listed(beside(device, exchanges[::2], 1 if few else None))
    node.leave(asked.out / "node_exchange.json", device, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
