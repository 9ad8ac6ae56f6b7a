"""Models of products on cards, from published times: tiles, the clock of training, what directions and formats add."""

import math
from collections.abc import Mapping
from statistics import median

from hwmodels import pace
from hwmodels.tiles import Tiles
from hwmodels.units import MICRO
from numerics.tables import product_formats, published
from numerics.tables.calibrate import Row, rounded
from numerics.tables.left_out import Part, apart, covering, errors
from numerics.tables.published import CARDS, LIBRARY, Card, Lines
from numerics.tables.tile_fit import Burst, Times, fitted, left_out, times_us

CLOCKS = {"bf16": (1.0, 1.35), "fp8": (1.0, 1.15)}
"""How many times a rested card's time training's products may take on Blackwell, nine times of ten: none more; as
TransformerEngine's on one B200 (SimuMax, 75 launches in a row), and the slowest metered ones in FP8."""
SAME_CHIP = {"GB300": "B300"}
"""Card -> one of the same chip under another limit, Blackwell Ultra."""
PACED_US = 40.0
"""Time from which a product is slowed by the power limit: 15 us ones hardly are, those of 40 us and of 3 ms alike."""
HELD = 0.15
"""Spread beyond the fitted sizes: products of fewer than 1,024 rows come back within 19 to 37 % nineteen times of
twenty on seven cards."""
SCALED = 0.25
"""Spread of products whose tensor cores take block scales: sums of twelve of one card are held for all."""
UNKNOWN = 0.35
"""Spread where another format's part of the peak is held for a card."""
REFITS = 20
"""Rounds in which a part of the peak comes to what it is to give."""


def clock(rows: Mapping[str, Lines], card: Card, precision: str, tiles: Tiles, burst: Burst) -> float:
    """How many times as long the SMs take at the power limit as on a rested card: as a card's own metered products do,
    or those of TransformerEngine's guide, or as those draw on a card of the same chip. Where there are none, what its
    longest bursts show, of 0.1 s: they are within 4 % of what was metered on two cards."""
    if not card.limited:
        return 1.0
    if offs := _slowed(rows, card, precision, tiles):
        return max(1.0, median(offs))
    if card.name == product_formats.CARD:
        return max(1.0, product_formats.clock(card, precision, tiles))
    if SAME_CHIP.get(card.name) == product_formats.CARD:
        return max(1.0, _as_drawn(rows, card, precision, tiles))
    return 1.0 + burst.slower


def _as_drawn(rows: Mapping[str, Lines], card: Card, precision: str, tiles: Tiles) -> float:
    """Of a card whose chip draws as many joules for the guide's products as the guide's card, under a limit of its own:
    time goes by the power above an idle card to -0.5 (`hwmodels.power`)."""
    (there,) = (each for each in CARDS if each.name == product_formats.CARD)
    timed, _ = published.products(rows, there, precision)
    theirs, _ = fitted(timed, there.used(precision))
    longer = product_formats.clock(there, precision, theirs)
    faster = product_formats.rested_us(there, precision, theirs) / product_formats.rested_us(card, precision, tiles)
    least, most = (each.device.power_w - pace.BLACKWELL.idle for each in (there, card))
    return longer * math.sqrt(faster * least / most)


def _slowed(rows: Mapping[str, Lines], card: Card, precision: str, tiles: Tiles) -> list[float]:
    """Metered products of a card over rested ones, of those that are long enough for a power limit to see."""
    known = published.metered(rows, card.name, precision)
    if not known.count:
        return []
    rested = times_us(tiles, known, card.used(precision))
    return [float(off) for off in (known.us / rested)[rested >= PACED_US]]


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
            parts[precision] = _held(card, precision, parts["fp8"], card.alike if precision == "bf16" else SCALED)
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


def _held(card: Card, precision: str, fp8: Part, spread: float) -> Part:
    """FP8's model at another format's peak; in a block format with the part of it at which products take as many times
    as long as FP8's as TransformerEngine's do on one card."""
    row = {key: value for key, value in fp8.row.items() if key != "errors"}
    row |= {"precision": precision, "spread": max(spread, row["spread"]), "held": max(UNKNOWN, row["held"])}
    row |= {"rung": "transferred", "source": f"{fp8.row['source']}, their part of the peak held for {precision}"}
    if precision not in product_formats.SCALES:
        return Part(row, fp8.sources)
    (timed,) = (each for each in CARDS if each.name == product_formats.CARD)
    longer, tiles = product_formats.over_fp8(timed, precision), Tiles(**fp8.row["tiles"])
    us = longer * times_us(tiles, product_formats.products("fp8"), card.used("fp8")).sum()
    for _ in range(REFITS):
        there = times_us(tiles, product_formats.products(precision), card.used(precision)).sum()
        tiles = tiles._replace(part=float(tiles.part * there / us))
    return Part(row | {
        "tiles": _rounded(tiles),
        "source": f"{fp8.row['source']}, {longer:.3f} times as long in {precision}; that: {product_formats.SOURCE}",
    }, fp8.sources)  # fmt: skip


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
