# ruff: noqa: N803 - M, N, K and constants are capitals, as in every text on matrix products
"""Dense FP8 GEMM for Hopper: C[M,N] = A[M,K] B[N,K]^T with 1x128 by 128x128 scales; fprop and dgrad.

Specification: numerics/reference/gemm.py. Bound: the tensor core from M of about 500 on (2MNK FLOP against
MK + NK + 2MN bytes); for M = 64 and 128, the weight's NK bytes of HBM traffic.

A persistent grid of `sms` programs, one an SM, walks the output tiles, so that a communication kernel can keep the rest
of the chip (112 of 132 in DeepSeek-V3's training, arXiv 2412.19437 sec 3.2.2). Every 128 elements of K the tensor
core's sum is promoted: acc += dot(a, b) * (a_s * b_s), in FP32 on the CUDA cores (sec 3.3.2). That costs up to a fifth
of the tensor core's time when nothing hides it (512 tensor cycles a 128x128x128 block, 128 of FMA); the variants differ
in what they hide it with. On an H200 (docs/KERNELS.md) two small programs an SM, one's promotion beside the other's
products, are up to 10 % faster than the default, a flattened loop, at four of six shapes and slower at two; the default
can be held to some of the SMs.
"""

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from hwmodels.formats import TILE
from numerics.kernels import wgmma
from numerics.kernels.wgmma import Form
from numerics.reference import gemm as reference

HOPPER_SMS = 132
"""SMs of an H100, H200 or H800 SXM (NVIDIA H100 white paper); used where the tensors are on a CPU."""
DESCRIPTOR_ALIGNMENT = 16
"""Bytes to which a tensor map's base address and row stride are aligned (CUDA driver API, cuTensorMapEncodeTiled)."""


class Config(NamedTuple):
    """How one GEMM is cut: tile block_m x block_n, `stages` K blocks in flight, `warps` a program.

    descriptor: operands through the bulk tensor copy engine instead of pointers. flatten: the tile loop and the K loop
    become one, so that the next tile's loads start before this tile's store. programs: resident on an SM; more than one
    only on the whole device, as the hardware alone decides where they go.
    """

    block_m: int
    block_n: int
    stages: int
    warps: int
    descriptor: bool = True
    flatten: bool = False
    programs: int = 1

    @property
    def name(self) -> str:
        words = [f"{self.block_m}x{self.block_n}", f"w{self.warps}", f"s{self.stages}"]
        words += ["tma" if self.descriptor else "pointer"]
        words += ["flat"] * self.flatten
        return " ".join(words + [f"{self.programs}/SM"] * (self.programs > 1))


VARIANTS = {
    "flat": Config(128, 128, 4, 8, flatten=True),
    "descriptor": Config(128, 128, 4, 8),
    "pointer": Config(128, 128, 4, 8, descriptor=False),
    "twin": Config(64, 128, 3, 4, programs=2),
}
"""Forms for M >= 128 that a bench compares; the first is the default."""


def choose(m: int, n: int, k: int, sms: int) -> Config:
    """The configuration for a shape. M is part of the key: small M wants narrow tiles, that all SMs stream weights."""
    if m > TILE // 2:
        return VARIANTS["flat"]
    for block_n in (128, 64):
        if -(-n // block_n) >= sms:
            return Config(64, block_n, 5, 4)
    return Config(64, 32, 6, 4)


def gemm(
    a: Tensor, a_s: Tensor, b: Tensor, b_s: Tensor,
    out_dtype: torch.dtype = torch.bfloat16, promote: int = 128, sms: int | None = None,
    config: Config | Form | None = None,
) -> Tensor:  # fmt: skip
    """C [M,N] as in numerics.reference.gemm.gemm; config: a form other than the default, which is Hopper's
    (numerics/kernels/wgmma.py) where the card and the operands suit it, else `choose`'s."""
    reference.check(a, a_s, b, b_s, promote)
    (m, k), n = a.shape, b.shape[0]
    out = torch.empty(m, n, dtype=out_dtype, device=a.device)
    if not out.numel() or not k:
        return out.zero_()
    if config is None and out_dtype == torch.bfloat16 and wgmma.takes(a, b, out, promote):
        config = wgmma.choose(m, n, k, available(a, sms))
    if isinstance(config, Form):
        wgmma.dense(a, a_s, b, b_s, out, config, available(a, sms))
        return out
    config = config or choose(m, n, k, available(a, sms))
    arguments, constants = plan(a, a_s, b, b_s, out, promote, config)
    tiles = -(-m // config.block_m) * -(-n // config.block_n)
    _gemm[(programs(a, tiles, sms, config),)](*arguments, **constants, num_warps=config.warps)
    return out


def plan(
    a: Tensor, a_s: Tensor, b: Tensor, b_s: Tensor, out: Tensor, promote: int, config: Config
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional arguments and compile-time constants of `_gemm`."""
    config = fitting(config, a, b)
    left, right = operands(a, b, config)
    strides = (a.stride(0), b.stride(0), out.stride(0), *a_s.stride(), *b_s.stride())
    constants = {"GROUP_M": 8, **tile_constants(config, a.shape[1], promote), "FLATTEN": config.flatten}
    return (left, right, out, a_s, b_s, a.shape[0], b.shape[0], a.shape[1], *strides), constants


def fitting(config: Config, *tensors: Tensor) -> Config:
    """`config`, with pointers instead of descriptors where a tensor's rows are not aligned for the copy engine."""
    aligned = all(not (t.stride(0) | t.data_ptr()) % DESCRIPTOR_ALIGNMENT for t in tensors)
    if any(t.stride(1) != 1 for t in tensors):
        raise ValueError("operands are contiguous along K; got strides " + ", ".join(str(t.stride()) for t in tensors))
    return config if aligned else config._replace(descriptor=False)


def operands(a: Tensor, b: Tensor, config: Config) -> tuple[Any, Any]:
    """The two operands as the kernel takes them: tensors, or descriptors of the boxes it loads."""
    if not config.descriptor:
        return a, b
    return _descriptor(a, config.block_m), _descriptor(b, config.block_n)


def _descriptor(x: Tensor, rows: int) -> TensorDescriptor:
    return TensorDescriptor(x, list(x.shape), list(x.stride()), [rows, TILE])


def tile_constants(config: Config, k: int, promote: int) -> dict[str, Any]:
    """Constants of the K loop, shared by the dense, grouped and weight-gradient kernels."""
    if TILE % config.block_n:
        raise ValueError(f"block_n divides {TILE}, so that a tile has one scale of b; got {config.block_n}")
    return {
        "BLOCK_M": config.block_m, "BLOCK_N": config.block_n, "STAGES": config.stages,
        "DESCRIPTOR": config.descriptor, "EVEN_K": k % TILE == 0, "SPAN_BLOCKS": promote // TILE,
    }  # fmt: skip


def available(x: Tensor, sms: int | None) -> int:
    """SMs that a grid may take: `sms`, or all of the device."""
    if sms is not None and sms < 1:
        raise ValueError(f"sms is the number of SMs to run on, 1 or more; got {sms}")
    whole = torch.cuda.get_device_properties(x.device).multi_processor_count if x.is_cuda else HOPPER_SMS
    return min(sms or whole, whole)


def programs(x: Tensor, tiles: int, sms: int | None, config: Config) -> int:
    """Programs of a persistent grid over `tiles` tiles."""
    if config.programs > 1 and sms is not None:
        raise ValueError(f"{config.programs} programs an SM cannot be confined to {sms} SMs; choose another config")
    return min(tiles, available(x, sms) * config.programs)


@triton.jit
def _gemm(
    a, b, c, a_s, b_s, M, N, K,
    stride_am, stride_bn, stride_cm, stride_asm, stride_ask, stride_bsn, stride_bsk,
    GROUP_M: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, STAGES: tl.constexpr,
    DESCRIPTOR: tl.constexpr, EVEN_K: tl.constexpr, SPAN_BLOCKS: tl.constexpr, FLATTEN: tl.constexpr,
):  # fmt: skip
    tiles_m = tl.cdiv(M, BLOCK_M)
    tiles_n = tl.cdiv(N, BLOCK_N)
    for tile in tl.range(tl.program_id(0), tiles_m * tiles_n, tl.num_programs(0), flatten=FLATTEN):
        tile_m, tile_n = swizzle(tile, tiles_m, tiles_n, GROUP_M)
        total = accumulate(
            a, b, a_s, b_s, tile_m * BLOCK_M, tile_n * BLOCK_N, tile_n * BLOCK_N, M, N, K,
            stride_am, stride_bn, stride_asm, stride_ask, stride_bsn, stride_bsk,
            BLOCK_M, BLOCK_N, STAGES, DESCRIPTOR, EVEN_K, SPAN_BLOCKS, False,
        )  # fmt: skip
        store(c, total, tile_m * BLOCK_M, tile_n * BLOCK_N, M, N, stride_cm)


@triton.jit
def swizzle(tile, tiles_m, tiles_n, GROUP_M: tl.constexpr):
    """Tile coordinates in bands of GROUP_M rows, so that programs running together share operands in L2."""
    band = tile // (GROUP_M * tiles_n)
    height = min(tiles_m - band * GROUP_M, GROUP_M)
    within = tile % (GROUP_M * tiles_n)
    return band * GROUP_M + within % height, within // height


@triton.jit
def accumulate(
    a, b, a_s, b_s, row, col, b_row, M, N, K,
    stride_am, stride_bn, stride_asm, stride_ask, stride_bsn, stride_bsk,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, STAGES: tl.constexpr, DESCRIPTOR: tl.constexpr,
    EVEN_K: tl.constexpr, SPAN_BLOCKS: tl.constexpr, COLUMN_SCALES: tl.constexpr,
):  # fmt: skip
    """FP32 sums of one output tile.

    row, col: the tile's origin among M rows of a and N columns of C; b_row: the origin's row in b's memory, which
    differs from col where b stacks groups. COLUMN_SCALES: b has a scale a row (weight gradients), else a 128x128 block.
    SPAN_BLOCKS: blocks of 128 that stay in the tensor core's accumulator; 0: all.
    """
    total = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    part = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    # Rows past the end repeat the last one: loads stay in bounds and unmasked, and the store drops them.
    rows = tl.minimum(row + tl.arange(0, BLOCK_M), M - 1)
    cols = tl.minimum(tl.arange(0, BLOCK_N), N - 1 - col)
    a_scales = a_s + rows * stride_asm
    b_scales = b_s + (col + cols if COLUMN_SCALES else col // 128) * stride_bsn
    blocks = tl.cdiv(K, 128)
    for block in tl.range(0, blocks, num_stages=STAGES):
        x = _load(a, row, rows, block, K, stride_am, DESCRIPTOR, EVEN_K)
        y = _load(b, b_row, b_row + cols, block, K, stride_bn, DESCRIPTOR, EVEN_K)
        if SPAN_BLOCKS == 1:
            scale = tl.load(a_scales + block * stride_ask)
            if COLUMN_SCALES:  # loaded late: loaded before the products, they cost Triton 3.6 spills
                total += _scaled(tl.dot(x, tl.trans(y)), scale, b_scales + block * stride_bsk, COLUMN_SCALES)
            else:
                factor = scale * tl.load(b_scales + block * stride_bsk)
                total += tl.dot(x, tl.trans(y)) * factor[:, None]
        else:
            part = tl.dot(x, tl.trans(y), part)
            if SPAN_BLOCKS > 1:  # noqa: SIM102 - the outer test is made when compiling
                if (block + 1) % SPAN_BLOCKS == 0:
                    span = block // SPAN_BLOCKS
                    scale = tl.load(a_scales + span * stride_ask)
                    total += _scaled(part, scale, b_scales + span * stride_bsk, COLUMN_SCALES)
                    part = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    if SPAN_BLOCKS != 1:
        # The last, short span; zeros where K divides evenly.
        span = tl.maximum(blocks - 1, 0) // SPAN_BLOCKS if SPAN_BLOCKS > 1 else 0
        scale = tl.load(a_scales + span * stride_ask)
        total += _scaled(part, scale, b_scales + span * stride_bsk, COLUMN_SCALES)
    return total


@triton.jit
def _load(x, row, rows, block, K, stride, DESCRIPTOR: tl.constexpr, EVEN_K: tl.constexpr):
    """One [rows, 128] block of an operand; past K, zeros."""
    if DESCRIPTOR:
        loaded = x.load([row, block * 128])
    else:
        k = block * 128 + tl.arange(0, 128)
        pointers = x + rows.to(tl.int64)[:, None] * stride + k[None, :]
        if EVEN_K:  # noqa: SIM108 - chosen when compiling
            loaded = tl.load(pointers)
        else:
            loaded = tl.load(pointers, mask=k[None, :] < K, other=0.0)
    return loaded


@triton.jit
def _scaled(product, a_scale, b_scales, COLUMN_SCALES: tl.constexpr):
    """product * a_s * b_s, with one b scale a column or one for the tile."""
    b_scale = tl.load(b_scales)
    if COLUMN_SCALES:  # noqa: SIM108 - chosen when compiling; Triton compiles what follows a return, too
        scaled = product * a_scale[:, None] * b_scale[None, :]
    else:
        scaled = product * (a_scale * b_scale)[:, None]
    return scaled


@triton.jit
def store(c, tile, row, col, M, N, stride_cm):
    """Write `tile` at (row, col) of C [M,N]; what sticks out is dropped."""
    rows = row + tl.arange(0, tile.shape[0])
    cols = col + tl.arange(0, tile.shape[1])
    mask = (rows[:, None] < M) & (cols[None, :] < N)
    pointers = c + rows.to(tl.int64)[:, None] * stride_cm + cols[None, :]
    tl.store(pointers, tile.to(c.dtype.element_ty), mask=mask)
