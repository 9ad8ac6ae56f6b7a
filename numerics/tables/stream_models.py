"""Memory-bound kernels on cards, from published times: the part of HBM's bandwidth at which their bytes come."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import median

from hwmodels.transfer import REACHED, at_bandwidth
from hwmodels.units import MICRO, TERA
from numerics.tables import published
from numerics.tables.calibrate import rounded
from numerics.tables.left_out import Part, covering, errors
from numerics.tables.published import CARDS, GENERATION, Card, Lines, Streamed

TRITON = ("liger", "liger_triton", "liger_cutile", "liger_cutedsl")
"""Published memory-bound kernels that are written as a library's are."""
SAME_GENERATION, STREAMS = 0.10, 0.20
"""Spread that another card of the generation adds; and the least of memory-bound kernels, whose kinds reach 0.6 to 0.9
of HBM on one B200."""
COPY = "hbm copy"
"""BabelStream's kernel in published.csv."""
WIDE = 64e6
"""Bytes from which a kernel tells a rate."""


def models(rows: Mapping[str, Lines], card: Card) -> list[Part]:
    """The part of HBM's bandwidth that casts reach, and all others."""
    near = next(each for each in CARDS if each.name == GENERATION.get(card.name, card.name))
    casts = [each for each in published.streams(rows, card) if each.name.startswith("cast_fp8")]
    others = [each for each in published.streams(rows, near) if _written_alike(each)]
    out = [_casts(rows, card, casts)] if casts else []
    copies = [r for r in rows["published.csv"] if (r["gpu"], r["op"]) == (near.name, COPY)]
    if others or copies:
        out.append(_others(card, near, others, copies))
    return out


def _written_alike(each: Streamed) -> bool:
    op, _, impl = each.name.partition("/")
    fused = op != "fused_add_rms_norm" or "fused" in impl
    return impl.startswith(TRITON) and fused and op != "cross_entropy"


def _casts(rows: Mapping[str, Lines], card: Card, casts: Sequence[Streamed]) -> Part:
    """Of large ones; what comes back is another card's cast of the same size, carried over."""
    peak = card.device.hbm.bandwidth_bytes_per_s
    part = median(each.size / each.us / MICRO / peak for each in casts if each.size >= WIDE)
    known = {each.rows: each for each in published.streams(rows, Card(("h200",), "H200")) if each.name == casts[0].name}
    there = Card(("h200",), "H200").device.hbm.bandwidth_bytes_per_s
    new = peak * part / REACHED
    pairs = [(each, known[each.rows]) for each in casts if each.rows in known]
    offs = [math.log(at_bandwidth(old.us, old.size, there, new) / each.us) for each, old in pairs]
    spread = covering(offs)
    row = {"op": "memory", "kind": "casts", "part": rounded(part), "spread": rounded(spread)}
    return Part(row | {"errors": errors(offs, spread)}, {each.source for each in casts})


def reach(less: Streamed, more: Streamed, peak: float) -> float:
    """The part of HBM's bandwidth at which the bytes come that one kernel moves more than another, whatever they cost
    besides."""
    return (more.size - less.size) / (more.us - less.us) / MICRO / peak


def _others(card: Card, near: Card, kernels: Sequence[Streamed], copies: Lines) -> Part:
    """The median over kernels of what their two largest sizes say, and a copy."""
    groups: dict[str, list[Streamed]] = defaultdict(list)
    for each in kernels:
        groups[each.name].append(each)
    peak = near.device.hbm.bandwidth_bytes_per_s
    largest = [sorted(group, key=lambda each: each.size)[-2:] for group in groups.values()]
    parts = [reach(less, more, peak) for less, more in largest]
    parts += [float(row["value"]) * TERA / peak for row in copies]
    part = min(1.0, median(parts))
    offs = [math.log(each / part) for each in parts]
    far = SAME_GENERATION if near is not card else 0.0
    spread = math.hypot(max(STREAMS, covering(offs)), far)
    used = {each.source for each in kernels} | ({copies[0]["src"]} if copies else set())
    row = {"op": "memory", "kind": "others", "part": rounded(part), "spread": rounded(spread)}
    return Part(row | ({"errors": errors(offs, spread)} if len(offs) > 1 else {}), used)
