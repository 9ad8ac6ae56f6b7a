"""How much longer torch's kernels take in a training step's company than in a burst on a rested card.

The power limit binds on the mean of what runs, so a kernel's clock is that of its company: products for seven tenths of
the time, additions for the rest (what a layer of a transformer spends, by the bursts), and the kernel itself for a
tenth. Each kernel is timed in both states by the same program.
"""

import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.nn import functional as f

from numerics.card import measure

Call = Callable[[], Any]
PRODUCTS, ADDITIONS = 3, 10
"""Of 8192 x 14336 x 4096 (1.25 ms in a burst) and of 8192 x 14336 (0.165 ms) in a round: 0.7 and 0.3 of its time."""
OWN_US, SETTLE_S, TIMED_S = 500.0, 0.3, 0.4
"""Microseconds that the kernel has of a round; seconds before the clock counts as settled, and of timing."""


def b(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, device="cuda", dtype=torch.bfloat16)


def products() -> Iterator[tuple[str, Call]]:
    for m, n, k in ((1024, 1024, 1024), (2048, 2048, 2048), (4096, 1024, 4096), (4096, 4096, 4096), (8192, 4096, 4096),
                    (8192, 8192, 8192), (8192, 28672, 8192), (8192, 2048, 2048), (2048, 8192, 8192)):  # fmt: skip
        x, w, dy = b(m, k), b(n, k), b(m, n)
        yield f"fprop {m} {n} {k}", lambda x=x, w=w: f.linear(x, w)
        yield f"dgrad {m} {k} {n}", lambda dy=dy, w=w: dy @ w
        yield f"wgrad_bf16 {n} {k} {m}", lambda dy=dy, x=x: dy.t() @ x
    x, w, dy = b(16384, 4096), b(8, 28672, 4096), b(16384, 28672)
    ends = torch.arange(2048, 16385, 2048, device="cuda", dtype=torch.int32)
    yield "grouped fprop", lambda: torch._grouped_mm(x, w.transpose(-2, -1), offs=ends)
    yield "grouped wgrad_bf16", lambda: torch._grouped_mm(dy.t(), x, offs=ends)


def attentions() -> Iterator[tuple[str, Call]]:
    for heads, kv, qk, v, s in ((32, 8, 128, 128, 4096), (32, 8, 128, 128, 1024), (32, 8, 64, 64, 4096),
                                (16, 16, 192, 128, 4096), (8, 1, 128, 128, 8192)):  # fmt: skip
        q, k, w = (b(16384 // s, s, h, d).transpose(1, 2).requires_grad_() for h, d in ((heads, qk), (kv, qk), (kv, v)))
        forward: Call = lambda q=q, k=k, w=w, g=kv != heads: f.scaled_dot_product_attention(
            q, k, w, is_causal=True, enable_gqa=g
        )
        name = f"{heads} {kv} {qk} {s}"
        yield f"attention backward {name}", gradient(forward(), (q, k, w))
        yield f"attention forward {name}", lambda q=q, k=k, w=w, c=forward: no_grad(c)


def no_grad(call: Call) -> Any:
    with torch.no_grad():
        return call()


def gradient(out: torch.Tensor, of: tuple[torch.Tensor, ...]) -> Call:
    dout = torch.randn_like(out)
    return lambda: torch.autograd.grad(out, of, dout, retain_graph=True)


def memory() -> Iterator[tuple[str, Call]]:
    x, y, a = b(8192, 14336), b(8192, 14336), torch.ops.aten
    wide, h, own = x.float(), b(1, 8192, 32, 128).transpose(1, 2), b(8192, 14336)
    yield from {
        "add": lambda: x + y, "silu": lambda: f.silu(x), "gelu": lambda: f.gelu(x), "widen": lambda: x.float(),
        "gelu_backward": lambda: a.gelu_backward(y, x), "silu_backward": lambda: a.silu_backward(y, x),
        "narrow": lambda: wide.bfloat16(), "accumulate": lambda: wide.add_(x), "zero": own.zero_,
        "sum": lambda: x.sum(0), "contiguous": lambda: h.contiguous(), "rotate": lambda: h * h[0, 0],
        "halves": lambda: torch.cat((h[..., 64:], h[..., :64]), -1), "neg_half": lambda: -h[..., 64:],
        "foreach_norm": lambda: torch._foreach_norm([x, y]),
    }.items()  # fmt: skip
    for width in (4096, 14336):
        z, g, e = (t.requires_grad_() for t in (b(8192, width), b(width), b(width)))
        rms: Call = lambda z=z, g=g, n=width: f.rms_norm(z, (n,), g, 1e-6)
        layer: Call = lambda z=z, g=g, e=e, n=width: f.layer_norm(z, (n,), g, e)
        yield f"rms_norm {width}", lambda c=rms: no_grad(c)
        yield f"rms_norm_backward {width}", gradient(rms(), (z, g))
        yield f"layer_norm_backward {width}", gradient(layer(), (z, g, e))
    table, at = b(128256, 4096), torch.arange(8192, device="cuda") * 7919 % 128256
    yield "embedding", lambda: f.embedding(at, table)
    dy = b(8192, 4096)
    yield "embedding_backward", lambda: a.embedding_dense_backward(dy, at, 128256, -1, False)
    logits, dlogits = (torch.randn(4096, 128256, device="cuda") for _ in range(2))
    yield "log_softmax", lambda: a._log_softmax(logits, 1, False)
    yield "log_softmax_backward", lambda: a._log_softmax_backward_data(dlogits, logits, 1, torch.float32)
    scores, picks = torch.rand(8192, 64, device="cuda"), at.repeat(6) % 64
    yield "topk", lambda: scores.topk(6, -1)
    yield "sort", lambda: picks.sort()
    rows, out = b(49152, 2048), b(8192, 2048)
    source = torch.argsort(picks) // 6
    yield "gather", lambda: out[source]
    yield "index_add", lambda: out.index_add_(0, source, rows)
    held = [torch.zeros(1 << 23, device="cuda", dtype=torch.bfloat16) for _ in range(16)]
    for each in held:
        each.grad = torch.ones_like(each)
    yield "adam", torch.optim.AdamW(held, fused=True).step


def run() -> Iterator[dict[str, Any]]:
    """A row a kernel: in a burst, in company, and the card meanwhile."""
    x, w, y, z = b(8192, 4096), b(14336, 4096), b(8192, 14336), b(8192, 14336)

    def company() -> None:
        for _ in range(PRODUCTS):
            f.linear(x, w)
        for _ in range(ADDITIONS):
            torch.add(y, z)

    with measure.Monitor() as monitor:
        for family in (products, attentions, memory):
            for name, call in family():
                burst = measure.time_call(call, 7, 2).median_us
                yield {"name": name, "burst_us": burst, **beside(call, burst, company, monitor)}
                time.sleep(0.02)


def beside(call: Call, burst_us: float, company: Call, monitor: measure.Monitor) -> dict[str, Any]:
    """Microseconds of a call after its company, its launches queued before the company ends."""
    often, spans = max(1, round(OWN_US / burst_us)), []
    start = time.monotonic()
    timed = start + SETTLE_S
    while time.monotonic() < start + SETTLE_S + TIMED_S:
        marks = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
        company()
        marks[0].record()
        for _ in range(often):
            call()
        marks[1].record()
        if time.monotonic() > timed:
            spans.append(marks)
        if len(spans) % 4 == 3 or time.monotonic() < timed:
            marks[0].synchronize()
    torch.cuda.synchronize()
    us = measure.summary([one.elapsed_time(two) * 1e3 / often for one, two in spans]).median_us
    return {"us": us, "calls": often, "rounds": len(spans), **monitor.between(timed, time.monotonic())}
