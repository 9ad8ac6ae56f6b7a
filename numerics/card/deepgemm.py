"""DeepGEMM's products at the sizes of serving's steps: `python -m numerics.card.deepgemm --rivals FOLDER`.

Writes rows of `sim/serving/kernels`: masked and grouped (groups, rows of each, n, k) of experts at a decode step's and
at prompts' sizes, gemm (m, n, k) of all other products of DeepSeek-V3. Groups of masked rows have 0.7 to 1.3 times the
rows that are said, drawn evenly, and a time is the mean of three draws, since rows come by whole tiles and a few more
than a tile holds take as long as a tile; those of grouped ones fill whole tiles of the contiguous layout. Weights of
several layers take turns, so that L2 holds none of them; graphs of at most CALLS calls are replayed on a rested card,
and the gap between kernels is in their time. FOLDER holds `deep_gemm` as `numerics.card.rivals` says, of the version
that an engine runs; processes compile its kernels first, for each is compiled when it is first called, and nothing is
timed before its output passed a gate.
"""

import argparse
import csv
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from hwmodels.units import MS_PER_S, US_PER_S
from numerics.card.measure import NoDevice, require_device

DEVICE = "cuda"
MASKED, GROUPED, GEMM = "masked", "grouped", "gemm"
GROUPS, ROWS = (2, 4, 8), (64, 128, 192, 256, 290, 320, 384, 448, 512, 590, 640, 768, 1024)
"""Of masked products: experts of a rank, and rows of each in a decode step."""
MANY_GROUPS, MANY_ROWS = (4, 9, 16), (256, 512, 1024, 2048, 4096, 8192)
"""Of grouped products: 256 experts and their copies on 64, 32 and 16 ranks or so, and rows of each in prompts."""
SHAPES = ((4096, 7168), (7168, 2048))
"""Columns and inner dimension of DeepSeek-V3's experts (arXiv:2412.19437, section 4.2)."""
PLAIN = (
    (576, 7168), (1536, 7168), (2112, 7168), (24576, 1536), (32768, 512), (7168, 16384), (4096, 7168), (7168, 2048),
    (36864, 7168), (7168, 18432),
)  # fmt: skip
"""Columns and inner dimension of its other products: latents apart and in one, queries, keys and values, the output,
the shared expert and the first three layers' network."""
PLAIN_ROWS = (64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
DRAWS, PLACES, CALLS, REPLAYS = 3, 2048, 16, 15
"""Draws of a size; places for rows of a group; calls of a graph; replays."""
SPREAD = (0.7, 1.3)
SHORT_S, REST = 0.004, 4
"""A graph is as short as this, or one call; before each replay the card rests as long, and REST times as long as the
replay takes, so that the clock is a rested card's, as of the other rows: without it large ones take a fifth longer, for
the power limit."""
APART_BYTES = 160_000_000
"""Of weights that take turns: two and a half times an H200's L2."""
GATE = 5e-3
"""Relative distance of FP8 products in BF16 from FP32 ones of the same values."""
SOME = 64
"""Rows of which the gate looks at the output."""

Row = tuple[str, int, int, int, int | str, float]


class Product(NamedTuple):
    """A product of a kind: groups of rows each (1 where there are none), columns n, inner dimension k."""

    kind: str
    groups: int
    rows: int
    n: int
    k: int


def products() -> list[Product]:
    """What is timed, those of one set of weights beside each other."""
    masked = [Product(MASKED, g, m, n, k) for g in GROUPS for n, k in SHAPES for m in ROWS]
    grouped = [Product(GROUPED, g, m, n, k) for g in MANY_GROUPS for n, k in SHAPES for m in MANY_ROWS]
    return [*masked, *grouped, *(Product(GEMM, 1, m, n, k) for n, k in PLAIN for m in PLAIN_ROWS)]


def drawn(groups: int, rows: int, random: np.random.Generator) -> list[int]:
    """Rows of each group."""
    low, high = (int(end * rows) for end in SPREAD)
    return [int(each) for each in random.integers(low, high + 1, groups)]


class Weights:
    """Weights of several layers for products of one shape and kind: w [groups, n, k], with scales of 128 x 128."""

    def __init__(self, deep_gemm: Any, first: Product) -> None:
        kind, self.groups, _, n, k = first
        layers = max(2, APART_BYTES // (self.groups * n * k) + 1)
        blocks = (-(-n // 128), k // 128)
        self.w = [(_codes(self.groups, n, k), _scales(self.groups, *blocks)) for _ in range(layers)]
        self.of, self.kind, self.deep_gemm = first[:2] + first[3:], kind, deep_gemm

    def call(self, product: Product, rows: Sequence[int]) -> Callable[[int], None]:
        """A product with the weights of a layer, whose output passed the gate. rows: of each group."""
        kind, groups, mean, n, k = product
        held = PLACES if kind == MASKED else mean
        tall = (groups, held) if kind == MASKED else (groups * held,)
        a, scales = _codes(*tall, k), _scales(*tall, k // 128)
        out = torch.zeros(*tall, n, device=DEVICE, dtype=torch.bfloat16)
        left, run = (a, self.deep_gemm.get_col_major_tma_aligned_tensor(scales)), self.deep_gemm
        counts = torch.tensor(rows, dtype=torch.int32, device=DEVICE)
        of = torch.arange(groups, dtype=torch.int32, device=DEVICE).repeat_interleave(held)

        def call(layer: int) -> None:
            w, w_s = self.w[layer % len(self.w)]
            if kind == MASKED:
                run.m_grouped_gemm_fp8_fp8_bf16_nt_masked(left, (w, w_s), out, counts, mean)
            elif kind == GROUPED:
                run.m_grouped_gemm_fp8_fp8_bf16_nt_contiguous(left, (w, w_s), out, of)
            else:
                run.gemm_fp8_fp8_bf16_nt(left, (w[0], w_s[0]), out)

        call(0)
        w, w_s = (each[0] for each in self.w[0])
        one, its = (a[0], scales[0]) if kind == MASKED else (a, scales)
        wide = w_s.repeat_interleave(128, 0)[:n].repeat_interleave(128, 1)
        right = (one[:SOME].float() * its[:SOME].repeat_interleave(128, 1)) @ (w.float() * wide).T
        got = (out[0] if kind == MASKED else out)[: min(SOME, rows[0])]
        off = float((got.float() - right[: len(got)]).norm() / right[: len(got)].norm())
        if not off <= GATE:
            raise ArithmeticError(f"DeepGEMM's {product} is {off:.1e} off")
        return call


def _codes(*shape: int) -> Tensor:
    """Values in E4M3, made group by group, so that no more than one is held in FP32."""
    made = torch.empty(*shape, device=DEVICE, dtype=torch.float8_e4m3fn)
    for part in made.view(-1, *shape[-2:]) if len(shape) > 2 else [made]:
        part.copy_((torch.randn(*part.shape, device=DEVICE) / 2).to(torch.float8_e4m3fn))
    return made


def _scales(*shape: int) -> Tensor:
    return torch.rand(*shape, device=DEVICE) / 10 + 0.05


def graphed_us(call: Callable[[int], None]) -> float:
    """Microseconds a call in a replayed graph: the median of REPLAYS."""
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    for number in range(2):  # the first one is not timed: events are recorded anew
        begin.record()
        call(number)
        end.record()
    torch.cuda.synchronize()
    once_s = begin.elapsed_time(end) / MS_PER_S
    calls = max(1, min(CALLS, int(SHORT_S / once_s)))
    stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        for number in range(calls):
            call(number)
    times = []
    for _ in range(REPLAYS):
        torch.cuda.synchronize()
        time.sleep(SHORT_S + REST * calls * once_s)
        begin.record()
        graph.replay()
        end.record()
        torch.cuda.synchronize()
        times.append(begin.elapsed_time(end) / MS_PER_S * US_PER_S / calls)
    return statistics.median(times)


def timed(deep_gemm: Any, asked: Sequence[Product]) -> Iterator[Row]:
    """A row of the file each."""
    torch.manual_seed(0)
    weights: Weights | None = None
    for product in asked:
        kind, groups, mean, n, k = product
        if weights is None or weights.of != product[:2] + product[3:]:
            weights, random = None, np.random.default_rng(groups * 7 + n)  # the old one's memory first
            weights = Weights(deep_gemm, product)
        draws = [drawn(groups, mean, random) for _ in range(DRAWS)] if kind == MASKED else [[mean] * groups]
        us = round(statistics.fmean(graphed_us(weights.call(product, each)) for each in draws), 2)
        yield (kind, mean, n, k, "", us) if kind == GEMM else (kind, groups, mean, n, k, us)


def compile_all(asked: Sequence[Product], rivals: Path) -> None:
    """Compile every kernel, by a process a core."""
    cores = os.cpu_count() or 1
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "numerics.card.deepgemm", "--rivals", str(rivals), "--compile", f"{each}/{cores}"]
        )
        for each in range(min(cores, len(asked)))
    ]
    codes = [process.wait() for process in started]
    if any(codes):
        raise RuntimeError("a kernel was not compiled; see above")


def main(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m numerics.card.deepgemm")
    parser.add_argument("--rivals", type=Path, required=True, help="folder that holds deep_gemm")
    parser.add_argument("--out", type=Path, default=Path("out/deepgemm.csv"))
    parser.add_argument("--only", nargs="*", choices=(MASKED, GROUPED, GEMM), default=(MASKED, GROUPED, GEMM))
    parser.add_argument("--compile", help="compile this part (I/N) and time nothing")
    args = parser.parse_args(words)
    try:
        require_device()
    except NoDevice as lacking:
        print(lacking, file=sys.stderr)
        return 2
    sys.path.insert(0, str(args.rivals.resolve()))
    import deep_gemm  # type: ignore[import-not-found]  # of the folder

    asked = [product for product in products() if product.kind in args.only]
    if args.compile:
        part, parts = map(int, args.compile.split("/"))
        for product in asked[part::parts]:
            Weights(deep_gemm, product).call(product, [product.rows] * product.groups)
        return 0
    compile_all(asked, args.rivals)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with args.out.open("w", encoding="utf-8", newline="") as file:
        write = csv.writer(file, lineterminator="\n")
        write.writerow(("kind", "a", "b", "c", "d", "us"))
        for row in timed(deep_gemm, asked):
            write.writerow(row)
            print(*row, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
