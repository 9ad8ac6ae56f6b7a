"""What a communication kernel does to a chip: some SMs copy from their own memory into a peer's over NVLink.

Warps load 16 bytes a thread and store them to the peer, `WORDS` a thread in flight, as the copying warps of a dispatch
do (numbers of warps: sim.exchange.roles); no flags, no metadata, so it is a bound on such kernels. `hold` keeps SMs
and moves nothing: beside it, what compute loses is the SMs alone.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

WARPS = 16
"""Of a program: 512 threads, the dispatch kernel's in the published H800 profile (sim.exchange.roles)."""
WORDS = 8
"""int64 a thread in flight: four 16-byte loads."""
LANES = 32


@triton.jit
def _now(token):
    """Nanoseconds of the GPU's clock. token: anything that changes, so that two readings are two."""
    return tl.inline_asm_elementwise(
        "mov.u64 $0, %globaltimer; // $1", "=l,r", [token], dtype=tl.int64, is_pure=False, pack=1
    )


@triton.jit
def _push(source, target, blocks, rounds, pace, block: tl.constexpr, paced: tl.constexpr):
    start = tl.zeros((), tl.int64)
    if paced:
        start = _now(0)
    turn = 0
    for number in range(tl.program_id(0), blocks * rounds, tl.num_programs(0)):
        if paced:
            waits = 0
            while _now(waits) - start < turn * pace:
                waits += 1
            turn += 1
        place = (number % blocks).to(tl.int64) * block + tl.arange(0, block)
        tl.store(target + place, tl.load(source + place))


@triton.jit
def _hold(out, ns):
    start = _now(0)
    turns = 0
    while _now(turns) - start < ns:
        turns += 1
    tl.store(out + tl.program_id(0), turns)


def push(
    source: Tensor, target: Tensor, sms: int, rounds: int = 1, warps: int = WARPS, words: int = WORDS,
    gb_per_s: float = 0.0,
) -> None:  # fmt: skip
    """Copy source to target (flat int64 of one size, whole blocks; other device or the same), `rounds` times.

    Launched on the current stream of the source's device with `sms` programs, one an SM while SMs are free. gb_per_s:
    of all programs together, by waiting before each block; 0: as fast as it goes.
    """
    block = warps * LANES * words
    if source.dtype != torch.int64 or source.shape != target.shape or source.numel() % block:
        raise ValueError(f"push copies int64 in multiples of {block}; got {source.dtype} {list(source.shape)}")
    with torch.cuda.device_of(source):
        pace = round(sms * block * source.element_size() / gb_per_s) if gb_per_s else 0  # bytes / (GB/s) are ns
        _push[(sms,)](source, target, source.numel() // block, rounds, pace, block, pace > 0, num_warps=warps)


def hold(out: Tensor, sms: int, ns: int, warps: int = WARPS) -> None:
    """Keep `sms` programs on the current stream of out's device for `ns`. out: int32 [sms] or longer."""
    with torch.cuda.device_of(out):
        _hold[(sms,)](out, ns, num_warps=warps)
