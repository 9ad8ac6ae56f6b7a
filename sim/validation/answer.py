"""A prediction with the 90 % interval that the spread of its prices gives."""

from collections.abc import Mapping, Sequence
from math import hypot
from statistics import NormalDist
from typing import Any, NamedTuple

from hwmodels.price import Price

NINETY = NormalDist().inv_cdf(0.95)
"""Standard deviations from the middle of a normal distribution to either end of its central 90 %."""


class Answer(NamedTuple):
    """A value and the ends of its 90 % interval, in the unit of the published row; None where nothing is uncertain."""

    value: float
    low: float | None = None
    high: float | None = None

    def times(self, factor: float) -> "Answer":
        """In another unit; `factor` is above zero."""
        if self.low is None or self.high is None:
            return Answer(self.value * factor)
        return Answer(self.value * factor, self.low * factor, self.high * factor)

    @property
    def inverse(self) -> "Answer":
        """One over it: rates from times. An interval that reaches zero has no upper end left and is dropped."""
        if self.low is None or self.high is None or self.low <= 0:
            return Answer(1 / self.value)
        return Answer(1 / self.value, 1 / self.high, 1 / self.low)


def timed(price: Price) -> Answer:
    """Nanoseconds of one price."""
    return Answer(price.ns, price.ns * (1 - NINETY * price.spread), price.ns * (1 + NINETY * price.spread))


def moved(value: float, shifts: Sequence[float]) -> Answer:
    """A value that independent causes shift by `shifts` at one standard deviation each."""
    away = NINETY * hypot(*shifts)
    return Answer(value, value - away, value + away) if away else Answer(value)


def headline(summary: Mapping[str, Any], *keys: str) -> Answer:
    """A figure of result.json, under `keys`, with its interval (summary["intervals_90"])."""
    value, ends = summary, summary["intervals_90"]
    for key in keys:
        value, ends = value[key], ends.get(key) if ends else None
    return Answer(float(value), *ends) if ends else Answer(float(value))  # type: ignore[arg-type]
