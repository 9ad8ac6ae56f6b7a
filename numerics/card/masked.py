"""DeepGEMM's masked products of experts at a decode step's sizes: `python -m numerics.card.masked --rivals FOLDER`.

Writes rows of `sim/serving/kernels` (kind masked): groups, rows of each, n, k and microseconds. Groups have 0.7 to 1.3
times the rows that are said, drawn evenly, and a time is the mean of three draws, since rows come by whole tiles and a
few more than a tile holds take as long as a tile. Weights of several layers take turns, so that L2 holds none of
them; graphs of CALLS calls are replayed, and the gap between kernels is in their time. FOLDER holds `deep_gemm` as
`numerics.card.rivals` says, of the version that an engine runs; nothing is timed before its output passed a gate.
"""

import argparse
import csv
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hwmodels.units import MS_PER_S, US_PER_S
from numerics.card.measure import NoDevice, require_device

GROUPS, ROWS = (2, 4, 8), (64, 128, 192, 256, 290, 320, 384, 448, 512, 590, 640, 768, 1024)
SHAPES = ((4096, 7168), (7168, 2048))
"""Columns and inner dimension of DeepSeek-V3's experts (arXiv:2412.19437, section 4.2)."""
DRAWS, PLACES, CALLS, REPLAYS = 3, 2048, 16, 15
"""Draws of a size; places for rows of a group; calls of a graph; replays."""
SPREAD = (0.7, 1.3)
REST_S = 0.004
"""Before each replay, so that the clock is a rested card's, as of the other rows: without it large ones take a fifth
longer, for the power limit."""
APART_BYTES = 160_000_000
"""Of weights that take turns: two and a half times an H200's L2."""
GATE = 5e-3
"""Relative distance of FP8 products in BF16 from FP32 ones of the same values."""


def drawn(groups: int, rows: int, random: np.random.Generator) -> list[int]:
    """Rows of each group."""
    low, high = (int(end * rows) for end in SPREAD)
    return [int(each) for each in random.integers(low, high + 1, groups)]


class Experts:
    """Products of one shape. a [groups, PLACES, k] with scales of 1 x 128; w of each layer [groups, n, k], of 128 x
    128; out [groups, PLACES, n] in BF16."""

    def __init__(self, deep_gemm: Any, groups: int, n: int, k: int) -> None:
        layers = max(2, APART_BYTES // (groups * n * k) + 1)
        self.run, self.groups = deep_gemm.m_grouped_gemm_fp8_fp8_bf16_nt_masked, groups
        self.a, scales = _codes(groups, PLACES, k), _scales(groups, PLACES, k // 128)
        self.a_s = deep_gemm.get_col_major_tma_aligned_tensor(scales)
        self.w = [(_codes(groups, n, k), _scales(groups, n // 128, k // 128)) for _ in range(layers)]
        self.out = torch.zeros(groups, PLACES, n, device="cuda", dtype=torch.bfloat16)
        self._gate(scales)

    def call(self, rows: Tensor, mean: int, layer: int) -> None:
        self.run((self.a, self.a_s), self.w[layer % len(self.w)], self.out, rows, mean)

    def _gate(self, scales: Tensor) -> None:
        """Raise unless the first group's product is right."""
        some = 77
        self.call(torch.full((self.groups,), some, dtype=torch.int32, device="cuda"), some, 0)
        w, w_s = self.w[0]
        a = self.a[0, :some].float() * scales[0, :some].repeat_interleave(128, 1)
        right = a @ (w[0].float() * w_s[0].repeat_interleave(128, 0).repeat_interleave(128, 1)).T
        off = float((self.out[0, :some].float() - right).norm() / right.norm())
        if off > GATE:
            raise ArithmeticError(f"DeepGEMM's product is {off:.1e} off")

    def timed_us(self, rows: Sequence[int], mean: int) -> float:
        counts = torch.tensor(rows, dtype=torch.int32, device="cuda")
        return graphed_us(lambda layer: self.call(counts, mean, layer))


def _codes(*shape: int) -> Tensor:
    return (torch.randn(*shape, device="cuda") / 2).to(torch.float8_e4m3fn)


def _scales(*shape: int) -> Tensor:
    return torch.rand(*shape, device="cuda") / 10 + 0.05


def graphed_us(call: Callable[[int], None]) -> float:
    """Microseconds a call in a replayed graph: the median of REPLAYS."""
    stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
    for number in range(CALLS):
        call(number)
    torch.cuda.synchronize()
    with torch.cuda.graph(graph, stream=stream):
        for number in range(CALLS):
            call(number)
    times = []
    for _ in range(REPLAYS):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        time.sleep(REST_S)
        begin.record()
        graph.replay()
        end.record()
        torch.cuda.synchronize()
        times.append(begin.elapsed_time(end) / MS_PER_S * US_PER_S / CALLS)
    return statistics.median(times)


def rows(deep_gemm: Any) -> Iterator[tuple[str, int, int, int, int, float]]:
    """A row of the file each."""
    torch.manual_seed(0)
    for groups in GROUPS:
        for n, k in SHAPES:
            experts, random = Experts(deep_gemm, groups, n, k), np.random.default_rng(groups * 7 + n)
            for mean in ROWS:
                draws = [drawn(groups, mean, random) for _ in range(DRAWS)]
                us = statistics.fmean(experts.timed_us(each, mean) for each in draws)
                yield "masked", groups, mean, n, k, round(us, 2)


def main(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m numerics.card.masked")
    parser.add_argument("--rivals", type=Path, required=True, help="folder that holds deep_gemm")
    parser.add_argument("--out", type=Path, default=Path("out/masked.csv"))
    args = parser.parse_args(words)
    try:
        require_device()
    except NoDevice as lacking:
        print(lacking, file=sys.stderr)
        return 2
    sys.path.insert(0, str(args.rivals.resolve()))
    import deep_gemm  # type: ignore[import-not-found]  # of the folder

    args.out.parent.mkdir(parents=True, exist_ok=True)
    with args.out.open("w", encoding="utf-8", newline="") as file:
        write = csv.writer(file, lineterminator="\n")
        write.writerow(("kind", "a", "b", "c", "d", "us"))
        for row in rows(deep_gemm):
            write.writerow(row)
            print(*row, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
