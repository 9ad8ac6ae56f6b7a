"""What single operations of torch and of Python take a host: `python -m numerics.card.host --out DIR [--compiled]`.

Chains of one operation on tensors of 64 x 64, host's clock, nothing waited for, the median of some chains. Where there
is no CUDA device all that needs none is timed on the CPU's tensors: views, functions, pieces and Python take what they
take beside a GPU, launches are left out. `hwmodels.node.Launch` and `sim.models.stacks.megatron.host` have these
numbers of an H200's host.
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from hwmodels.units import US_PER_S
from numerics.card import host_native, host_python

Call = Callable[[], Any]
SIDE, CHAIN, REPEATS, MANY = 64, 60, 25, 33
"""Rows of a tensor; calls of a chain; chains; tensors, pieces or parameters at once, beside one."""


class Bench:
    """Where it runs, and tensors to work on."""

    def __init__(self) -> None:
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.x = torch.randn(SIDE, SIDE, device=self.device, dtype=torch.bfloat16)
        self.recorded = self.x.clone().requires_grad_()

    @property
    def gpu(self) -> bool:
        return self.device == "cuda"

    def wait(self) -> None:
        if self.gpu:
            torch.cuda.synchronize()

    def each(self, call: Call, often: int = CHAIN) -> float:
        """Microseconds of the host a call."""
        spent = []
        for _ in range(REPEATS):
            self.wait()
            start = time.perf_counter()
            for _ in range(often):
                call()
            spent.append((time.perf_counter() - start) / often * US_PER_S)
        self.wait()
        return statistics.median(spent)

    def backward(self, make: Callable[[torch.Tensor], torch.Tensor]) -> float:
        """Microseconds of the host a node of a chain's backward, less what it takes to begin."""
        long, short = (self._backward(make, often) for often in (CHAIN, 1))
        return (long - short) / (CHAIN - 1)

    def _backward(self, make: Callable[[torch.Tensor], torch.Tensor], often: int) -> float:
        spent = []
        for _ in range(REPEATS):
            out = self.recorded
            for _ in range(often):
                out = make(out)
            down = torch.ones_like(out)
            self.wait()
            start = time.perf_counter()
            out.backward(down)
            spent.append((time.perf_counter() - start) * US_PER_S)
        self.wait()
        return statistics.median(spent)


class Same(torch.autograd.Function):
    """A function with one operation each way, which keeps all that it is given."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, *more: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x, *more)
        return x * 2.0

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        return grads[0] * 2.0, *[None] * (len(ctx.saved_tensors) - 1)


def operations(bench: Bench) -> Iterator[tuple[str, float]]:
    """Names of `sim.models.stacks.megatron.host`, in lower case, and their microseconds."""
    x, recorded = bench.x, bench.recorded
    with torch.no_grad():
        operation = bench.each(lambda: x * 2.0)
        yield "operation", operation
        yield "empty", bench.each(lambda: torch.empty(SIDE, SIDE, device=bench.device, dtype=torch.bfloat16))
    yield "unit_forward", bench.each(lambda: recorded * recorded)
    yield "unit_backward", bench.backward(lambda t: t * bench.x)
    yield "view", bench.each(lambda: recorded.view(SIDE * SIDE))
    one = bench.each(lambda: Same.apply(recorded))
    yield "function_forward", one - operation
    yield "function_backward", bench.backward(Same.apply) - operation
    more = [x] * MANY
    yield "argument", (bench.each(lambda: Same.apply(recorded, *more)) - one) / MANY
    whole = torch.randn(MANY * 4, SIDE, device=bench.device, dtype=torch.bfloat16)
    split = [bench.each(lambda rows=rows: torch.split(whole, rows)) for rows in (4, MANY * 4)]
    yield "piece", (split[0] - split[1]) / (MANY - 1)
    yield "gradient", _gradient(bench)
    yield "kept", _kept(bench)
    yield "backward_begin", bench._backward(lambda t: t.view_as(t), 1)


class Keeps(torch.autograd.Function):
    """A function that keeps tensors which are not its inputs."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, tensors: Sequence[torch.Tensor]) -> torch.Tensor:
        ctx.save_for_backward(*tensors)
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        return (grads[0], None) if len(ctx.saved_tensors) else (None, None)


def _kept(bench: Bench) -> float:
    """A tensor more that a function keeps and is given back, both ways together."""
    both = []
    for count in (MANY, 1):
        more = [bench.x.clone() for _ in range(count)]
        forward = bench.each(lambda more=more: Keeps.apply(bench.recorded, more))  # type: ignore[misc]
        both.append(forward + bench._backward(lambda t, more=more: Keeps.apply(t, more), 1))
    return (both[0] - both[1]) / (MANY - 1)


def _gradient(bench: Bench) -> float:
    """A parameter's gradient handed to autograd and to a hook of its own, less with one."""

    class Many(torch.autograd.Function):
        """Hands each parameter a tensor."""

        @staticmethod
        def forward(ctx: Any, x: torch.Tensor, *weights: torch.Tensor) -> torch.Tensor:
            ctx.count = len(weights)
            return x.view_as(x)

        @staticmethod
        def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return grads[0], *[bench.x.view_as(bench.x) for _ in range(ctx.count)]

    spent = []
    for count in (MANY, 1):
        weights = [bench.x.clone().requires_grad_() for _ in range(count)]
        for weight in weights:
            weight.register_hook(lambda grad: None)
            weight.grad = torch.zeros_like(weight)
        spent.append(bench._backward(lambda t, w=weights: Many.apply(t, *w), 1))
    return (spent[0] - spent[1]) / (MANY - 1)


def launches(bench: Bench) -> Iterator[tuple[str, float]]:
    """What only a GPU has: launches, products, streams and events, copies to the host."""
    x, cast = bench.x, torch.float8_e4m3fn
    with torch.no_grad():
        empty = bench.each(lambda: torch.empty(SIDE, SIDE, device=bench.device, dtype=cast))
        made = bench.each(lambda: x.to(cast))
        yield "launch", made - empty
        a, b, scale = x.to(cast), x.to(cast).t(), torch.ones((), device=bench.device)
        scaled = bench.each(lambda: torch._scaled_mm(a, b, scale, scale, out_dtype=torch.bfloat16))
        yield "product", scaled - empty
        streams, event = [torch.cuda.Stream() for _ in range(4)], torch.cuda.Event()
        yield "event_recorded", bench.each(lambda: event.record(torch.cuda.current_stream()))
        yield "event_waited", bench.each(lambda: streams[0].wait_event(event))
        pinned = torch.empty(SIDE, SIDE, dtype=torch.bfloat16, pin_memory=True)
        yield "copied", bench.each(lambda: pinned.copy_(x, non_blocking=True))
        operation = bench.each(lambda: x * 2.0)
        yield "side", bench.each(lambda: _beside(streams[0], x)) - operation
        event.synchronize()
        yield "awaited", bench.each(event.synchronize)


def _beside(stream: Any, x: torch.Tensor) -> torch.Tensor:
    with torch.cuda.stream(stream):
        return x * 2.0


def run(progress: Callable[[str], None] = lambda text: None, compiled: bool = False) -> dict[str, Any]:
    """All of it, with what it ran on. compiled: what a C++ compiler is needed for, too."""
    bench = Bench()
    rows: dict[str, float] = {}
    legs = [operations(bench), host_python.python(bench.each, bench.x)]
    legs += [host_native.native(bench.each)] if compiled else []
    with _one_thread():
        for leg in (*legs, *([launches(bench)] if bench.gpu else [])):
            for name, us in leg:
                rows[name] = round(us, 2)
                progress(f"{name}: {us:.2f} us")
    about = {"command": "python -m numerics.card.host --out DIR", "torch": torch.__version__,
             "python": platform.python_version(), "processor": _processor(), "tensors": bench.device}  # fmt: skip
    return {"about": about, "us": rows}


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def main(words: Sequence[str] | None = None) -> None:
    """Time all and write DIR/host.json."""
    parser = argparse.ArgumentParser(prog="python -m numerics.card.host")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--compiled", action="store_true", help="also what is compiled from C++ (ninja, a compiler)")
    asked = parser.parse_args(words)
    folder, document = asked.out, run(print, asked.compiled)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "host.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
