"""The page of a search, and of a sweep: points as a chart and as heat maps, the best, and what was looked at."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from hwmodels.units import GIGA, KILO, format_quantity
from reports.amounts import amount
from reports.page import whole
from reports.section import Section, bar, details, plot, table

MARK = '<p class="brand">Trainyard · '
"""What tells a page of ours from another file of its name."""
SCRIPTS = ("page.js", "points.js")
COLOURS = {"better": "#009e73", "worse": "#d55e00"}
BEST, LEAST = "best", "least"
"""What a heat map shows of points that share a cell. A sweep does not know of which figures more is better."""
Answer = Mapping[str, Any]


def render(answer: Answer) -> str:
    """The page of a search, as `sim.experiments.answer.plain` has it, as HTML text."""
    points = answer["points"]
    figures = there([*answer["objectives"], *answer["facts"]], points)
    parts = [
        chart(answer["axes"], figures, points), heat(answer["axes"], figures, points), _best(answer), _beside(answer),
        _looked(answer),
    ]  # fmt: skip
    return page("search", answer["name"], _subtitle(answer), _header(answer), [part for part in parts if part])


def render_sweep(sweep: Mapping[str, Any]) -> str:
    """The page of a sweep as HTML text. name: its name; axes: each with name and labels; figures: each with name, unit
    and best (min: less is shown as better); points: by labels and figures, with a command. count: of all
    points, of which these may be the first."""
    axes, figures, points = sweep["axes"], sweep["figures"], sweep["points"]
    shown = there(figures, points)
    left = sweep["count"] - len(points)
    more = f"; {left:,} are not shown: too many, or refused" if left else ""
    parts = [chart(axes, shown, points, LEAST), heat(axes, shown, points, LEAST)] if shown else []
    said = _reach(axes, shown[0]["name"], points) if shown else ""
    return page("sweep", sweep["name"], f"{sweep['count']:,} points{more}", said, [p for p in parts if p])


def _reach(axes: Sequence[Mapping[str, Any]], figure: str, points: Sequence[Mapping[str, Any]]) -> str:
    """Where a figure is least and where most, in a line, with the command of the first."""
    ran = sorted((p for p in points if p.get(figure) is not None), key=lambda p: float(p[figure]))
    names = [axis["name"] for axis in axes]
    ends = [
        f"{_plain(point[figure])} with " + ", ".join(f"{name}={point[name]}" for name in names if point.get(name))
        for point in (ran[0], ran[-1])
    ]
    line = f"{figure[:1].upper()}{figure[1:]}: least {ends[0]}; most {ends[1]}."
    return f'<p class="verdict">{escape(line)}</p>{_copied(ran[0]["command"])}'


def there(figures: Sequence[Mapping[str, str]], points: Sequence[Mapping[str, Any]]) -> list[Mapping[str, str]]:
    """The figures that some point has."""
    return [each for each in figures if any(point.get(each["name"]) is not None for point in points)]


def page(kind: str, name: str, subtitle: str, more: str, parts: Sequence[Section]) -> str:
    """A page of points. kind: search or sweep. more: HTML below its heading."""
    header = f'{MARK}{kind}</p><h1>{escape(name)}</h1><p class="sub">{escape(subtitle)}</p>{more}'
    return whole(f"{name}, a {kind}", header, list(parts), SCRIPTS)


def _subtitle(answer: Answer) -> str:
    legal, ran = f"{answer['legal']:,}", f"{answer['simulated']:,}"
    after = ", then ".join(f"{'most' if o['best'] == 'max' else 'least'} {o['name']}" for o in answer["objectives"])
    return f"{answer['combinations']:,} combinations, {legal} legal, {ran} simulated; looked for: {after}"


def _header(answer: Answer) -> str:
    best, axes = answer["best"][0], [axis["name"] for axis in answer["axes"]]
    labels = "".join(_tile(axis, str(best[axis])) for axis in axes)
    interval, what = best["interval_90"], answer["head"]
    note = "" if interval is None else "90 %: " + " to ".join(amount(end, what["unit"]) for end in interval)
    wanted = [each for each in answer["objectives"] if each["name"] != what["name"]]
    first = _tile(f"{what['name']} of the winner", amount(best["head"], what["unit"]), note)
    first += "".join(_tile(each["name"], _plain(best[each["name"]]), each["unit"]) for each in wanted)
    count = len(axes) + 1 + len(wanted)
    binds = "".join(f"<li>{escape(line)}</li>" for line in answer["binds"])
    return (
        f'<dl class="figures" style="--all:{min(count, 8)};--half:{min(count, 4)}">{first}{labels}</dl>'
        f'<ul class="advice binds" aria-label="What binds the winner">{binds}</ul>{_copied(best["command"])}'
    )


def _tile(called: str, value: str, note: str = "") -> str:
    """A figure of the header."""
    noted = f"<dd class='note'>{escape(note)}</dd>" if note else ""
    return f"<div><dt>{escape(called)}</dt><dd>{escape(value)}</dd>{noted}</div>"


def _copied(command: str) -> str:
    """A command line that a button copies."""
    return (
        f'<p class="command"><code>{escape(command)}</code>'
        f'<button type="button" data-copy="{escape(command, quote=True)}">Copy</button></p>'
    )


def chart(
    axes: Sequence[Mapping[str, Any]], figures: Sequence[Mapping[str, str]], points: Any, which: str = BEST
) -> Section:
    """Points by two figures, and a line along those that nobody beats. which: BEST or LEAST."""
    names = [figure["name"] for figure in figures]
    across = next((n for n in names[1:] if len({point.get(n) for point in points}) > 1), names[-1])
    body = (
        f'<div class="tools">{_choice("chart-x", "across", names, across)}{_choice("chart-y", "up", names, names[0])}'
        f"{_choice('chart-colour', 'colour by', [a['name'] for a in axes if len(a['labels']) > 1])}</div>"
        f'{plot("chart", "points by two figures")}<p class="command" id="chart-command"></p>'
    )
    beats = "beats in both figures" if which == BEST else "is below in both figures"
    lead = f"The line joins points that no other {beats}. Click a point for its command line."
    data = {"axes": axes, "figures": list(figures), "points": [_point(axes, names, each) for each in points]}
    return Section("chart", "Points", lead, body, data)


def heat(
    axes: Sequence[Mapping[str, Any]], figures: Sequence[Mapping[str, str]], points: Any, which: str = BEST
) -> Section | None:
    """The best figure over two axes; nothing where fewer than two have a choice. which: BEST or LEAST."""
    free = [axis["name"] for axis in axes if len(axis["labels"]) > 1]
    if len(free) < 2:
        return None
    names = [figure["name"] for figure in figures]
    body = (
        f'<div class="tools">{_choice("heat-x", "across", free, free[1])}{_choice("heat-y", "down", free, free[0])}'
        f"{_choice('heat-figure', which, names, names[0])}</div>"
        f'{plot("heat", f"the {which} figure over two axes")}<p class="command" id="heat-command"></p>'
    )
    lead = (
        f"In each cell the {which} point over all other axes; empty where none ran. Click a cell for its command line."
    )
    return Section("heat", "Two axes", lead, body, {"which": which})


def _point(axes: Sequence[Mapping[str, Any]], names: Sequence[str], point: Mapping[str, Any]) -> list[Any]:
    """Labels, figures, whether nobody beats it, and the command line."""
    labels = [str(point.get(axis["name"], "")) for axis in axes]
    return [labels, [point.get(name) for name in names], bool(point.get("front")), point["command"]]


def _choice(key: str, said: str, names: Iterable[str], chosen: str = "") -> str:
    options = "".join(
        f'<option value="{escape(name)}"{" selected" if name == chosen else ""}>{escape(name)}</option>'
        for name in names
    )
    return f'<label class="choice">{said} <select id="{key}">{options}</select></label>'


def _best(answer: Answer) -> Section:
    """The points that were run in full."""
    axes = [axis["name"] for axis in answer["axes"]]
    wanted = (f"{o['name']} ({o['unit']})" for o in answer["objectives"])
    unit = answer["head"]["unit"]
    heads = ["", "", *axes, *wanted, f"{answer['head']['name']} in full", "90 %"]
    heads += ["peak"] * (with_peak := any(each["peak_bytes"] is not None for each in answer["best"]))
    rows = []
    for place, each in enumerate(answer["best"], 1):
        between = " to ".join(amount(end, unit) for end in each["interval_90"] or ())
        full, copy, peak = each["head"], escape(each["command"], quote=True), each["peak_bytes"]
        rows.append((
            f"{place}{'&nbsp;●' if each['front'] else ''}",
            f'<button type="button" data-copy="{copy}">Copy</button>', *(escape(str(each[axis])) for axis in axes),
            *(_plain(each[o["name"]]) for o in answer["objectives"]),
            escape(each["error"] or "") if full is None else amount(full, unit), between,
            *([format_quantity(peak, "data") if peak is not None else ""] if with_peak else []),
        ))  # fmt: skip
    again = escape(answer["lines"][-1])
    lead = f"{again[:1].upper()}{again[1:]}. ● nobody beats it in all objectives. best-1.yaml ... beside this page run."
    return Section("best", "The best in full", lead, table(heads, rows, text_columns=tuple(range(2 + len(axes)))))


def _beside(answer: Answer) -> Section:
    """The winner with one change."""
    rows, best = [], "min" if answer["head"]["name"] == "step" else answer["objectives"][0]["best"]
    for each in answer["beside"]:
        ratio = each["ratio"]
        worth = (
            "" if ratio is None else f"{bar(min(1.0, abs(ratio - 1) * 2), COLOURS[_side(ratio, best)])}{ratio - 1:+.1%}"
        )
        why = escape(each["why"] or (f"misses: {each['lacks']}" if each["lacks"] else ""))
        peak = format_quantity(each["peak_bytes"], "data") if each["peak_bytes"] else ""
        rows.append((escape(each["axis"]), escape(each["label"]), worth, peak, why))
    what = answer["head"]["name"]
    said = escape(what[:1].lower() + what[1:])
    lead = f"By how much the winner's {said} would differ with one change, or what forbids it."
    heads, peaks = ["axis", "value", what, "peak", ""], any(row[3] for row in rows)
    cells = [row if peaks else (*row[:3], row[4]) for row in rows]
    heads = heads if peaks else [*heads[:3], ""]
    return Section("beside", "One change at a time", lead, table(heads, cells, text_columns=(0, 1, len(heads) - 1)))


def _plain(value: float) -> str:
    if abs(value) >= GIGA:
        return f"{value / GIGA:,.1f} G"
    return f"{value:,.0f}" if abs(value) >= KILO else f"{value:.4g}"


def _side(ratio: float, best: str) -> str:
    return "worse" if (ratio > 1) != (best == "max") else "better"


def _looked(answer: Answer) -> Section:
    """Where all combinations went."""
    items = "".join(f"<li>{escape(line)}</li>" for line in answer["lines"])
    body = f'<ul class="counts">{items}</ul>' + details(
        "Axes of the space",
        table(("axis", "values"), [(escape(a["name"]), escape(", ".join(a["labels"]))) for a in answer["axes"]],
              text_columns=(0, 1)),
    )  # fmt: skip
    return Section("looked", "What was looked at", "", body)
