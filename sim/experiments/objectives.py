"""What a search is after: figures of a point, which way each is better, limits on them, and who beats whom.

All follow from four facts of a point: seconds of its step, tokens of it, GPUs, and bytes of the fullest GPU. A bound
from below on the step is therefore a bound on each: nobody is as good as `Facts` with the least step that it can have.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from hwmodels.units import GB, KILO, SECONDS_PER_DAY, SECONDS_PER_HOUR, TERA
from sim.experiments.kind import Measure


class Facts(NamedTuple):
    """Of a point. step_s: seconds. tokens: of a step. peak_bytes: of the fullest rank, 0 where nobody asked yet."""

    step_s: float
    tokens: int
    gpus: int
    peak_bytes: int = 0

    @property
    def plain(self) -> dict[str, float]:
        """As an answer tells them."""
        return {"step_time_s": self.step_s, "peak_memory_bytes": self.peak_bytes, "gpus": self.gpus}


class Figures(NamedTuple):
    """The same of a campaign, a served load or any other kind. values: word of a figure -> its value."""

    values: dict[str, float]

    @property
    def plain(self) -> dict[str, float]:
        """As an answer tells them."""
        return self.values


class Prices(NamedTuple):
    """What things cost, and how much is to be trained. gpu_hour: USD, None where it is not said. tokens: of the whole
    training, None likewise."""

    gpu_hour: float | None = None
    tokens: float | None = None


class Objective(NamedTuple):
    """A figure that a search looks for the best of. unit: behind it, in tables. best: max or min. needs: of Prices."""

    unit: str
    best: str
    figure: Callable[[Any, Prices], float]
    needs: tuple[str, ...] = ()


def _hours(facts: Facts, prices: Prices) -> float:
    """GPU-hours for 10^12 tokens."""
    return facts.gpus * facts.step_s / facts.tokens * TERA / SECONDS_PER_HOUR


def _dollars(facts: Facts, prices: Prices) -> float:
    return _hours(facts, prices) * (prices.gpu_hour or 0.0)


def _days(facts: Facts, prices: Prices) -> float:
    return (prices.tokens or 0.0) / facts.tokens * facts.step_s / SECONDS_PER_DAY


def of_measure(measure: Measure) -> Objective:
    """A figure of another kind as an objective."""
    return Objective(UNITS[measure.unit], measure.best, lambda f, p: f.values[measure.word])


UNITS = {"seconds": "s", "days": "days", "dollars": "USD", "joules": "J", "share": "", "number": "", "bytes": "B"}
"""Unit of a figure of another kind -> as tables have it."""
OBJECTIVES: Mapping[str, Objective] = {
    "tokens_per_day": Objective("tokens/day", "max", lambda f, p: f.tokens * SECONDS_PER_DAY / f.step_s),
    "step_time": Objective("s", "min", lambda f, p: f.step_s),
    "gpu_hours_per_trillion_tokens": Objective("GPU-h/T", "min", _hours),
    "dollars_per_trillion_tokens": Objective("USD/T", "min", _dollars, ("gpu_hour",)),
    "dollars": Objective("USD", "min", lambda f, p: _dollars(f, p) * (p.tokens or 0.0) / TERA,
                         ("gpu_hour", "tokens")),
    "days": Objective("days", "min", _days, ("tokens",)),
    "gpus": Objective("GPUs", "min", lambda f, p: float(f.gpus)),
    "memory": Objective("GB", "min", lambda f, p: f.peak_bytes / GB),
}  # fmt: skip
"""Word in a search file -> what it is."""


class Limits(NamedTuple):
    """What a point must keep; None: nothing said. memory in bytes, step_time in seconds, budget in USD."""

    memory: int | None = None
    gpus: int | None = None
    step_time: float | None = None
    budget: float | None = None
    days: float | None = None


LIMITED = {"step_time": "step_time", "budget": "dollars", "days": "days"}
"""Limit -> the objective that it limits, of those that a step decides."""


def missed(facts: Facts, limits: Limits, prices: Prices) -> str:
    """The limit (its word) that a point misses, which of step_time, budget, days; "" where it keeps them."""
    for word, of in LIMITED.items():
        limit = getattr(limits, word)
        if limit is not None and OBJECTIVES[of].figure(facts, prices) > limit:
            return word
    return ""


def beats(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether scores are nowhere worse than others, and somewhere better."""
    return one != other and all(a <= b for a, b in zip(one, other, strict=True))


def front(rows: Sequence[Sequence[float]]) -> Iterator[int]:
    """Numbers of the rows of scores that no other beats (Pareto's front)."""
    for i, row in enumerate(rows):
        if not any(beats(other, row) for other in rows):
            yield i


def shown(name: str, value: float) -> str:
    """A figure of an objective as a table has it, without its unit."""
    if name == "tokens_per_day":
        return f"{value:.4g}"
    return f"{value:,.0f}" if abs(value) >= KILO else f"{value:.4g}"


def ranks(values: Sequence[float]) -> list[float]:
    """Place of each value, from 1 for the least; equal ones share the mean of theirs."""
    order = sorted(range(len(values)), key=lambda i: values[i])
    places = [0.0] * len(values)
    at = 0
    while at < len(order):
        end = at
        while end < len(order) and values[order[end]] == values[order[at]]:
            end += 1
        for i in order[at:end]:
            places[i] = (at + 1 + end) / 2
        at = end
    return places


def rank_correlation(one: Sequence[float], other: Sequence[float]) -> float | None:
    """Spearman's: the correlation of the places of two rows of values; None where either is all alike."""
    a, b = ranks(one), ranks(other)
    mean = (len(a) + 1) / 2
    spread = [sum((x - mean) ** 2 for x in places) for places in (a, b)]
    if not a or 0.0 in spread:
        return None
    together = sum((x - mean) * (y - mean) for x, y in zip(a, b, strict=True))
    return float(together / (spread[0] * spread[1]) ** 0.5)
