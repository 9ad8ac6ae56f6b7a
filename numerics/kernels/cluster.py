"""What Gluon of Triton 3.6 and 3.7 cannot say of products (wgmma.py), said in the PTX and the machine code it makes.

A kernel marks what it wants; `rewritten` and `interleaved` leave kernels without marks alone:

- every warp arrives at a barrier and waits at one by itself: Triton gathers a warpgroup first, and lets one thread
  arrive for all. So a barrier counts WARPS arrivals of a warpgroup
- multiply-adds let other warps in, as ptxas of CUDA 12.9 and later makes them; Triton brings ptxas of 12.8
- two programs make a pair, a cluster of thread blocks. Hopper's copy engine writes what it reads into the shared memory
  of both (PTX ISA, cp.async.bulk.tensor, .multicast::cluster): rows that both need are read from L2 once. A marked
  copy goes to both, and its bytes count at both blocks' barriers; every arrival is made at both blocks' barriers.
  Gluon's own clusters are one program spread over blocks, in which warps have no roles.
"""

import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from triton import knobs
from triton.experimental import gluon
from triton.experimental.gluon import language as gl

BLOCKS = gl.constexpr(2)
"""Blocks of a cluster: all of an H200's 132 SMs can be in pairs."""
WARPS = gl.constexpr(4)
"""Of a warpgroup."""
ALONE, MEET, SHARE = "// every warp by itself", "// meet the pair", "// copy to the pair"
COPY = re.compile(
    r"(@%p\d+ cp\.async\.bulk\.tensor\.\dd)\.shared::(?:cta|cluster)"
    r"(\.global\.mbarrier::complete_tx::bytes)( \[[^;]*\]);"
)
WAIT = re.compile(r"\tbar\.sync \t\d+, 128;\n(\t// begin inline asm\n\t\n\{\n\t\.reg \.pred complete;)")
ARRIVE = re.compile(
    r"\tbar\.sync \t\d+, 128;\n\t// begin inline asm\n\t@%p\d+ mbarrier\.arrive\.shared::cta\.b64 _, \[(%r\d+)\];"
)
START = re.compile(r"(\.entry [^{]*)(\.maxnreg \d+\n)(\{\n(?:\t\.reg [^\n]*\n)+)")
MULTIPLY_ADD = 0x7223
"""The low 16 bits of FFMA of four registers on sm_90, never predicated."""
KEPT, STAYS = np.uint64(0x7 << 58), np.uint64(1 << 45)
"""Bits of an instruction's second word (sm_90): operands that are kept for the next one, and not to yield to another
warp behind it."""


@gluon.jit
def alone():
    """Marks a kernel whose warps arrive and wait by themselves. The number changes with this module, as Triton 3.6
    keeps compiled kernels by their own sources."""
    gl.inline_asm_elementwise(
        "mov.u32 $0, 0; // every warp by itself, 4", "=r", [], dtype=gl.int32, is_pure=False, pack=1
    )


@gluon.jit
def meet():
    """The warps that set up barriers wait here for the other block.

    All other warps arrive at their start, and do not wait: they give up registers that these warps are waiting for.
    """
    gl.inline_asm_elementwise(
        "fence.mbarrier_init.release.cluster; barrier.cluster.arrive.release; barrier.cluster.wait.acquire; "
        "mov.u32 $0, 0; // meet the pair", "=r", [], dtype=gl.int32, is_pure=False, pack=1,
    )  # fmt: skip


@gluon.jit
def shared_row(row):
    """`row`, as a coordinate of the next copy, which goes to both blocks of the pair."""
    return gl.inline_asm_elementwise(
        "mov.b32 $0, $1; // copy to the pair", "=r,r", [row], dtype=gl.int32, is_pure=False, pack=1
    )


@contextmanager
def rewriting() -> Iterator[None]:
    """What Triton compiles inside the block is rewritten where it is marked."""
    before = knobs.runtime.add_stages_inspection_hook
    knobs.runtime.add_stages_inspection_hook = _stages
    try:
        yield
    finally:
        knobs.runtime.add_stages_inspection_hook = before


def _stages(backend: Any = None, stages: Any = None, options: Any = None, *rest: Any) -> tuple[str, str] | None:
    """Triton's hook: of its stages, or without arguments what it adds to a cache's key."""
    if stages is None:
        return "products", "products"
    make, assemble = stages["ptx"], stages["cubin"]
    stages["ptx"] = lambda source, metadata: rewritten(make(source, metadata), options.num_warps)
    stages["cubin"] = lambda source, metadata: _mixed(source, assemble(source, metadata))
    return None


def _mixed(ptx: str, cubin: bytes) -> bytes:
    return interleaved(cubin) if ALONE in ptx else cubin


def interleaved(cubin: bytes) -> bytes:
    """Of multiply-adds that follow each other every second lets another warp in, and so keeps no operand for the next.

    cubin: an ELF file of 64-bit words, little-endian, for sm_90. Results are the same: the bits steer issue alone.
    """
    code = bytearray(cubin)
    (sections,) = struct.unpack_from("<Q", cubin, 0x28)
    size, count = struct.unpack_from("<HH", cubin, 0x3A)
    for at in range(sections, sections + size * count, size):
        flags, _, offset, length = struct.unpack_from("<4Q", cubin, at + 8)
        if flags & 0x4:  # SHF_EXECINSTR
            words = np.frombuffer(code, "<u8", length // 16 * 2, offset).reshape(-1, 2)
            words[_second(words), 1] &= ~(KEPT | STAYS)
    return bytes(code)


def _second(words: "np.ndarray[Any, Any]") -> list[int]:
    """Of [instructions, 2]: multiply-adds behind another, of which neither lets others in, that keep an operand; no two
    that follow each other."""
    steady = ((words[:, 0] & np.uint64(0xFFFF)) == np.uint64(MULTIPLY_ADD)) & (words[:, 1] & STAYS != 0)
    kept = steady & (words[:, 1] & KEPT != 0)
    second: list[int] = []
    for at in np.flatnonzero(kept[1:] & steady[:-1]) + 1:
        if not second or second[-1] != at - 1:
            second.append(int(at))
    return second


def rewritten(ptx: str, warps: int) -> str:
    """The PTX of a marked kernel; warps: of the default partition, which meets the pair where the kernel says so.

    ValueError where a mark has no copy, or what is to be rewritten is not there: another Triton writes other PTX.
    """
    if ALONE not in ptx:
        return ptx
    pair = MEET in ptx
    ptx = _replaced(WAIT, r"\g<1>", ptx, "wait")
    ptx = _replaced(ARRIVE, lambda match: _arrivals(match[1], pair), ptx, "arrival")
    if re.search(r"@%p\d+ mbarrier\.arrive\.shared::cta\.b64", ptx):
        raise ValueError("a kernel of products arrives by one thread for all")
    if not pair:
        return ptx
    late = (
        "\t{\n\t.reg .pred sets_up;\n\t.reg .b32 thread;\n\tmov.u32 thread, %tid.x;\n"
        f"\tsetp.lt.u32 sets_up, thread, {32 * warps};\n\t@sets_up bra MET;\n"
        "\tbarrier.cluster.arrive.release;\nMET:\n\t}\n"
    )
    size = f".explicitcluster\n.reqnctapercluster {BLOCKS.value}, 1, 1\n"
    ptx = _replaced(START, rf"\g<1>{size}\g<2>\g<3>{late}", ptx, "start")
    first, *marked = ptx.split(SHARE)
    both = f"{{\n\t.reg .b16 both;\n\tmov.b16 both, {2**BLOCKS.value - 1};\n\t"
    copy = rf"{both}\g<1>.shared::cluster\g<2>.multicast::cluster\g<3>, both;\n\t}}"
    return SHARE.join([first, *(_replaced(COPY, copy, piece, "copy behind a mark", 1) for piece in marked)])


def _replaced(pattern: "re.Pattern[str]", by: Any, ptx: str, what: str, count: int = 0) -> str:
    out, times = pattern.subn(by, ptx, count)
    if not times:
        raise ValueError(f"a kernel of products has no {what} in the PTX of this Triton")
    return out


def _arrivals(barrier: str, pair: bool) -> str:
    """Of each warp, of a pair at the barrier of every block. Not released to the cluster (.release.cluster): that is a
    fence of all memory before each, a microsecond a block of K (H200, 2026-11-30); CUTLASS's ClusterBarrier has none
    either."""
    each = f"\t@first mbarrier.arrive.shared::cta.b64 _, [{barrier}];\n"
    if pair:
        each = "".join(
            f"\tmapa.shared::cluster.u32 there, {barrier}, {block};\n"
            "\t@first mbarrier.arrive.shared::cluster.b64 _, [there];\n"
            for block in range(BLOCKS.value)
        )
    return (
        "\tbar.warp.sync \t-1;\n\t// begin inline asm\n\t{\n\t.reg .b32 there, lane;\n\t.reg .pred first;\n"
        f"\tmov.u32 lane, %laneid;\n\tsetp.eq.u32 first, lane, 0;\n{each}\t}}"
    )
