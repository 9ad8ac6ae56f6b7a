"""Figures as the studies write them: seconds with a sign, means with the range of their seeds."""

from collections.abc import Sequence

from hwmodels.units import PERCENT


def more(seconds: float, digits: int = 2) -> str:
    """A difference with its sign: "+0.71"; what rounds to nothing is "0"."""
    text = f"{seconds:+.{digits}f}"
    return "0" if not text.strip("+-0.") else text.replace("-", "−")


def share(ratio: float, digits: int = 1) -> str:
    """A relative difference: "+3.9 %"."""
    return f"{more(ratio / PERCENT, digits)} %"


def plain_share(ratio: float) -> str:
    """A part of a whole: "90 %"."""
    return f"{ratio / PERCENT:.0f} %"


def mean(values: Sequence[float]) -> float:
    """The arithmetic mean."""
    return sum(values) / len(values)


def spread(values: Sequence[float], digits: int = 2, signed: bool = False) -> str:
    """A mean with the smallest and largest value: "18.82 (18.63 to 19.07)"."""
    figures = (mean(values), min(values), max(values))
    middle, low, high = (more(v, digits) if signed else f"{v:.{digits}f}" for v in figures)
    return f"{middle} ({low} to {high})"
