"""Attention in FP8 over attention in BF16, from times that cuDNN's own benchmark published of both on one card."""

import math
from collections.abc import Iterator
from statistics import median
from typing import NamedTuple

from numerics.tables.calibrate import Row, rounded

SOURCE = (
    "NVIDIA/cudnn-frontend @3929da2ef4c1 (MIT), benchmark/sdpa_benchmark_training/results: kernel times of causal "
    "attention in BF16, FP8 and MXFP8, cuDNN 9.22 on a GB200 and a GB300 (2026-04-24), 9.19 on an H200 (2026-02-27)"
)
LENGTHS = (2048, 4096, 8192, 16384, 32768)
BURST = 0.05
"""Spread of a ratio of bursts in a training step, as of other kernels' ratios (`attentions.CLOCK`)."""


class Benchmark(NamedTuple):
    """A shape of the benchmark on a card. width: of a head, the root of both of an unlike one. window: keys that a
    query sees, 0: all. times: format -> milliseconds forward and backward, at LENGTHS."""

    card: str
    name: str
    width: int
    window: int
    times: dict[str, tuple[tuple[float, ...], tuple[float, ...]]]


V3, KIMI, LLAMA, WINDOW = ("dsv3", 157, 0), ("kimiK26", 157, 0), ("llama3.1", 128, 0), ("gpt_oss", 64, 128)
"""Two sequences of 128 and of 64 latent heads, of 64 heads with 8 of keys, of 128 narrow heads; on the H200 one."""
PUBLISHED = (
    Benchmark("GB200", *V3, {
        "bf16": ((0.321, 0.977, 3.47, 13.103, 50.456), (1.056, 3.383, 11.984, 50.424, 212.546)),
        "fp8": ((0.207, 0.656, 2.294, 8.845, 35.942), (0.681, 2.112, 7.296, 29.05, 123.181)),
        "mxfp8": ((0.224, 0.714, 2.478, 9.337, 37.773), (0.854, 2.62, 9.567, 36.835, 149.238)),
    }),
    Benchmark("GB200", *KIMI, {
        "bf16": ((0.167, 0.518, 1.733, 6.398, 25.72), (0.536, 1.698, 6.005, 24.921, 105.445)),
        "fp8": ((0.11, 0.338, 1.139, 4.326, 18.194), (0.355, 1.082, 3.689, 14.195, 58.126)),
        "mxfp8": ((0.119, 0.363, 1.254, 4.667, 18.417), (0.443, 1.331, 4.546, 17.427, 72.533)),
    }),
    Benchmark("GB200", *LLAMA, {
        "bf16": ((0.125, 0.391, 1.397, 5.15, 21.692), (0.389, 1.198, 4.127, 16.554, 71.756)),
        "fp8": ((0.097, 0.305, 1.074, 4.084, 16.012), (0.414, 1.167, 3.781, 13.476, 52.155)),
        "mxfp8": ((0.103, 0.326, 1.156, 4.4, 17.201), (0.461, 1.305, 4.272, 15.315, 61.716)),
    }),
    Benchmark("GB200", *WINDOW, {
        "bf16": ((0.109, 0.21, 0.414, 0.822, 2.634), (0.237, 0.465, 0.911, 1.818, 3.692)),
        "fp8": ((0.101, 0.195, 0.385, 0.766, 1.529), (0.536, 1.731, 6.176, 23.231, 90.348)),
        "mxfp8": ((0.109, 0.21, 0.417, 0.826, 1.637), (0.642, 2.08, 7.427, 27.94, 108.37)),
    }),
    Benchmark("GB300", *V3, {
        "bf16": ((0.268, 0.864, 3.013, 11.178, 44.189), (0.977, 3.127, 11.074, 43.911, 177.494)),
        "fp8": ((0.15, 0.493, 1.758, 6.653, 26.146), (0.591, 1.803, 6.188, 23.257, 95.057)),
        "mxfp8": ((0.166, 0.546, 1.944, 7.336, 29.731), (0.772, 2.348, 8.03, 31.002, 122.768)),
    }),
    Benchmark("GB300", *KIMI, {
        "bf16": ((0.136, 0.421, 1.466, 5.442, 21.498), (0.492, 1.548, 5.466, 21.253, 88.821)),
        "fp8": ((0.078, 0.244, 0.865, 3.266, 12.849), (0.304, 0.904, 3.064, 11.276, 45.48)),
        "mxfp8": ((0.086, 0.269, 0.957, 3.613, 14.1), (0.397, 1.185, 3.991, 14.766, 59.247)),
    }),
    Benchmark("GB300", *LLAMA, {
        "bf16": ((0.1, 0.323, 1.185, 4.593, 18.014), (0.356, 1.101, 3.832, 14.593, 59.024)),
        "fp8": ((0.07, 0.217, 0.759, 2.88, 11.319), (0.364, 0.985, 3.087, 10.805, 41.328)),
        "mxfp8": ((0.079, 0.242, 0.856, 3.225, 12.632), (0.424, 1.203, 3.917, 14.072, 55.34)),
    }),
    Benchmark("GB300", *WINDOW, {
        "bf16": ((0.104, 0.202, 0.397, 0.79, 2.53), (0.227, 0.442, 0.862, 1.712, 3.45)),
        "fp8": ((0.086, 0.167, 0.327, 0.65, 1.296), (0.467, 1.48, 5.189, 19.354, 74.763)),
        "mxfp8": ((0.092, 0.175, 0.342, 0.676, 1.345), (0.581, 1.871, 6.648, 24.996, 96.913)),
    }),
    Benchmark("H200 SXM", *LLAMA, {
        "bf16": ((0.142, 0.465, 1.708, 6.531, 25.566), (0.464, 1.45, 5.083, 19.002, 75.688)),
        "fp8": ((0.098, 0.322, 1.141, 4.357, 16.884), (0.437, 1.459, 6.392, 29.422, 118.729)),
    }),
)  # fmt: skip
"""Without `deterministic`, where both were timed: with it a backward of wide heads takes as long, within 3 %. Backward
in FP8 over a window takes what it takes over all keys: 0.7 PFLOP/s of these on a GB300, at every length."""


def compared() -> Iterator[Row]:
    """Rows of the table: by card, format, direction, width, window and length a ratio to BF16, of several shapes the
    median, and its spread."""
    kinds = sorted({(each.card, each.width, each.window) for each in PUBLISHED})
    for card, width, window in kinds:
        alike = [each for each in PUBLISHED if (each.card, each.width, each.window) == (card, width, window)]
        for precision in sorted(set(alike[0].times) - {"bf16"}):
            for at, direction in enumerate(("forward", "backward")):
                for place, length in enumerate(LENGTHS):
                    ratios = [each.times[precision][at][place] / each.times["bf16"][at][place] for each in alike]
                    apart = math.log(max(ratios) / min(ratios)) / 2
                    yield {
                        "card": card, "precision": precision, "direction": direction, "width": width, "window": window,
                        "sequence": length, "ratio": rounded(median(ratios)),
                        "spread": rounded(math.hypot(BURST, apart)),
                    }  # fmt: skip
