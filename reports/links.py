"""Links of the fabric: their use over the step by class and kind of traffic, the busiest of them, and all as a file."""

from collections.abc import Iterator
from html import escape
from typing import Any

import numpy as np

from hwmodels.units import NS_PER_S
from reports.columns import pack
from reports.headline import percent, seconds
from reports.palette import INK, TRAFFIC
from reports.section import Section, bar, legend, plot, table
from sim.result import Result, Utilisation

BUSIEST = 2
"""Rows of the table for each class of links, each for all links alike; the highest peak joins them."""

STEPS = 10_000
"""The page gets utilisations as whole numbers of such parts: a pixel of the figure is a hundredth."""

PLACEMENTS = {"packed": "packed, side by side", "scattered": "scattered", "listed": "in slots as listed"}
"""Words of result.json -> those of the page."""

Row = tuple[int, int]
"""A link, and how many are like it, itself included."""


def section(result: Result) -> Section | None:
    """The use of `result.links`, or None where nothing crosses the fabric or nothing is known of it."""
    use = result.links
    if use is None or not use.ends:
        return None
    counts = result.summary["links"]
    drawn = [number for number, name in enumerate(use.classes) if name in counts["classes"]]
    kinds = use.carried
    colours = [(use.kinds[k], TRAFFIC[k]) for k in kinds]
    keys = legend([*colours, ("busiest link", INK)])
    body = f'<div class="row">{keys}</div>{plot("links", "use of links over the step, by class")}'
    body += f"<h3>Busiest links</h3>{busiest(use, drawn, kinds)}"
    body += f'<p class="lead after">{" ".join(assumptions(result))}</p>'
    data = {
        "kinds": [[name, colour, str(k)] for k, (name, colour) in zip(kinds, colours, strict=True)],
        "classes": [_drawn(use, number, counts["classes"][use.classes[number]], kinds) for number in drawn],
        "steps": STEPS,
        "end": float(use.edges[-1]) / NS_PER_S,
    }
    return Section("links", "Links of the fabric", lead(counts), body, data)


def _drawn(use: Utilisation, number: int, counts: dict[str, Any], kinds: list[int]) -> dict[str, Any]:
    """One class: its curves in parts of STEPS."""
    columns = {str(k): use.mean[number, k] for k in kinds} | {"busiest": use.busiest[number]}
    shares = f"mean {percent(counts['mean'])} over the step, busiest {percent(counts['busiest_average'])}"
    whole = {name: np.rint(curve * STEPS).astype(np.int64) for name, curve in columns.items()}
    return {"name": use.classes[number], "said": f"{counts['links']:,} links in use, {shares}", "table": pack(whole)}


def lead(counts: dict[str, Any]) -> str:
    """Which fabric, placement and routing this is, and what is drawn (HTML)."""
    routing = "whose crowding is in the prices"
    if not counts["blocking_priced"]:
        routing = "assumed: the scenario leaves it open, and its prices take it that nothing in the fabric blocks"
    return (
        f"Fabric: {escape(counts['fabric'])}. Placement of nodes: {PLACEMENTS[counts['placement']]}. "
        f"Routing: {escape(counts['routing'])} ({routing}). 100 % is a link's effective bandwidth in one direction. "
        "Areas are the mean over the links of a class that carry anything, by kind of traffic; the line is the link "
        "that is busiest at the time."
    )


def assumptions(result: Result) -> Iterator[str]:
    """What the curves take for granted, a sentence or two each (HTML)."""
    counts = result.summary["links"]
    yield (
        f"Curves are means over {escape(seconds(counts['bin_s']))}. Inside a span bytes move at an even rate, and all "
        "replicas of a pipeline position move theirs at the same time."
    )
    if spread := counts["evenly_spread"]:
        yield f"At this detail no span carries {escape(' or '.join(spread))} traffic: it is spread over the whole step."
    yield (
        "Kinds of traffic share links: messages and gradients get what the exchanges that they meet leave, half at "
        "least, and exchanges lose on average what messages take. For moments that a curve does not show, and where "
        "rings of several stages meet, a link can still be asked for more than it has; where a curve passes 100 % the "
        "step would be longer than simulated. A flow keeps one way for the whole step; switches that choose anew for "
        "every packet would spread the peaks between switches. Traffic inside nodes (NVLink) is not here."
    )
    if "shown_replica" in result.summary:
        yield (
            f"Ranks differ: times are those of replica {result.summary['shown_replica']}, the last to finish, and "
            "stand for all replicas; bytes of exchanges are those of balanced routing; a slowed link is drawn against "
            "its healthy bandwidth."
        )


def busiest(use: Utilisation, classes: list[int], kinds: list[int]) -> str:
    """The busiest links of each class, over the step and at their peak, and what they carry."""
    shares_of = (f"{use.kinds[k]} bytes" for k in kinds)
    head = ("links", "from", "to", "alike", "over the step", "busiest moment", *shares_of)
    rows = []
    for number in classes:
        for link, alike in top(use, number):
            total = use.size[link].sum()
            shares = (percent(float(use.size[link, k] / total)) for k in kinds)
            average = float(use.average[link])
            rows.append((
                escape(use.classes[number]), *map(escape, use.ends[link]), f"{alike:,}",
                bar(average, INK) + percent(average), percent(float(use.peak[link])), *shares,
            ))  # fmt: skip
    return table(head, rows, text_columns=(0, 1, 2))


def top(use: Utilisation, number: int) -> list[Row]:
    """The busiest of a class over the step, and the one with the highest peak; alike are those with equal figures."""
    mine = np.flatnonzero(use.of == number)
    figures = np.rint(np.column_stack([use.size[mine], use.average[mine] * STEPS, use.peak[mine] * STEPS]))
    groups, first, count = np.unique(figures, axis=0, return_index=True, return_counts=True)
    order = np.lexsort((first, -groups[:, -1], -groups[:, -2]))
    shown = order[:BUSIEST].tolist()
    highest = int(groups[:, -1].argmax())
    if groups[highest, -1] > groups[shown, -1].max():
        shown.append(highest)
    return [(int(mine[first[group]]), int(count[group])) for group in shown]
