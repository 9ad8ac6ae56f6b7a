"""Published times of single kernels, as a folder of tables has them, and the cards that they are of.

The tables hold figures of public sources (licences and versions are in sources.csv), read here and nowhere else. An FP8
row times the cast of its input too: it is taken out (`us_quant`, timed apart). Rows of fewer than `LEAST_ROWS` are of
other kernels than training's, and shorter sequences than `LEAST_TOKENS` were timed in serving's paged form, which takes
1.3 to 1.9 times as long as training's kernels do there.
"""

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hwmodels import device
from hwmodels.op import OPERAND, Attention
from hwmodels.refused import Refused
from hwmodels.tiles import Card as Used
from numerics.tables.tile_fit import Times

FILES = (
    "gemm.csv", "gemm_other.csv", "gemm_backward.csv", "attention.csv", "memory.csv", "published.csv", "sources.csv",
)  # fmt: skip
LEAST_ROWS, LEAST_TOKENS = 1024, 8192
LIBRARY, OF = "torch", "h200/torch"
"""The library whose kernels these stand for, and the tables that stand for what was not published."""
GENERATION = {"B300": "B200", "GB200": "B200", "GB300": "B200", "MI355X": "MI300X"}
"""Card -> one of its generation that stands for what was not published of it."""
Lines = Sequence[Mapping[str, str]]


class Card(NamedTuple):
    """A card whose kernels were published. devices: documents of it. name: in the tables. limited: whether it meets
    its power limit in products (one of an A100 reaches 0.80 of peak at all sizes from 0.1 to 10 TFLOP). alike: spread
    of BF16 products that go by FP8's part of the peak."""

    devices: tuple[str, ...]
    name: str
    limited: bool = True
    alike: float = 0.15

    @property
    def device(self) -> device.Device:
        """Its first document."""
        return device.load_once(self.devices[0])

    def used(self, precision: str) -> Used:
        """What a product may use of it."""
        d = self.device
        return Used(d.sms, d.peak_flops[precision] / d.sms, d.hbm.bandwidth_bytes_per_s)


CARDS = (
    Card(("a100", "a100_40gb"), "A100", limited=False), Card(("b200",), "B200"), Card(("b300",), "B300"),
    Card(("gb200",), "GB200"), Card(("gb300",), "GB300"), Card(("h20",), "H20", limited=False),
    Card(("mi300x",), "MI300X", limited=False, alike=0.35), Card(("mi355x",), "MI355X", limited=False),
)  # fmt: skip
"""Cards without tables of their own. An H20's tensor cores are too slow for its power; of AMD's cards nothing shows it:
no product was metered, and large ones are no slower than others."""
OTHERS = {("H20", "fp8"): "fp8_block", ("MI300X", "fp8"): "fp8_block", ("MI355X", "fp8"): "fp8_row",
          ("MI355X", "bf16"): "bf16"}  # fmt: skip
"""Card and number format -> precision in gemm_other.csv, whose products are timed without casts."""


def lines(folder: Path) -> dict[str, Lines]:
    """File -> its rows. Raises Refused."""
    if absent := [name for name in FILES if not (folder / name).is_file()]:
        raise Refused(f"has no {' and no '.join(absent)}", str(folder))
    out: dict[str, Lines] = {}
    for name in FILES:
        with (folder / name).open(encoding="utf-8", newline="") as file:
            out[name] = list(csv.DictReader(file))
    return out


def sources(rows: Mapping[str, Lines], used: set[str]) -> list[str]:
    """Where rows of these keys come from: what was timed, version, place, commit, licence."""
    keys = ("framework", "version", "kernel_source", "path", "commit", "licence")
    by_key = {row["src"]: ", ".join(row[key] for key in keys if row[key]) for row in rows["sources.csv"]}
    return sorted(f"{key}: {by_key[key]}" for key in used)


# --- products ---------------------------------------------------------------------------------------------------------


def products(rows: Mapping[str, Lines], card: Card, precision: str) -> tuple[Times, set[str]]:
    """A card's products in a format, and the keys of their sources; none where none were published."""
    other = OTHERS.get((card.name, precision))
    file, called = ("gemm_other.csv", other) if other else ("gemm.csv", precision)
    chosen = [
        row for row in rows[file]
        if (row["gpu"], row["precision"]) == (card.name, called) and int(row["m"]) >= LEAST_ROWS
    ]  # fmt: skip
    timed = [(*_sides(row), float(row["us"]) - float(row.get("us_quant") or 0.0)) for row in chosen]
    return times([each for each in timed if each[-1] > 0], precision), {row["src"] for row in chosen}


def _sides(row: Mapping[str, str]) -> tuple[int, int, int]:
    return int(row["m"]), int(row["n"]), int(row["k"])


def times(timed: Sequence[tuple[int, int, int, float]], precision: str) -> Times:
    """Products with the bytes that they move."""
    m, n, k, us = np.array(timed, float).reshape(-1, 4).T
    return Times(m, n, k, us, OPERAND[precision] * (m * k + n * k) + 2 * m * n)


def squares(rows: Mapping[str, Lines], card: str, precision: str) -> Times:
    """Products of Azure's guide, after 10,000 others, from their TFLOP/s: a shape is "m1024 n1024 k1024"."""
    out = []
    for row in rows["published.csv"]:
        if (row["gpu"], row["op"]) == (card, f"gemm {precision}"):
            m, n, k = (int(word[1:]) for word in row["shape"].split())
            out.append((m, n, k, 2 * m * n * k / float(row["value"]) / 1e6))
    return times(out, precision)


def metered(rows: Mapping[str, Lines], card: str, precision: str) -> Times:
    """A card's products that ran for a second and more at the power limit. The cast of an FP8 one, which memory bounds
    and no limit slows, is taken out."""
    return times([
        (*_sides(row), float(row["us_sustained"]) - float(row["us_quant"] or 0.0)) for row in rows["gemm.csv"]
        if (row["gpu"], row["precision"]) == (card, precision) and row["us_sustained"]
        and int(row["m"]) >= LEAST_ROWS
    ], precision)  # fmt: skip


# --- attention --------------------------------------------------------------------------------------------------------


class Timed(NamedTuple):
    """An attention kernel with its microseconds, and the key of its source."""

    op: Attention
    us: float
    source: str


def attentions(rows: Mapping[str, Lines], card: str) -> Iterator[Timed]:
    """Causal kernels of a card, forward and backward."""
    for row in rows["attention.csv"]:
        heads, kv, qk, v, batch, length = (
            int(row[key]) for key in ("heads", "kv_heads", "dim_qk", "dim_v", "batch", "seq")
        )
        if row["gpu"] == card and row["causal"] == "1":
            direction = "forward" if row["direction"] == "fwd" else "backward"
            op = Attention(direction, batch, heads, length, qk, v, kv_heads=0 if kv == heads else kv)
            yield Timed(op, float(row["us"]), row["src"])


# --- memory-bound kernels ---------------------------------------------------------------------------------------------


class Streamed(NamedTuple):
    """A memory-bound kernel: its name, its elements, its bytes, its microseconds, and the key of its source."""

    name: str
    rows: int
    size: float
    us: float
    source: str


def streams(rows: Mapping[str, Lines], card: Card) -> Iterator[Streamed]:
    """Forward kernels of a card that neither its cache nor its host decides."""
    for row in rows["memory.csv"]:
        if row["gpu"] == card.name and row["direction"] == "fwd" and not row["flag"]:
            size = float(row["hbm_frac"]) * card.device.hbm.bandwidth_bytes_per_s * float(row["us"]) / 1e6
            name = f"{row['op']}/{row['impl']}"
            yield Streamed(name, int(row["rows"]) * int(row["cols"]), size, float(row["us"]), row["src"])
