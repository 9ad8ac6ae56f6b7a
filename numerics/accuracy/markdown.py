"""Markdown that pages made by a program share: filled prose, tables, percentages."""

from collections.abc import Iterable
from textwrap import fill

WIDTH = 120


def prose(text: str, **figures: object) -> str:
    """The paragraphs of a text with its figures, each filled to 120 columns."""
    paragraphs = text.strip().format(**figures).split("\n\n")
    return "\n\n".join(fill(" ".join(p.split()), WIDTH, break_on_hyphens=False) for p in paragraphs)


def table(head: str, rows: Iterable[Iterable[object]]) -> str:
    """head: titles between bars; all columns but the first are set to the right."""
    columns = head.split(" | ")
    rule = "|".join(["---"] + ["---:"] * (len(columns) - 1))
    return "\n".join([f"| {head} |", f"|{rule}|", *(f"| {' | '.join(map(str, row))} |" for row in rows)])


def percent(value: float, sign: bool = False) -> str:
    """Whole percent above ten, one decimal below; what is not a price any more reads "x16" and the like."""
    if value > 3:
        return f"x{value + 1:,.0f}"
    return f"{value:{'+' if sign else ''}.{0 if abs(value) >= 0.0995 else 1}%}"
