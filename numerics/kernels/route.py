"""Rows of this GPU's memory written into other GPUs' by a few SMs, as an exchange of experts does.

Every program takes each so-manieth row of a list: where it lies here, whose memory it goes to, and which row of that
it becomes. No flags and no waiting: who calls it meets the other ranks afterwards.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

WARPS = 16
"""Of a program at most, as `numerics.kernels.push`."""
ALIGNED: tl.constexpr = tl.constexpr(16)
"""Bytes of which every row's address there is a multiple (rows are of an even number of int64), so that a thread stores
as many at once."""
LANES, WORDS = 32, 2
"""Threads of a warp, and int64 that each moves at once."""


@triton.jit
def _route(source, pointers, rows, peers, places, count, words: tl.constexpr, block: tl.constexpr):
    place = tl.arange(0, block)
    for number in range(tl.program_id(0), count, tl.num_programs(0)):
        row = tl.load(rows + number).to(tl.int64)
        there = tl.load(places + number).to(tl.int64)
        target = tl.load(pointers + tl.load(peers + number)).to(tl.pointer_type(tl.int64))
        target = tl.multiple_of(target + there * words, ALIGNED)
        held = tl.load(source + row * words + place, mask=place < words)
        tl.store(target + place, held, mask=place < words)


def route(
    source: Tensor, pointers: Tensor, rows: Tensor, peers: Tensor, places: Tensor, sms: int, warps: int = WARPS
) -> None:
    """source: int64 [tokens, words]; pointers: int64 [ranks], where the memory of each begins; rows, peers, places:
    int32 of one length: row `rows[i]` becomes row `places[i]` (as wide) of rank `peers[i]`. Launched on the current
    stream with `sms` programs."""
    if source.dtype != torch.int64 or source.shape[1] % WORDS or not source.is_contiguous():
        raise ValueError(f"route copies rows of an even number of int64; got {source.dtype} {list(source.shape)}")
    if not len(rows) == len(peers) == len(places):
        raise ValueError(f"as many rows as peers and places; got {len(rows)}, {len(peers)}, {len(places)}")
    words = source.shape[1]
    block = triton.next_power_of_2(words)
    warps = max(1, min(warps, block // (LANES * WORDS)))
    _route[(sms,)](source, pointers, rows, peers, places, len(rows), words, block, num_warps=warps)
