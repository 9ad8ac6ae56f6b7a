"""The work that `bench` times and `check` compiles: every kernel at DeepSeek-V3's shapes, beside library calls.

A case builds its operands on a device; "meta" gives shapes alone, from which the launches are read. Operands are random
(zeros draw less power). FLOP and bytes are the least that the operation can do with (hwmodels.op).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from hwmodels.formats import E4M3_ROWS, PLAIN_BF16, TILE
from hwmodels.op import Attention, Gemm, GroupedGemm
from numerics import ops
from numerics.card import library, rivals
from numerics.reference import attention as plain_attention
from numerics.reference import gemm as plain_gemm
from numerics.reference.compare import PRODUCT

Call = Callable[[], Any]

WEIGHTS = ((2112, 7168), (24576, 1536), (32768, 512), (7168, 16384), (4096, 7168), (7168, 2048))
"""N, K of DeepSeek-V3's matrices, those of DeepGEMM's table (github.com/deepseek-ai/DeepGEMM README @a6d97a1)."""
ROWS = (64, 128, 4096)
"""M of that table: decode and one training sequence."""
EXPERTS, EXPERT_ROWS = 4, 8192
"""Experts a rank and rows an expert of 64-way expert parallelism: 4,096 tokens x 8 choices x 64 ranks / 256 experts."""
DECODE_ROWS = 128
"""Rows an expert of a decode step in DeepGEMM's masked table."""
TRAINING_SMS = 112
"""132 SMs less 20 for communication (arXiv 2412.19437 sec 3.2.2)."""
NEVER = "never promoted, one scale"
"""The variant that shows what promotion costs; its sums keep 14 bits, so it is not held to the gate."""
HIDDEN, INTERMEDIATE, TOKENS, HEADS, CHOICES = 7168, 2048, 4096, 128, 8
"""DeepSeek-V3 (arXiv 2412.19437 sec 4.2): widths, tokens of a sequence, attention heads, experts a token."""
WEIGHT_ROWS = 4096
"""Rows of the weight that is cast by block."""
ATTENTIONS = ((HEADS, HEADS, 192, 128), (64, 8, 128, 128))
"""Heads of queries and of keys, widths of queries and of values: DeepSeek-V3's, and Llama 3 70B's (arXiv 2407.21783
table 3)."""
VERIFIED_HEADS = 4
"""Heads of attention that are verified: the reference keeps every probability in FP32, 67 MB a head."""
ROUNDED = 5e-3
"""Gate of attention: P and dS are rounded to BF16 on the way, which leaves 2.0e-3 forward and 2.7e-3 backward."""


@dataclass
class Work:
    """Calls to time, by variant; `expected` is what ours give, and exact says whether bit for bit.

    `expected` is called before each verified call: where a call accumulates, it clears the sum.
    """

    ours: dict[str, Call]
    expected: Call
    library: dict[str, Call] = field(default_factory=dict)
    rivals: dict[str, Call] = field(default_factory=dict)
    """Of other projects, verified as ours are (numerics.card.rivals)."""
    exact: bool = False
    narrow: Callable[[Any], Any] = lambda out: out
    """The part of an output that `expected` gives."""
    tolerance: float = PRODUCT
    """Of the gate, where not exact (numerics.reference.compare)."""
    unverified: tuple[str, ...] = ()
    """Variants that compute something else on purpose."""


@dataclass(frozen=True)
class Case:
    """One operation at one shape; fp8: the matrix ceiling that it is held against (else BF16's)."""

    family: str
    name: str
    flop: float
    bytes: float
    build: Callable[[str], Work]
    fp8: bool = True


def cases(quick: bool = False) -> Iterator[Case]:
    """Everything, or with quick one shape a family."""
    yield from gemms(ROWS[-1:] if quick else ROWS, WEIGHTS[-1:] if quick else WEIGHTS)
    yield from wgrads(WEIGHTS[-1:] if quick else WEIGHTS)
    yield from grouped()
    yield from attentions(1024 if quick else TOKENS)
    yield from memory()


# --- operands ---------------------------------------------------------------------------------------------------------


def codes(device: str, *shape: int) -> Tensor:
    return torch.randn(*shape, device=device).to(torch.float8_e4m3fn)


def scales(device: str, *shape: int) -> Tensor:
    return torch.rand(*shape, device=device) + 0.5


def row_scales(device: str, *shape: int) -> Tensor:
    """Scales [..., rows, tiles] as the casts store them: those of all rows side by side."""
    return scales(device, shape[-1], *shape[:-1]).movedim(0, -1)


def bf16(device: str, *shape: int) -> Tensor:
    return torch.randn(*shape, device=device, dtype=torch.bfloat16)


def tiles(length: int) -> int:
    return -(-length // TILE)


# --- tensor-core cases ------------------------------------------------------------------------------------------------


def gemms(rows: tuple[int, ...], weights: tuple[tuple[int, int], ...]) -> Iterator[Case]:
    for m in rows:
        for n, k in weights:
            op = Gemm(m, n, k)
            yield Case("gemm", f"{m}x{n}x{k}", op.flop(), op.bytes(), lambda d, s=(m, n, k): _gemm(d, *s))


def _gemm(device: str, m: int, n: int, k: int) -> Work:
    from numerics.kernels import gemm as kernels
    from numerics.kernels import wgmma

    a, b = codes(device, m, k), codes(device, n, k)
    a_s, b_s = row_scales(device, m, tiles(k)), scales(device, tiles(n), tiles(k))
    one_a, one_b = scales(device, m, 1), scales(device, tiles(n), 1)
    calls: dict[str, Call] = {"default": lambda: kernels.gemm(a, a_s, b, b_s)}
    if m >= TILE:
        calls |= {f.name: lambda c=f: kernels.gemm(a, a_s, b, b_s, config=c) for f in wgmma.DENSE_FORMS}
        calls["twin"] = lambda: kernels.gemm(a, a_s, b, b_s, config=kernels.VARIANTS["flat"])
        calls[f"{TRAINING_SMS} SMs"] = lambda: kernels.gemm(a, a_s, b, b_s, sms=TRAINING_SMS)
        by_row = a_s.contiguous()
        calls["scales stored by row"] = lambda: kernels.gemm(a, by_row, b, b_s)
        calls[NEVER] = lambda: kernels.gemm(a, one_a, b, one_b, promote=0)
    return Work(calls, lambda: plain_gemm.gemm(a, a_s, b, b_s), library_gemm(a, a_s, b, b_s),
                rivals.dense(a, a_s, b, b_s) if m > TILE else {}, unverified=(NEVER,))  # fmt: skip


def library_gemm(a: Tensor, a_s: Tensor, b: Tensor, b_s: Tensor) -> dict[str, Call]:
    """The same work, or less, by torch: block scales (the same), one scale a row and column, and BF16."""
    m, n = a.shape[0], b.shape[0]
    row, column = scales(a.device.type, m, 1), scales(a.device.type, 1, n)
    wide_a, wide_b = a.bfloat16(), b.bfloat16()
    # The layouts of scales that torch asks for (torch/_meta_registrations.py), made outside the time.
    packed_a = a_s.t().contiguous().t()
    packed_b = torch.nn.functional.pad(b_s, (0, -b_s.shape[1] % 4)).t()
    return {
        "torch scaled_mm 1x128 by 128x128": lambda: _block_scaled(a, packed_a, b, packed_b),
        "torch _scaled_mm by row, fast": lambda: torch._scaled_mm(
            a, b.t(), row, column, out_dtype=torch.bfloat16, use_fast_accum=True
        ),
        "torch _scaled_mm by row": lambda: torch._scaled_mm(a, b.t(), row, column, out_dtype=torch.bfloat16),
        "torch bf16 matmul": lambda: wide_a @ wide_b.t(),
    }


def _block_scaled(a: Tensor, a_s: Tensor, b: Tensor, b_s: Tensor) -> Tensor:
    from torch.nn.functional import ScalingType, scaled_mm  # in torch 2.10 and later

    return scaled_mm(a, b.t(), a_s, ScalingType.BlockWise1x128, b_s, ScalingType.BlockWise128x128)


def wgrads(weights: tuple[tuple[int, int], ...]) -> Iterator[Case]:
    for n, k in weights:
        op = Gemm(n, k, TOKENS, role="wgrad")
        yield Case("wgrad", f"{n}x{k}x{TOKENS}", op.flop(), op.bytes(), lambda d, s=(n, k): _wgrad(d, *s))


def _wgrad(device: str, n: int, k: int) -> Work:
    from numerics.kernels import wgrad as kernels

    a, b = codes(device, n, TOKENS), codes(device, k, TOKENS)
    a_s, b_s = row_scales(device, n, tiles(TOKENS)), row_scales(device, k, tiles(TOKENS))
    out = torch.zeros(n, k, device=device)
    calls: dict[str, Call] = {"default": lambda: kernels.wgrad_gemm(a, a_s, b, b_s, out)}
    calls["twin"] = lambda: kernels.wgrad_gemm(a, a_s, b, b_s, out, config=kernels.VARIANTS["low"])
    calls[f"{TRAINING_SMS} SMs"] = lambda: kernels.wgrad_gemm(a, a_s, b, b_s, out, sms=TRAINING_SMS)
    wide_a, wide_b = a.bfloat16(), b.bfloat16()
    theirs: dict[str, Call] = {"torch bf16 matmul, BF16 out": lambda: wide_a @ wide_b.t()}

    def expected() -> Tensor:
        out.zero_()
        return plain_gemm.wgrad_gemm(a, a_s, b, b_s, torch.zeros_like(out))

    return Work(calls, expected, theirs, rivals.weight(a, a_s, b, b_s, out))


def grouped() -> Iterator[Case]:
    for n, k in ((2 * INTERMEDIATE, HIDDEN), (HIDDEN, INTERMEDIATE)):
        op = GroupedGemm(EXPERTS, EXPERTS * EXPERT_ROWS, n, k)
        name = f"{EXPERTS} x {EXPERT_ROWS}x{n}x{k}"
        yield Case("grouped", name, op.flop(), op.bytes(), lambda d, s=(n, k): _contiguous(d, *s))
        op = GroupedGemm(EXPERTS, EXPERTS * DECODE_ROWS, n, k)
        name = f"{EXPERTS} x {DECODE_ROWS}x{n}x{k}"
        yield Case("masked", name, op.flop(), op.bytes(), lambda d, s=(n, k): _masked(d, *s))


def _contiguous(device: str, n: int, k: int) -> Work:
    from numerics.kernels import gemm as dense
    from numerics.kernels import grouped as kernels

    r = EXPERTS * EXPERT_ROWS
    a, b = codes(device, r, k), codes(device, EXPERTS, n, k)
    a_s, b_s = row_scales(device, r, tiles(k)), scales(device, EXPERTS, tiles(n), tiles(k))
    table = torch.arange(r // TILE, dtype=torch.int32, device=device) // (EXPERT_ROWS // TILE)
    calls: dict[str, Call] = {"default": lambda: kernels.grouped_gemm(a, a_s, b, b_s, table)}
    calls["twin"] = lambda: kernels.grouped_gemm(a, a_s, b, b_s, table, config=dense.VARIANTS["descriptor"])
    calls[f"{TRAINING_SMS} SMs"] = lambda: kernels.grouped_gemm(a, a_s, b, b_s, table, sms=TRAINING_SMS)
    ends = (torch.arange(EXPERTS, dtype=torch.int32, device=device) + 1) * EXPERT_ROWS
    row, column = scales(device, r), scales(device, EXPERTS, n)
    theirs: dict[str, Call] = {
        "torch _scaled_grouped_mm by row": lambda: torch._scaled_grouped_mm(
            a, b.transpose(-2, -1), row, column, offs=ends, out_dtype=torch.bfloat16
        )
    }
    others = rivals.grouped(a, a_s, b, b_s, table)
    return Work(calls, lambda: plain_gemm.grouped_gemm(a, a_s, b, b_s, table), theirs, others)


def _masked(device: str, n: int, k: int) -> Work:
    from numerics.kernels import grouped as kernels

    a, b = codes(device, EXPERTS, DECODE_ROWS, k), codes(device, EXPERTS, n, k)
    a_s, b_s = row_scales(device, EXPERTS, DECODE_ROWS, tiles(k)), scales(device, EXPERTS, tiles(n), tiles(k))
    rows = torch.full((EXPERTS,), DECODE_ROWS, dtype=torch.int32, device=device)
    calls: dict[str, Call] = {
        "default": lambda: kernels.masked_gemm(a, a_s, b, b_s, rows),
        "twin": lambda: kernels.masked_gemm(a, a_s, b, b_s, rows, config=kernels.choose(DECODE_ROWS)),
    }
    others = rivals.masked(a, a_s, b, b_s, rows)
    return Work(calls, lambda: plain_gemm.masked_gemm(a, a_s, b, b_s, rows), rivals=others)


def attentions(s: int) -> Iterator[Case]:
    for heads, shared, qk, v in ATTENTIONS:
        for direction in ("forward", "backward"):
            op = Attention(direction, 1, heads, s, qk, v, kv_heads=shared)
            count = f"{heads} heads" if heads == shared else f"{heads} of {shared} heads"
            build = lambda d, x=(direction, s, heads, shared, qk, v): _attention(d, *x)
            yield Case("attention", f"{direction} {count} {s} tokens", op.flop(), op.bytes(), build, fp8=False)


def _attention(device: str, direction: str, s: int, heads: int, shared: int, qk: int, v_width: int) -> Work:
    from numerics.kernels import attention as kernels
    from numerics.kernels import flash_backward

    q, k = bf16(device, 1, s, heads, qk), bf16(device, 1, s, shared, qk)
    v, do = bf16(device, 1, s, shared, v_width), bf16(device, 1, s, heads, v_width)
    scale, asking = qk**-0.5, max(VERIFIED_HEADS, heads // shared)
    asked = asking * shared // heads
    few = [q[:, :, :asking], k[:, :, :asked], v[:, :, :asked]]
    theirs = library.attention(q, k, v, do, scale, direction)
    others = rivals.attention(q, k, v, do, scale, direction)
    if direction == "forward":
        configs = {"default": None, **kernels.FORWARD}
        ours = lambda config: lambda: kernels.attention(q, k, v, scale, config=config)[0]
        forms: dict[str, Call] = {name: ours(config) for name, config in configs.items()}
        expected: Call = lambda: plain_attention.attention(*few, scale)[0]
        return Work(forms, expected, theirs, others, narrow=lambda o: o[:, :, :asking], tolerance=ROUNDED)
    o, lse = (kernels if device == "cuda" else plain_attention).attention(q, k, v, scale) if device != "meta" else (
        torch.empty_like(do), torch.empty(1, heads, s, device=device))  # fmt: skip
    orders = {"default": None, "in any order": flash_backward.Form(ordered=False), **kernels.TWINS}
    back = lambda config: lambda: kernels.attention_backward(do, q, k, v, o, lse, scale, config=config)
    backward: dict[str, Call] = {name: back(config) for name, config in orders.items()}

    def gradients() -> list[Tensor]:
        kept = do[:, :, :asking], *few, o[:, :, :asking], lse[:, :asking]
        return some_gradients(plain_attention.attention_backward(*kept, scale))

    heads_of = (asking, asked, asked)
    narrow = lambda grads: some_gradients(tuple(g[:, :, :n] for g, n in zip(grads, heads_of, strict=True)))
    return Work(backward, gradients, theirs, others, narrow=narrow, tolerance=ROUNDED)


def some_gradients(grads: tuple[Tensor, ...]) -> list[Tensor]:
    """Not dq of query 0, which sees one key: it is zero, and what is there is rounding."""
    dq, dk, dv = grads
    return [dq[:, 1:], dk, dv]


# --- memory-bound cases -----------------------------------------------------------------------------------------------


def memory() -> Iterator[Case]:
    """Casts, SwiGLU, norms, rope, gate, permute: name, arguments, bytes, library calls."""
    wide, narrow = PLAIN_BF16.row_bytes(HIDDEN), E4M3_ROWS.row_bytes(HIDDEN)
    t, r, i = TOKENS, EXPERTS * EXPERT_ROWS, INTERMEDIATE
    act, gate_up = E4M3_ROWS.row_bytes(i), PLAIN_BF16.row_bytes(2 * i)

    def x(d: str) -> tuple[Tensor, ...]:
        return (bf16(d, t, HIDDEN),)

    def q(d: str) -> tuple[Tensor, ...]:
        return codes(d, t, HIDDEN), row_scales(d, t, tiles(HIDDEN))

    def pair(d: str) -> tuple[Tensor, ...]:
        return (bf16(d, r, 2 * i),)

    def blocks(d: str) -> tuple[Tensor, ...]:
        return codes(d, WEIGHT_ROWS, HIDDEN), scales(d, tiles(WEIGHT_ROWS), tiles(HIDDEN))

    def normed(d: str) -> tuple[Tensor, ...]:
        return bf16(d, t, HIDDEN), bf16(d, t, HIDDEN), bf16(d, HIDDEN), scales(d, t)

    yield plain("casts", "quantize_rows", x, t * (wide + narrow), True)
    yield plain("casts", "quantize_columns", x, t * (wide + narrow), True)
    yield plain("casts", "requantize_columns", q, 2 * t * narrow, True)
    yield plain("casts", "quantize_blocks", lambda d: (bf16(d, WEIGHT_ROWS, HIDDEN),), WEIGHT_ROWS * 1.5 * wide, True)
    yield plain("casts", "dequantize_rows", q, t * (wide + narrow), True)
    yield plain("casts", "dequantize_blocks", blocks, WEIGHT_ROWS * 1.5 * wide, True)
    yield plain("casts", "transpose_codes", lambda d: q(d)[:1], 2 * t * HIDDEN, True)
    yield plain("e5m6", "store_e5m6", lambda d: (bf16(d, t, 128 * HEADS),), t * 128 * HEADS * 3.5, True)
    yield plain("swiglu", "swiglu", pair, r * gate_up * 1.5)
    yield plain("swiglu", "swiglu_quantize", pair, r * (gate_up + act))
    yield plain("swiglu", "swiglu_quantize_columns", pair, r * (gate_up + act))
    yield plain("swiglu", "swiglu_backward", lambda d: (bf16(d, r, i), *pair(d)), r * gate_up * 2.5)
    yield plain("swiglu", "swiglu_forward_backward", lambda d: (bf16(d, r, i), *pair(d)), r * gate_up * 3)
    yield plain("swiglu", "gate_weight_gradient", lambda d: (bf16(d, r, i), bf16(d, r, i)), r * (gate_up + 4))
    yield plain("norm", "rmsnorm", lambda d: (bf16(d, t, HIDDEN), bf16(d, HIDDEN)), 2 * t * wide)
    yield plain("norm", "add_rmsnorm", lambda d: (*x(d), *x(d), bf16(d, HIDDEN)), 4 * t * wide)
    yield plain("norm", "rmsnorm_backward", normed, 3 * t * wide)
    yield plain("norm", "rmsnorm_backward", lambda d: _streams(normed(d)), 6 * t * wide, label="rmsnorm_backward of 5")
    yield from routed(wide)


def routed(wide: float) -> Iterator[Case]:
    """Memory-bound cases around attention and the experts; wide: bytes of a hidden row."""
    t, r = TOKENS, EXPERTS * EXPERT_ROWS

    def o(d: str) -> Tensor:
        return bf16(d, 1, t, HEADS, 128)

    yield plain("rope", "rope", _rope, 2 * t * HEADS * PLAIN_BF16.row_bytes(64))
    yield plain("rope", "rope_backward", _rope, 2 * t * HEADS * PLAIN_BF16.row_bytes(64))
    yield plain("gate", "gate", _gate, t * (256 * 4 + CHOICES * 8))
    yield plain("attention", "backward_prepare", lambda d: (o(d), o(d), 192), t * HEADS * (4 * 128 + 4 * 192))
    yield plain("permute", "dispatch_layout", lambda d: (_choices(d), 256, 64), t * (4 * CHOICES + 64), True)
    yield plain("permute", "expert_count", lambda d: (_choices(d), 256), t * CHOICES * 6, True)
    yield plain("permute", "expert_map", _counted, t * CHOICES * 14)
    yield plain("permute", "permute", lambda d: (bf16(d, t, HIDDEN), _layout(d)), (t + r) * wide, True)
    yield plain("permute", "unpermute", lambda d: (bf16(d, r, HIDDEN), _layout(d)), (t + r) * wide)


def plain(
    module: str, name: str, arguments: Callable[[str], tuple[Any, ...]], size: float, exact: bool = False,
    label: str = "",
) -> Case:  # fmt: skip
    """A case whose kernel and reference take the same arguments."""

    def build(device: str) -> Work:
        args = arguments(device)
        reference = getattr(ops, name).__wrapped__
        theirs = library.memory(module, name, args, size)
        return Work({"default": lambda: ops.kernel(name, module)(*args)}, lambda: reference(*args), theirs, exact=exact)

    return Case(module, label or name, 0.0, size, build, fp8=False)


def _streams(normed: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Three gradients before the norm and one after: with x, five tensors read."""
    dy, *kept = normed
    return torch.stack([dy, dy.flip(0), dy.flip(1)]), *kept, dy.clone()


def _choices(device: str) -> Tensor:
    """int32 [TOKENS, CHOICES]: experts of 256, each token's apart."""
    return (torch.arange(TOKENS * CHOICES, device=device) * 37 % 256).int().view(TOKENS, CHOICES)


def _counted(device: str) -> tuple[Any, ...]:
    idx = _choices(device)
    shapes = idx.new_empty(256), idx.new_empty(tiles(idx.numel()), 256)
    counts = shapes if device == "meta" else ops.expert_count(idx, 256)
    return idx, *counts, TILE, TOKENS * CHOICES + 256 * TILE


def _gate(device: str) -> tuple[Any, ...]:
    """Logits on a grid of 1/64: scores are equal or far apart, so that no last bit of a sigmoid decides a choice."""
    logits = torch.round(torch.randn(TOKENS, 256, device=device) * 64) / 64
    return logits, None, 8, 4, CHOICES


def _layout(device: str) -> ops.Layout:
    """Balanced choices: every row is used, neighbours come from tokens far apart (a stride prime to the rows)."""
    rows = TOKENS * CHOICES
    pairs = torch.arange(rows, device=device)
    used = torch.full((32,), rows // 32, dtype=torch.int32, device=device)
    offsets = (torch.arange(33, device=device) * (rows // 32)).int()
    scattered = (pairs * 4099 % rows).int().view(TOKENS, CHOICES)
    return ops.Layout(scattered, (pairs // (rows // 32)).int(), used, offsets, rows)


def _rope(device: str) -> tuple[Tensor, ...]:
    cos, sin = ops.rope_tables(torch.arange(TOKENS, device=device), ops.yarn_frequencies(64).to(device))
    return bf16(device, 1, TOKENS, HEADS, 64), cos, sin
