"""Are two ways of training the same, within a margin? Paired differences, two one-sided tests, and their power.

Schuirmann's test (J. Pharmacokinet. Biopharm. 15, 1987): the means are equivalent at level alpha where the interval of
1 - 2 alpha around the mean difference lies inside the margin. Student's t by the incomplete beta function's continued
fraction (Press et al., Numerical Recipes, sec 6.4); right to 1e-10, which a test asks of scipy.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

ALPHA = 0.05
EQUIVALENT, DIFFERENT, UNDECIDED = "equivalent", "different", "undecided"


@dataclass(frozen=True)
class Paired:
    """Differences of pairs, in one unit."""

    differences: tuple[float, ...]

    @property
    def mean(self) -> float:
        return sum(self.differences) / len(self.differences)

    @property
    def deviation(self) -> float:
        """Of one difference (n - 1)."""
        return math.sqrt(sum((d - self.mean) ** 2 for d in self.differences) / (len(self.differences) - 1))

    @property
    def error(self) -> float:
        """Standard error of the mean."""
        return self.deviation / math.sqrt(len(self.differences))

    def interval(self, confidence: float) -> tuple[float, float]:
        """Around the mean, by Student's t."""
        half = quantile((1 + confidence) / 2, len(self.differences) - 1) * self.error
        return self.mean - half, self.mean + half

    def p(self, margin: float) -> float:
        """The larger p of the two one-sided tests of |mean| >= margin."""
        if not self.error:
            return 0.0 if abs(self.mean) < margin else 1.0
        freedom = len(self.differences) - 1
        return 1 - distribution((margin - abs(self.mean)) / self.error, freedom)

    def verdict(self, margin: float, alpha: float = ALPHA) -> str:
        """EQUIVALENT within the margin, DIFFERENT by more than it, or UNDECIDED."""
        low, high = self.interval(1 - 2 * alpha)
        if -margin < low and high < margin:
            return EQUIVALENT
        return DIFFERENT if low > margin or high < -margin else UNDECIDED


def power(deviation: float, pairs: int, margin: float, alpha: float = ALPHA) -> float:
    """How often so many pairs are found equivalent where they truly are, if one difference has this deviation.

    The mean of the differences and their deviation are independent: a normal, and a chi over `pairs - 1`.
    """
    freedom, t = pairs - 1, quantile(1 - alpha, pairs - 1)

    def within(ratio: float) -> float:
        """Density of the deviation's ratio to the true one, times the chance that the mean is near enough."""
        room = (margin / deviation - t * ratio / math.sqrt(pairs)) * math.sqrt(pairs)
        return _chi_ratio(ratio, freedom) * max(0.0, math.erf(room / math.sqrt(2)) if room > 0 else 0.0)

    return _integral(within, 0.0, 1.0 + 12.0 / math.sqrt(freedom))


def prediction(spread: Sequence[float], confidence: float = 0.95) -> float:
    """How far a further difference may lie from zero if it is one more of `spread`, whose mean is taken to be zero."""
    n = len(spread)
    return quantile((1 + confidence) / 2, n) * math.sqrt(sum(d * d for d in spread) / n)


def distribution(t: float, freedom: float) -> float:
    """Student's t: the chance of a value below t."""
    tail = _beta(freedom / 2, 0.5, freedom / (freedom + t * t)) / 2
    return 1 - tail if t > 0 else tail


@cache
def quantile(p: float, freedom: float) -> float:
    """The t below which a share p lies, by bisection."""
    low, high = -1e4, 1e4
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if distribution(middle, freedom) < p else (low, middle)
    return (low + high) / 2


def _chi_ratio(r: float, freedom: int) -> float:
    """Density of a sample's deviation over the true one."""
    if r <= 0:
        return 0.0
    half = freedom / 2
    log = math.log(2) + half * math.log(half) - math.lgamma(half) + (freedom - 1) * math.log(r) - half * r * r
    return math.exp(log)


def _integral(f: Callable[[float], float], low: float, high: float, parts: int = 2000) -> float:
    """Simpson's rule."""
    step = (high - low) / parts
    inner = sum((4 if i % 2 else 2) * f(low + i * step) for i in range(1, parts))
    return (f(low) + inner + f(high)) * step / 3


def _beta(a: float, b: float, x: float) -> float:
    """The regularised incomplete beta function."""
    if x <= 0 or x >= 1:
        return 0.0 if x <= 0 else 1.0
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x))
    if x < (a + 1) / (a + b + 2):
        return front * _fraction(a, b, x) / a
    return 1 - front * _fraction(b, a, 1 - x) / b


def _fraction(a: float, b: float, x: float) -> float:
    """Its continued fraction, by Lentz's method."""
    tiny, c = 1e-300, 1.0
    d = 1 / _away(1 - (a + b) * x / (a + 1), tiny)
    h = d
    for m in range(1, 300):
        for numerator in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 / _away(1 + numerator * d, tiny)
            c = _away(1 + numerator / c, tiny)
            h *= d * c
        if abs(d * c - 1) < 1e-15:
            break
    return h


def _away(x: float, tiny: float) -> float:
    return x if abs(x) > tiny else tiny
