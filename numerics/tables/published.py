"""How a library does on cards that it was not measured on here: prices carried over, beside published times of kernels.

Published times are bursts of a few dozen launches (NVIDIA aiconfigurator: SGLang's cuBLAS products and attention). A
card whose power limit binds is priced, as everywhere, at the middle of a burst and of a metered run; where no metered
run was published, of that of its generation. An A100 does not meet its limit.
"""

import csv
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import median
from typing import Any

from hwmodels import device, library, tables
from hwmodels.op import Attention, Gemm, Op
from hwmodels.refused import Refused
from hwmodels.transfer import Quote, scaled
from numerics.tables import provenance
from numerics.tables.calibrate import Table, rounded
from numerics.tables.library import robust

CARDS = {
    "a100": "A100", "a100_40gb": "A100", "b200": "B200", "gb200": "GB200", "b300": "B300", "gb300": "GB300",
}  # fmt: skip
"""Document of a device of another architecture -> what the files call it."""
OF, LIBRARY = "h200/torch", "torch"
METERED = {"A100": "", "B200": "B200", "GB200": "GB200", "B300": "B200", "GB300": "GB200"}
"""Card -> card whose metered runs say what the power limit takes; "" where it does not bind (products of an A100 reach
0.80 of peak at all sizes from 0.1 to 10 TFLOP)."""
LEAST_ROWS, LEAST_TOKENS = 1024, 4096
"""Rows of products and lengths of sequences from which serving kernels do what training's do."""
FILES = ("gemm.csv", "attention.csv")
SOURCE = (
    "NVIDIA aiconfigurator@095f58a51c4c (Apache-2.0), SGLang's BF16 products and causal attention, thinned; "
    "us_sustained of TensorRT-LLM's"
)
ENTRIES = ("numerics.tables.published:compared", "numerics.tables.library:robust")


def compared(folder: Path) -> dict[str, Table]:
    """The table of likenesses from a folder of published times. Raises Refused."""
    if absent := [name for name in FILES if not (folder / name).is_file()]:
        raise Refused(f"has no {' and no '.join(absent)}", str(folder))
    rows = {name: list(csv.DictReader((folder / name).open(encoding="utf-8"))) for name in FILES}
    slower = {card: metered(rows["gemm.csv"], by) for card, by in METERED.items()}
    out = []
    for name, card in CARDS.items():
        offs: dict[str, list[float]] = defaultdict(list)
        for op, us in (*products(rows["gemm.csv"], card), *attentions(rows["attention.csv"], card)):
            offs[library.family(op)].append(math.log(us * math.sqrt(slower[card]) / price_us(name, op)))
        ratios = {family: ratio(each) | {"metered": rounded(slower[card])} for family, each in offs.items()}
        out.append({"device": device.load_once(name).name, "library": LIBRARY, "of": OF, "ratios": ratios})
    origin = {
        "command": "python -m numerics calibrate --likeness DIR", "measured": "published, collected 2026-11-29",
        "inputs": {name: provenance.digest_of(folder / name) for name in FILES},
        "program": {"entries": list(ENTRIES), "files": provenance.program(ENTRIES)},
    }  # fmt: skip
    return {"likeness": {"source": SOURCE, "provenance": origin, "rows": out}}


def products(rows: list[dict[str, str]], card: str) -> Iterator[tuple[Op, float]]:
    for row in rows:
        if row["gpu"] == card and row["precision"] == "bf16" and int(row["m"]) >= LEAST_ROWS:
            yield Gemm(int(row["m"]), int(row["n"]), int(row["k"]), precision="bf16"), float(row["us"])


def attentions(rows: list[dict[str, str]], card: str) -> Iterator[tuple[Op, float]]:
    """Forward with one width of heads, as torch's calls of other widths are priced apart; few backwards were
    published."""
    for row in rows:
        heads, kv, qk, v, batch, length = (
            int(row[key]) for key in ("heads", "kv_heads", "dim_qk", "dim_v", "batch", "seq")
        )
        if (
            row["gpu"] == card
            and row["causal"] == "1"
            and row["direction"] == "fwd"
            and length >= LEAST_TOKENS
            and qk == v
        ):
            shared = 0 if kv == heads else kv
            yield Attention("forward", batch, heads, length, qk, v, kv_heads=shared), float(row["us"])


def metered(rows: list[dict[str, str]], card: str) -> float:
    """How much longer large products of a card take under its power limit than in a burst, in the median."""
    pairs = [
        float(row["us_sustained"]) / float(row["us"])
        for row in rows
        if row["gpu"] == card and row["precision"] == "bf16" and row["us_sustained"] and int(row["m"]) >= LEAST_ROWS
    ]
    return max(1.0, median(pairs)) if pairs else 1.0


def price_us(name: str, op: Op) -> float:
    """What tables of another card give for an operation, carried over."""
    card, there = device.load_once(name), tables.load(OF)
    assert there.library is not None
    reading = Quote(*library.quote(there.library, op, True, card.sms))
    return scaled(card, there, reading, op.bytes()).us


def ratio(offs: list[float]) -> Mapping[str, Any]:
    middle = median(offs)
    spread = math.hypot(robust([off - middle for off in offs]), 0.05)
    return {"ratio": rounded(math.exp(middle)), "spread": rounded(spread), "rows": len(offs)}
