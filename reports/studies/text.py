"""Figures as the studies write them: tables in Markdown, seconds with a sign, means with the range of their seeds."""

from collections.abc import Iterable, Sequence

from hwmodels.units import PERCENT


def table(head: Sequence[str], rows: Iterable[Sequence[str]], texts: int = 1) -> str:
    """A Markdown table; the first `texts` columns are set as text, the others as numbers."""
    rule = ["---" if i < texts else "--:" for i in range(len(head))]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, rule, *rows))


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
