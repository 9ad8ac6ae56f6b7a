"""Any operation of the priced vocabulary as a call on the GPU: random operands, and the kernel of ours that does it.

Beside the call stands what it should give, from the plain reference at the same shape: of whole tensors where the work
is bound by memory (`streams`), of sampled rows of a product, of two heads of attention. A call of torch's own is
trusted. What no kernel of ours does raises Unmeasurable and is left to the price ladder.
"""

import torch
from torch import Tensor

from hwmodels.formats import TILE
from hwmodels.op import Attention, Gemm, GroupedGemm
from numerics import ops
from numerics.card import streams
from numerics.card.bench import verify
from numerics.card.needs import Timed
from numerics.card.streams import OURS, Unmeasurable, trusted
from numerics.card.workload import ROUNDED, Call, Work, bf16, codes, row_scales, scales, some_gradients, tiles
from numerics.reference import attention as plain_attention
from numerics.reference import gemm as plain_gemm
from sim.models.shape import ModelShape

EVERY = TILE // 16
"""Of so many rows of a product one is verified: each tile that a program computes has some."""
LONGEST = 32768
"""Tokens up to which attention is verified: its reference keeps all scores of a head in FP32, 4 GiB each there."""


class Wrong(Exception):  # noqa: N818 - it names what a kernel is
    """A kernel whose output at this shape is not what the reference gives; its text says where."""


def call_of(op: Timed, shape: ModelShape, sms: int | None = None, device: str = "cuda") -> Call:
    """A call that does `op` on operands of its own. sms: SMs it may use, where confinable. Raises Unmeasurable."""
    return call(work_of(op, shape, sms, device))


def call(work: Work) -> Call:
    """What is timed."""
    return work.ours[OURS]


def verified(work: Work) -> Call:
    """The call, once its output has passed where it has a reference. Raises Wrong saying what differs."""
    if OURS not in work.unverified and (why := verify(work, call(work))):
        raise Wrong(f"the output is not the reference's: {why}")
    return call(work)


def work_of(op: Timed, shape: ModelShape, sms: int | None = None, device: str = "cuda") -> Work:
    """The call of `call_of` with what verifies it. Raises Unmeasurable."""
    if isinstance(op, Gemm):
        return _gemm(op, sms, device)
    if isinstance(op, GroupedGemm):
        return _grouped(op, sms, device)
    if isinstance(op, Attention):
        return _attention(op, device)
    return streams.memory(op, shape, device)


# --- products and attention -------------------------------------------------------------------------------------------


def _sample(rows: int, device: str) -> Tensor:
    """One row of every EVERY, at a different place in each."""
    start = torch.arange(0, max(rows, 1), EVERY, device=device)
    return (start + start // EVERY * 37 % EVERY).clamp(max=rows - 1)


def _gemm(op: Gemm, sms: int | None, device: str) -> Work:
    if op.precision != "fp8":
        return _bf16(op, device)
    a, b = codes(device, op.m, op.k), codes(device, op.n, op.k)
    a_s, rows = row_scales(device, op.m, tiles(op.k)), _sample(op.m, device)
    if op.role == "wgrad":
        return _wgrad(a, a_s, b, rows, sms)
    b_s = scales(device, tiles(op.n), tiles(op.k))
    run = lambda: ops.kernel("gemm", "gemm")(a, a_s, b, b_s, sms=sms)
    return Work({OURS: run}, lambda: plain_gemm.gemm(_rows(a, rows), a_s[rows], b, b_s), narrow=lambda c: c[rows])


def _bf16(op: Gemm, device: str) -> Work:
    """torch's product; a weight gradient adds to FP32, which torch does in one call since 2.10 and on a GPU alone."""
    x, y = bf16(device, op.m, op.k), bf16(device, op.n, op.k)
    if op.role != "wgrad":
        return trusted(lambda: x @ y.t())
    out, rows = torch.zeros(op.m, op.n, device=device), _sample(op.m, device)
    run = lambda: torch.addmm(out, x, y.t(), out_dtype=torch.float32, out=out)
    return Work({OURS: run}, lambda: out.zero_()[rows] + x[rows].float() @ y.float().t(), narrow=lambda c: c[rows])


def _wgrad(a: Tensor, a_s: Tensor, b: Tensor, rows: Tensor, sms: int | None) -> Work:
    b_s = row_scales(a.device.type, b.shape[0], a_s.shape[1])
    out = torch.zeros(a.shape[0], b.shape[0], device=a.device)

    def expected() -> Tensor:
        """Of one call: the sum starts again from zero."""
        some = out.zero_()[rows]
        return plain_gemm.wgrad_gemm(_rows(a, rows), a_s[rows], b, b_s, some)

    run = lambda: ops.kernel("wgrad_gemm", "wgrad")(a, a_s, b, b_s, out, sms=sms)
    return Work({OURS: run}, expected, narrow=lambda c: c[rows])


def _rows(x: Tensor, rows: Tensor) -> Tensor:
    """Rows of E4M3 codes, which torch indexes as bytes."""
    return x.view(torch.uint8)[rows].view(x.dtype)


def _grouped(op: GroupedGemm, sms: int | None, device: str) -> Work:
    if op.precision != "fp8":
        raise Unmeasurable("a grouped BF16 product: no kernel of ours does it")
    a, a_s = codes(device, op.rows, op.k), row_scales(device, op.rows, tiles(op.k))
    b, b_s = codes(device, op.groups, op.n, op.k), scales(device, op.groups, tiles(op.n), tiles(op.k))
    blocks = op.rows // TILE
    table = (torch.arange(blocks, device=device) * op.groups // blocks).int()
    rows = _sample(op.rows, device)

    def expected() -> Tensor:
        """Groups lie one behind the other, and so do their sampled rows."""
        owner = table[rows // TILE]
        parts = [(rows[owner == g], b[g], b_s[g]) for g in range(op.groups)]
        return torch.cat([plain_gemm.gemm(_rows(a, r), a_s[r], weight, s) for r, weight, s in parts])

    run = lambda: ops.kernel("grouped_gemm", "grouped")(a, a_s, b, b_s, table, sms=sms)
    return Work({OURS: run}, expected, narrow=lambda c: c[rows])


def _attention(op: Attention, device: str) -> Work:
    q, k = (bf16(device, op.batch, op.sequence, op.heads, op.qk) for _ in range(2))
    v, do = (bf16(device, op.batch, op.sequence, op.heads, op.v) for _ in range(2))
    scale = op.qk**-0.5
    forward = ops.kernel("attention", "attention")
    few = lambda x: x[-1:, :, :: max(1, op.heads - 1)]  # of the last sequence the first and the last head
    unverified = (OURS,) if op.sequence > LONGEST else ()
    if op.direction == "forward":
        run = lambda: forward(q, k, v, scale, op.causal)
        expected: Call = lambda: plain_attention.attention(few(q), few(k), few(v), scale, op.causal)[0]
        return Work({OURS: run}, expected, narrow=lambda o: few(o[0]), tolerance=ROUNDED, unverified=unverified)
    if device == "meta":
        o, lse = torch.empty_like(v), torch.empty(op.batch, op.heads, op.sequence, device=device)
    else:
        o, lse = forward(q, k, v, scale, op.causal)

    def gradients() -> list[Tensor]:
        some = [few(x) for x in (do, q, k, v, o, lse.transpose(1, 2))]
        return some_gradients(plain_attention.attention_backward(*some[:5], some[5].transpose(1, 2), scale, op.causal))

    delta = (do.float() * o.float()).sum(-1).transpose(1, 2).contiguous()  # attention_prepare is priced for itself
    back = lambda: ops.kernel("attention_backward", "attention")(do, q, k, v, o, lse, scale, op.causal, delta)
    narrow = lambda outputs: some_gradients(tuple(few(x) for x in outputs))
    return Work({OURS: back}, gradients, narrow=narrow, tolerance=ROUNDED, unverified=unverified)
