"""What else of torch's library is timed: products in FP8 with scales by block, attention by either backend, experts of
all sizes.

Flash-attention 2 and cuDNN are asked for by name, since runs of other stacks use the one or the other: heads 64 to 256
wide, 512 to 32,768 tokens, causal, of all pairs, and in a window. Groups of products lie between few rows an expert,
where weights decide, and thousands; of some, a part of the experts has most of the rows.
"""

from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

from hwmodels.op import Attention, Gemm, GroupedGemm
from numerics.card import torch_calls as calls
from numerics.card.torch_plan import FULL, MOST_FLOP, ROLES, Case, Sizes

TILE = 128
BACKENDS = ("FLASH_ATTENTION", "CUDNN_ATTENTION")
"""Of torch.nn.attention.SDPBackend: flash-attention 2 as torch ships it, and cuDNN's."""


class Wider(NamedTuple):
    """Shapes. blocks: (n, k) of products; rows: tokens of these; heads: (heads, kv heads, width); sequences: lengths of
    about `tokens` in all; windows: keys that a query sees; experts: (n, k); groups, each: experts and rows of each."""

    blocks: tuple[tuple[int, int], ...]
    rows: tuple[int, ...]
    heads: tuple[tuple[int, int, int], ...]
    sequences: tuple[int, ...]
    tokens: int
    windows: tuple[int, ...]
    experts: tuple[tuple[int, int], ...]
    groups: tuple[int, ...]
    each: tuple[int, ...]


WIDE = Wider(
    blocks=(
        (2048, 2048), (4096, 4096), (6144, 4096), (28672, 4096), (4096, 14336), (8192, 8192), (10240, 8192),
        (57344, 8192), (8192, 28672), (7168, 8192), (8192, 3584), (1280, 8192), (8192, 1024), (1536, 7168),
        (24576, 1536), (576, 7168), (32768, 512), (7168, 16384), (36864, 7168), (7168, 18432), (4096, 7168),
        (7168, 2048), (12288, 12288), (49152, 12288), (3072, 2048), (16384, 2048),
    ),
    rows=(1024, 4096, 8192, 16384),
    heads=((32, 8, 64), (32, 32, 96), (32, 8, 128), (16, 16, 128), (20, 20, 160), (16, 16, 192), (16, 8, 256)),
    sequences=(512, 1024, 2048, 4096, 8192, 16384, 32768), tokens=16384, windows=(128, 1024, 4096),
    experts=((1536, 2048), (2048, 768), (4096, 7168), (7168, 2048), (28672, 4096), (4096, 14336)),
    groups=(8, 16, 32, 64, 128), each=(64, 128, 256, 512, 1024, 2048, 4096),
)  # fmt: skip
NARROW = Wider(((128, 256),), (128,), ((4, 2, 16),), (32, 64), 64, (16,), ((32, 32),), (2,), (16, 64))
"""The same for a machine without a GPU."""
MOST_ELEMENTS = 3 << 30
"""Of a group's operands and result."""


def _of(sizes: Sizes) -> Wider:
    return WIDE if sizes is FULL else NARROW


def blocks(sizes: Sizes) -> Iterator[Case]:
    """Products in FP8 as recipes by block have them: activations and gradients with a scale for 128 of their depth,
    weights with one for 128 x 128; weight gradients of two of the first kind."""
    wide = _of(sizes)
    for i, (n, k) in enumerate(wide.blocks):
        for m in wide.rows:
            if 2.0 * m * n * k > 2 * MOST_FLOP:
                continue
            for op in (Gemm(m, n, k), Gemm(m, k, n, "dgrad"), Gemm(n, k, m, "wgrad_bf16")):
                if op.k % TILE == 0:
                    loaded = m == wide.rows[-1] and i % 3 == 0
                    yield Case(op, f"scaled_mm by block {op.role}", partial(calls.by_block, op), loaded)


def heads(sizes: Sizes) -> Iterator[Case]:
    """Attention by either backend; in a window by flash-attention alone, which is the one that has it."""
    wide = _of(sizes)
    for count, kv, width in wide.heads:
        for s in wide.sequences:
            batch, shared = max(1, wide.tokens // s), 0 if kv == count else kv
            for backend in BACKENDS:
                for causal in (True, False):
                    if not causal and (width not in (64, 128) or s > wide.tokens):
                        continue
                    for direction in ("forward", "backward"):
                        op = Attention(direction, batch, count, s, width, width, causal, 1, shared)
                        make = partial(calls.attention_by, op, backend)
                        yield Case(op, f"{backend} {direction}", make, causal and s in (2048, 8192))
            for window in wide.windows if width in (64, 128) else ():
                if window < s:
                    for direction in ("forward", "backward"):
                        op = Attention(direction, batch, count, s, width, width, True, 1, shared, window)
                        yield Case(op, f"_flash_attention_{direction}", partial(calls.windowed, op))


def experts(sizes: Sizes) -> Iterator[Case]:
    """Groups with as many rows for each expert, and with a quarter of the experts having three quarters of them."""
    wide = _of(sizes)
    for n, k in wide.experts:
        for groups in wide.groups:
            for rows in (groups * each for each in wide.each):
                if 2.0 * rows * n * k > MOST_FLOP or groups * n * k + rows * (n + k) > MOST_ELEMENTS:
                    continue
                for role in ROLES:
                    op = GroupedGemm(groups, rows, *((k, n) if role == "dgrad" else (n, k)), role, "bf16")
                    loaded = rows == groups * 1024 and groups in (8, 32)
                    yield Case(op, f"_grouped_mm {role}", partial(calls.grouped, op), loaded)
                    if role != "dgrad" and rows in (groups * 256, groups * 1024) and groups in (32, 128):
                        yield Case(op, f"_grouped_mm {role} skewed", partial(calls.skewed, op))
