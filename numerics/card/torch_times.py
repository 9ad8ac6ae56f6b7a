"""`python -m numerics calibrate --library`: torch's kernels on the card at hand, in bursts and under sustained load.

A burst is a call now and then with a cold L2, so the card runs at its highest clock; under load it is repeated without
a pause until the power limit has settled, as in a training run. What the host spends on a launch is timed besides, and
what a graph saves of it. The result is a JSON document that is rewritten after each leg, so a run that is cut short
keeps what it has. Without a GPU the same plan runs on tiny shapes, to see that it does.
"""

import json
import math
import platform
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.nn import functional

from hwmodels.units import MICRO, MS_PER_S, US_PER_S
from numerics.card import measure
from numerics.card.torch_calls import Call, Operands
from numerics.card.torch_plan import FULL, TINY, Case, Sizes, cases

Row = dict[str, Any]
Show = Callable[[str], None]
BUDGET_S = 400.0
"""Of a run: bursts take 95 s on an H200, those under load 165 s."""
ELEMENTS = 3 << 30
"""Of the buffer of operands: the largest three of a product."""
SETTLE_S, LOADED_S = 0.25, 0.35
"""Seconds of a call under load before the clock counts as settled, and in which it is timed."""
BURST_S, LEAST, MOST = 0.015, 5, 15
"""Seconds of calls in a burst, and least and most calls of it; few enough that the power limit does not bind."""
PAUSE_S = 0.01
"""Between bursts."""
CHAIN, QUEUED = 2000, 800
"""Launches of one chain, and those that a stream's queue holds while the GPU sleeps (1,024 by default)."""
SHORT_CYCLES = 1000
WORK = ("kernel", "gpu_memcpy", "gpu_memset")
SPIN = "spin_kernel"
"""What torch.cuda._sleep is called in a trace: it stands between two calls of one."""
SHARES = (0.0, 0.3, 0.5, 0.7, 0.85, 1.0)
"""Parts of the time that a product takes beside memory-bound kernels."""


class Bench(NamedTuple):
    """What a run measures with. gpu: whether there is one; else calls run once each and times mean nothing."""

    gpu: bool
    operands: Operands
    monitor: measure.Monitor
    show: Show


def run(path: Path, show: Show, budget_s: float, some: Callable[[Sizes], Iterable[Case]] | None = None) -> Row:
    """The document, written to `path` leg by leg. some: of which cases alone."""
    gpu = torch.cuda.is_available()
    plan = list((some or cases)(FULL if gpu else TINY))
    document: Row = {"provenance": provenance(gpu)}
    deadline = time.monotonic() + budget_s
    with measure.Monitor() as monitor:
        bench = Bench(gpu, Operands("cuda" if gpu else "cpu", ELEMENTS if gpu else 1 << 16), monitor, show)
        document["events_us"] = measure.events_us() if gpu else 0.0
        rows: list[Row] = []
        legs: dict[str, Callable[[], Any]] = {
            "rows": lambda: rows.extend(bursts(bench, plan, deadline)) or rows,
            "kernels": lambda: named(bench, plan, rows), "host": lambda: host(bench),
            "loaded": lambda: loaded(bench, plan, rows, deadline), "mixed": lambda: list(mixed(bench)),
        }  # fmt: skip
        for name, leg in ((n, leg) for n, leg in legs.items() if not some or n not in ("host", "mixed")):
            start = time.monotonic()
            try:
                document[name] = leg()
            except Exception as error:  # a leg that cannot run here does not end the others
                document[name] = " ".join(f"{type(error).__name__}: {error}".split())
            show(f"{name}: {time.monotonic() - start:.1f} s, {str(document[name])[:200]}")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(document) + "\n", encoding="utf-8")
    return document


def provenance(gpu: bool) -> Row:
    head: Row = measure.provenance(MOST) if gpu else {"device": "cpu", "torch": torch.__version__}
    info = Path("/proc/cpuinfo")
    models = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    return head | {"host": models[0] if models else platform.processor(), "cores": len(models)}


def row_of(case: Case) -> Row:
    return {"op": type(case.op).__name__.lower(), **case.op._asdict(), "name": case.name}


def synchronize(bench: Bench) -> None:
    if bench.gpu:
        torch.cuda.synchronize()


# --- bursts -----------------------------------------------------------------------------------------------------------


def bursts(bench: Bench, plan: Iterable[Case], deadline: float) -> Iterator[Row]:
    """Each case with a cold L2 and a rested card; a case that cannot run says why."""
    for case in plan:
        row = row_of(case)
        if time.monotonic() > deadline:
            yield row | {"refused": "no time was left"}
            continue
        start = time.monotonic()
        try:
            row |= burst(bench, case.make(bench.operands.start()))
        except Exception as error:
            row["refused"] = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            bench.show(f"{case.name} {case.op}: {row['refused']}")
        yield row | bench.monitor.between(start, time.monotonic())


def burst(bench: Bench, call: Call) -> Row:
    start = time.monotonic()
    call()
    synchronize(bench)
    if not bench.gpu:
        us = (time.monotonic() - start) * US_PER_S
        return {"us": us, "low_us": us, "high_us": us, "samples": 1}
    time.sleep(PAUSE_S)
    rough = measure.time_call(call, 2, 1).median_us
    times = measure.time_call(call, max(LEAST, min(MOST, int(BURST_S * US_PER_S / rough))), 1)
    figures = asdict(times)
    return {"us": figures["median_us"], "low_us": figures["low_us"], "high_us": figures["high_us"],
            "samples": figures["repetitions"]}  # fmt: skip


def named(bench: Bench, plan: Iterable[Case], rows: list[Row]) -> int:
    """Adds to each row its kernels with their times, from one profile of all cases (the second call of each); how many
    rows have them."""
    if not bench.gpu:
        return 0
    timed = [(case, row) for case, row in zip(plan, rows, strict=True) if "us" in row]
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        for case, _ in timed:
            call = case.make(bench.operands.start())
            call()
            torch.cuda._sleep(SHORT_CYCLES)
            call()
            torch.cuda._sleep(SHORT_CYCLES)
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder, "trace.json")
        profile.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text())["traceEvents"]
    parts: list[list[Any]] = [[]]
    for event in sorted((e for e in events if e.get("cat") in WORK), key=lambda e: float(e["ts"])):
        if SPIN in event["name"]:
            parts.append([])
        else:
            parts[-1].append([event["name"][:120], round(event["dur"], 2)])
    if len(parts) != 2 * len(timed) + 1:
        raise ValueError(f"{len(parts)} parts of a trace of {len(timed)} calls")
    for (_, row), kernels in zip(timed, parts[1::2], strict=True):
        row["kernels"] = kernels
    return len(timed)


# --- under load -------------------------------------------------------------------------------------------------------


def loaded(bench: Bench, plan: Iterable[Case], rows: list[Row], deadline: float) -> int:
    """Adds to the rows of cases that ask for it what they take under load; how many have it."""
    done = 0
    for case, row in zip(plan, rows, strict=True):
        if case.loaded and "us" in row and time.monotonic() < deadline:
            row["loaded"] = under_load(bench, case.make(bench.operands.start()), row["us"])
            done += 1
    return done


def under_load(bench: Bench, call: Call, us: float) -> Row:
    """Microseconds of a call repeated without a pause, once the clock has settled, and the clock then."""
    each = us * MICRO
    for _ in range(max(1, math.ceil(SETTLE_S / each)) if bench.gpu else 1):
        call()
    synchronize(bench)
    often, start = max(3, math.ceil(LOADED_S / each)) if bench.gpu else 1, time.monotonic()
    if not bench.gpu:
        return {"us": us, "samples": 1}
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    first.record()
    for _ in range(often):
        call()
    last.record()
    torch.cuda.synchronize()
    end = time.monotonic()
    slowed = bench.monitor.slowed(start, end)
    return {"us": first.elapsed_time(last) * US_PER_S / MS_PER_S / often, "samples": often,
            **bench.monitor.between(start, end), "slowed": slowed}  # fmt: skip


def mixed(bench: Bench) -> Iterator[Row]:
    """A product of 8192 x 14336 x 4096 beside additions, by the part of the time that it has: what each takes when the
    power limit sees both."""
    if not bench.gpu:
        return
    given = bench.operands.start()
    x, w, y, z = given.take(8192, 4096), given.take(14336, 4096), given.take(8192, 14336), given.take(8192, 14336)
    product: Call = lambda: functional.linear(x, w)
    add: Call = lambda: y + z
    costs = [measure.time_call(call, LEAST, 1).median_us for call in (product, add)]
    for share in SHARES:
        beside = round(4 * costs[0] * (1 / share - 1) / costs[1]) if share else 4
        counts = (4 if share else 0, beside)
        yield {"share": share, "counts": counts, "burst_us": costs, **_mixture(bench, product, add, counts, costs)}


def _mixture(bench: Bench, product: Call, add: Call, counts: tuple[int, int], costs: list[float]) -> Row:
    """Mean microseconds of both in a row of `counts` of them that repeats under load."""
    rounds = max(2, math.ceil(LOADED_S / (sum(n * us for n, us in zip(counts, costs, strict=True)) * MICRO)))
    marks: list[Any] = []
    start = 0.0
    for i in range(2 * rounds):
        if i == rounds:
            start = time.monotonic()
            torch.cuda.synchronize()
        events = [torch.cuda.Event(enable_timing=True) for _ in range(3)]
        events[0].record()
        for _ in range(counts[0]):
            product()
        events[1].record()
        for _ in range(counts[1]):
            add()
        events[2].record()
        marks.append(events)
    torch.cuda.synchronize()
    last = marks[rounds:]
    spans = [sum(m[j].elapsed_time(m[j + 1]) for m in last) / len(last) * US_PER_S / MS_PER_S for j in (0, 1)]
    us = [span / n if n else 0.0 for span, n in zip(spans, counts, strict=True)]
    return {"us": us, **bench.monitor.between(start, time.monotonic())}


# --- the host ---------------------------------------------------------------------------------------------------------


def host(bench: Bench) -> Row:
    """Microseconds of the host for a call that it does not wait for, forward and backward; queued and in a graph."""
    given = bench.operands.start()
    x, w, n = given.take(64, 64), given.take(64, 64), given.take(64)
    g, wg, ng = (t.clone().requires_grad_() for t in (x, w, n))
    q = given.take(1, 2, 64, 64)
    qg = q.clone().requires_grad_()
    plain: dict[str, Call] = {
        "add": lambda: x + w, "mul": lambda: x * w, "linear": lambda: functional.linear(x, w), "mm": lambda: x @ w,
        "silu": lambda: functional.silu(x), "rms_norm": lambda: functional.rms_norm(x, (64,), n, 1e-6),
        "view": lambda: x.view(8, 8, 64).transpose(0, 1), "cat": lambda: torch.cat((x, w), -1),
        "contiguous": lambda: x.t().contiguous(), "float": lambda: x.float(),
        "attention": lambda: functional.scaled_dot_product_attention(q, q, q, is_causal=True),
    }  # fmt: skip
    graded: dict[str, Callable[[], torch.Tensor]] = {
        "add": lambda: g + w, "mul": lambda: g * wg, "linear": lambda: functional.linear(g, wg),
        "silu": lambda: functional.silu(g), "rms_norm": lambda: functional.rms_norm(g, (64,), ng, 1e-6),
        "view": lambda: g.view(8, 8, 64).transpose(0, 1),
        "attention": lambda: functional.scaled_dot_product_attention(qg, qg, qg, is_causal=True),
    }  # fmt: skip
    out: Row = {"forward": {name: _each(bench, call) for name, call in plain.items()}}
    out["recorded"] = {name: _each(bench, call) for name, call in graded.items()}
    out["backward"] = {name: _backward(bench, call) for name, call in graded.items()}
    out["chain_backward"] = _chain(bench, g)
    for tensors in (1, 32, 256):
        held = [torch.zeros(64, 64, device=x.device, dtype=x.dtype) for _ in range(tensors)]
        for each in held:
            each.grad = torch.ones_like(each)
        step = torch.optim.AdamW(held, fused=bench.gpu).step
        out[f"adamw_{tensors}_tensors"] = _each(bench, step, 100)
    return out | (_launches(x, w) if bench.gpu else {})


def _each(bench: Bench, call: Call, often: int = CHAIN) -> float:
    """Microseconds of the host a call; the GPU has less to do than the host for what is this small."""
    often = often if bench.gpu else 1
    for _ in range(min(20, often)):
        call()
    synchronize(bench)
    start = time.perf_counter()
    for _ in range(often):
        call()
    spent = time.perf_counter() - start
    synchronize(bench)
    return spent / often * US_PER_S


def _backward(bench: Bench, call: Callable[[], torch.Tensor], often: int = 300) -> float:
    """Microseconds of a backward of one call, in a sum of many: a node of the graph, and the sum's own."""
    often = often if bench.gpu else 2
    outs = [call() for _ in range(often)]
    dout = [torch.ones_like(out) for out in outs]
    synchronize(bench)
    start = time.perf_counter()
    torch.autograd.backward(outs, dout)
    spent = time.perf_counter() - start
    synchronize(bench)
    return spent / often * US_PER_S


def _chain(bench: Bench, g: torch.Tensor) -> float:
    """Microseconds a node of a chain of multiplications, backward: one kernel each."""
    y, often = g, CHAIN if bench.gpu else 2
    for _ in range(often):
        y = y * 0.999
    dout = torch.ones_like(y)
    synchronize(bench)
    start = time.perf_counter()
    y.backward(dout)
    spent = time.perf_counter() - start
    synchronize(bench)
    return spent / often * US_PER_S


def _launches(x: torch.Tensor, w: torch.Tensor) -> Row:
    """From start to start of small kernels: launched one by one, queued while the GPU sleeps, in a graph."""
    wide = torch.zeros(1 << 22, device=x.device, dtype=x.dtype)
    out: Row = {}
    for name, call in {"tiny": lambda: x.add_(w, alpha=0.0), "8 MB": lambda: wide.mul_(1.0)}.items():
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for _ in range(CHAIN):
                call()
        out[name] = {
            "one_us": measure.time_call(call, MOST).median_us, "graph_us": _span(graph.replay, 1, 0) / CHAIN,
            "queued_us": _span(call, QUEUED, 40) / QUEUED, "host_us": _span(call, CHAIN, 0) / CHAIN,
        }  # fmt: skip
    return out


def _span(call: Call, often: int, sleeps: int) -> float:
    """Microseconds on the GPU of calls in a row, the host ahead by some sleeps; the median of three."""
    spans = []
    for _ in range(4):
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        for _ in range(sleeps):
            torch.cuda._sleep(measure.AHEAD_CYCLES)
        first.record()
        for _ in range(often):
            call()
        last.record()
        torch.cuda.synchronize()
        spans.append(first.elapsed_time(last) * US_PER_S / MS_PER_S)
    return sorted(spans[1:])[1]
