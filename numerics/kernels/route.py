"""Rows of this GPU's memory written into other GPUs' by a few SMs, as an exchange of experts does.

Every program takes each so-manieth row of a list: where it lies here, whose memory it goes to, and which row of that
it becomes. No flags and no waiting: who calls it meets the other ranks afterwards.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

WARPS = 16
"""Of a program, as `numerics.kernels.push`."""


@triton.jit
def _route(source, pointers, rows, peers, places, count, words, block: tl.constexpr):
    place = tl.arange(0, block)
    for number in range(tl.program_id(0), count, tl.num_programs(0)):
        row = tl.load(rows + number).to(tl.int64)
        there = tl.load(places + number).to(tl.int64)
        target = tl.load(pointers + tl.load(peers + number)).to(tl.pointer_type(tl.int64))
        held = tl.load(source + row * words + place, mask=place < words)
        tl.store(target + there * words + place, held, mask=place < words)


def route(
    source: Tensor, pointers: Tensor, rows: Tensor, peers: Tensor, places: Tensor, sms: int, warps: int = WARPS
) -> None:
    """source: int64 [tokens, words]; pointers: int64 [ranks], where the memory of each begins; rows, peers, places:
    int32 of one length: row `rows[i]` becomes row `places[i]` (as wide) of rank `peers[i]`. Launched on the current
    stream with `sms` programs."""
    if source.dtype != torch.int64 or not source.is_contiguous() or not len(rows) == len(peers) == len(places):
        raise ValueError(f"route copies rows of int64, as many as peers and places; got {source.dtype}, {len(rows)}")
    words = source.shape[1]
    _route[(sms,)](source, pointers, rows, peers, places, len(rows), words, triton.next_power_of_2(words),
                   num_warps=warps)  # fmt: skip
