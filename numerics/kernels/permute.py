"""Tokens' rows sorted by expert and padded to whole tiles, and back. `numerics.reference.permute`.

Bound by device memory. For T tokens of B bytes a row, k choices and R padded rows:

    dispatch_layout  4 Tk read, T bytes a rank written: launch-bound, microseconds
    layout     4 Tk read twice, 4 Tk + 4 R written: the same; expert_count and expert_map are its two halves
    permute    TB + 4 Tk read, RB written: a token is read once and scattered to its k rows
    unpermute  kTB + 8 Tk read, TB written: k independent 16-byte loads a thread
    unpermute_backward  (k + 1) TB read, kTB written (and the padding rows)
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from numerics.kernels.casts import matrix
from numerics.reference.permute import PAIRS, Layout, check_ranks, checked_rows

# PAIRS: a layout program ranks so many pairs, by comparing each with each.
TOKENS = 16
"""Tokens whose ranks a dispatch program finds."""
BLOCKS = 2048
"""Blocks of pairs whose counts a program sums up at a time: 16 a thread."""
WORDS = 1024
"""32-bit words a program copies at a time: 16 bytes for each of 256 threads."""
ROW = 2048
"""Elements a program weighs and sums at a time: 16 bytes of BF16 for each of 256 threads."""
LANES = 32
PADDING_PROGRAMS = 8
"""Programs that clear one expert's padding rows."""


@triton.jit
def _dispatch_layout(
    idx, of_rank, of_expert, goes, tokens, experts, ranks, k: tl.constexpr, bins: tl.constexpr, block: tl.constexpr
):  # fmt: skip
    """Counts are whole numbers, so that the order of atomic additions changes nothing."""
    token = tl.program_id(0) * block + tl.arange(0, block)
    rank = tl.arange(0, bins)
    hits = tl.zeros((block, bins), tl.int32)
    for choice in tl.static_range(k):
        expert = tl.load(idx + token * k + choice, mask=token < tokens, other=-1).to(tl.int32)
        here = (expert >= 0) & (expert < experts)
        tl.atomic_add(of_expert + expert, here.to(tl.int32), mask=here, sem="relaxed")
        owner = tl.where(here, expert // (experts // ranks), -1)
        hits = tl.where(owner[:, None] == rank[None, :], 1, hits)
    tl.atomic_add(of_rank + rank, tl.sum(hits, axis=0), mask=rank < ranks, sem="relaxed")
    place = goes + token.to(tl.int64)[:, None] * ranks + rank[None, :]
    tl.store(place, hits.to(tl.uint8), mask=(token < tokens)[:, None] & (rank < ranks)[None, :])


@triton.jit
def _count(idx, counts, histogram, pairs, experts, bins: tl.constexpr, block: tl.constexpr):
    pair = tl.program_id(0) * block + tl.arange(0, block)
    expert = tl.load(idx + pair, mask=pair < pairs, other=-1).to(tl.int32)
    bin_ = tl.arange(0, bins)
    here = tl.sum((expert[:, None] == bin_[None, :]).to(tl.int32), axis=0)
    tl.store(histogram + tl.program_id(0) * experts + bin_, here, mask=bin_ < experts)
    tl.atomic_add(counts + bin_, here, mask=bin_ < experts, sem="relaxed")


@triton.jit
def _bases(
    counts, histogram, offsets, base, blocks, experts, tile: tl.constexpr, bins: tl.constexpr, span: tl.constexpr
):  # fmt: skip
    """A program an expert: where its rows start, and where those of each block of pairs do."""
    expert = tl.program_id(0)
    bin_ = tl.arange(0, bins)
    used = tl.load(counts + bin_, mask=bin_ < experts, other=0)
    padded = (used + tile - 1) // tile * tile
    first = tl.sum(tl.where(bin_ < expert, padded, 0), axis=0)
    tl.store(offsets + expert, first)
    if expert == experts - 1:
        tl.store(offsets + experts, tl.sum(padded, axis=0))
    for start in range(0, blocks, span):
        block = start + tl.arange(0, span)
        here = tl.load(histogram + block * experts + expert, mask=block < blocks, other=0)
        tl.store(base + block * experts + expert, first + tl.cumsum(here, 0) - here, mask=block < blocks)
        first += tl.sum(here, axis=0)


@triton.jit
def _place(idx, base, row_of_pair, pairs, experts, rows, block: tl.constexpr):
    """base [blocks, experts]: the row of a block's first pair of each expert."""
    lane = tl.arange(0, block)
    pair = tl.program_id(0) * block + lane
    expert = tl.load(idx + pair, mask=pair < pairs, other=-1).to(tl.int32)
    here = (expert >= 0) & (expert < experts)
    earlier = (expert[:, None] == expert[None, :]) & (lane[None, :] < lane[:, None])
    rank = tl.sum(earlier.to(tl.int32), axis=1)
    first = tl.load(base + tl.program_id(0) * experts + expert, mask=here, other=0)
    row = first + rank
    tl.store(row_of_pair + pair, tl.where(here & (row < rows), row, -1), mask=pair < pairs)


@triton.jit
def _owners(offsets, expert_of_row, experts, bins: tl.constexpr, tile: tl.constexpr):
    """The expert of one tile of rows: how many experts end at or before it; -1 behind the last."""
    first = tl.program_id(0) * tile
    bin_ = tl.arange(0, bins)
    ends = tl.load(offsets + 1 + bin_, mask=bin_ < experts, other=0x7FFFFFFF)
    owner = tl.sum((ends <= first).to(tl.int32), axis=0)
    row = first + tl.arange(0, triton.next_power_of_2(tile))
    tl.store(expert_of_row + row, tl.where(owner < experts, owner, -1) + tl.zeros_like(row), mask=row < first + tile)


@triton.jit
def _permute(
    x, out, row_of_pair, counts, offsets, tokens, words, experts, rows, x_stride, x_step, out_stride, out_step,
    k: tl.constexpr, clearers: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """Programs 0 .. T-1 scatter a token each; `clearers` more an expert, and for what lies behind, write zeros.
    stride, step: words from a row to the next, and from a word of a row to the next."""
    program = tl.program_id(0)
    word = tl.program_id(1) * block + tl.arange(0, block)
    mask = word < words
    if program < tokens:
        value = tl.load(x + program.to(tl.int64) * x_stride + word * x_step, mask=mask)
        for choice in tl.static_range(k):
            row = tl.load(row_of_pair + program * k + choice)
            tl.store(out + row.to(tl.int64) * out_stride + word * out_step, value, mask=mask & (row >= 0))
    else:
        expert = (program - tokens) // clearers
        first = tl.load(offsets + expert)
        end = rows
        if expert < experts:
            first += tl.load(counts + expert)
            end = tl.minimum(tl.load(offsets + expert + 1), rows)
        for row in range(first + (program - tokens) % clearers, end, clearers):
            place = out + tl.cast(row, tl.int64) * out_stride + word * out_step
            tl.store(place, tl.zeros((block,), tl.int32), mask=mask)


@triton.jit
def _unpermute(
    y, out, row_of_pair, weights, width, k: tl.constexpr, weighted: tl.constexpr, block: tl.constexpr
):  # fmt: skip
    token = tl.program_id(0)
    column = tl.program_id(1) * block + tl.arange(0, block)
    mask = column < width
    total = tl.zeros((block,), tl.float32)
    for choice in tl.static_range(k):
        row = tl.load(row_of_pair + token * k + choice)
        part = tl.load(y + row.to(tl.int64) * width + column, mask=mask & (row >= 0), other=0.0).to(tl.float32)
        if weighted:
            part = part * tl.load(weights + token * k + choice)
        total += part
    tl.store(out + token.to(tl.int64) * width + column, total.to(out.dtype.element_ty), mask=mask)


@triton.jit
def _unpermute_backward(
    dout, y, dy, dweights, row_of_pair, weights, width, k: tl.constexpr, weighted: tl.constexpr, block: tl.constexpr
):  # fmt: skip
    """One program a token, so that its weights' gradients are summed in one place, in order."""
    token = tl.program_id(0)
    for choice in tl.static_range(k):
        row = tl.load(row_of_pair + token * k + choice)
        place = row.to(tl.int64) * width
        weight = tl.load(weights + token * k + choice) if weighted else 1.0
        dot = tl.zeros((block,), tl.float32)
        for first in range(0, width, block):
            column = first + tl.arange(0, block)
            mask = (column < width) & (row >= 0)
            gradient = tl.load(dout + token.to(tl.int64) * width + column, mask=mask, other=0.0).to(tl.float32)
            dot += gradient * tl.load(y + place + column, mask=mask, other=0.0).to(tl.float32)
            tl.store(dy + place + column, (gradient * weight).to(dy.dtype.element_ty), mask=mask)
        tl.store(dweights + token * k + choice, tl.sum(dot, axis=0))


def dispatch_layout(topk_idx: Tensor, experts: int, ranks: int) -> tuple[Tensor, Tensor, Tensor]:
    """topk_idx [T, k] -> int32 [ranks], int32 [experts], bool [T, ranks]."""
    check_ranks(experts, ranks)
    idx = topk_idx.contiguous()
    tokens, k = idx.shape
    counts, goes = idx.new_zeros(ranks + experts, dtype=torch.int32), idx.new_empty(tokens, ranks, dtype=torch.uint8)
    of_rank, of_expert = counts[:ranks], counts[ranks:]
    if tokens:
        shape = (tokens, experts, ranks, k, triton.next_power_of_2(ranks), TOKENS)
        _dispatch_layout[(triton.cdiv(tokens, TOKENS),)](idx, of_rank, of_expert, goes, *shape, num_warps=4)
    return of_rank, of_expert, goes.view(torch.bool)


def expert_count(topk_idx: Tensor, experts: int) -> tuple[Tensor, Tensor]:
    """topk_idx [T, k] -> int32: pairs of each expert [E], and of each block of PAIRS pairs apart [blocks, E]."""
    idx = topk_idx.contiguous()
    blocks = max(1, triton.cdiv(idx.numel(), PAIRS))
    counts = idx.new_zeros(experts, dtype=torch.int32)
    apart = idx.new_empty(blocks, experts, dtype=torch.int32)
    bins = triton.next_power_of_2(experts)
    _count[(blocks,)](idx, counts, apart, idx.numel(), experts, bins, PAIRS, num_warps=4)
    return counts, apart


def layout(topk_idx: Tensor, experts: int, tile: int = 128, rows: int | None = None) -> Layout:
    """topk_idx [T, k] -> Layout. rows: capacity of the permuted matrix; None reads what is needed back from the device.

    With a capacity nothing waits for the device, so one that is too small cannot be refused as the reference does:
    pairs beyond it get row -1, and padded_offsets[E] > rows tells. T k + E (tile - 1), in whole tiles, always suffices.
    """
    return expert_map(topk_idx, *expert_count(topk_idx, experts), tile, rows)


def expert_map(topk_idx: Tensor, counts: Tensor, apart: Tensor, tile: int = 128, rows: int | None = None) -> Layout:
    """The Layout of topk_idx [T, k] from what `expert_count` found; rows as in `layout`."""
    idx, experts, blocks = topk_idx.contiguous(), counts.numel(), apart.shape[0]
    bins = triton.next_power_of_2(experts)
    offsets, base = counts.new_empty(experts + 1), torch.empty_like(apart)
    _bases[(experts,)](counts, apart, offsets, base, blocks, experts, tile, bins, BLOCKS, num_warps=4)
    row_of_pair = torch.empty_like(idx, dtype=torch.int32)
    rows = checked_rows(int(offsets[-1]) if rows is None else 0, rows, tile)
    _place[(blocks,)](idx, base, row_of_pair, idx.numel(), experts, rows, PAIRS, num_warps=8)
    expert_of_row = idx.new_empty(rows, dtype=torch.int32)
    if rows:
        _owners[(rows // tile,)](offsets, expert_of_row, experts, bins, tile, num_warps=4)
    return Layout(row_of_pair, expert_of_row, counts, offsets, rows, tile)


def permute(x: Tensor, layout: Layout) -> Tensor:
    """x [T, H] of any dtype, rows a multiple of 4 bytes -> [rows, H]; padding rows zero. Words whose rows lie side by
    side, as casts write scales, stay so."""
    columns = x.element_size() == 4 and x.stride(0) == 1 < x.stride(1)
    x = x if columns else x.contiguous()
    row_bytes = x.shape[1] * x.element_size()
    if row_bytes % 4:
        raise ValueError(f"rows are copied in 4-byte words; {list(x.shape)} of {x.dtype} has rows of {row_bytes} bytes")
    out = x.new_empty(x.shape[1], layout.rows).t() if columns else x.new_empty(layout.rows, x.shape[1])
    words, experts, (tokens, k) = row_bytes // 4, layout.counts.numel(), layout.row_of_pair.shape
    if words and (tokens or layout.rows):
        block = min(WORDS, triton.next_power_of_2(words))  # scales are few words a row: then a warp moves a token's
        grid = (tokens + PADDING_PROGRAMS * (experts + 1), triton.cdiv(words, block))
        tables = (layout.row_of_pair, layout.counts, layout.padded_offsets)
        strides = (*x.stride(), *out.stride()) if columns else (words, 1, words, 1)
        shape = (tokens, words, experts, layout.rows, *strides, k, PADDING_PROGRAMS, block)
        warps = max(1, min(8, block // (4 * LANES)))
        _permute[grid](_words(x), _words(out), *tables, *shape, num_warps=warps)
    return out


def unpermute(y: Tensor, layout: Layout, weights: Tensor | None = None) -> Tensor:
    """y [rows, H] -> [T, H] in y's dtype: each token's rows, weighted by float32 weights [T, k], summed in float32."""
    y = matrix(y).contiguous()
    (tokens, k), width = layout.row_of_pair.shape, y.shape[1]
    out = y.new_empty(tokens, width)
    if out.numel():
        factors = layout.row_of_pair if weights is None else weights.float().contiguous()
        grid = (tokens, triton.cdiv(width, ROW))
        _unpermute[grid](y, out, layout.row_of_pair, factors, width, k, weights is not None, ROW, num_warps=8)
    return out


def unpermute_backward(dout: Tensor, y: Tensor, layout: Layout, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """dout [T, H], y [rows, H] -> dy [rows, H] in y's dtype, dweights float32 [T, k]."""
    dout, y = dout.contiguous(), y.contiguous()
    (tokens, k), width = layout.row_of_pair.shape, y.shape[1]
    dy, dweights = torch.zeros_like(y), dout.new_zeros(tokens, k, dtype=torch.float32)
    if dout.numel():
        factors = layout.row_of_pair if weights is None else weights.float().contiguous()
        arguments = (dout, y, dy, dweights, layout.row_of_pair, factors, width, k, weights is not None, ROW)
        _unpermute_backward[(tokens,)](*arguments, num_warps=8)
    return dy, dweights


def _words(x: Tensor) -> Tensor:
    """The same memory as 32-bit words."""
    return x.view(torch.int32) if x.numel() else x.new_empty(0, dtype=torch.int32)
