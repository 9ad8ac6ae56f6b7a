"""Study: what the FP8 tensor core's short accumulator costs, and what promotion every N_C elements buys back.

DeepSeek-V3 report (arXiv 2412.19437) sec 3.3.2, "Increasing Accumulation Precision": the H800 keeps around 14 bits;
for two random matrices at K = 4096 the largest relative error is nearly 2 %; promotion every N_C = 128 elements is the
smallest interval that improves precision without large overhead. Everything here is computed by the model of
`numerics.reference.hopper`; nothing is measured on a card.

    python -m numerics study accumulation --out DIR
writes DIR/accumulation.html (one page, readable offline) and DIR/accumulation.json (every figure on it).
"""

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from hwmodels.formats import E4M3, TILE
from numerics.reference import compare, hopper
from numerics.training import accumulation_page
from numerics.training.accumulation_rows import Row

LENGTHS = (128, 256, 512, 1024, 2048, 4096, 7168, 16384)
"""K: from one promotion interval to the longest of DeepSeek-V3's linear layers (16384, the attention output's)."""
INTERVALS = (32, 64, 128, 256, 512, 1024, 2048, hopper.NEVER)
"""N_C: from one instruction to never."""
REPORTED_LENGTH = 4096
"""The K at which the report gives an error."""
SIDE = 64
"""Outputs are SIDE x SIDE."""
SEEDS = (0, 1, 2)
OUTLIER_PERIOD, OUTLIER_CHANNEL, OUTLIER_FACTOR = 512, 7, 100.0
"""Assumed: one activation channel of every 512 (0.2 %) is 100 times larger than the rest."""
DATA = {
    "gaussian": "both operands standard normal, cast to E4M3",
    "uniform": "both operands uniform on [0, 1), cast to E4M3: nothing cancels",
    "outliers": "gaussian, but one activation channel of every 512 a hundred times larger; each operand scaled to 448",
}
METRICS = {
    "max_to_max": "largest |error| over largest |exact|",
    "relative": "Frobenius norm of the error over that of the exact",
    "mean_relative": "mean of |error| / |exact|",
    "max_relative": "largest |error| / |exact|",
    "max_relative_large": "the same, over outputs above a tenth of the rms (a filter chosen after the fact)",
    "bias": "sum of errors over sum of |exact| (signed)",
}
REPORTED_ERROR = (0.015, 0.025)
"""What "nearly 2 %" is read as."""


def main(out: Path) -> Path:
    """Run the study and write both files into the folder `out` (made when missing) -> the page's path."""
    rows = study()
    out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(document(rows), indent=1) + "\n"
    (out / "accumulation.json").write_text(text, encoding="utf-8")
    page = out / "accumulation.html"
    page.write_text(accumulation_page.render(rows, json.loads(text)), encoding="utf-8")
    return page


def study(lengths: tuple[int, ...] = LENGTHS, seeds: tuple[int, ...] = SEEDS) -> list[Row]:
    """Every point: error against K (never and every 128, both readings of the accumulator), then against N_C."""
    rows = []
    for data in DATA:
        operands = [matrices(data, max(lengths), seed) for seed in seeds]
        for accumulator in (hopper.JOINS, hopper.AFTER):
            core = hopper.TensorCore(accumulator=accumulator)
            for promote in (hopper.NEVER, TILE):
                rows += _against_length(data, operands, lengths, promote, core)
        k = min(REPORTED_LENGTH, max(lengths))
        others = [promote for promote in INTERVALS if promote not in (hopper.NEVER, TILE)]
        rows += [_at_interval(data, operands, k, promote) for promote in others]
    return rows


def matrices(data: str, k: int, seed: int) -> tuple[Tensor, Tensor]:
    """a, b e4m3 [SIDE, k] of a data set (a key of DATA)."""
    generator = torch.Generator().manual_seed(seed)
    draw = torch.rand if data == "uniform" else torch.randn
    a, b = (draw(SIDE, k, generator=generator) for _ in range(2))
    if data == "outliers":
        a[:, OUTLIER_CHANNEL::OUTLIER_PERIOD] *= OUTLIER_FACTOR
        a, b = (x * (E4M3.max_finite / x.abs().max()) for x in (a, b))
    return a.to(torch.float8_e4m3fn), b.to(torch.float8_e4m3fn)


def prefixes(
    a: Tensor, b: Tensor, lengths: tuple[int, ...], promote: int, core: hopper.TensorCore
) -> Iterator[tuple[int, Tensor]]:
    """(K, product over the first K elements) for each of `lengths` (multiples of 128), in one pass over the longest.

    promote is 128 or hopper.NEVER; each equals `hopper.gemm` of the shorter operands, bit for bit.
    """
    total, register = torch.zeros(a.shape[0], b.shape[0]), None
    for k in range(0, max(lengths), TILE):
        part = slice(k, k + TILE)
        register = hopper.wgmma(a[:, part], b[:, part], register, core)
        if promote:
            total, register = total + register, None
        if k + TILE in lengths:
            yield k + TILE, total if register is None else register


def errors(actual: Tensor, exact: Tensor) -> dict[str, float]:
    """The METRICS of one product against the float64 product of the same E4M3 values."""
    error, size = (actual.double() - exact).abs(), exact.abs()
    relative = torch.where(size > 0, error / size, 0.0)
    large = size > 0.1 * exact.square().mean().sqrt()
    return {
        "max_to_max": float(error.max() / size.max()),
        "relative": compare.relative_error(actual, exact),
        "mean_relative": float(relative.mean()),
        "max_relative": float(relative.max()),
        "max_relative_large": float(relative[large].max()),
        "bias": float((actual.double() - exact).sum() / size.sum()),
    }


def _against_length(
    data: str, operands: list[tuple[Tensor, Tensor]], lengths: tuple[int, ...], promote: int, core: hopper.TensorCore
) -> list[Row]:
    by_length: dict[int, list[dict[str, float]]] = {k: [] for k in lengths}
    for a, b in operands:
        for k, product in prefixes(a, b, lengths, promote, core):
            by_length[k].append(errors(product, a[:, :k].double() @ b[:, :k].double().t()))
    return [Row(data, k, promote, core.accumulator, _columns(by_length[k])) for k in lengths]


def _at_interval(data: str, operands: list[tuple[Tensor, Tensor]], k: int, promote: int) -> Row:
    rows = []
    for a, b in operands:
        product = hopper.gemm(a[:, :k], b[:, :k], promote)
        rows.append(errors(product, a[:, :k].double() @ b[:, :k].double().t()))
    return Row(data, k, promote, hopper.JOINS, _columns(rows))


def _columns(rows: list[dict[str, float]]) -> dict[str, list[float]]:
    return {metric: [one[metric] for one in rows] for metric in METRICS}


def near_reported(rows: list[Row]) -> list[tuple[str, str]]:
    """(data, metric) whose median without promotion at K = 4096 is "nearly 2 %": candidates for the report's test."""
    low, high = REPORTED_ERROR
    return [
        (row.data, metric)
        for row in rows
        if (row.k, row.promote, row.accumulator) == (REPORTED_LENGTH, hopper.NEVER, hopper.JOINS)
        for metric in METRICS
        if low <= abs(row.median(metric)) <= high
    ]


def probes() -> list[dict[str, object]]:
    """What each bit probe gives under both readings of the accumulator, and what it must give."""
    after = hopper.TensorCore(accumulator=hopper.AFTER)
    return [
        {
            "name": probe.name,
            "joins": hopper.wgmma(*probe.operands()).item(),
            "after": hopper.wgmma(*probe.operands(), core=after).item(),
            "expected": {"joins": probe.joins, "after": probe.after},
        }
        for probe in hopper.PROBES
    ]


def document(rows: list[Row], seeds: tuple[int, ...] = SEEDS) -> dict[str, object]:
    """The JSON: what was run, on what, and every figure (fractions, not percent)."""
    return {
        "study": "accumulation",
        "provenance": "model (numerics.reference.hopper, after MMA-Sim arXiv 2511.10909); nothing measured on a GPU",
        "outputs": [SIDE, SIDE],
        "seeds": list(seeds),
        "data": DATA,
        "metrics": METRICS,
        "reported": {
            "source": "arXiv 2412.19437 sec 3.3.2", "bits": 14, "error": 0.02, "k": REPORTED_LENGTH, "interval": TILE
        },
        "candidates_for_reported_error": near_reported(rows),
        "probes": probes(),
        "rows": [asdict(row) for row in rows],
    }  # fmt: skip
