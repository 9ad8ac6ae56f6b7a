"""Torch's own calls for operations of training, on random operands: products, attention, all that is memory-bound.

A call runs the kernels of one operation and nothing else, so gradients are asked of the backward function itself where
torch has one by name, and of autograd on a kept forward where it has none.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from hwmodels.op import Attention, Gemm, GroupedGemm

Call = Callable[[], Any]
aten = torch.ops.aten
EPSILON = 1e-6


class Operands:
    """Random BF16 operands that lie apart in one buffer of `elements`, so that none is made anew for each call."""

    def __init__(self, device: str, elements: int) -> None:
        self.device, self.used = device, 0
        self.buffer = torch.empty(elements, device=device, dtype=torch.bfloat16)
        for part in self.buffer.split(1 << 28):
            part.normal_()

    def start(self) -> "Operands":
        """From the buffer's first element again, for the next call."""
        self.used = 0
        return self

    def take(self, *shape: int) -> Tensor:
        """The next elements as a contiguous tensor of that shape; new ones where the buffer is used up."""
        size = torch.Size(shape).numel()
        if self.used + size > len(self.buffer):
            return torch.randn(shape, device=self.device, dtype=torch.bfloat16)
        self.used += -(-size // 128) * 128
        return self.buffer[self.used - -(-size // 128) * 128 :][:size].view(shape)

    def whole(self, most: int, *shape: int) -> Tensor:
        """int64, even over 0 to `most`, neighbours far apart."""
        size = torch.Size(shape).numel()
        return (torch.arange(size, device=self.device) * 7919 % most).view(shape)


# --- products ---------------------------------------------------------------------------------------------------------


def product(op: Gemm, given: Operands) -> Call:
    """As a linear layer calls them: y = x w^T, dx = dy w, dw = dy^T x; operands lie as its tensors do."""
    if op.role == "fprop":
        x, w = given.take(op.m, op.k), given.take(op.n, op.k)
        return lambda: functional.linear(x, w)
    if op.role == "dgrad":
        dy, w = given.take(op.m, op.k), given.take(op.k, op.n)
        return lambda: dy @ w
    dy, x = given.take(op.k, op.m), given.take(op.k, op.n)
    if op.role == "wgrad_bf16":
        return lambda: dy.t() @ x
    main = torch.zeros(op.m, op.n, device=given.device)
    return lambda: torch.addmm(main, dy.t(), x, out_dtype=torch.float32, out=main)


def scaled(op: Gemm, given: Operands) -> Call:
    """torch._scaled_mm of E4M3 operands with one scale a tensor, both with their depth contiguous as Hopper reads them;
    forward with fast accumulation, gradients with split (TransformerEngine's `use_split_accumulator`)."""
    a, b = (given.take(rows, op.k).to(torch.float8_e4m3fn) for rows in (op.m, op.n))
    one, fast = torch.ones((), device=given.device), op.role == "fprop"
    return lambda: torch._scaled_mm(a, b.t(), one, one, out_dtype=torch.bfloat16, use_fast_accum=fast)


def grouped(op: GroupedGemm, given: Operands) -> Call:
    """torch._grouped_mm over even groups: rows by weight, and weight gradients [groups, n, k] from rows."""
    step = op.rows // op.groups
    ends = (torch.arange(op.groups, device=given.device, dtype=torch.int32) + 1) * step
    if op.role == "wgrad_bf16":
        dy, x = given.take(op.rows, op.n), given.take(op.rows, op.k)
        return lambda: torch._grouped_mm(dy.t(), x, offs=ends)
    x = given.take(op.rows, op.k)
    if op.role == "dgrad":
        w = given.take(op.groups, op.k, op.n)
        return lambda: torch._grouped_mm(x, w, offs=ends)
    w = given.take(op.groups, op.n, op.k).transpose(-2, -1)
    return lambda: torch._grouped_mm(x, w, offs=ends)


def by_block(op: Gemm, given: Operands) -> Call:
    """torch's scaled_mm of E4M3 operands with a scale for each 128 of a row's depth; of a weight, for 128 x 128."""
    from torch.nn.functional import ScalingType, scaled_mm  # in torch 2.10 and later

    a, b = (given.take(rows, op.k).to(torch.float8_e4m3fn) for rows in (op.m, op.n))
    deep = op.k // 128
    by_row = [torch.rand(deep, rows, device=given.device) + 0.5 for rows in (op.m, op.n)]
    if op.role == "wgrad_bf16":
        kind, scale = ScalingType.BlockWise1x128, by_row[1].t()
    else:  # cuBLAS reads columns of blocks at multiples of four
        wide = torch.rand(-(-op.n // 128), deep + -deep % 4, device=given.device) + 0.5
        kind, scale = ScalingType.BlockWise128x128, wide.t()
    return lambda: scaled_mm(a, b.t(), by_row[0].t(), ScalingType.BlockWise1x128, scale, kind)


def skewed(op: GroupedGemm, given: Operands) -> Call:
    """`grouped` where a quarter of the groups has three quarters of the rows."""
    crowded = max(1, op.groups // 4)
    sizes = torch.full((op.groups,), op.rows // 4 // (op.groups - crowded), dtype=torch.int32)
    sizes[:crowded] = 3 * op.rows // 4 // crowded
    sizes[-1] += op.rows - int(sizes.sum())
    ends = sizes.cumsum(0, dtype=torch.int32).to(given.device)
    if op.role == "wgrad_bf16":
        one, other = given.take(op.rows, op.n).t(), given.take(op.rows, op.k)
    else:
        one, other = given.take(op.rows, op.k), given.take(op.groups, op.n, op.k).transpose(-2, -1)
    return lambda: torch._grouped_mm(one, other, offs=ends)


def attention_by(op: Attention, backend: str, given: Operands) -> Call:
    """`attention` by one of torch's backends; refused where that cannot."""
    kernel = torch.nn.attention
    with kernel.sdpa_kernel(getattr(kernel.SDPBackend, backend)):
        call = attention(op, given)
    if op.direction == "backward":
        return call  # of a forward that is over

    def forward() -> Any:
        with kernel.sdpa_kernel(getattr(kernel.SDPBackend, backend)):
            return call()

    return forward


def windowed(op: Attention, given: Operands) -> Call:
    """Flash-attention of the last `window` keys, by the functions that autograd calls."""
    b, s, kv = op.batch, op.sequence, op.kv_heads or op.heads
    q, k, v = (given.take(b, s, h, d) for h, d in ((op.heads, op.qk), (kv, op.qk), (kv, op.v)))
    sides: dict[str, Any] = {"window_size_left": op.window - 1, "window_size_right": 0}

    def forward() -> Any:
        return aten._flash_attention_forward(q, k, v, None, None, s, s, 0.0, True, False, **sides)

    if op.direction == "forward":
        return forward
    out, *kept = forward()
    dout = given.take(b, s, op.heads, op.v)
    return lambda: aten._flash_attention_backward(
        dout, q, k, v, out, kept[0], None, None, s, s, 0.0, True, *kept[1:3], **sides
    )


def attention(op: Attention, given: Operands) -> Call:
    """scaled_dot_product_attention of [batch, heads, sequence, width], seen through [batch, sequence, heads, width]."""
    b, s, kv = op.batch, op.sequence, op.kv_heads or op.heads
    sides = ((op.heads, op.qk), (kv, op.qk), (kv, op.v))
    q, k, v = (given.take(b, s, h, d).transpose(1, 2).requires_grad_(op.direction == "backward") for h, d in sides)

    def forward() -> Tensor:
        return functional.scaled_dot_product_attention(q, k, v, is_causal=op.causal, enable_gqa=kv != op.heads)

    if op.direction == "forward":
        return forward
    return gradient(forward(), (q, k, v), given.take(b, s, op.heads, op.v).transpose(1, 2))


def gradient(out: Tensor, of: tuple[Tensor, ...], dout: Tensor) -> Call:
    """The backward of a kept forward, as often as it is called."""
    return lambda: torch.autograd.grad(out, of, dout, retain_graph=True)


# --- memory-bound -----------------------------------------------------------------------------------------------------


def pointwise(name: str, given: Operands, rows: int, width: int) -> Call:
    """Elementwise calls on contiguous BF16 [rows, width]."""
    x, y = given.take(rows, width), given.take(rows, width)
    calls: dict[str, Call] = {
        "add": lambda: x + y, "mul": lambda: x * y, "neg": lambda: -x, "clone": lambda: x.clone(),
        "silu": lambda: aten.silu(x), "silu_backward": lambda: aten.silu_backward(y, x),
        "gelu": lambda: aten.gelu(x), "gelu_backward": lambda: aten.gelu_backward(y, x),
        "gelu_tanh": lambda: aten.gelu(x, approximate="tanh"), "sum": lambda: x.sum(0),
        "gelu_tanh_backward": lambda: aten.gelu_backward(y, x, approximate="tanh"),
        "widen": lambda: x.float(),
    }  # fmt: skip
    if name in calls:
        return calls[name]
    own = x.clone() if name in ("add_", "zero") else x.float()
    written: dict[str, Call] = {
        "add_": lambda: own.add_(y), "zero": own.zero_, "narrow": own.bfloat16, "accumulate": lambda: own.add_(x),
    }  # fmt: skip
    return written[name]


def headed(name: str, given: Operands, tokens: int, heads: int, width: int) -> Call:
    """Calls around attention on [1, heads, tokens, width], a view of [1, tokens, heads, width]; a table of a rotation
    is [tokens, width]."""
    x = given.take(1, tokens, heads, width).transpose(1, 2)
    a, b = x.chunk(2, -1)
    table = given.take(tokens, width)
    dense = given.take(1, heads, tokens, width)
    calls: dict[str, Call] = {
        "contiguous": x.contiguous, "rotate": lambda: x * table, "halves": lambda: torch.cat((b, a), -1),
        "neg_half": lambda: -b, "rotated": lambda: dense * table, "add_views": lambda: x + dense,
    }  # fmt: skip
    return calls[name]


def norm(name: str, given: Operands, rows: int, width: int) -> Call:
    """rms_norm or layer_norm of the last side, and its backward, the weight's gradient included."""
    backward = name.endswith("_backward")
    x, w, bias = given.take(rows, width), given.take(width), given.take(width)
    x.requires_grad_(backward), w.requires_grad_(backward), bias.requires_grad_(backward)

    def forward() -> Tensor:
        if name.startswith("rms"):
            return functional.rms_norm(x, (width,), w, EPSILON)
        return functional.layer_norm(x, (width,), w, bias, EPSILON)

    of = (x, w) if name.startswith("rms") else (x, w, bias)
    return gradient(forward(), of, given.take(rows, width)) if backward else forward


def vocabulary(name: str, given: Operands, tokens: int, width: int) -> Call:
    """Softmax and its loss over FP32 [tokens, width]; each gradient by the function that autograd calls."""
    x = torch.randn(tokens, width, device=given.device)
    target = given.whole(width, tokens)
    if name == "log_softmax":
        return lambda: aten._log_softmax(x, 1, False)
    if name == "log_softmax_backward":
        dy = torch.randn_like(x)
        return lambda: aten._log_softmax_backward_data(dy, x, 1, torch.float32)
    if name == "softmax":
        return lambda: aten._softmax(x, 1, False)
    if name == "softmax_backward":
        dy = torch.randn_like(x)
        return lambda: aten._softmax_backward_data(dy, x, 1, torch.float32)
    if name == "nll_loss":
        return lambda: aten.nll_loss_forward(x, target, None, 1, -100)
    count, one = torch.tensor(float(tokens), device=given.device), torch.ones((), device=given.device)
    return lambda: aten.nll_loss_backward(one, x, target, None, 1, -100, count)


def embedding(name: str, given: Operands, tokens: int, width: int, words: int) -> Call:
    table, at = given.take(words, width), given.whole(words, tokens)
    if name == "embedding":
        return lambda: functional.embedding(at, table)
    dy = given.take(tokens, width)
    return lambda: aten.embedding_dense_backward(dy, at, words, -1, False)


def routing(name: str, given: Operands, tokens: int, width: int, experts: int, chosen: int) -> Call:
    """What a mixture of experts does between router and products; rows = tokens x chosen."""
    rows = tokens * chosen
    scores, picks = torch.rand(tokens, experts, device=given.device), given.whole(experts, rows)
    order = torch.argsort(picks) if name in ("gather", "index_add") else picks
    calls: dict[str, Call] = {
        "topk": lambda: scores.topk(chosen, -1), "sort": lambda: picks.sort(),
        "bincount": lambda: torch.bincount(picks, minlength=experts),
    }  # fmt: skip
    if name in calls:
        return calls[name]
    x, y, source = given.take(tokens, width), given.take(rows, width), order // chosen
    out = torch.zeros_like(x)
    return (lambda: x[source]) if name == "gather" else lambda: out.index_add_(0, source, y)


def adam(given: Operands, parameters: int, tensors: int, dtype: torch.dtype) -> Call:
    """One step of AdamW(fused=True) over `tensors` equal tensors that hold `parameters`, states as wide as they are."""
    held = [torch.zeros(parameters // tensors, device=given.device, dtype=dtype) for _ in range(tensors)]
    for each in held:
        each.grad = torch.ones_like(each)
    optimizer = torch.optim.AdamW(held, fused=True)
    optimizer.step()
    return optimizer.step


def foreach(name: str, given: Operands, parameters: int, tensors: int) -> Call:
    """Gradient clipping: norms of a list of tensors, and their scaling in place."""
    held = [given.take(parameters // tensors) for _ in range(tensors)]
    half = torch.ones((), device=given.device)
    return (lambda: torch._foreach_norm(held)) if name == "norm" else lambda: torch._foreach_mul_(held, half)


def compiled(name: str, given: Operands, rows: int, width: int) -> Call:
    """What torch.compile makes one kernel of."""
    x, y, w = given.take(rows, width), given.take(rows, width), given.take(width)

    def residual_norm(x: Tensor, y: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        z = x + y
        return z, functional.rms_norm(z, (width,), w, EPSILON)

    def swiglu(x: Tensor, y: Tensor, w: Tensor) -> Tensor:
        return functional.silu(x) * y

    def swiglu_backward(x: Tensor, y: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        s = torch.sigmoid(x.float())
        return (x * y * s * (1 + x * (1 - s))).bfloat16(), (x * s * y).bfloat16()

    by_name: dict[str, Callable[..., Any]] = {
        "residual_norm": residual_norm, "swiglu": swiglu, "swiglu_backward": swiglu_backward
    }  # fmt: skip
    whole = torch.compile(by_name[name], dynamic=False)
    return lambda: whole(x, y, w)
