"""Cross-entropy and its gradient, one program a token. `numerics.reference.loss`. Bound by memory: logits are read
twice, the second time from L2, and written once."""

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 4096
"""Logits a program holds at a time."""


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """FP32 [T], and the gradient in place of the logits, as in numerics.reference.loss.cross_entropy."""
    tokens, vocabulary = logits.shape
    loss = logits.new_empty(tokens, dtype=torch.float32)
    if logits.numel():
        block = min(BLOCK, triton.next_power_of_2(vocabulary))
        _cross_entropy[(tokens,)](logits, targets, loss, vocabulary, logits.stride(0), tokens, block, num_warps=8)
    return loss


@triton.jit
def _cross_entropy(logits, targets, loss, vocabulary, stride, tokens, block: tl.constexpr):
    row = tl.program_id(0)
    target = tl.load(targets + row)
    line = logits + row.to(tl.int64) * stride
    top = tl.full((block,), float("-inf"), tl.float32)
    total = tl.zeros((block,), tl.float32)
    for first in range(0, vocabulary, block):
        column = first + tl.arange(0, block)
        x = tl.load(line + column, mask=column < vocabulary, other=float("-inf")).to(tl.float32)
        higher = tl.maximum(top, x)
        seen = higher > float("-inf")
        total = tl.where(seen, total * tl.exp(top - higher) + tl.exp(x - higher), 0.0)
        top = higher
    most = tl.max(top, axis=0)
    log_sum = most + tl.log(tl.sum(tl.where(top > float("-inf"), total * tl.exp(top - most), 0.0), axis=0))
    tl.store(loss + row, log_sum - tl.load(line + target).to(tl.float32))
    tl.debug_barrier()
    for first in range(0, vocabulary, block):
        column = first + tl.arange(0, block)
        inside = column < vocabulary
        x = tl.load(line + column, mask=inside, other=float("-inf")).to(tl.float32)
        gradient = (tl.exp(x - log_sum) - tl.where(column == target, 1.0, 0.0)) / tokens
        tl.store(line + column, gradient.to(logits.dtype.element_ty), mask=inside)
