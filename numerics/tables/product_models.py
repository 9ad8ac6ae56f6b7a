"""Models of products on cards, from published times: tiles, the clock of training, what directions and formats add."""

import math
from collections.abc import Mapping
from statistics import median

import numpy as np

from hwmodels.tiles import Tiles
from hwmodels.units import MICRO
from numerics.tables import published
from numerics.tables.calibrate import Row, rounded
from numerics.tables.left_out import Part, apart, covering, errors
from numerics.tables.published import CARDS, LIBRARY, Card, Lines
from numerics.tables.tile_fit import Burst, Times, fitted, left_out, times_us

CLOCKS = {"bf16": (1.0, 1.35), "fp8": (1.0, 1.15)}
"""How many times a rested card's time training's products may take on Blackwell, nine times of ten: none more; as
TransformerEngine's on one B200 (SimuMax, 75 launches in a row), and the slowest metered ones in FP8."""
METERED = ("B200", "GB200")
"""Cards of which products were metered."""
PACED_US = 40.0
"""Time from which a product is slowed by the power limit: 15 us ones hardly are, those of 40 us and of 3 ms alike."""
HELD = 0.15
"""Spread beyond the fitted sizes: products of fewer than 1,024 rows come back within 19 to 37 % nineteen times of
twenty on seven cards."""
SCALED = 0.25
"""Spread of products whose tensor cores take block scales: no row times one without its casts but Azure's squares."""
UNKNOWN = 0.35
"""Spread where another format's part of the peak is held for a card."""
SQUARES = "GB200"
"""Card of Azure's NVFP4 products."""
LARGE, REFITS = 8192, 20
"""Rows of squares that tell a part of the peak; the smallest tells the fixed cost."""


def clock(rows: Mapping[str, Lines], card: Card, precision: str, tiles: Tiles, burst: Burst) -> float:
    """How many times as long the SMs take at the power limit as on a rested card. In FP8, whose casts no metered row
    has apart, as many times as a burst with them. Where none of a card's were metered, what its longest bursts show,
    of 0.1 s: they are within 4 % of what was metered on the two cards that have both."""
    if not card.limited:
        return 1.0
    if precision == "fp8":
        return max(1.0, median(each.us / each.burst_us for each in published.metered(rows, METERED, precision)))
    known = published.metered(rows, (card.name,), precision)
    if not known:
        return 1.0 + burst.slower
    timed = published.times([(*each.sides, each.us) for each in known], precision)
    rested = times_us(tiles, timed, card.used(precision))
    return max(1.0, float(np.median((timed.us / rested)[rested >= PACED_US])))


def models(rows: Mapping[str, Lines], card: Card) -> list[Part]:
    """Models of all formats: fitted, or held from another one."""
    parts = {}
    for precision in ("bf16", "fp8"):
        if precision in card.device.peak_flops:
            timed, sources = published.products(rows, card, precision)
            if timed.count:
                parts[precision] = _fitted(rows, card, precision, timed, sources)
    if card.name == "MI300X":
        parts["fp8"] = _rescaled(rows, card, parts["fp8"])
    for precision in ("bf16", *(f for f in ("mxfp8", "nvfp4") if f in card.device.peak_flops)):
        if precision not in parts:
            parts[precision] = _held(rows, precision, parts["fp8"], card.alike if precision == "bf16" else SCALED)
    return list(parts.values())


def _fitted(rows: Mapping[str, Lines], card: Card, precision: str, timed: Times, sources: set[str]) -> Part:
    used = card.used(precision)
    tiles, burst = fitted(timed, used, card.limited)
    slower = clock(rows, card, precision, tiles, burst)
    offs = left_out(timed, used, card.limited)
    alone = covering(offs)
    spread = math.hypot(alone, apart(*CLOCKS[precision]) if card.limited else 0.0)
    sides = [min(*timed.m, *timed.n, *timed.k), max(*timed.m, *timed.n, *timed.k)]
    return Part({
        "op": "product", "precision": precision, "tiles": _rounded(tiles), "clock": rounded(slower),
        "low": int(sides[0]), "high": int(sides[1]), "spread": rounded(spread),
        "held": rounded(max(HELD, spread)), "rung": "interpolated",
        "source": f"{card.devices[0]}/{LIBRARY}/kernels: {timed.count} {precision} products",
        "errors": errors(offs, alone) | {"alone": rounded(alone), **_burst(burst)},
    }, sources)  # fmt: skip


def _rounded(tiles: Tiles) -> Row:
    return {name: rounded(value) for name, value in tiles._asdict().items()}


def _burst(burst: Burst) -> Row:
    """What long bursts took more than a rested card: told, and no part of a price."""
    return {"burst_slower": rounded(burst.slower), "burst_after_us": rounded(burst.after_us)}


def _rescaled(rows: Mapping[str, Lines], card: Card, part: Part) -> Part:
    """Tiles of products by block, which waste much on the scales, with the part of the peak that hipBLASLt's squares by
    tensor reach."""
    large = published.squares(rows, card.name, "fp8")
    tiles = Tiles(**part.row["tiles"])
    off = median(times_us(tiles, large, card.used("fp8")) / large.us)
    tiles = tiles._replace(part=tiles.part * float(off))
    offs = [math.log(a / b) for a, b in zip(times_us(tiles, large, card.used("fp8")), large.us, strict=True)]
    source = f"{part.row['source']} by block, as fast as {large.count} squares by tensor"
    row = part.row | {"tiles": _rounded(tiles), "spread": SCALED, "held": UNKNOWN, "source": source}
    row["errors"] = {**row["errors"], "squares": errors(offs, SCALED)}
    return Part(row, part.sources | {"z2"})


def _held(rows: Mapping[str, Lines], precision: str, fp8: Part, spread: float) -> Part:
    """FP8's model at another format's peak; of NVFP4 with the fixed cost and the part of the peak of Azure's squares,
    which are metered already."""
    row = {key: value for key, value in fp8.row.items() if key != "errors"}
    row |= {"precision": precision, "spread": max(spread, row["spread"]), "held": max(UNKNOWN, row["held"])}
    row |= {"rung": "transferred", "source": f"{fp8.row['source']}, their part of the peak held for {precision}"}
    if precision != "nvfp4":
        return Part(row, fp8.sources)
    (card,) = (each for each in CARDS if each.name == SQUARES)
    large, tiles = published.squares(rows, SQUARES, "nvfp4"), Tiles(**row["tiles"])
    wide = large.where(large.m >= LARGE)
    for _ in range(REFITS):
        tiles = tiles._replace(
            part=tiles.part * float(median(times_us(tiles, wide, card.used("nvfp4")) / wide.us)),
            fixed_us=tiles.fixed_us + float(large.us[0] - times_us(tiles, large, card.used("nvfp4"))[0]),
        )
    offs = [math.log(a / b) for a, b in zip(times_us(tiles, large, card.used("nvfp4")), large.us, strict=True)]
    row |= {
        "tiles": _rounded(tiles),
        "clock": 1.0,
        "source": f"{large.count} NVFP4 products of a GB200, Azure's guide",
    }
    return Part(row | {"errors": errors(offs, row["spread"])}, fp8.sources | {"z1"})


def accumulate(rows: Mapping[str, Lines]) -> float:
    """Bytes of FP32 gradients that a weight's gradient reads and writes again, over what HBM's bandwidth allows: of
    TransformerEngine's products, those that take the longest for it (the others hide it among what they compute)."""
    out = []
    for row in rows["gemm_backward.csv"]:
        card = next((each for each in CARDS if each.name == row["gpu"].removesuffix("-PCIe")), None)
        if card and row["kind"] == "grouped":
            size = 8.0 * int(row["n_out"]) * int(row["k_in"]) * int(row["groups"])
            more = float(row["wgrad_acc_fp32_us"]) - float(row["fprop_us"])
            out.append(more / (size / card.device.hbm.bandwidth_bytes_per_s / MICRO))
    return max(0.0, median(out))
