"""Two runs beside each other: a page, and the same in a terminal."""

from collections.abc import Iterator
from html import escape
from typing import IO, Any, NamedTuple

import numpy as np

from hwmodels.units import (
    NANO,
    NS_PER_S,
    PERCENT,
    SECONDS_PER_DAY,
    SECONDS_PER_HOUR,
    US_NS,
    format_quantity,
)
from reports import terminal, timeline
from reports.amounts import amount
from reports.columns import pack
from reports.headline import percent, seconds
from reports.page import whole
from reports.palette import IDLE, PARTS, STEPS
from reports.section import Section, controls, legend, plot, table
from reports.waterfall import LESS, MORE, SUM
from sim.result import title
from sim.result.comparison import Cause, Change, Comparison, Run

TITLE = "Two runs compared"
PAIRED = (
    "The interval is of the difference: prices that both runs rest on are as wrong in both, and so is what the model "
    "leaves out of times that they share."
)
SEEDS = (
    "The interval is of the difference over seeds of chance, the same in both; what prices are uncertain by is not in "
    "it."
)
DRAWS = (
    "The interval is of the difference over draws of chance and of prices, the same in both: kernels of a class are as "
    "wrong in both. What the model leaves out is not in it."
)
UNSEEN_NS = US_NS
"""Causes that differ by less are left out of the picture and of the terminal."""
LETTERS, STEP = ("A", "B"), "step_time_s"
SHOWN_KEYS, LONG = 14, 60
"""Keys that a terminal lists, and letters of a value."""


def names(both: Comparison) -> tuple[str, str]:
    """What each run is called."""
    return title.of(both.a.summary), title.of(both.b.summary)


def verdict(both: Comparison) -> str:
    """The answer in a line."""
    step = both.step
    assert step.a is not None and step.b is not None
    if both.alike:
        return "A and B are the same in every figure that is compared."
    less = abs(step.b - step.a)
    much = f"{amount(less, step.unit)} ({percent(less / step.a)}) {'less' if step.b < step.a else 'more'} than A"
    of_steps = step.key == STEP
    subject = "B takes" if of_steps else f"{step.name}: B has"
    if step.b == step.a:
        alike = "take the same time" if of_steps else f"have the same {_small(step.name)}"
        return f"A and B {alike}; other figures differ."
    if step.interval is None:
        return f"{subject} {much}."
    low, high = (_moved(end, step.unit) for end in step.interval)
    sure = "which is clear" if step.clear else "so the sign is not sure"
    return f"{subject} {much}; in nine cases of ten the difference is {low} to {high}, {sure}."


def _small(name: str) -> str:
    return f"{name[:1].lower()}{name[1:]}"


def _moved(each: float, unit: str) -> str:
    """A difference as text."""
    return f"{_sign(each)}{amount(abs(each), unit)}" if abs(each) >= NANO else "0"


def _sign(number: float) -> str:
    return "−" if number < 0 else "+"


def _difference(change: Change) -> str:
    far = change.difference
    if not far:
        return "-" if far is None else "0"
    if change.unit == "share":
        return f"{_points(far)} points"
    return _moved(far, change.unit)


def _part(change: Change) -> str:
    """The difference over A's."""
    if not change.a or not change.difference or change.unit == "share":
        return ""
    return f"{_points(change.difference / change.a)} %"


def _points(share: float) -> str:
    text = f"{abs(share) / PERCENT:.1f}"
    return f"{_sign(share)}{text}" if float(text) else text


def _ends(change: Change) -> str:
    """The 90 % interval of the difference, over A's."""
    if change.ratio is None:
        return ""
    low, high = (_points(end - 1) for end in change.ratio)
    return f"{low} to {high} %"


def _own(result: Run) -> str:
    ends = result.summary.get("intervals_90", {}).get("step_time_s")
    return f"{seconds(ends[0])} to {seconds(ends[1])} (90 %)" if ends else ""


def show(both: Comparison, stream: IO[str]) -> None:
    """Print what the page says in words."""
    a, b = names(both)
    figures = [
        (each.name, amount(each.a, each.unit), amount(each.b, each.unit), _difference(each), _part(each), _ends(each))
        for each in both.changes
    ]
    unit = _unit(both)
    parts = [
        (each.group, each.name, *_cause(each, unit)) for each in both.causes if abs(each.difference_ns) >= UNSEEN_NS
    ]
    keys = [(each.key, _short(each.a), _short(each.b)) for each in both.keys[:SHOWN_KEYS]]
    tables = [
        terminal.Cells(("", "A", "B", "B − A", "", "90 %"), figures, (1, 2, 3, 4, 5)),
        terminal.Cells(("", "made by", "A", "B", "B − A"), parts, (2, 3, 4)),
        terminal.Cells(("memory at the peak", "A", "B", "B − A"), list(_memory(both)), (1, 2, 3)),
        terminal.Cells(("key", "A", "B"), keys, ()),
    ]
    more = [f"and {len(both.keys) - SHOWN_KEYS} more keys"] if len(both.keys) > SHOWN_KEYS else []
    terminal.tables(stream, (f"A: {a}", f"B: {b}"), verdict(both), [t for t in tables if t.rows], more)


class Unit(NamedTuple):
    """Of times: seconds of one, and what it is called; name "": the unit that is nearest."""

    seconds: float
    name: str

    def text(self, ns: float) -> str:
        """A time."""
        own = ns / NS_PER_S / self.seconds
        return f"{own:,.2f} {self.name}" if self.name else seconds(own)

    def signed(self, ns: float) -> str:
        """A difference of times."""
        seen = abs(ns) >= (self.seconds * NS_PER_S * PERCENT / 2 if self.name else 1)
        return f"{_sign(ns)}{self.text(abs(ns))}" if seen else "0"


def _unit(both: Comparison) -> Unit:
    """Hours of what takes a day and more."""
    long = sum(each.a_ns for each in both.causes) > SECONDS_PER_DAY * NS_PER_S
    return Unit(SECONDS_PER_HOUR, "h") if long else Unit(1, "")


def _cause(each: Cause, unit: Unit) -> tuple[str, str, str]:
    return unit.text(each.a_ns), unit.text(each.b_ns), unit.signed(each.difference_ns)


def _memory(both: Comparison) -> Iterator[tuple[str, str, str, str]]:
    for part, (a, b) in both.memory.items():
        if a or b:
            yield _bytes(part, a, b)


def _bytes(part: str, a: int, b: int) -> tuple[str, str, str, str]:
    moved = f"{_sign(b - a)}{format_quantity(abs(b - a), 'data')}" if b != a else "0"
    return part, format_quantity(a, "data"), format_quantity(b, "data"), moved


def _short(given: Any) -> str:
    text = "-" if given is None else str(given)
    return text if len(text) <= LONG else f"{text[: LONG - 3]}..."


# --- the page ---------------------------------------------------------------------------------------------------------


def render(both: Comparison) -> str:
    """The page, as HTML text."""
    parts = [made for made in (_figures(both), _causes(both), _timelines(both), _memories(both), _keys(both)) if made]
    runs = "".join(
        f'<p class="sub run"><b>{letter}</b> {escape(name)}</p>'
        for letter, name in zip(LETTERS, names(both), strict=True)
    )
    notes = "".join(f'<p class="alarm">{escape(line)}</p>' for line in both.notes)
    header = (
        f'<p class="brand">Trainyard</p><h1>{TITLE}</h1>{runs}{notes}<p class="verdict">{escape(verdict(both))}</p>'
    )
    return whole(TITLE, header, parts)


def _figures(both: Comparison) -> Section:
    rows = [
        [escape(each.name), amount(each.a, each.unit), amount(each.b, each.unit), _difference(each), _part(each),
         _ends(each)]
        for each in both.changes
    ]  # fmt: skip
    chance = DRAWS if getattr(both.a, "draws", None) is None else SEEDS
    lead = PAIRED if both.steps else (chance if any(each.interval for each in both.changes) else "")
    own = [f"{letter} {text}" for letter, each in zip(LETTERS, (both.a, both.b), strict=True) if (text := _own(each))]
    if own:
        lead += f" Each step by itself: {escape('; '.join(own))}."
    body = table(("", "A", "B", "B − A", "of A", "90 % of the difference"), rows, text_columns=(0,))
    return Section("figures", "Figures", lead, body)


def _causes(both: Comparison) -> Section | None:
    shown = [each for each in both.causes if abs(each.difference_ns) >= UNSEEN_NS]
    if not shown:
        return None
    unit, bars, at = _unit(both), list[dict[str, str | float]](), 0
    for each in shown:
        bars.append(_bar(f"{each.name}", at, each.difference_ns, f"{each.group}: {each.meaning}", unit))
        at += each.difference_ns
    total = sum(each.difference_ns for each in both.causes)
    bars.append({**_bar("B − A", 0, total, f"the difference of both: {_small(both.step.name)}", unit), "colour": SUM})
    rows = [[escape(each.name), escape(each.group), *_cause(each, unit)] for each in both.causes]
    sums = [sum(getattr(each, name) for each in both.causes) for name in ("a_ns", "b_ns", "difference_ns")]
    texts = unit.text(sums[0]), unit.text(sums[1]), unit.signed(sums[2])
    rows.append([f"<b>{escape(_small(both.step.name))}</b>", "", *(f"<b>{text}</b>" for text in texts)])
    side = table(("Part", "Of", "A", "B", "B − A"), rows, text_columns=(0, 1))
    groups = ", ".join(f"{name} {unit.signed(ns)}" for name, ns in both.groups.items() if unit.signed(ns) != "0")
    return Section(
        "causes", "What makes the difference", f"By cause: {escape(groups)}. Parts add up to the nanosecond.",
        f'<div class="two">{plot("causes", "the difference by cause")}{side}</div>',
        {"bars": bars, "unit": unit.name},
    )  # fmt: skip


def _bar(name: str, at: int, length: int, meaning: str, unit: Unit) -> dict[str, str | float]:
    """At and as long as in the unit."""
    colour, one = MORE if length >= 0 else LESS, NS_PER_S * unit.seconds
    text = unit.signed(length)
    return {"name": name, "base": at / one, "length": length / one, "text": text, "meaning": meaning, "colour": colour}


def _timelines(both: Comparison) -> Section | None:
    """Both on one axis: A's positions, a free row, B's."""
    steps = [each.steps for each in both.steps or ()]
    if not steps or not all(len(each) for each in steps):
        return None
    rows = [timeline.with_idle(each, np.full(len(each), -1)) for each in steps]
    idle = [[f"idle {percent(share)}" for share in timeline.idle_shares(each)] for each in rows]
    rows[1]["position"] = rows[1]["position"] + len(idle[0]) + 1
    for each in rows:
        each["price"] = np.full(len(each["start"]), -1)
    shown = np.unique(np.concatenate([each["kind"] for each in rows])).tolist()
    keys = legend((STEPS[kind].name, STEPS[kind].colour) for kind in shown)
    data = {
        "table": pack({name: np.concatenate([each[name] for each in rows]) for name in rows[0]}),
        "kinds": [kind._asdict() for kind in STEPS], "idle": IDLE, "bars": timeline.BARS_IN_VIEW, "prices": [],
        "mixes": [], "margin": [*idle[0], "", *idle[1]], "ranks": [],
        "names": [*_positions("A", len(idle[0])), "", *_positions("B", len(idle[1]))],
    }  # fmt: skip
    body = f'<div class="row">{keys}{controls("timeline", "step")}</div>'
    body += plot("timeline", "timelines of both runs, one above the other")
    return Section("timeline", "Timelines", f"A above B, from the start of the step. {timeline.LEAD}", body, data)


def _positions(letter: str, count: int) -> list[str]:
    return [f"{letter}, position {position}" for position in range(count)]


def _memories(both: Comparison) -> Section | None:
    if not both.memory or both.steps is None:
        return None
    colours = {name: PARTS[i % len(PARTS)] for i, name in enumerate(both.memory)}
    worst = [max(each.memory, key=lambda curve: curve.peak_bytes) for each in both.steps]
    rows = [[escape(name), *map(escape, cells)] for name, *cells in _memory(both)]
    whole_ = [sum(pair[i] for pair in both.memory.values()) for i in (0, 1)]
    rows.append([f"<b>{each}</b>" for each in _bytes("peak", whole_[0], whole_[1])])
    where = " and ".join(f"{k}'s at position {each.position}" for k, each in zip(LETTERS, worst, strict=True))
    data = {
        "parts": [[name, colours[name], *pair] for name, pair in both.memory.items()],
        "capacities": [each.capacity_bytes for each in worst],
    }
    side = table(("Part", "A", "B", "B − A"), rows)
    body = f'{legend(colours.items())}<div class="two">{plot("memories", "peak memory of both by part")}{side}</div>'
    lead = f"What fills a device at the highest peak of each: {where}. The dashed lines are the devices' capacities."
    return Section("memories", "Memory", lead, body, data)


def _keys(both: Comparison) -> Section:
    rows = [[f"<code>{escape(each.key)}</code>", escape(_short(each.a)), escape(_short(each.b))] for each in both.keys]
    lead = "Keys of the resolved scenarios, names and outputs aside." if rows else "No key differs."
    return Section("keys", "What differs", lead, table(("Key", "A", "B"), rows, (0, 1, 2)) if rows else "")
