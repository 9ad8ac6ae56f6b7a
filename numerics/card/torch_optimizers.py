"""What an update of parameters takes: lists of tensors as models have them, by AdamW fused and by tensor list, and the
norms and scalings of gradient clipping.

Each is timed on a rested card and right after products that fill a backward pass. Elements whose gradient and moments
are zero, as rows of an embedding have that no token of the run has named yet, are timed apart: they take other paths of
the kernel's division and root than those with a history.
"""

import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.utils import clip_grad_norm_

from hwmodels.units import US_PER_S
from numerics.card import measure, torch_times
from numerics.card.torch_calls import Call
from numerics.card.torch_mix import beside

Row = dict[str, Any]
Show = Callable[[str], None]
PRODUCTS = 40
"""Of 8192 x 14336 x 4096 before an update: 50 ms on an H200."""
BURSTS, WARM = 7, 2
PIECE = 1 << 28
"""Parameters of a tensor whose unseen part is varied."""
UNSEEN = (0.0, 0.5, 0.9, 0.97, 1.0)


class Model(NamedTuple):
    """Sizes of a transformer whose parameters are updated; named after runs that have them."""

    name: str
    hidden: int
    ffn: int
    kv: int
    vocab: int
    layers: int


MODELS = (
    Model("8B, 4 layers", 4096, 14336, 1024, 128256, 4), Model("1B, 16 layers", 2048, 8192, 512, 128256, 16),
    Model("70B, 2 layers", 8192, 28672, 1024, 128256, 2), Model("0.4B, 24 layers", 1024, 4096, 1024, 50304, 24),
)  # fmt: skip
SMALL = (Model("tiny", 32, 64, 16, 96, 2),)
"""For a machine without a GPU."""
WIDTHS = {torch.bfloat16: 2, torch.float32: 4}


def shapes(model: Model) -> Iterator[tuple[int, ...]]:
    """Of its tensors, the embedding first."""
    h, f, kv = model.hidden, model.ffn, model.kv
    yield model.vocab, h
    for _ in range(model.layers):
        yield from ((h,), (h, h), (kv, h), (kv, h), (h, h), (h,), (f, h), (f, h), (h, f))
    yield from ((h,), (model.vocab, h))


def held(sizes: list[tuple[int, ...]], dtype: torch.dtype, device: str, unseen: float = 0.0) -> list[Tensor]:
    """Parameters with gradients; unseen: part of the first's rows whose gradient is zero."""
    out = []
    for i, size in enumerate(sizes):
        each = torch.full(size, 0.5, device=device, dtype=dtype)
        each.grad = torch.empty_like(each).normal_().mul_(1e-3)
        if not i:
            each.grad[: round(unseen * size[0])] = 0
        out.append(each)
    return out


class Update(NamedTuple):
    """A call to time, what it is called, and bytes that it reads and writes for each parameter."""

    name: str
    call: Call
    parameters: int
    tensors: int
    read: float
    write: float


def updates(device: str, models: tuple[Model, ...], piece: int) -> Iterator[Update]:
    """One after the other, each with memory of its own that is let go before the next."""
    for model in models:
        sizes = list(shapes(model))
        for dtype, width in WIDTHS.items():
            if width == 4 and model.hidden > 4096:
                continue
            for how in ("fused", "foreach"):
                yield _adam(f"{model.name}, {how}, {width} bytes", held(sizes, dtype, device), width, how)
        for unseen in (0.97, 0.5):
            name = f"{model.name}, fused, 2 bytes, {unseen} of the embedding unseen"
            yield _adam(name, held(sizes, torch.bfloat16, device, unseen), 2, "fused")
        yield from _clipping(model, held(sizes, torch.bfloat16, device))
    for dtype, width in WIDTHS.items():
        for unseen in UNSEEN:
            name = f"one tensor, fused, {width} bytes, {unseen} unseen"
            yield _adam(name, held([(piece // 1024, 1024)], dtype, device, unseen), width, "fused")
        later = held([(piece // 1024, 1024)], dtype, device)
        made = _adam(f"one tensor, fused, {width} bytes, seen once", later, width, "fused")
        later[0].grad.zero_()  # type: ignore[union-attr]  # it has one
        yield made


def _adam(name: str, parameters: list[Tensor], width: int, how: str) -> Update:
    fused = how == "fused"
    optimizer = torch.optim.AdamW(parameters, fused=fused, foreach=not fused)
    optimizer.step()
    return Update(f"AdamW {name}", optimizer.step, _sum(parameters), len(parameters), 4.0 * width, 3.0 * width)


def _clipping(model: Model, parameters: list[Tensor]) -> Iterator[Update]:
    """As torch.nn.utils.clip_grad_norm_ does it, whole and in its parts."""
    grads = [each.grad for each in parameters if each.grad is not None]
    one = torch.ones((), device=grads[0].device)
    count, many = _sum(grads), len(grads)
    yield Update(f"_foreach_norm {model.name}", lambda: torch._foreach_norm(grads), count, many, 2.0, 0.0)
    yield Update(f"_foreach_mul_ {model.name}", lambda: torch._foreach_mul_(grads, one), count, many, 2.0, 2.0)
    clip = lambda: clip_grad_norm_(parameters, 1.0, foreach=True)
    yield Update(f"clip_grad_norm_ {model.name}", clip, count, many, 4.0, 2.0)


def _sum(tensors: list[Tensor]) -> int:
    return sum(each.numel() for each in tensors)


def run(path: Path, show: Show, budget_s: float) -> Row:
    """The document, written to `path` row by row, as long as there is time."""
    gpu = torch.cuda.is_available()
    device, deadline = ("cuda" if gpu else "cpu"), time.monotonic() + budget_s
    document: Row = {"provenance": torch_times.provenance(gpu), "rows": []}
    document["events_us"] = measure.events_us() if gpu else 0.0
    path.parent.mkdir(parents=True, exist_ok=True)
    with measure.Monitor() as monitor:
        company = products(device, gpu)
        for update in updates(device, MODELS if gpu else SMALL, PIECE if gpu else 1 << 12):
            row: Row = {"op": "memory", "kind": "adam", "rows": update.parameters, **update._asdict()}
            del row["call"]
            try:
                row |= timed(update.call, company, monitor, gpu)
            except Exception as error:  # one that cannot run does not end the others
                row["refused"] = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            document["rows"].append(row)
            after = row.get("after", {}).get("us")
            show(f"{row['name']}: {row.get('us', row.get('refused'))} us, after products {after}")
            path.write_text(json.dumps(document) + "\n", encoding="utf-8")
            if time.monotonic() > deadline:
                document["cut"] = "no time was left"
                break
    return document


def products(device: str, gpu: bool) -> Call:
    """What a backward pass leaves the card like."""
    m, n, k = (8192, 14336, 4096) if gpu else (8, 8, 8)
    x, w = (torch.randn(side, k, device=device, dtype=torch.bfloat16) for side in (m, n))

    def company() -> None:
        for _ in range(PRODUCTS if gpu else 1):
            functional.linear(x, w)

    return company


def timed(call: Call, company: Call, monitor: measure.Monitor, gpu: bool) -> Row:
    """In bursts, after products, and kernel by kernel."""
    if not gpu:
        start = time.monotonic()
        call(), company()
        return {"us": (time.monotonic() - start) * US_PER_S, "samples": 1}
    times = measure.time_call(call, BURSTS, WARM)
    out: Row = {"us": times.median_us, "low_us": times.low_us, "high_us": times.high_us, "samples": times.repetitions}
    out["after"] = beside(call, max(times.median_us, 500.0), company, monitor)
    return out | {"kernels": kernels(call)}


def kernels(call: Call) -> dict[str, list[float]]:
    """Name -> microseconds of each launch of one call, in order."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        call()
        torch.cuda.synchronize()
    out: dict[str, list[float]] = defaultdict(list)
    for event in sorted(profile.events() or (), key=lambda e: e.time_range.start):
        if event.device_type == torch.autograd.DeviceType.CUDA:
            out[event.name[:120]].append(round(event.time_range.elapsed_us(), 2))
    return out
