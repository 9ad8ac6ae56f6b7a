"""Pages of docs/ whose figures come from a sweep: `renew` writes a study's charts and the block of its page."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from hwmodels.refused import Refused
from reports.studies import batch, campaign, exchange, hierarchy, scale, stragglers, unevenness
from reports.studies.points import Points

Published = Mapping[str, float]
"""Id of a published figure -> its value, to compare with."""
STUDIES: dict[str, Callable[[Points, Published], tuple[str, dict[str, str]]]] = {
    "stragglers": lambda points, published: stragglers.tell(points),
    "unevenness": unevenness.tell,
    "scale": lambda points, published: scale.tell(points),
    "campaign": lambda points, published: campaign.tell(points),
    "batch": lambda points, published: batch.tell(points),
    "exchange": lambda points, published: exchange.tell(points),
    "hierarchy": lambda points, published: hierarchy.tell(points),
}
"""Each is a sweep in scenarios/sweeps, a module here, and a page in docs with its name in capitals. It answers with
Markdown, and with charts: file name -> SVG."""

MARKS = ("<!-- figures -->", "<!-- /figures -->")
"""What `renew` writes stands between them; the rest of a page is prose, written by hand."""

STAMP_SHOWN = 12
"""Characters of a stamp that tell it from others."""


def check(name: str, docs: Path) -> None:
    """Raises Refused where a study's page could not be renewed."""
    page = docs / f"{name.upper()}.md"
    try:
        _replaced(page.read_text(encoding="utf-8"), "", page)
    except (OSError, UnicodeDecodeError):
        what = f"{page}: a study renews the figures of its page, and there is none; name its folder by --docs"
        raise Refused(f"{what}, or run the sweep alone: python -m sim sweep {name}") from None


def renew(name: str, points: Points, published: Published, docs: Path) -> list[str]:
    """Write a study's charts, and its figures into its page. Answers the files written. Raises Refused."""
    page = docs / f"{name.upper()}.md"
    block, charts = STUDIES[name](points, published)
    try:
        text = _replaced(page.read_text(encoding="utf-8"), f"{block}\n\n{_ran(points)}", page)
        for file, chart in charts.items():
            (docs / file).write_text(chart, encoding="utf-8")
        page.write_text(text, encoding="utf-8")
    except OSError as error:
        raise Refused(f"{error.filename}: cannot be read or written: {error.strerror}") from None
    return [str(page), *(str(docs / file) for file in charts)]


def _ran(points: Points) -> str:
    """Which code the figures are of: they are as old as it, not as the prose."""
    stamps = sorted({str(record.get("stamp", "?"))[:STAMP_SHOWN] for _, record in points})
    return f"<sub>{len(points)} runs of code and tables {', '.join(stamps)}.</sub>"


def _replaced(text: str, block: str, page: Path) -> str:
    """The page with what stands between the marks replaced."""
    pattern = re.compile(f"{re.escape(MARKS[0])}.*{re.escape(MARKS[1])}", re.DOTALL)
    if not pattern.search(text):
        raise Refused(f"{page}: has no {MARKS[0]} ... {MARKS[1]} to write between")
    return pattern.sub(lambda _: f"{MARKS[0]}\n{block.strip()}\n{MARKS[1]}", text)
