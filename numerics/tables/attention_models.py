"""Attention on cards, from published times: a ratio to another card's kernels, carried over by peaks."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import median

import numpy as np

from hwmodels import library, tables
from hwmodels.device import Device
from hwmodels.kernels import Heads, nearest, ratio
from hwmodels.op import Attention
from hwmodels.transfer import Quote, scaled
from hwmodels.units import TERA
from numerics.tables import published
from numerics.tables.calibrate import rounded
from numerics.tables.left_out import Part, covering, errors
from numerics.tables.published import CARDS, GENERATION, OF, Card, Lines, Timed

OTHER_LIBRARY = 0.10
"""Spread of attention for kernels that are not the published ones: SGLang's on an H200 take 0.99 of the time of
cuDNN's here with 0.1 about it (as priced, in training's state), on a B200 1.0 of TransformerEngine's with as much."""
ALL_HEADS, SHORT = 32, 4096
"""Heads from which a forward kernel of so many tokens is not bound by its launch; longer ones never are."""
SERVED = ("t00", "t05", "t06", "t07", "t08", "t10", "t12", "t15", "t16", "t17", "t18")
"""Keys of SGLang's kernels, by card and width."""
TRAINED = {"A100": "A100-PCIe", "B200": "B200"}
"""Card -> what the tables call the one whose training kernels were timed. A PCIe board runs products at 0.93 of the
rate of the other, of which nothing is taken off here."""
UNPUBLISHED = ("H20", "MI300X", "MI355X")
"""Cards whose attention is carried over as it is: of an H20 few rows are known, of AMD's none."""


def carried_us(device: Device, op: Attention) -> float:
    """What tables of the card that stands for it give for an operation, by peaks."""
    there = tables.load(OF)
    assert there.library is not None
    reading = Quote(*library.quote(there.library, op, True, device.sms))
    return scaled(device, there, reading, op.bytes()).us


def models(rows: Mapping[str, Lines], card: Card) -> list[Part]:
    """A ratio to what is carried over for each pair of widths, which goes with the work: the kernels of two generations
    fill their SMs from different sizes on."""
    if card.name in UNPUBLISHED:
        return []
    groups: dict[tuple[int, int], list[Timed]] = defaultdict(list)
    for timed in published.attentions(rows, card.name):
        if timed.op.direction == "forward" and timed.op.sequence >= published.LEAST_TOKENS and timed.source in SERVED:
            groups[timed.op.qk, timed.op.v].append(timed)
    return [_heads(card, *widths, group) for widths, group in sorted(groups.items())]


def _heads(card: Card, qk: int, v: int, group: Sequence[Timed]) -> Part:
    points = [(math.log(each.op.flop() / TERA), math.log(each.us / carried_us(card.device, each.op))) for each in group]
    level, slope, bend = parabola(points)
    kinds = [(each.op.heads, each.op.kv_heads) for each in group]
    offs = []
    for gone in sorted(set(kinds)):
        base, tilt, bow = parabola([p for p, kind in zip(points, kinds, strict=True) if kind != gone])
        offs += [base + x * (tilt + x * bow) - y for (x, y), kind in zip(points, kinds, strict=True) if kind == gone]
    alone = covering(offs)
    return Part({
        "op": "attention", "qk": qk, "v": v, "times": rounded(math.exp(level)), "slope": rounded(slope),
        "bend": rounded(bend),
        "low": rounded(math.exp(min(x for x, _ in points))), "high": rounded(math.exp(max(x for x, _ in points))),
        "spread": rounded(math.hypot(alone, OTHER_LIBRARY)), "errors": errors(offs, alone) | {"alone": alone},
    }, {each.source for each in group})  # fmt: skip


def parabola(points: Sequence[tuple[float, float]]) -> tuple[float, float, float]:
    """Level at 0, slope and bend of least squares."""
    x, y = np.array(points).T
    level, slope, bend = np.linalg.lstsq(np.stack([np.ones(len(x)), x, x * x], 1), y, rcond=None)[0]
    return float(level), float(slope), float(bend)


def trained(rows: Mapping[str, Lines], card: Card) -> float:
    """How many times as long training's own forward kernels take as the served ones' ratios say, on the card or on one
    of its generation."""
    near, timed = _trained(rows, card)
    if near is None:
        return 1.0
    heads = [Heads(**{name: part.row[name] for name in Heads._fields}) for part in models(rows, near)]
    ratios = [
        each.us / carried_us(near.device, each.op) / ratio(nearest(heads, each.op), each.op)
        for each in timed if each.op.direction == "forward"
    ]  # fmt: skip
    return median(ratios or [1.0])


def _trained(rows: Mapping[str, Lines], card: Card) -> tuple[Card | None, list[Timed]]:
    """TransformerEngine's kernels that no launch binds, of a card or, if none, of its generation: cuDNN's on a B200,
    FlashAttention 2 on an A100."""
    name = TRAINED.get(GENERATION.get(card.name, card.name))
    if name is None:
        return None, []
    near = next(each for each in CARDS if each.name == GENERATION.get(card.name, card.name))
    return near, [
        timed for timed in published.attentions(rows, name)
        if timed.source in ("s0", "s1") and (timed.op.heads >= ALL_HEADS or timed.op.sequence > SHORT)
    ]  # fmt: skip


def served(rows: Mapping[str, Lines]) -> float:
    """How many times the H200's price the bursts of served kernels take on the H200 itself: in training's state, they
    are no faster than training's kernels, and no clock is taken off again."""
    card = Card(("h200",), "H200")
    return median(
        each.us / carried_us(card.device, each.op) for each in published.attentions(rows, card.name)
        if each.op.direction == "forward" and each.op.sequence >= published.LEAST_TOKENS
    )  # fmt: skip


def backward(rows: Mapping[str, Lines], card: Card) -> float:
    """How many times as long attention's backward takes over its forward as on the card whose tables stand for it: of
    training's kernels, on the card or one of its generation."""
    near, timed = _trained(rows, card)
    us = {each.op: each.us for each in timed}
    ratios = []
    for op, forward in us.items():
        back = op._replace(direction="backward")
        if near and op.direction == "forward" and back in us:
            ratios.append(us[back] / forward * carried_us(near.device, op) / carried_us(near.device, back))
    return median(ratios or [1.0])
