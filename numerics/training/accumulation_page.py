"""The page of the accumulation study: its figures as plotly charts in one HTML file that needs no network."""

import html
import math
from typing import Any

from hwmodels.formats import TILE
from hwmodels.units import PERCENT
from numerics.training.accumulation_rows import Row

COLOURS = {"gaussian": "#1f6fb4", "uniform": "#c8501e", "outliers": "#5b8c3a"}
JOINS, AFTER, NEVER = "joins", "after", 0
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums }
td, th { padding: .3rem .8rem; border-bottom: 1px solid #ddd; text-align: left } td.n { text-align: right }
.near { background: #fdf0d0 } figure { margin: 1.5rem 0 } figcaption, .quiet { color: #555; font-size: .9rem }
"""


def render(rows: list[Row], document: dict[str, Any]) -> str:
    """The whole page; the same rows give the same bytes."""
    from plotly.offline import get_plotlyjs

    reported = document["reported"]
    at = [row for row in rows if row.k == reported["k"] and row.promote == NEVER and row.accumulator == JOINS]
    charts = (
        _chart("length", against_length(rows), "Largest error over largest output against K, median of the seeds."),
        _chart("interval", against_interval(rows, reported["k"]), f"The same against N_C at K = {reported['k']}."),
        _chart("bias", bias(rows), "Signed bias on non-negative data: truncation only ever takes away."),
    )
    return "\n".join([
        "<!doctype html>", '<html lang="en"><head><meta charset="utf-8">',
        "<title>FP8 accumulation on Hopper</title>", f"<style>{STYLE}</style>",
        f"<script>{get_plotlyjs()}</script></head><body>",
        "<h1>What the FP8 tensor core's short accumulator costs</h1>",
        f"<p><b>Provenance:</b> {_text(document['provenance'])}. {document['outputs'][0]} x {document['outputs'][1]} "
        f"outputs, seeds {', '.join(map(str, document['seeds']))}; errors are against the float64 product of the same "
        "E4M3 values, so the error of the cast to FP8 is not in them.</p>",
        "<h2>What this reproduces of the report, and what it cannot</h2>", _claims(rows, document),
        *charts,
        f"<h2>One K, one data set, one metric: K = {reported['k']}, no promotion</h2>", _metrics(at, document),
        "<h2>Bit probes</h2>", _probes(document["probes"]),
        "<h2>Data sets</h2><ul>",
        *[f"<li><b>{name}</b>: {_text(text)}</li>" for name, text in document["data"].items()],
        "</ul></body></html>", "",
    ])  # fmt: skip


def _find(rows: list[Row], data: str, k: int, promote: int, accumulator: str = JOINS) -> Row:
    wanted = (data, k, promote, accumulator)
    return next(row for row in rows if (row.data, row.k, row.promote, row.accumulator) == wanted)


def _claims(rows: list[Row], document: dict[str, Any]) -> str:
    """The verdicts, with figures taken from the rows."""
    items = [
        _bits(document["probes"]), _growth(rows, document["reported"]["k"]), _two_percent(rows, document),
        "<b>Cannot be pinned down: that 128 is the interval to take.</b> The error falls steadily from never down to "
        "N_C = 32, with no knee at 128. What is left to single it out is the overhead of promotion, a matter of time, "
        "which a model of values has none of.",
        "<b>Cannot be pinned down: how the accumulator comes in.</b> That it is aligned and cut like a product "
        '("joins", drawn solid) is a finding of others; if it were added after the products ("after", dotted) the '
        "errors would be several times smaller. The last probe tells the two apart on a card.",
    ]  # fmt: skip
    return "<ul>" + "".join(f"<li>{item}</li>" for item in items) + "</ul>"


def _bits(probes: list[dict[str, Any]]) -> str:
    right = all(probe[key] == probe["expected"][key] for probe in probes for key in (JOINS, AFTER))
    return (
        f"<b>{'Reproduced' if right else 'NOT reproduced'}: around 14 bits.</b> 1 + 2<sup>-13</sup> survives, "
        "1 + 2<sup>-14</sup> does not, and 31 terms of 2<sup>-14</sup> beside a 1 are each cut before they are added. "
        "That is the model agreeing with the report, not a card agreeing with either."
    )


def _growth(rows: list[Row], k: int) -> str:
    longest = max(row.k for row in rows)
    never, kept = (
        [_percent(_find(rows, "uniform", at, promote).median("max_to_max")) for at in (k, longest)]
        for promote in (NEVER, TILE)
    )
    return (
        "<b>Reproduced: the error grows with K without promotion and stops growing with it.</b> Uniform data: "
        f"never promoted {never[0]} at K = {k}, {never[1]} at {longest}; with N_C = {TILE} {kept[0]} and {kept[1]}."
    )


def _two_percent(rows: list[Row], document: dict[str, Any]) -> str:
    near = [f"{metric.replace('_', ' ')} on {data}" for data, metric in document["candidates_for_reported_error"]]
    return (
        f'<b>Cannot be pinned down: "nearly 2 %" at K = {document["reported"]["k"]}.</b> The report gives neither the '
        f"distribution nor the metric, and the model gives anything from {_range(rows, document)} depending on both. "
        f"Within 1.5 to 2.5 %: {'; '.join(near) or 'none of those tried'}. A match found by searching is a guess at "
        "their test."
    )


def _range(rows: list[Row], document: dict[str, Any]) -> str:
    """Smallest and largest median of the magnitude metrics over the data sets at the reported K."""
    at = [_find(rows, data, document["reported"]["k"], NEVER) for data in document["data"]]
    values = [row.median(metric) for row in at for metric in document["metrics"] if metric != "bias"]
    return f"{_percent(min(values))} to {_percent(max(values))}"


def _metrics(rows: list[Row], document: dict[str, Any]) -> str:
    """Data sets down, metrics across; cells that would fit the report's sentence are marked."""
    near = {(data, metric) for data, metric in document["candidates_for_reported_error"]}
    head = "".join(f"<th>{_text(text)}</th>" for text in document["metrics"].values())
    body = "".join(
        f"<tr><th>{row.data}</th>"
        + "".join(
            f'<td class="n{" near" if (row.data, metric) in near else ""}">{_percent(row.median(metric))}</td>'
            for metric in document["metrics"]
        )
        + "</tr>"
        for row in rows
    )
    note = '<p class="quiet">Median of the seeds. Shaded: within 1.5 to 2.5 %.</p>'
    return f"<table><tr><th></th>{head}</tr>{body}</table>{note}"


def _probes(probes: list[dict[str, Any]]) -> str:
    rows = "".join(
        f'<tr><td>{_text(p["name"])}</td><td class="n">{p["joins"]!r}</td><td class="n">{p["after"]!r}</td></tr>'
        for p in probes
    )
    return f"<table><tr><th>input</th><th>accumulator joins</th><th>accumulator after</th></tr>{rows}</table>"


def against_length(rows: list[Row]) -> Any:
    """Error against K: every data set, never and every 128; dashed where the accumulator comes after."""
    figure = _figure("K", "max |error| / max |exact|, %")
    for data, colour in COLOURS.items():
        for promote, symbol in ((NEVER, "circle"), (TILE, "square-open")):
            for accumulator, dash in ((JOINS, "solid"), (AFTER, "dot")):
                group = [r for r in rows if (r.data, r.promote, r.accumulator) == (data, promote, accumulator)]
                name = f"{data}, {'N_C = ' + str(promote) if promote else 'never'}, {accumulator}"
                _line(figure, [r.k for r in group], group, "max_to_max", name, colour, dash, symbol)
    return figure


def against_interval(rows: list[Row], k: int) -> Any:
    """Error against N_C at one K; never is drawn at N_C = K, which it equals."""
    figure = _figure("N_C", "max |error| / max |exact|, %")
    for data, colour in COLOURS.items():
        group = [r for r in rows if (r.data, r.k, r.accumulator) == (data, k, JOINS)]
        group.sort(key=lambda row: row.promote or k)
        _line(figure, [r.promote or k for r in group], group, "max_to_max", data, colour, "solid", "circle")
    return figure


def bias(rows: list[Row]) -> Any:
    """Signed bias of the non-negative data set against K."""
    figure = _figure("K", "bias, %", log_y=False)
    for promote, symbol in ((NEVER, "circle"), (TILE, "square-open")):
        group = [r for r in rows if (r.data, r.promote, r.accumulator) == ("uniform", promote, JOINS)]
        name = f"N_C = {promote}" if promote else "never"
        _line(figure, [r.k for r in group], group, "bias", name, COLOURS["uniform"], "solid", symbol)
    return figure


def _figure(x: str, y: str, log_y: bool = True) -> Any:
    import plotly.graph_objects as go

    figure = go.Figure()
    figure.update_xaxes(title=x, type="log", dtick=math.log10(2), tickformat="d")
    figure.update_yaxes(title=y, type="log" if log_y else "linear")
    figure.update_layout(template="plotly_white", height=460, margin={"l": 70, "r": 20, "t": 20, "b": 50})
    return figure


def _line(
    figure: Any, x: list[int], group: list[Row], metric: str, name: str, colour: str, dash: str, symbol: str
) -> None:
    y = [row.median(metric) / PERCENT for row in group]
    line, marker = {"color": colour, "dash": dash}, {"symbol": symbol, "size": 7}
    figure.add_scatter(x=x, y=y, name=name, mode="lines+markers", line=line, marker=marker)


def _chart(name: str, figure: Any, caption: str) -> str:
    body = figure.to_html(full_html=False, include_plotlyjs=False, div_id=f"chart-{name}")
    return f"<figure>{body}<figcaption>{_text(caption)}</figcaption></figure>"


def _percent(value: float) -> str:
    return f"{value / PERCENT:.3g} %"


def _text(text: str) -> str:
    return html.escape(text)
