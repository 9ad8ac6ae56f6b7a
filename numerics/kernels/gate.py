"""The router's choice: group-limited top-k of sigmoid or softmax scores. `numerics.reference.gate`.

Bound by latency, not by bandwidth: 4 TE bytes read and 8 Tk written (4 MB at T = 4,096, E = 256: about a microsecond
of HBM time) against chosen_groups + k dependent searches of a row held in registers. A program is one warp with one
token, so that searches are shuffles without barriers; 32 of them share an SM.

Scores come from the device's exponential (2 ulp), so two experts closer than that may swap against the reference.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from numerics.reference.gate import SMALLEST_SUM, check

ROW = 256
"""Scores a program of one warp holds: 8 a thread."""
SUM_FLOOR = tl.constexpr(SMALLEST_SUM)


@triton.jit
def _scores(logits, inside, sigmoid: tl.constexpr):
    """float32 [B, G, S]; experts that do not exist have no weight."""
    if sigmoid:
        return tl.where(inside, tl.sigmoid(logits), 0.0)
    else:
        value = tl.where(inside, logits, float("-inf"))
        value = tl.exp(value - tl.max(tl.max(value, axis=2, keep_dims=True), axis=1, keep_dims=True))
        return value / tl.sum(tl.sum(value, axis=2, keep_dims=True), axis=1, keep_dims=True)


@triton.jit
def _without_best(choice):
    """The largest of each group [B, G], and the groups without it (the first of equals goes)."""
    best = tl.max(choice, axis=2)
    member = tl.arange(0, choice.shape[2])[None, None, :]
    return best, tl.where(member == tl.argmax(choice, axis=2)[:, :, None], float("-inf"), choice)


@triton.jit
def _keep_groups(choice, rank, chosen: tl.constexpr):
    """-inf for every group that is not among the `chosen` best of `rank` [B, G]."""
    group = tl.arange(0, rank.shape[1])[None, :]
    kept = tl.zeros(rank.shape, tl.int32)
    for _ in tl.static_range(chosen):
        first = group == tl.argmax(rank, axis=1)[:, None]
        kept = tl.where(first, 1, kept)
        rank = tl.where(first, float("-inf"), rank)
    return tl.where(kept[:, :, None] > 0, choice, float("-inf"))


@triton.jit
def _gate(
    logits, bias, idx, weights, tokens, experts, stride, scale,
    groups: tl.constexpr, chosen: tl.constexpr, k: tl.constexpr, sigmoid: tl.constexpr, biased: tl.constexpr,
    pairs_of: tl.constexpr, block: tl.constexpr, group_bins: tl.constexpr, bins: tl.constexpr, k_bins: tl.constexpr,
):  # fmt: skip
    """Scores lie as [tokens, groups, members], padded to powers of two; pairs_of: how many members rank a group."""
    size = experts // groups
    token = tl.program_id(0) * block + tl.arange(0, block)
    group, member = tl.arange(0, group_bins)[None, :, None], tl.arange(0, bins)[None, None, :]
    exists = (group < groups) & (member < size)
    expert = group * size + member
    inside = exists & (token < tokens)[:, None, None]
    score = _scores(
        tl.load(logits + token[:, None, None].to(tl.int64) * stride + expert, mask=inside, other=0.0).to(tl.float32),
        exists, sigmoid,
    )  # fmt: skip
    choice = score + tl.load(bias + expert, mask=exists, other=0.0).to(tl.float32) if biased else score
    choice = tl.where(exists, choice, float("-inf"))
    if chosen < groups:
        rank, rest = _without_best(choice)
        if pairs_of == 2:
            rank += tl.max(rest, axis=2)
        choice = _keep_groups(choice, rank, chosen)
    flat = tl.reshape(choice, (block, group_bins * bins))
    score = tl.reshape(score, (block, group_bins * bins))
    place = tl.arange(0, group_bins * bins)[None, :]
    slot = tl.arange(0, k_bins)[None, :]
    picks = tl.zeros((block, k_bins), tl.int32)
    weight = tl.zeros((block, k_bins), tl.float32)
    for number in tl.static_range(k):
        best = tl.argmax(flat, axis=1)[:, None]
        here = place == best
        picks = tl.where(slot == number, best // bins * size + best % bins, picks)
        weight = tl.where(slot == number, tl.sum(tl.where(here, score, 0.0), axis=1)[:, None], weight)
        flat = tl.where(here, float("-inf"), flat)
    if sigmoid:
        weight = weight / (tl.sum(weight, axis=1)[:, None] + SUM_FLOOR)
    mask = (slot < k) & (token < tokens)[:, None]
    tl.store(idx + token[:, None] * k + slot, picks, mask=mask)
    tl.store(weights + token[:, None] * k + slot, weight * scale, mask=mask)


def gate(
    logits: Tensor,
    bias: Tensor | None,
    groups: int,
    chosen_groups: int,
    k: int,
    score: str = "sigmoid",
    scale: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """logits [T, E], bias [E] or None -> idx int32 [T, k], weights float32 [T, k], by falling biased score."""
    check(logits, bias, groups, chosen_groups, k, score)
    logits = logits if logits.stride(1) == 1 else logits.contiguous()
    tokens, experts = logits.shape
    idx, weights = logits.new_empty(tokens, k, dtype=torch.int32), logits.new_empty(tokens, k, dtype=torch.float32)
    if not tokens:
        return idx, weights
    group_bins, bins = triton.next_power_of_2(groups), triton.next_power_of_2(experts // groups)
    block = max(1, ROW // (group_bins * bins))
    best = 2 if score == "sigmoid" and experts > groups else 1
    offsets = logits if bias is None else bias.contiguous()
    shape = (tokens, experts, logits.stride(0), scale, groups, chosen_groups, k, score == "sigmoid", bias is not None)
    blocks = (best, block, group_bins, bins, triton.next_power_of_2(k))
    _gate[(triton.cdiv(tokens, block),)](logits, offsets, idx, weights, *shape, *blocks, num_warps=1)
    return idx, weights
