"""report.html: one page that holds everything it needs, and may fetch nothing."""

import json
import re
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any

from hwmodels import units
from reports import (
    certainty,
    communication,
    critical,
    headline,
    links,
    loads,
    memory,
    pair,
    phases,
    prices,
    stages,
    timeline,
    waterfall,
)  # fmt: skip
from reports.columns import script_json
from reports.headline import Figure
from reports.palette import INK, MUTED
from reports.section import Section, details
from sim.result import Result, title

ASSETS = Path(__file__).with_name("assets")
SCRIPTS = (
    "page.js", "timeline.js", "pair.js", "memory.js", "links.js", "loads.js", "charts.js", "channel.js", "compare.js",
)  # fmt: skip
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data: blob:"
"""What the browser may load: nothing that is not in the page."""

FEW = 4
"""So many headline figures fit one row on a narrow page."""
IN_A_ROW = 8
"""And so many on a wide one: the numbers of more would touch."""

SCALES = {
    "time": [["s", 1.0], ["ms", units.MILLI], ["µs", units.MICRO], ["ns", units.NANO]],
    "data": [["GB", units.GB], ["MB", units.MB], ["kB", units.KB], ["B", 1]],
}
"""How the scripts print quantities: units with their SI values, the largest first."""


def render(result: Result) -> str:
    """The page of a run, as HTML text. Parts that the run has no data for are left out."""
    makers = (
        timeline, critical, pair, memory, links, loads, waterfall, certainty, phases, stages, communication, prices,
    )  # fmt: skip
    parts = [made for made in (maker.section(result) for maker in makers) if made]
    parts.append(_scenario(result))
    name = str(result.summary.get("scenario") or result.scenario.get("name") or "A run")
    shown = title.title(name, result.summary.get("overrides", ()))
    return whole(shown, _header(result, escape(name)), parts)


def whole(called: str, header: str, parts: list[Section], scripts: Sequence[str] = SCRIPTS) -> str:
    """The text of a page: what it is called as plain text, its header as HTML, its parts, to which it leads, and what
    draws them."""
    data = {part.key: part.data for part in parts if part.data is not None}
    drawn = list(_scripts(data, scripts)) if data else []
    anchors = "".join(f'<a href="#{part.key}">{escape(part.title)}</a>' for part in parts)
    return "\n".join((
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n<link rel="icon" href="data:,">',
        f"<title>{escape(called)} · Trainyard</title>\n<style>\n{_asset('page.css')}</style>\n</head>\n<body>",
        f'<header>{header}</header>\n<nav aria-label="Parts of this page">{anchors}</nav>',
        f"<main>\n{''.join(map(_section, parts))}</main>",
        '<footer>Trainyard. Everything on this page is simulated, not measured.</footer>',
        *drawn,
        "</body>\n</html>\n",
    ))  # fmt: skip


def heading(name: str, line: str, figures: Sequence[Figure], alarm: str = "") -> str:
    """The header of a page: its name and what is to be said first as HTML, a line of plain text, and figures in one row
    or two."""
    narrow = len(figures) if len(figures) <= FEW else -(-len(figures) // 2)
    wide = len(figures) if len(figures) <= IN_A_ROW else narrow
    tiles = "".join(
        f"<div><dt>{escape(what)}</dt><dd>{escape(value)}</dd><dd class='note'>{escape(_joined(note))}</dd></div>"
        for what, value, note in figures
    )
    return (
        f'<p class="brand">Trainyard</p><h1>{name}</h1><p class="sub">{escape(line)}</p>{alarm}\n'
        f'<dl class="figures" style="--all:{wide};--half:{narrow}">{tiles}</dl>'
    )


def _joined(note: str) -> str:
    """Numbers and their units stay on one line."""
    return re.sub(r"(?<=\d) (?=(?:[munµ]?s|%|[KMGTP]?B)\b|%)", "\N{NO-BREAK SPACE}", note)


def _scripts(data: dict[str, Any], scripts: Sequence[str]) -> Iterator[str]:
    """What draws figures, and their data; a page without any needs none of it."""
    data = data | {"page": {"scales": SCALES, "ink": INK, "muted": MUTED}}
    yield f'<script type="application/json" id="data">{script_json(data)}</script>'
    yield f"<script>{_plotly()}</script>"
    yield from (f"<script>\n{_asset(name)}</script>" for name in scripts)
    yield "<script>start();</script>"


def _header(result: Result, name: str) -> str:
    fits, why_not = result.feasible
    alarm = "" if fits else f'<p class="alarm" role="alert">{escape(why_not)}</p>'
    if advice := headline.advice(result):
        lines = "".join(f"<li>{escape(line)}</li>" for line in advice)
        alarm += f'<ul class="advice" aria-label="What would fit">{lines}</ul>'
    if warning := headline.warning(result):
        alarm += f'<p class="alarm">{escape(warning)}</p>'
    alarm += "".join(f'<p class="sub">{escape(line)}</p>' for line in headline.unfelt(result))
    if line := headline.binds(result):
        alarm = f'<p class="binds">{escape(line[:1].upper() + line[1:])}.</p>' + alarm
    changes = f'<span class="with">, {escape(words)}</span>' if (words := headline.changes(result)) else ""
    return heading(f"{name}{changes}", headline.setting(result), headline.figures(result), alarm)


def _section(part: Section) -> str:
    return (
        f'<section id="{part.key}"><h2>{escape(part.title)}</h2>'
        f"{f'<p class=lead>{part.lead}</p>' if part.lead else ''}{part.body}</section>\n"
    )


def _scenario(result: Result) -> Section:
    """The resolved scenario, folded away."""
    text = json.dumps(result.scenario, indent=2, ensure_ascii=False, default=str)
    body = details("Show every key as it was resolved", f"<pre>{escape(text)}</pre>")
    return Section("scenario", "The scenario", "", body)


def _asset(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")


def _plotly() -> str:
    """The text of plotly.js as the plotly package ships it."""
    from plotly.offline import get_plotlyjs  # type: ignore[import-untyped]

    return str(get_plotlyjs())
