"""The memory-bound operations of the priced vocabulary as calls on the GPU (`rig`).

A kernel of ours stands beside its plain reference on the same operands. Where a kind is a plain copy or sum, torch does
it, and is trusted. Kinds that nothing here does raise Unmeasurable.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from hwmodels.formats import TILE
from hwmodels.op import Memory
from numerics import ops
from numerics.card.workload import Call, Work, bf16, codes, scales, tiles
from numerics.reference import gate as plain_gate
from sim.models.shape import ModelShape

OURS = "ours"
SCATTER = 4099
"""A prime that no count of rows here divides by: neighbours of the permuted matrix come from tokens far apart."""
RANKS = 64
"""Expert-parallel ranks that the tables of the small kernels around an exchange are for (arXiv 2412.19437 sec 3.2)."""


class Unmeasurable(Exception):  # noqa: N818 - it names what cannot be measured
    """No kernel here does this operation; its text says what is missing."""


def memory(op: Memory, shape: ModelShape, device: str) -> Work:
    """The call that moves what `op` moves, on operands of its own. Raises Unmeasurable."""
    if op.kind not in _MEMORY:
        raise Unmeasurable(f"{op.kind}: no kernel of ours does it")
    return _MEMORY[op.kind](op, shape, device)


def trusted(call: Call) -> Work:
    """A call of torch's own."""
    return Work({OURS: call}, call, unverified=(OURS,))


def _kernel(name: str, module: str, *args: Any, exact: bool = False) -> Work:
    """A kernel of ours and its reference, which take the same arguments."""
    reference = getattr(ops, name).__wrapped__
    return Work({OURS: lambda: ops.kernel(name, module)(*args)}, lambda: reference(*args), exact=exact)


def _wide(op: Memory, device: str) -> Tensor:
    """What a row reads, as BF16."""
    return bf16(device, op.rows, round(op.read / 2))


def _rows_cast(op: Memory, shape: ModelShape, device: str) -> Work:
    return _kernel("quantize_rows", "casts", _wide(op, device), exact=True)


def _columns_cast(op: Memory, shape: ModelShape, device: str) -> Work:
    return _kernel("quantize_columns", "casts", _wide(op, device), exact=True)


def _recast(op: Memory, shape: ModelShape, device: str) -> Work:
    width = _e4m3_width(op.write)
    q, s = codes(device, op.rows, width), scales(device, op.rows, tiles(width))
    return _kernel("requantize_columns", "casts", q, s, exact=True)


def _e4m3_width(row_bytes: float) -> int:
    """Elements of a row of E4M3 with a 4-byte scale each 128."""
    return round(row_bytes * TILE / (TILE + 4))


def _dequantize(op: Memory, shape: ModelShape, device: str) -> Work:
    width = round(op.write / 2)
    q, s = codes(device, op.rows, width), scales(device, op.rows, tiles(width))
    return _kernel("dequantize_rows", "casts", q, s, exact=True)


def _store_e5m6(op: Memory, shape: ModelShape, device: str) -> Work:
    return _kernel("store_e5m6", "e5m6", _wide(op, device), exact=True)


def _load_e5m6(op: Memory, shape: ModelShape, device: str) -> Work:
    width = round(op.write / 2)
    packed = torch.empty(op.rows, (12 * width + 7) // 8, dtype=torch.uint8, device=device)
    packed = packed if device == "meta" else packed.random_(0, 64)  # small codes: nothing is inf or NaN
    return _kernel("load_e5m6", "e5m6", packed, scales(device, op.rows, tiles(width)), width, exact=True)


def _norm(op: Memory, shape: ModelShape, device: str) -> Work:
    """One tensor read and written, or two: the sum of the residual stream is read with x and written with y."""
    width, streams = _normed(op.write, shape)
    if op.read != op.write or streams > 2:
        raise Unmeasurable(f"norm_forward that writes {streams} tensors: ours writes one, or two where it reads two")
    x = [bf16(device, op.rows, width) for _ in range(streams)]
    return _kernel("rmsnorm" if streams == 1 else "add_rmsnorm", "norm", *x, bf16(device, width))


def _norm_backward(op: Memory, shape: ModelShape, device: str) -> Work:
    """Reads x and dY; more tensors are the residual's gradient and dY of further consumers."""
    width, reads = round(op.write / 2), op.read / op.write
    if _normed(op.write, shape)[1] != 1 or reads != int(reads) or reads < 2:
        raise Unmeasurable(f"norm_backward that reads {reads:g} tensors a written one: ours reads two or more")
    x, consumers = bf16(device, op.rows, width), max(1, int(reads) - 2)
    dy = bf16(device, consumers, op.rows, width)
    residual = bf16(device, op.rows, width) if reads > 2 else None
    gradients = (dy[0] if consumers == 1 else dy, x, bf16(device, width), scales(device, op.rows), residual)
    return _kernel("rmsnorm_backward", "norm", *gradients)


def _normed(row_bytes: float, shape: ModelShape) -> tuple[int, int]:
    """Width of a norm, and how many BF16 tensors of it a row of so many bytes is. Raises Unmeasurable."""
    for width in (shape.hidden, shape.q_rank, shape.kv_rank):
        if width and row_bytes in (2 * width, 4 * width):
            return width, round(row_bytes / 2) // width
    raise Unmeasurable(f"a norm that writes {row_bytes:g} bytes a row: no width of {shape.name} is that of one or two")


def _swiglu(op: Memory, shape: ModelShape, device: str) -> Work:
    return _kernel("swiglu_quantize", "swiglu", _wide(op, device))


def _swiglu_backward(op: Memory, shape: ModelShape, device: str) -> Work:
    """Reads gate, up and dY; writes their gradients, and the activation too where it writes three tensors."""
    half, writes = round(op.read / 6), 3 * op.write / op.read
    if writes not in (2, 3):
        raise Unmeasurable(f"swiglu_backward that writes {writes:g} tensors: ours writes two or three")
    name = "swiglu_backward" if writes == 2 else "swiglu_forward_backward"
    return _kernel(name, "swiglu", bf16(device, op.rows, half), bf16(device, op.rows, 2 * half))


def _gate_weight_gradient(op: Memory, shape: ModelShape, device: str) -> Work:
    dy, y = (bf16(device, op.rows, round(op.read / 4)) for _ in range(2))
    return _kernel("gate_weight_gradient", "swiglu", dy, y)


def _prepare(op: Memory, shape: ModelShape, device: str) -> Work:
    """Reads O and dO; writes zeros of the width of dQ, and four bytes a head, which its traffic leaves out."""
    do, o = (bf16(device, 1, op.rows, shape.heads, round(op.read / 4) // shape.heads) for _ in range(2))
    return _kernel("backward_prepare", "attention", do, o, round(op.write / 4) // shape.heads)


def _finish(op: Memory, shape: ModelShape, device: str) -> Work:
    dq = torch.randn(op.rows, round(op.read / 4), device=device)
    return trusted(lambda: dq.to(torch.bfloat16))


def _rope(op: Memory, shape: ModelShape, device: str) -> Work:
    heads = round(op.read / 2) // shape.qk_rope
    x = bf16(device, 1, op.rows, heads, shape.qk_rope)
    cos, sin = (torch.rand(op.rows, shape.qk_rope // 2, device=device) for _ in range(2))
    return _kernel("rope", "rope", x, cos, sin)


def _gate(op: Memory, shape: ModelShape, device: str) -> Work:
    return _kernel("gate", "gate", _logits(op, shape, device), None, *_choice(shape), shape.score)


def _logits(op: Memory, shape: ModelShape, device: str) -> Tensor:
    """On a grid of 1/64: scores are equal or far apart, so that no last bit of a sigmoid decides a choice."""
    return torch.round(torch.randn(op.rows, shape.experts, device=device) * 64) / 64


def _choice(shape: ModelShape) -> tuple[int, int, int]:
    return max(1, shape.groups), max(1, shape.groups_per_token), shape.experts_per_token


def _gate_backward(op: Memory, shape: ModelShape, device: str) -> Work:
    """As the layer does it (numerics.layers.gate): several small kernels of torch."""
    logits, dweights = _logits(op, shape, device), torch.randn(op.rows, shape.experts_per_token, device=device)
    idx = _scattered(op.rows, shape.experts_per_token, shape.experts, device)
    return trusted(lambda: plain_gate.gate_backward(dweights, logits, idx, shape.score, shape.route_scale))


def _scattered(rows: int, k: int, experts: int, device: str) -> Tensor:
    """int32 [rows, k]: experts of a token, all different and evenly used."""
    token, choice = torch.arange(rows, device=device)[:, None], torch.arange(k, device=device)
    return ((token * SCATTER + choice * max(1, experts // k)) % experts).int()


def _dispatch_layout(op: Memory, shape: ModelShape, device: str) -> Work:
    idx = _scattered(op.rows, shape.experts_per_token, shape.experts, device)
    return _kernel("dispatch_layout", "permute", idx, shape.experts, RANKS, exact=True)


def _received(op: Memory, shape: ModelShape, device: str) -> tuple[Tensor, int]:
    """Indices of a rank's own experts [rows, k] and their number: a received row has one of them, other places -1."""
    local = max(1, shape.experts // RANKS)
    idx = torch.full((op.rows, shape.experts_per_token), -1, dtype=torch.int32, device=device)
    idx[:, :1] = _scattered(op.rows, 1, local, device)
    return idx, local


def _expert_count(op: Memory, shape: ModelShape, device: str) -> Work:
    return _kernel("expert_count", "permute", *_received(op, shape, device), exact=True)


def _expert_map(op: Memory, shape: ModelShape, device: str) -> Work:
    idx, local = _received(op, shape, device)
    shapes = idx.new_empty(local), idx.new_empty(tiles(idx.numel()), local)
    counts = shapes if device == "meta" else ops.expert_count(idx, local)
    return _kernel("expert_map", "permute", idx, *counts, TILE, (tiles(op.rows) + local) * TILE)


def _permute(op: Memory, shape: ModelShape, device: str) -> Work:
    width = round(op.write)
    tokens = round(op.read * op.rows / width)
    return _kernel("permute", "permute", codes(device, tokens, width), layout(tokens, op.rows, device), exact=True)


def _unpermute(op: Memory, shape: ModelShape, device: str) -> Work:
    tokens = round(op.write * op.rows / op.read)
    return _kernel("unpermute", "permute", bf16(device, op.rows, round(op.read / 2)), layout(tokens, op.rows, device))


def layout(tokens: int, rows: int, device: str) -> ops.Layout:
    """`rows` rows that come from `tokens` tokens, each once and some again, scattered; one expert has them all."""
    choices = -(-rows // tokens)
    pair = torch.arange(choices * tokens, device=device).view(choices, tokens).t()
    scattered = torch.where(pair < rows, pair * SCATTER % rows, -1).int().contiguous()
    whole = torch.full((1,), rows, dtype=torch.int32, device=device)
    ends = torch.nn.functional.pad(whole, (1, 0))
    return ops.Layout(scattered, torch.zeros(rows, dtype=torch.int32, device=device), whole, ends, rows)


def _copy(op: Memory, shape: ModelShape, device: str) -> Work:
    part = bf16(device, op.rows, round(op.read)).narrow(1, 0, round(op.read / 2))  # every other half row: strided
    return trusted(lambda: part.contiguous())


def _broadcast(op: Memory, shape: ModelShape, device: str) -> Work:
    source = bf16(device, op.rows, 1, shape.qk_rope)
    heads = round(op.write / 2) // shape.qk_rope
    return trusted(lambda: source.expand(-1, heads, -1).contiguous())


def _transpose(op: Memory, shape: ModelShape, device: str) -> Work:
    return _kernel("transpose_codes", "casts", codes(device, op.rows, round(op.read)), exact=True)


def _scale_transpose(op: Memory, shape: ModelShape, device: str) -> Work:
    s = scales(device, op.rows, -(-round(op.read) // 4))
    return trusted(lambda: s.t().contiguous())


def _elementwise(op: Memory, shape: ModelShape, device: str) -> Work:
    """One to three BF16 tensors to one; FP32 += BF16, 1.5 times as much read as written; or a sum over more of them."""
    reads, width = op.read / op.write if op.write else 0.0, round(op.write / 2)
    if reads == 1.5:
        total, part = torch.zeros(op.rows, width // 2, device=device), bf16(device, op.rows, width // 2)
        return trusted(lambda: total.add_(part))
    if reads < 1 or reads != int(reads):
        raise Unmeasurable(f"elementwise that reads {reads:g} times what it writes: one kernel of torch does not do it")
    if reads > 3:
        parts = bf16(device, op.rows, int(reads), width)
        return trusted(lambda: parts.sum(1))
    x = [bf16(device, op.rows, width) for _ in range(int(reads))]
    calls: dict[int, Call] = {1: lambda: x[0] * 2, 2: lambda: x[0] + x[1], 3: lambda: torch.addcmul(*x)}
    return trusted(calls[int(reads)])


def _tiny(op: Memory, shape: ModelShape, device: str) -> Work:
    one = torch.zeros(1, device=device)
    return trusted(lambda: one.fill_(1.0))


_MEMORY: dict[str, Callable[[Memory, ModelShape, str], Work]] = {
    "cast": _rows_cast, "store": _rows_cast, "cast_transpose": _columns_cast, "recast_transpose": _recast,
    "dequantize": _dequantize, "store_e5m6": _store_e5m6, "dequantize_e5m6": _load_e5m6, "norm_forward": _norm,
    "norm_backward": _norm_backward, "swiglu": _swiglu, "swiglu_backward": _swiglu_backward, "rope": _rope,
    "routing_forward": _gate, "permute": _permute, "unpermute": _unpermute, "copy": _copy, "broadcast": _broadcast,
    "weight_transpose": _transpose, "scale_transpose": _scale_transpose, "elementwise": _elementwise, "tiny": _tiny,
    "gate_weight_gradient": _gate_weight_gradient, "attention_prepare": _prepare, "attention_finish": _finish,
    "routing_backward": _gate_backward, "dispatch_layout": _dispatch_layout, "expert_count": _expert_count,
    "expert_map": _expert_map,
}  # fmt: skip
