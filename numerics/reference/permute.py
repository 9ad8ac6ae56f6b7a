"""Rows of tokens sorted by expert, each expert padded to whole tiles, and back.

Source: the contiguous layout of grouped GEMMs in DeepGEMM (each expert's rows padded to the tile of 128), which the
rows of the published profile show too. Pairs keep their order within an expert, so the layout is deterministic.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Layout:
    """Where each (token, choice) pair's row lies. All tensors int32.

    row_of_pair [T, k]: row of the pair, -1 where its expert is not among these (index below 0 or too large)
    expert_of_row [rows]: the expert whose tile the row is in, padding rows included; -1 behind the last expert
    counts [E]: rows in use; padded_offsets [E + 1]: first row of each expert, then the end
    rows: rows of the permuted matrix, a multiple of `tile`
    """

    row_of_pair: Tensor
    expert_of_row: Tensor
    counts: Tensor
    padded_offsets: Tensor
    rows: int
    tile: int = 128

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All that a kernel fills in."""
        return self.row_of_pair, self.expert_of_row, self.counts, self.padded_offsets

    @property
    def group_of_row_block(self) -> Tensor:
        """int32 [rows / tile]: what a grouped GEMM takes; -1 blocks are skipped."""
        return self.expert_of_row[:: self.tile].contiguous()


PAIRS = 128
"""Pairs of a block that `expert_count` counts apart."""


def dispatch_layout(topk_idx: Tensor, experts: int, ranks: int) -> tuple[Tensor, Tensor, Tensor]:
    """topk_idx [T, k] -> tokens to each rank [ranks], to each expert [experts], int32, and whether a token goes, bool.

    What a dispatch must know before it sends (DeepEP's get_dispatch_layout): the last is [T, ranks]; a token goes to a
    rank once however many of its experts are there. experts / ranks lie on a rank; an index outside is no expert.
    """
    check_ranks(experts, ranks)
    chosen = _here(topk_idx.long(), experts)
    goes = torch.zeros(topk_idx.shape[0], experts + 1, dtype=torch.bool, device=topk_idx.device)
    goes = goes.scatter(1, chosen, True)[:, :experts].view(-1, ranks, experts // ranks).any(dim=2)
    return goes.sum(dim=0).int(), _counts(chosen.flatten(), experts).int(), goes


def check_ranks(experts: int, ranks: int) -> None:
    """Raises ValueError where experts do not divide among ranks."""
    if experts % ranks:
        raise ValueError(f"{experts} experts do not divide among {ranks} ranks")


def _here(idx: Tensor, experts: int) -> Tensor:
    """idx, with `experts` for all that is no index of an expert."""
    return torch.where((idx >= 0) & (idx < experts), idx, experts)


def _counts(bucket: Tensor, experts: int) -> Tensor:
    return torch.bincount(bucket, minlength=experts + 1)[:experts]


def expert_count(topk_idx: Tensor, experts: int) -> tuple[Tensor, Tensor]:
    """topk_idx [T, k] -> int32: pairs of each expert [E], and of each block of PAIRS pairs apart [blocks, E]."""
    bucket = _here(topk_idx.reshape(-1).long(), experts)
    blocks = max(1, -(-bucket.numel() // PAIRS))
    padded = torch.nn.functional.pad(bucket, (0, blocks * PAIRS - bucket.numel()), value=experts)
    apart = torch.nn.functional.one_hot(padded.view(blocks, PAIRS), experts + 1).sum(dim=1)[:, :experts]
    return apart.sum(dim=0).int(), apart.int()


def layout(topk_idx: Tensor, experts: int, tile: int = 128, rows: int | None = None) -> Layout:
    """topk_idx [T, k] -> Layout. rows: capacity of the permuted matrix, a multiple of tile; None for what is needed.

    Raises ValueError when `rows` is too few or not whole tiles.
    """
    return expert_map(topk_idx, *expert_count(topk_idx, experts), tile, rows)


def expert_map(topk_idx: Tensor, counts: Tensor, apart: Tensor, tile: int = 128, rows: int | None = None) -> Layout:
    """The Layout of topk_idx [T, k] from what `expert_count` found. The counts by block are for the kernel alone."""
    experts, flat = counts.numel(), topk_idx.reshape(-1).long()
    here = (flat >= 0) & (flat < experts)
    bucket, counts = _here(flat, experts), counts.long()
    ends = torch.cumsum((counts + tile - 1) // tile * tile, 0)
    offsets = torch.cat([ends.new_zeros(1), ends])
    rows = checked_rows(int(offsets[-1]), rows, tile)
    order = torch.argsort(bucket, stable=True)
    starts = torch.cumsum(counts, 0) - counts
    rank = torch.empty_like(flat)
    rank[order] = torch.arange(flat.numel(), device=flat.device)
    owner = flat.clamp(0, experts - 1)
    row_of_pair = torch.where(here, offsets[owner] + rank - starts[owner], -1).view(topk_idx.shape)
    return Layout(row_of_pair.int(), expert_of_row(offsets, rows), counts.int(), offsets.int(), rows, tile)


def expert_of_row(offsets: Tensor, rows: int) -> Tensor:
    """padded offsets [E + 1] -> int32 [rows]."""
    row = torch.arange(rows, device=offsets.device)
    expert = torch.searchsorted(offsets, row.to(offsets.dtype), right=True) - 1
    return torch.where(row < offsets[-1], expert, -1).int()


def checked_rows(needed: int, rows: int | None, tile: int) -> int:
    """The capacity, refused when it does not hold `needed` rows or is not whole tiles."""
    if rows is None:
        return needed
    if rows < needed or rows % tile:
        raise ValueError(f"{needed} rows are needed, in multiples of {tile}; got a capacity of {rows}")
    return rows


def permute(x: Tensor, layout: Layout) -> Tensor:
    """x [T, H] (any dtype) -> [rows, H]; each token's row once for each of its experts, padding rows zero."""
    out = x.view(torch.uint8).new_zeros(layout.rows, x.shape[1] * x.element_size()).view(x.dtype)
    here = layout.row_of_pair >= 0
    token = torch.arange(x.shape[0], device=x.device)[:, None].expand_as(here)[here]
    out.view(torch.uint8)[layout.row_of_pair[here].long()] = x.contiguous().view(torch.uint8)[token]
    return out


def unpermute(y: Tensor, layout: Layout, weights: Tensor | None = None) -> Tensor:
    """y [rows, H] -> [T, H] in y's dtype: each token's rows, weighted by float32 weights [T, k], summed in float32."""
    tokens, k = layout.row_of_pair.shape
    total = torch.zeros(tokens, y.shape[1], dtype=torch.float32, device=y.device)
    for choice in range(k):
        row = layout.row_of_pair[:, choice]
        part = torch.where(row[:, None] >= 0, y[row.clamp(min=0).long()].float(), 0.0) if y.shape[0] else 0.0
        total += part if weights is None else part * weights[:, choice, None].float()
    return total.to(y.dtype)


def unpermute_backward(dout: Tensor, y: Tensor, layout: Layout, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """dout [T, H], y [rows, H] -> dy [rows, H] in y's dtype, dweights float32 [T, k]: each row's dot with dout."""
    tokens, k = layout.row_of_pair.shape
    dy = torch.zeros_like(y)
    dweights = torch.zeros(tokens, k, dtype=torch.float32, device=y.device)
    for choice in range(k):
        here = layout.row_of_pair[:, choice] >= 0
        row, gradient = layout.row_of_pair[here, choice].long(), dout[here].float()
        dweights[here, choice] = (gradient * y[row].float()).sum(dim=-1)
        dy[row] = (gradient if weights is None else gradient * weights[here, choice, None].float()).to(y.dtype)
    return dy, dweights
