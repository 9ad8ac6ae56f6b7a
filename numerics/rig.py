"""Any operation of the priced vocabulary as a call on the GPU: random operands, and the kernel of ours that does it.

Where a memory-bound kind is a plain copy or sum, torch does it. Kinds that no kernel of ours does (a norm with fused
residual streams, the pieces of another library's attention) raise Unmeasurable and are left to the price ladder.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from hwmodels.formats import TILE
from hwmodels.op import Attention, Gemm, GroupedGemm, Memory
from numerics import ops
from numerics.needs import Timed
from numerics.workload import bf16, codes, scales, tiles
from sim.models.shape import ModelShape

Call = Callable[[], Any]
SCATTER = 4099
"""A prime that no count of rows here divides by: neighbours of the permuted matrix come from tokens far apart."""


class Unmeasurable(Exception):  # noqa: N818 - it names what cannot be measured
    """No kernel here does this operation; its text says what is missing."""


def call_of(op: Timed, shape: ModelShape, sms: int | None = None, device: str = "cuda") -> Call:
    """A call that does `op` on operands of its own. sms: SMs it may use, where confinable. Raises Unmeasurable."""
    if isinstance(op, Gemm):
        return _gemm(op, sms, device)
    if isinstance(op, GroupedGemm):
        return _grouped(op, sms, device)
    if isinstance(op, Attention):
        return _attention(op, device)
    if op.kind not in _MEMORY:
        raise Unmeasurable(f"{op.kind}: no kernel of ours does it")
    return _MEMORY[op.kind](op, shape, device)


# --- products and attention -------------------------------------------------------------------------------------------


def _gemm(op: Gemm, sms: int | None, device: str) -> Call:
    if op.precision != "fp8":
        a, b = bf16(device, op.m, op.k), bf16(device, op.n, op.k)
        return lambda: a @ b.t()
    a, b = codes(device, op.m, op.k), codes(device, op.n, op.k)
    a_s = scales(device, op.m, tiles(op.k))
    if op.role == "wgrad":
        b_s, out = scales(device, op.n, tiles(op.k)), torch.zeros(op.m, op.n, device=device)
        return lambda: ops.kernel("wgrad_gemm", "wgrad")(a, a_s, b, b_s, out, sms=sms)
    b_s = scales(device, tiles(op.n), tiles(op.k))
    return lambda: ops.kernel("gemm", "gemm")(a, a_s, b, b_s, sms=sms)


def _grouped(op: GroupedGemm, sms: int | None, device: str) -> Call:
    if op.precision != "fp8":
        raise Unmeasurable("a grouped BF16 product: no kernel of ours does it")
    a, a_s = codes(device, op.rows, op.k), scales(device, op.rows, tiles(op.k))
    b, b_s = codes(device, op.groups, op.n, op.k), scales(device, op.groups, tiles(op.n), tiles(op.k))
    blocks = op.rows // TILE
    table = (torch.arange(blocks, device=device) * op.groups // blocks).int()
    return lambda: ops.kernel("grouped_gemm", "grouped")(a, a_s, b, b_s, table, sms=sms)


def _attention(op: Attention, device: str) -> Call:
    q, k = (bf16(device, op.batch, op.sequence, op.heads, op.qk) for _ in range(2))
    v, do = (bf16(device, op.batch, op.sequence, op.heads, op.v) for _ in range(2))
    scale = op.qk**-0.5
    forward = ops.kernel("attention", "attention")
    if op.direction == "forward":
        return lambda: forward(q, k, v, scale, op.causal)
    if device == "meta":
        o, lse = torch.empty_like(v), torch.empty(op.batch, op.heads, op.sequence, device=device)
    else:
        o, lse = forward(q, k, v, scale, op.causal)
    return lambda: ops.kernel("attention_backward", "attention")(do, q, k, v, o, lse, scale, op.causal)


# --- memory-bound kernels ---------------------------------------------------------------------------------------------


def _kernel(name: str, module: str, *args: Any) -> Call:
    return lambda: ops.kernel(name, module)(*args)


def _wide(op: Memory, device: str) -> Tensor:
    """What a row reads, as BF16."""
    return bf16(device, op.rows, round(op.read / 2))


def _rows_cast(op: Memory, shape: ModelShape, device: str) -> Call:
    return _kernel("quantize_rows", "casts", _wide(op, device))


def _columns_cast(op: Memory, shape: ModelShape, device: str) -> Call:
    return _kernel("quantize_columns", "casts", _wide(op, device))


def _recast(op: Memory, shape: ModelShape, device: str) -> Call:
    width = _e4m3_width(op.write)
    return _kernel("requantize_columns", "casts", codes(device, op.rows, width), scales(device, op.rows, tiles(width)))


def _e4m3_width(row_bytes: float) -> int:
    """Elements of a row of E4M3 with a 4-byte scale each 128."""
    return round(row_bytes * TILE / (TILE + 4))


def _dequantize(op: Memory, shape: ModelShape, device: str) -> Call:
    width = round(op.write / 2)
    return _kernel("dequantize_rows", "casts", codes(device, op.rows, width), scales(device, op.rows, tiles(width)))


def _store_e5m6(op: Memory, shape: ModelShape, device: str) -> Call:
    return _kernel("store_e5m6", "e5m6", _wide(op, device))


def _load_e5m6(op: Memory, shape: ModelShape, device: str) -> Call:
    width = round(op.write / 2)
    packed = torch.empty(op.rows, (12 * width + 7) // 8, dtype=torch.uint8, device=device)
    packed = packed if device == "meta" else packed.random_(0, 64)  # small codes: nothing is inf or NaN
    return _kernel("load_e5m6", "e5m6", packed, scales(device, op.rows, tiles(width)), width)


def _norm(op: Memory, shape: ModelShape, device: str) -> Call:
    width = round(op.write / 2)
    if op.read != op.write or width not in (shape.hidden, shape.q_rank, shape.kv_rank):
        raise Unmeasurable("norm_forward with residual streams fused: ours reads one tensor and writes one")
    return _kernel("rmsnorm", "norm", bf16(device, op.rows, width), bf16(device, width))


def _norm_backward(op: Memory, shape: ModelShape, device: str) -> Call:
    width = round(op.write / 2)
    if op.read != 2 * op.write or width not in (shape.hidden, shape.q_rank, shape.kv_rank):
        raise Unmeasurable("norm_backward with residual streams fused: ours reads two tensors and writes one")
    dy, x = bf16(device, op.rows, width), bf16(device, op.rows, width)
    return _kernel("rmsnorm_backward", "norm", dy, x, bf16(device, width), scales(device, op.rows))


def _swiglu(op: Memory, shape: ModelShape, device: str) -> Call:
    return _kernel("swiglu_quantize", "swiglu", _wide(op, device))


def _swiglu_backward(op: Memory, shape: ModelShape, device: str) -> Call:
    if op.read * 2 != op.write * 3:
        raise Unmeasurable("swiglu_backward that writes the activation too: ours writes the gradient alone")
    width = round(op.write / 2)
    return _kernel("swiglu_backward", "swiglu", bf16(device, op.rows, width // 2), bf16(device, op.rows, width))


def _rope(op: Memory, shape: ModelShape, device: str) -> Call:
    heads = round(op.read / 2) // shape.qk_rope
    x = bf16(device, 1, op.rows, heads, shape.qk_rope)
    cos, sin = (torch.rand(op.rows, shape.qk_rope // 2, device=device) for _ in range(2))
    return _kernel("rope", "rope", x, cos, sin)


def _gate(op: Memory, shape: ModelShape, device: str) -> Call:
    logits = torch.randn(op.rows, shape.experts, device=device)
    chosen = (max(1, shape.groups), max(1, shape.groups_per_token), shape.experts_per_token, shape.score)
    return _kernel("gate", "gate", logits, None, *chosen)


def _permute(op: Memory, shape: ModelShape, device: str) -> Call:
    width = round(op.write)
    tokens = round(op.read * op.rows / width)
    return _kernel("permute", "permute", codes(device, tokens, width), layout(tokens, op.rows, device))


def _unpermute(op: Memory, shape: ModelShape, device: str) -> Call:
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


def _copy(op: Memory, shape: ModelShape, device: str) -> Call:
    part = bf16(device, op.rows, round(op.read)).narrow(1, 0, round(op.read / 2))  # every other half row: strided
    return lambda: part.contiguous()


def _broadcast(op: Memory, shape: ModelShape, device: str) -> Call:
    source = bf16(device, op.rows, 1, shape.qk_rope)
    heads = round(op.write / 2) // shape.qk_rope
    return lambda: source.expand(-1, heads, -1).contiguous()


def _transpose(op: Memory, shape: ModelShape, device: str) -> Call:
    weight = torch.empty(op.rows, round(op.read), dtype=torch.uint8, device=device)
    return lambda: weight.t().contiguous()


def _scale_transpose(op: Memory, shape: ModelShape, device: str) -> Call:
    s = scales(device, op.rows, max(1, round(op.read / 4)))
    return lambda: s.t().contiguous()


def _elementwise(op: Memory, shape: ModelShape, device: str) -> Call:
    reads = op.read / op.write if op.write else 0
    if reads not in (1, 2, 3):
        raise Unmeasurable("elementwise on operands of several widths: one kernel of torch does not do it")
    x = [bf16(device, op.rows, round(op.write / 2)) for _ in range(int(reads))]
    if reads == 1:
        return lambda: x[0] * 2
    return (lambda: x[0] + x[1]) if reads == 2 else (lambda: torch.addcmul(*x))


def _tiny(op: Memory, shape: ModelShape, device: str) -> Call:
    one = torch.zeros(1, device=device)
    return lambda: one.fill_(1.0)


_MEMORY: dict[str, Callable[[Memory, ModelShape, str], Call]] = {
    "cast": _rows_cast, "store": _rows_cast, "cast_transpose": _columns_cast, "recast_transpose": _recast,
    "dequantize": _dequantize, "store_e5m6": _store_e5m6, "dequantize_e5m6": _load_e5m6, "norm_forward": _norm,
    "norm_backward": _norm_backward, "swiglu": _swiglu, "swiglu_backward": _swiglu_backward, "rope": _rope,
    "routing_forward": _gate, "permute": _permute, "unpermute": _unpermute, "copy": _copy, "broadcast": _broadcast,
    "weight_transpose": _transpose, "scale_transpose": _scale_transpose, "elementwise": _elementwise, "tiny": _tiny,
}  # fmt: skip
