"""A part of the page, and the few pieces of HTML that the parts share."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any


@dataclass(frozen=True)
class Section:
    """One part of the page.

    key: its anchor, and the name of the script function that draws it.  title, lead: a heading and a sentence or two
    (HTML).  body: HTML.  data: what the script draws, as JSON-able values, or None when the HTML says it all.
    """

    key: str
    title: str
    lead: str
    body: str
    data: dict[str, Any] | None = None


def plot(key: str, label: str) -> str:
    """An empty box that the script named `key` fills with a figure; it can have the keyboard's focus."""
    return f'<div class="plot" id="{key}-plot" role="figure" tabindex="0" aria-label="{escape(label)}"></div>'


def legend(kinds: Iterable[tuple[str, str]]) -> str:
    """Swatches with names: (name, colour) each."""
    items = (f'<li><i style="background:{colour}"></i>{escape(name)}</li>' for name, colour in kinds)
    return f'<ul class="legend">{"".join(items)}</ul>'


MOST = 4
"""So many columns fit beside each other on a narrow page, where one of them alone is text; three of text do not."""


def table(head: Sequence[str], rows: Iterable[Sequence[str]], text_columns: Sequence[int] = (0,)) -> str:
    """A table of cells that are HTML already; columns but `text_columns` are set as numbers. On a narrow page a row
    of more than fits becomes lines of its cells, each below its column's name."""
    kinds = ["" if i in text_columns else ' class="n"' for i in range(len(head))]
    stacked = len(head) > MOST or (len(head) == MOST and len(text_columns) > 1) or MOST > len(text_columns) > 2
    named = [f'{kind} data-head="{escape(name)}"' if stacked else kind for name, kind in zip(head, kinds, strict=True)]
    top = "".join(f"<th{kind}>{_breaking(name)}</th>" for name, kind in zip(head, kinds, strict=True))
    lines = ("".join(f"<td{k}>{cell}</td>" for cell, k in zip(row, named, strict=True)) for row in rows)
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    opened = '<table class="stacked">' if stacked else "<table>"
    return f'<div class="scroll">{opened}<thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def _breaking(name: str) -> str:
    """A column's name, which may go on in a second line behind the dots and lines of a key."""
    return re.sub(r"(?<=\w)([._])(?=\w)", r"\1<wbr>", escape(name))


def details(summary: str, body: str) -> str:
    """Something that is folded away until asked for."""
    return f"<details><summary>{escape(summary)}</summary>{body}</details>"


def folded(head: Sequence[str], rows: Sequence[Sequence[str]], shown: int, texts: Sequence[int], rest: str) -> str:
    """A table of the first rows; the others are folded away as so many of what `rest` says."""
    first = table(head, rows[:shown], texts)
    more = rows[shown:]
    return first + details(f"{len(more)} {rest}", table(head, more, texts)) if more else first


def bar(share: float, colour: str) -> str:
    """A small bar that fills `share` of its cell."""
    width = f"{max(0.0, min(1.0, share)):.1%}"
    return f'<span class="bar"><i style="width:{width};background:{colour}"></i></span>'


def controls(key: str, whole: str) -> str:
    """Buttons that move the view of a figure of a `whole`; the script gives them their meaning by `data-move`."""
    moves = (("all", f"Whole {whole}"), ("in", "Zoom in"), ("out", "Zoom out"), ("left", "◀"), ("right", "▶"))
    names = {"left": "earlier", "right": "later"}
    buttons = (
        f'<button type="button" data-move="{move}" aria-label="{names.get(move, text)}">{text}</button>'
        for move, text in moves
    )
    return f'<div class="controls" id="{key}-controls">{"".join(buttons)}</div>'
