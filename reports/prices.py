"""Where the prices come from: the share of time by kind of price, and every source in a sentence."""

from collections.abc import Mapping
from html import escape
from typing import Any

import numpy as np

from hwmodels.units import ns_to_seconds
from reports.headline import noun, percent, seconds
from reports.palette import PARTS
from reports.section import Section, details, legend, table
from sim.result import Result
from sim.result.trace import Trace

NAMED_SHARE = 0.12
"""A piece narrower than this has no room for its name; the legend and its hover have it."""

LEAD = "Share of compute and communication time by how its price came about."


def section(result: Result) -> Section | None:
    """The shares and sources of `result`, or None when the run does not say."""
    groups = shares(result.summary)
    if not groups:
        return None
    kinds = list(dict.fromkeys(kind for group in groups.values() for kind in group))
    colours = {kind: PARTS[i % len(PARTS)] for i, kind in enumerate(kinds)}
    strips = "".join(_strip(name, group, colours) for name, group in groups.items())
    return Section(
        "prices", "How sure the prices are", LEAD, legend(_named(groups, colours)) + strips + _sources(result)
    )


def _sources(result: Result) -> str:
    """Every price with its time and its source: of the step's spans, and of the kernels of the pair."""
    tables = [("the step, times summed over all positions and lanes", result.spans)]
    if result.pair is not None:
        tables.append(
            (f"the {noun(result.pair_name)} ({result.pair_name}), times summed over its kernels", result.pair)
        )
    folds = []
    for name, spans in tables:
        if rows := source_rows(spans, result.price_sources):
            head = ("Price", "Sum of times", "Source")
            folds.append(details(f"Sources of {name} ({len(rows)})", table(head, rows, (0, 2))))
    return "".join(folds)


def shares(summary: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Shares by kind of price, largest first, in named groups: one called "" when the summary does not group them."""
    prices = summary.get("price_shares") or {}
    flat = {kind: share for kind, share in prices.items() if isinstance(share, int | float)}
    groups = ({"": flat} if flat else {}) | {n: dict(g) for n, g in prices.items() if isinstance(g, Mapping)}
    return {name: dict(sorted(group.items(), key=lambda item: -item[1])) for name, group in groups.items() if group}


def source_rows(spans: Trace, sources: Mapping[str, str]) -> list[list[str]]:
    """Every price that `spans` have, with the time it accounts for and its sentence; the longest time first."""
    keep = spans.price >= 0
    time = np.bincount(spans.price[keep], (spans.end - spans.start)[keep], len(spans.prices))
    used = sorted(zip(time.tolist(), spans.prices, strict=True), key=lambda item: (-item[0], item[1]))
    return [[escape(n), seconds(ns_to_seconds(t)), escape(sources.get(n, ""))] for t, n in used if t]


def _named(groups: Mapping[str, Mapping[str, float]], colours: Mapping[str, str]) -> list[tuple[str, str]]:
    """Legend entries; with their shares when there is but one group."""
    only = next(iter(groups.values())) if len(groups) == 1 else {}
    return [(f"{kind} {percent(only[kind])}" if kind in only else kind, colour) for kind, colour in colours.items()]


def _strip(name: str, group: Mapping[str, float], colours: Mapping[str, str]) -> str:
    """One bar cut by kind of price."""
    pieces = "".join(
        f'<span style="flex:{share:.6f};background:{colours[kind]}" title="{escape(kind)}: {percent(share)}">'
        f"{f'<em>{escape(kind)} {percent(share)}</em>' if share > NAMED_SHARE else ''}</span>"
        for kind, share in group.items() if share > 0
    )  # fmt: skip
    title = f"<h3>{escape(name)}</h3>" if name else ""
    return f'{title}<div class="strip" role="img" aria-label="shares by kind of price">{pieces}</div>'
