"""Pages of docs/ whose figures come from a sweep: `renew` writes a study's charts and the block of its page."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hwmodels.refused import Refused

STUDIES = ("stragglers", "unevenness", "scale")
"""Each is a sweep in scenarios/sweeps, a module here, and a page in docs with its name in capitals."""

MARKS = ("<!-- figures -->", "<!-- /figures -->")
"""What `renew` writes stands between them; the rest of a page is prose, written by hand."""

STAMP_SHOWN = 12
"""Characters of a stamp that tell it from others."""

Told = Sequence[tuple[Mapping[str, str], Mapping[str, Any]]]
"""Points of a sweep: labels by axis, and the run's record (see sim.record)."""


class Telling(NamedTuple):
    """What a study says. block: Markdown. charts: file name -> SVG."""

    block: str
    charts: dict[str, str]


def tell(name: str, told: Told, published: Mapping[str, float]) -> Telling:
    """The study `name` of the points of its sweep. published: id -> value, to compare with."""
    from reports.studies import scale, stragglers, unevenness

    if name == "stragglers":
        return Telling(*stragglers.tell(told))
    if name == "scale":
        return Telling(*scale.tell(told))
    return Telling(*unevenness.tell(told, published))


def renew(name: str, told: Told, published: Mapping[str, float], docs: Path) -> list[str]:
    """Write a study's charts, and its figures into its page. Answers the files written. Raises Refused."""
    page = docs / f"{name.upper()}.md"
    telling = tell(name, told, published)
    try:
        text = _replaced(page.read_text(encoding="utf-8"), f"{telling.block}\n\n{_ran(told)}", page)
        for file, chart in telling.charts.items():
            (docs / file).write_text(chart, encoding="utf-8")
        page.write_text(text, encoding="utf-8")
    except OSError as error:
        raise Refused(f"{error.filename}: cannot be read or written: {error.strerror}") from None
    return [str(page), *(str(docs / file) for file in telling.charts)]


def _ran(told: Told) -> str:
    """Which code the figures are of: they are as old as it, not as the prose."""
    stamps = sorted({str(record.get("stamp", "?"))[:STAMP_SHOWN] for _, record in told})
    return f"<sub>{len(told)} runs of code and tables {', '.join(stamps)}.</sub>"


def _replaced(text: str, block: str, page: Path) -> str:
    """The page with what stands between the marks replaced."""
    pattern = re.compile(f"{re.escape(MARKS[0])}.*{re.escape(MARKS[1])}", re.DOTALL)
    if not pattern.search(text):
        raise Refused(f"{page}: has no {MARKS[0]} ... {MARKS[1]} to write between")
    return pattern.sub(lambda _: f"{MARKS[0]}\n{block.strip()}\n{MARKS[1]}", text)
