"""Attention in several kernels: scores, their masked softmax, a dropout, and the mean of values, each in memory.

As Megatron-LM runs it without flash attention (megatron/core/transformer/dot_product_attention.py: two batched
products, `masked_softmax_fusion` on, attention dropout). The causal softmax reads and writes half of each row, the
rest of which it fills with zeros; products work on all pairs. A batched product is priced as one of all rows: an H200's
take 0.92 to 0.98 of that (batches of 32 to 384 heads, 2,048 tokens, widths 96 and 128), an A100's 0.98 (512 of 1,024 x
1,024 x 128: pytorch/pytorch issue 83272).
"""

from hwmodels.formats import PLAIN_BF16
from hwmodels.op import Attention, Gemm, Memory
from sim.models.layer import Kernel

SOFTMAX, DROPOUT, MASK = "softmax", "elementwise", 1
"""Kinds of kernels, and bytes of an element of a dropout's mask."""
HOST = {"F": 1.2, "B": 2.4}
"""The host's work for a batched product, over that of a simple operation: half of a linear layer's, which has views."""


def _rows(op: Attention) -> tuple[int, int]:
    """Rows of scores, and their columns."""
    return op.batch * op.heads * op.sequence, op.keys or op.sequence


def _product(name: str, m: int, n: int, k: int, direction: str) -> Kernel:
    return Kernel(name, Gemm(m, n, k, "fprop", "bf16"), host=HOST[direction])


def _passed(op: Attention, reads: int) -> tuple[float, float]:
    """Bytes of a row that a kernel on scores reads, of so many tensors, and writes; half is read where it is causal."""
    row = PLAIN_BF16.row_bytes(_rows(op)[1])
    return reads * row * (0.5 if op.causal else 1.0), row


def attend(op: Attention) -> list[Kernel]:
    """Forward."""
    rows, keys = _rows(op)
    row = PLAIN_BF16.row_bytes(keys)
    return [
        _product("sdpa_scores", rows, keys, op.qk, "F"),
        Kernel("sdpa_softmax", Memory(SOFTMAX, rows, *_passed(op, 1))),
        Kernel("sdpa_dropout", Memory(DROPOUT, rows, row, row + MASK * keys)),
        _product("sdpa", rows, op.v, keys, "F"),
    ]


def attend_backward(op: Attention) -> list[Kernel]:
    """Gradients of values and of the dropout's output, of the softmax's input, of queries and keys."""
    rows, keys = _rows(op)
    row = PLAIN_BF16.row_bytes(keys)
    return [
        _product("sdpa_dv", rows, op.v, keys, "B"),
        _product("sdpa_dp", rows, keys, op.v, "B"),
        Kernel("sdpa_dropout_bwd", Memory(DROPOUT, rows, row + MASK * keys, row)),
        Kernel("sdpa_softmax_bwd", Memory("softmax_backward", rows, *_passed(op, 2))),
        _product("sdpa_dq", rows, op.qk, keys, "B"),
        _product("sdpa_dk", rows, op.qk, keys, "B"),
    ]
