"""Two runs of a kind beside the training step compared: figures by which people decide, and what makes the difference.

Where chance has seeds, as of campaigns, both runs meet the same ones, so the interval is that of the difference over
seeds: what fails in both falls out of it. Where a load says what it comes to in draws of chance and prices, the
interval is that of the difference over those: whoever comes when, and whatever is priced wrong, is so in both.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from math import exp
from typing import Any

import numpy as np

from hwmodels.units import NS_PER_S
from sim.experiments.kind import Floats, Kind, Measure, Ran, value
from sim.experiments.waterfall import whole
from sim.result.comparison import Cause, Change, Comparison, Key

LOW, HIGH = 5, 95
"""Percentiles of the ends of an interval."""
STUDENT = {1: 6.314, 2: 2.920, 3: 2.353, 4: 2.132, 5: 2.015, 6: 1.943, 7: 1.895, 8: 1.860, 9: 1.833}
"""95 % quantile of Student's t by its degrees of freedom (W. S. Gosset, Biometrika 6, 1908; any table of it)."""
Figures = Mapping[str, Floats]
"""Word of a figure -> its values in draws."""


def contrasted(
    own: Kind, a: Ran, b: Ran, keys: Iterable[Key], *notes: str, drawn: tuple[Figures, Figures] = ({}, {})
) -> Comparison:  # fmt: skip
    """Of two runs of one kind. keys: what differs in their files. notes: to be told with it. drawn: figures of both by
    word in the same draws (`Kind.drawn`)."""
    changes = (_change(a, b, each, [of.get(each.word) for of in drawn]) for each in own.measures)
    shown = tuple(each for each in changes if each.a is not None or each.b is not None)
    lacks = [f"{k} is infeasible: {why}" for k, each in zip("AB", (a, b), strict=True)
             for why in each.summary.get("infeasible", ())]  # fmt: skip
    return Comparison(a, b, shown, tuple(_causes(own, a, b)), {}, tuple(keys), (*notes, *lacks))


def _change(a: Ran, b: Ran, of: Measure, drawn: Sequence[Floats | None]) -> Change:
    one, two = (value(each.summary, of.key) for each in (a, b))
    plain, (first, second) = Change(of.key, of.name, of.unit, one, two), drawn
    if first is not None and second is not None:
        some = bool((first > 0).all() and (second > 0).all())
        logs = _few(np.log(second / first)) if some else None
        ratio = (exp(logs[0]), exp(logs[1])) if logs else None
        return replace(plain, interval=_few(second - first), ratio=ratio)
    seeds = _drawn(a, b, of, one, two)
    if seeds is None:
        return plain
    return replace(plain, interval=_ends(seeds[1] - seeds[0]), ratio=_ends(seeds[1] / seeds[0]))


def _few(values: Floats) -> tuple[float, float]:
    """Ends of what one more of a few draws is in, nine times of ten, by Student's t."""
    count = len(values)
    half = STUDENT[count - 1] * float(values.std(ddof=1)) * (1 + 1 / count) ** 0.5
    return float(values.mean()) - half, float(values.mean()) + half


def _drawn(a: Ran, b: Ran, of: Measure, *means: float | None) -> tuple[Floats, Floats] | None:
    """The figure in each seed of both; None where it does not go with the time of a seed."""
    if a.draws is None or b.draws is None or len(a.draws) != len(b.draws) or not of.power or None in means:
        return None
    one, two = (
        mean * each.draws**of.power / np.mean(each.draws**of.power)
        for mean, each in zip(means, (a, b), strict=True)
        if mean is not None and each.draws is not None
    )
    return one, two


def _ends(values: Floats) -> tuple[float, float]:
    low, high = np.percentile(values, (LOW, HIGH))
    return float(low), float(high)


def _causes(own: Kind, a: Ran, b: Ran) -> Iterator[Cause]:
    """Parts of both, which add up to either's mean in whole ns."""
    both = [{part.name: part for part in own.parts(each.summary)} for each in (a, b)]
    rounded = [_whole({name: part.seconds for name, part in parts.items()}) for parts in both]
    for name in dict.fromkeys((*both[0], *both[1])):
        part = both[0].get(name) or both[1][name]
        yield Cause(part.group, name, part.meaning, *(each.get(name, 0) for each in rounded))


def _whole(seconds: Mapping[str, Any]) -> dict[str, int]:
    ns = {name: each * NS_PER_S for name, each in seconds.items()}
    return whole(ns, round(sum(ns.values())))
