"""Pairs of thread blocks for Gluon kernels: what Gluon of Triton 3.6 and 3.7 cannot say, said in the PTX it makes.

Hopper's copy engine writes what it reads into the shared memory of several blocks of a cluster at once (PTX ISA,
cp.async.bulk.tensor, .multicast::cluster): two blocks that need the same operand read it from L2 once, and L2 is what
holds products of 128 columns back on an H200. Gluon's clusters are one program spread over blocks, in which warps have
no roles. A kernel here runs a program a block as ever and marks what concerns the pair; `paired` rewrites the PTX of
kernels with such marks and leaves all others alone:

- the kernel is of clusters of two, whose blocks wait for each other's barriers before their first copy
- a marked copy goes to both blocks, and its bytes count at both blocks' barriers
- every arrival at a barrier is made at both blocks', once a warp: a barrier counts 4 a warpgroup and block
- warpgroups do not gather before they arrive or wait (Triton lets one thread arrive for all, behind a barrier)
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from triton import knobs
from triton.experimental import gluon
from triton.experimental.gluon import language as gl

BLOCKS = 2
"""Blocks of a cluster: all of an H200's 132 SMs can be in pairs."""
ARRIVALS = gl.constexpr(BLOCKS * 4)
"""Of a warpgroup at one barrier: of its four warps, and of the other block's."""
MEET, SHARE = "// meet the pair", "// copy to the pair"
COPY = re.compile(
    r"(@%p\d+ cp\.async\.bulk\.tensor\.\dd)\.shared::(?:cta|cluster)"
    r"(\.global\.mbarrier::complete_tx::bytes)( \[[^;]*\]);"
)
WAIT = re.compile(r"\tbar\.sync \t\d+, 128;\n(\t// begin inline asm\n\t\n\{\n\t\.reg \.pred complete;)")
ARRIVE = re.compile(
    r"\tbar\.sync \t\d+, 128;\n\t// begin inline asm\n\t@%p\d+ mbarrier\.arrive\.shared::cta\.b64 _, \[(%r\d+)\];"
)
START = re.compile(r"(\.entry [^{]*)(\.maxnreg \d+\n)(\{\n(?:\t\.reg [^\n]*\n)+)")


@gluon.jit
def meet():
    """The warps that set up barriers wait here for the other block.

    All other warps arrive at their start, and do not wait: they give up registers that these warps are waiting for.
    The mark's number changes with `paired`, as Triton 3.6 keeps compiled kernels by their own sources.
    """
    gl.inline_asm_elementwise(
        "fence.mbarrier_init.release.cluster; barrier.cluster.arrive.release; barrier.cluster.wait.acquire; "
        "mov.u32 $0, 0; // meet the pair, 2", "=r", [], dtype=gl.int32, is_pure=False, pack=1,
    )  # fmt: skip


@gluon.jit
def shared_row(row):
    """`row`, as a coordinate of the next copy, which goes to both blocks of the pair."""
    return gl.inline_asm_elementwise(
        "mov.b32 $0, $1; // copy to the pair", "=r,r", [row], dtype=gl.int32, is_pure=False, pack=1
    )


@contextmanager
def rewriting() -> Iterator[None]:
    """What Triton compiles inside the block goes through `paired`."""
    before = knobs.runtime.add_stages_inspection_hook
    knobs.runtime.add_stages_inspection_hook = _stages
    try:
        yield
    finally:
        knobs.runtime.add_stages_inspection_hook = before


def _stages(backend: Any = None, stages: Any = None, options: Any = None, *rest: Any) -> tuple[str, str] | None:
    """Triton's hook: of its stages, or without arguments what it adds to a cache's key."""
    if stages is None:
        return "pairs", "pairs"
    make = stages["ptx"]
    stages["ptx"] = lambda source, metadata: paired(make(source, metadata), options.num_warps)
    return None


def paired(ptx: str, warps: int) -> str:
    """The PTX of a kernel of pairs; warps: of the default partition, which meets the pair where the kernel says so.

    ValueError where a mark has no copy, or what is to be rewritten is not there: another Triton writes other PTX.
    """
    if MEET not in ptx:
        return ptx
    late = (
        "\t{\n\t.reg .pred sets_up;\n\t.reg .b32 thread;\n\tmov.u32 thread, %tid.x;\n"
        f"\tsetp.lt.u32 sets_up, thread, {32 * warps};\n\t@sets_up bra MET;\n"
        "\tbarrier.cluster.arrive.release;\nMET:\n\t}\n"
    )
    size = f".explicitcluster\n.reqnctapercluster {BLOCKS}, 1, 1\n"
    ptx = _replaced(START, rf"\g<1>{size}\g<2>\g<3>{late}", ptx, "start")
    first, *marked = ptx.split(SHARE)
    both = f"{{\n\t.reg .b16 both;\n\tmov.b16 both, {2**BLOCKS - 1};\n\t"
    copy = rf"{both}\g<1>.shared::cluster\g<2>.multicast::cluster\g<3>, both;\n\t}}"
    ptx = SHARE.join([first, *(_replaced(COPY, copy, piece, "copy behind a mark", 1) for piece in marked)])
    ptx = _replaced(WAIT, r"\g<1>", ptx, "wait")
    ptx = _replaced(ARRIVE, _arrivals, ptx, "arrival")
    if "mbarrier.arrive.shared::cta.b64" in ptx:
        raise ValueError("a kernel of pairs arrives at its own barrier alone")
    return ptx


def _replaced(pattern: "re.Pattern[str]", by: Any, ptx: str, what: str, count: int = 0) -> str:
    out, times = pattern.subn(by, ptx, count)
    if not times:
        raise ValueError(f"a kernel of pairs has no {what} in the PTX of this Triton")
    return out


def _arrivals(match: "re.Match[str]") -> str:
    """Of each warp, at the barrier of every block. Not released to the cluster (.release.cluster): that is a fence of
    all memory before each, a microsecond a block of K (H200, 2026-11-30); CUTLASS's ClusterBarrier has none either."""
    each = "".join(
        f"\tmapa.shared::cluster.u32 there, {match[1]}, {block};\n"
        "\t@first mbarrier.arrive.shared::cluster.b64 _, [there];\n"
        for block in range(BLOCKS)
    )
    return (
        "\tbar.warp.sync \t-1;\n\t// begin inline asm\n\t{\n\t.reg .b32 there, lane;\n\t.reg .pred first;\n"
        f"\tmov.u32 lane, %laneid;\n\tsetp.eq.u32 first, lane, 0;\n{each}\t}}"
    )
