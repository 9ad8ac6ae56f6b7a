"""What a search found: ranked points, the front of its objectives, full runs of the best, and what binds the winner."""

import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from hwmodels.refused import Refused
from hwmodels.units import GB, format_quantity
from sim.experiments import kinds
from sim.experiments.kind import value
from sim.experiments.objectives import Facts, Figures, shown
from sim.experiments.record import Record
from sim.experiments.screen import PARTS
from sim.experiments.search import Search
from sim.experiments.space import ALWAYS_LAST, Census, Choice, Point
from sim.scenario.files import load


@dataclass(frozen=True)
class Row:
    """A point that ran and keeps the limits. scores: of the objectives, less is better. front: nobody beats it.
    summary: what is kept of its run."""

    choice: Choice
    point: Point
    facts: Facts | Figures
    scores: tuple[float, ...]
    front: bool
    summary: Mapping[str, Any]

    def __hash__(self) -> int:
        return hash(self.choice)


class Beside(NamedTuple):
    """The winner with one change. lacks: a limit that it misses, or illegal; why: by which rule. ratio: of its step to
    the winner's, None where it did not run."""

    axis: str
    label: str
    lacks: str
    why: str
    ratio: float | None = None
    peak_bytes: int = 0


@dataclass(frozen=True)
class Answer:
    """What a search found. refused: key -> points that were legal by the rules and refused as a whole, and the first
    line. pruned: what left points out -> how many.  ran: points simulated.
    rows: the best first. full: of these, records with intervals. correlation: of both orders of steps (Spearman)."""

    search: Search
    census: Census
    refused: Mapping[str, tuple[int, str]]
    pruned: Mapping[str, int]
    ran: int
    rows: Sequence[Row]
    full: Sequence[tuple[Row, Record]]
    correlation: float | None
    beside: Sequence[Beside]

    @property
    def winner(self) -> Row:
        """The first row by the objectives in their order."""
        return self.rows[0]

    def figures(self, row: Row) -> dict[str, float]:
        """Objectives of a row, as their words say."""
        return {name: self.search.figure(name, row.facts) for name in self.search.objectives}

    def to_frame(self) -> Any:
        """The ranked points as a pandas DataFrame: axes, objectives, step_time_s, peak_memory_bytes, gpus, front.
        Raises Refused where pandas is not installed."""
        try:
            import pandas
        except ImportError:
            raise Refused("to_frame needs pandas: pip install pandas, or read rows") from None

        return pandas.DataFrame([self.plain(row) for row in self.rows])

    def plain(self, row: Row) -> dict[str, Any]:
        """A row as plain values."""
        return {**row.point.labels, **self.figures(row), **row.facts.plain, "front": row.front}


def command(answer: Answer, row: Row) -> str:
    """The command line that runs a point."""
    words = [word for word in row.point.overrides if word not in ALWAYS_LAST]
    return shlex.join(["python", "-m", "sim", os.path.normpath(answer.search.space.path), *words])


def plain(answer: Answer) -> dict[str, Any]:
    """All of it as plain values, as answer.json has it."""
    search, census = answer.search, answer.census
    illegal = {what: each._asdict() for what, each in census.illegal.items()}
    illegal |= {key: {"combinations": count, "first": "", "why": why} for key, (count, why) in answer.refused.items()}
    return {
        "name": search.name, "search": search.path, "scenario": os.path.normpath(search.space.path),
        "objectives": [{"name": n, "unit": (of := search.objective(n)).unit, "best": of.best}
                       for n in search.objectives],
        "facts": list(facts(search)), "head": dict(zip(("name", "unit"), head(search), strict=True)),
        "axes": [{"name": axis.name, "labels": [stop.label for stop in axis.stops]}
                 for axis in search.space.product.axes],
        "combinations": census.product, "legal": census.legal, "simulated": answer.ran, "illegal": illegal,
        "left_out": dict(answer.pruned), "rank_correlation": answer.correlation,
        "points": [{**answer.plain(row), "choice": list(row.choice), "command": command(answer, row)}
                   for row in answer.rows],
        "best": [_full(answer, row, entry) for row, entry in answer.full],
        "beside": [each._asdict() for each in answer.beside], "binds": list(binding(answer)),
        "lines": [*counts(answer), correlated(answer)],
    }  # fmt: skip


def facts(search: Search) -> Iterator[dict[str, str]]:
    """Figures that every point has beside its objectives."""
    own = search.own
    if own is None:
        yield from ({"name": n, "unit": unit, "best": "min"} for n, unit in FACTS.items() if n not in search.objectives)
        return
    for each in own.measures:
        if each.best and each.word not in search.objectives:
            yield {"name": each.word, "unit": search.objective(each.word).unit, "best": each.best}


FACTS = {"peak_memory_bytes": "B", "step_time_s": "s", "gpus": "GPUs"}


def head(search: Search) -> tuple[str, str]:
    """What points are told by, in words, and its unit."""
    own = search.own
    return ("step", "seconds") if own is None else own.measure(search.objectives[0])[2:4]


def _full(answer: Answer, row: Row, entry: Record) -> dict[str, Any]:
    """A point that was run in full."""
    summary = entry.get("summary", {})
    kept = ("scenario_hash", "step_time_s", "tokens_per_day", "mfu", "feasible", "worst_memory", "bubble_fraction")
    return {
        **answer.plain(row), "command": command(answer, row), "error": entry.get("error", entry.get("failed")),
        "full": {key: summary.get(key) for key in kept},
        "head": value(summary, answer.search.head_key) if summary else None, "interval_90": _interval(answer, summary),
        "peak_bytes": summary["worst_memory"]["peak_bytes"] if summary.get("worst_memory") else None,
    }  # fmt: skip


def _interval(answer: Answer, summary: Mapping[str, Any]) -> list[float] | None:
    """90 % of what the head figure may be: by prices and what is left out, or by chance."""
    own = answer.search.own
    if own is None:
        ends: list[float] | None = summary.get("intervals_90", {}).get("step_time_s")
        return ends
    each = (value(summary, key) for key in own.measure(answer.search.objectives[0]).ends)
    return [end for end in each if end is not None] or None


def scenarios(answer: Answer) -> Iterator[str]:
    """A scenario file of each of the best, in their order; resolved, so that it runs anywhere."""
    from sim.result.archive import scenario_text

    for place, (row, _) in enumerate(answer.full, 1):
        words = tuple(word for word in row.point.overrides if word not in ALWAYS_LAST)
        own = answer.search.own is not None
        where = answer.search.space.place
        content = kinds.portable(where, words) if own else load(str(where), words).resolved
        yield f"{HEAD} {place} of {answer.search.name}: {row.point.title}\n{scenario_text(content)}"


FIRST, HEAD = "combinations", "# Number"
"""What tells answer.json, and a scenario file of a search, from others."""
BEATEN = {
    "beaten": "cannot be among the best, by the least step that each can have",
    "memory": "do not fit in memory", "the host's memory": "do not fit in the host's memory",
    "step_time": "miss constraints.step_time", "budget": "miss constraints.budget", "days": "miss constraints.days",
}  # fmt: skip
"""What leaves points out -> in words."""


def counts(answer: Answer) -> Iterator[str]:
    """Lines on how many points were legal, simulated, and left out by what."""
    census = answer.census
    if not census.whole:
        sampler, most = answer.search.sampler, answer.search.exhaustive
        how = f"{sampler.trials:,} chosen by {sampler.kind}, {answer.ran:,} of them simulated"
        yield f"{census.product:,} combinations, more than {most:,} of them legal: {how}"
    else:
        yield f"{census.product:,} combinations, {census.legal:,} of them legal, {answer.ran:,} simulated"
    for what, each in sorted(census.illegal.items() if census.whole else (), key=lambda item: -item[1].combinations):
        yield f"{each.combinations:,} illegal: {what}; e.g. {each.first}: {each.why}"
    for count, why in sorted(answer.refused.values(), reverse=True):
        yield f"{count:,} illegal: {why}"
    for what, count in sorted(answer.pruned.items(), key=lambda item: -item[1]):
        yield f"{count:,} {BEATEN.get(what, f'miss {what}')}"


def correlated(answer: Answer) -> str:
    """A line on the order of the cheap pass and that of full runs."""
    count = sum("summary" in entry for _, entry in answer.full)
    if answer.correlation is None:
        return f"the best {count} were run again in full; too few or too alike to compare their order"
    order = f"rank correlation of the cheap order and the full one {answer.correlation:.3f}"
    return f"the best {count} were run again in full; {order}"


def parts(row: Row) -> dict[str, float]:
    """Where the time goes: part of it by what binds, the most first; of a step the mean of pipeline positions."""
    summary = row.summary
    if not isinstance(row.facts, Facts):
        total = sum(summary[PARTS].values())
        return dict(sorted(((name, s / total) for name, s in summary[PARTS].items()), key=lambda item: -item[1]))
    step_s, phases = row.facts.step_s, summary["phases_s"]
    exposed = min(summary["exposed_communication_s"], step_s - phases["bubble"] - phases["optimizer"])
    seconds = {"exchanges that nothing hides": exposed, "pipeline bubble": phases["bubble"],
               "optimizer": phases["optimizer"]}  # fmt: skip
    seconds = {"compute": step_s - sum(seconds.values()), **seconds}
    return dict(sorted(((name, s / step_s) for name, s in seconds.items()), key=lambda item: -item[1]))


def binding(answer: Answer) -> Iterator[str]:
    """Lines on what binds the winner: where its step goes, the memory it has left, and what one change would do."""
    row = answer.winner
    first, second, *_ = parts(row).items()
    whole = "the step" if isinstance(row.facts, Facts) else "the time"
    verb = "bind" if first[0].endswith("s") else "binds"
    yield f"{first[0]} {verb}: {first[1]:.0%} of {whole}; next {second[0]} with {second[1]:.0%}"
    barred = [each for each in answer.beside if each.lacks and each.lacks != "illegal"]
    by_limit: dict[str, list[str]] = {}
    for each in barred:
        size = f" ({format_quantity(each.peak_bytes, 'data')})" if "memory" in each.lacks else ""
        by_limit.setdefault(each.lacks, []).append(f"{each.axis}={each.label}{size}")
    for lacks, changes in by_limit.items():
        yield f"{lacks} bars {', '.join(changes)}"
    slower = sorted((each for each in answer.beside if each.ratio and not each.lacks), key=lambda e: e.ratio or 0.0)
    if slower:
        nearest = ", ".join(f"{each.axis}={each.label} {(each.ratio or 1) - 1:+.1%}" for each in slower[:4])
        yield f"one change at a time, the nearest by {whole}: {nearest}"


def table(answer: Answer) -> list[list[Any]]:
    """Headings, then a row for each of the best: place, axes, objectives with intervals where there are some."""
    names = answer.search.objectives
    heads = [f"{name} ({unit})" if (unit := answer.search.objective(name).unit) else name for name in names]
    axes = [axis.name for axis in answer.search.space.product.axes]
    of_steps = answer.search.own is None
    beside = ["step (s)", "90 %", "peak (GB)"] if of_steps else ["90 %"]
    rows: list[list[Any]] = [["", *axes, *heads, *beside, "fits"]]
    for place, (row, entry) in enumerate(answer.full, 1):
        summary = entry.get("summary", {})
        low, high = _interval(answer, summary) or (None, None)
        figures = [shown(name, figure) for name, figure in answer.figures(row).items()]
        interval = "" if low is None else f"{low:.4g} - {high:.4g}"
        full = value(summary, answer.search.head_key) or answer.search.head(row.facts)
        fits = {True: "yes", False: "no"}.get(summary.get("feasible"), entry.get("error", "failed"))
        mark = f"{place}{'*' if row.front and len(names) > 1 else ''}"
        own = [interval] if not isinstance(row.facts, Facts) else [
            f"{full:.4g}", interval, f"{row.facts.peak_bytes / GB:.1f}"
        ]  # fmt: skip
        rows.append([mark, *row.point.labels.values(), *figures, *own, fits])
    return rows
