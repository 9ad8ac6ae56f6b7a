"""What a step hangs on: a tornado, crossings, and keys that do nothing; as a page and in a terminal."""

from html import escape
from typing import IO, Any

from hwmodels.units import PERCENT
from reports import terminal
from reports.amounts import amount
from reports.headline import percent
from reports.page import whole
from reports.palette import PARTS
from reports.section import Section, folded, legend, plot, table
from sim.result import title
from sim.result.sensitivity import PRICE, STEP, Crossing, Move, Point, Sensitivity

TITLE, OTHERS = "What the step hangs on", "What the run hangs on"
SHOWN = 24
"""Moves in the picture and in a terminal; the rest are folded away."""
PRICES = " Prices are classes of kernels, moved as times."
BRACKETS = ", in brackets 90 % of draws of all prices, the same at less and at more"
NOTHING = 5e-5
"""A smaller part of the step is shown as none."""


def verdict(answer: Sensitivity) -> str:
    """The answer in a line: what it hangs on most, and what takes over next."""
    words = []
    keys = [move for move in answer.moves if move.kind != PRICE and not move.key.startswith("batch.")]
    if keys:
        first = keys[0]
        aside = ", its batch aside," if answer.moves[0].key.startswith("batch.") else ""
        point = max(first.points, key=lambda each: abs((each.value or 0.0) - first.value))
        now = amount(first.value, answer.unit)
        what = f"The step of {now}" if answer.figure == STEP else f"{answer.called} ({now}):"
        words.append(f"{what} hangs most{aside} on {first.key}: at {point.text} it is "
                     f"{_moved(first, point, answer.unit)}.")  # fmt: skip
    words += [takes_over(each) for each in answer.crossings[:1]]
    return " ".join(words) or f"No key moves the {_small(answer.called)}."


def _small(name: str) -> str:
    """A figure's name inside a sentence."""
    first = name.partition(",")[0]
    return f"{first[:1].lower()}{first[1:]}"


def takes_over(each: Crossing) -> str:
    """A crossing as a sentence."""
    side = "below" if each.below else "above"
    if each.room:
        return f"It {'does' if each.binds else 'would'} not fit with {each.key} below {each.text} (now {each.base})."
    if each.key.startswith("batch.") and each.binds:
        return f"Below {each.key} of {each.text} (now {each.base}) more of the step is what does not go with it."
    if each.binds:
        return f"{each.key} binds now ({each.base}), {side} {each.text}."
    much = abs(each.factor - 1)
    far = percent(much) if each.below else f"{each.factor:.3g} times"
    return f"{each.key} takes over {side} {each.text} ({far} {'less' if each.below else 'as much'}; now {each.base})."


def _moved(move: Move, point: Point, unit: str) -> str:
    """How a point moves the figure."""
    if point.value is None:
        return "refused"
    share = point.value / move.value - 1
    if abs(share) < NOTHING:
        return "as long"
    ways = ("longer", "shorter") if unit in ("seconds", "days") else ("more", "less")
    return f"{abs(share) / PERCENT:.1f} % {ways[share < 0]}"


def _signed(move: Move, point: Point) -> str:
    if point.value is None:
        return "refused"
    share = point.value / move.value - 1
    if not share:
        return "0"
    return f"{'−' if share < 0 else '+'}{abs(share) / PERCENT:.2f} %"


def _elastic(move: Move) -> str:
    value = move.elasticity
    if value is None:
        return ""
    return _three(value) + (f" ({_three(move.ends[0])} to {_three(move.ends[1])})" if move.ends else "")


def _three(value: float) -> str:
    return f"{'−' if value < 0 else '+'}{abs(value):.3f}" if abs(value) >= NOTHING else "0"


def _rows(answer: Sensitivity) -> list[list[str]]:
    """A row a move: its key, value, how less and more move the step, and its elasticity."""
    return [
        [each.key, each.base if each.kind != PRICE else "price", *_sides(answer, each), _elastic(each)]
        for each in answer.moves
    ]


def _head(answer: Sensitivity) -> list[str]:
    return ["key", "now", *(f"{factor:.4g} x" for factor in answer.by), "elasticity"]


def show(answer: Sensitivity, stream: IO[str]) -> None:
    """Print what the page says in words."""
    rows = _rows(answer)
    parts = [terminal.Cells(_head(answer), rows[:SHOWN], (1, 2, 3, 4))] if rows else []
    more = [f"and {len(rows) - SHOWN} keys that move it less"] if len(rows) > SHOWN else []
    terminal.tables(stream, (title.of(answer.base.summary),), verdict(answer), parts, [*more, *remarks(answer)])


def _breaking(key: str) -> str:
    """A dotted key as HTML that a narrow page breaks behind its dots."""
    return escape(key).replace(".", ".<wbr>")


def _sides(answer: Sensitivity, move: Move) -> list[str]:
    """How either side moves the step; where its value is a whole number near that, also at which."""
    near = [
        (point, abs(point.factor - by) < NOTHING) for point, by in zip((move.less, move.more), answer.by, strict=True)
    ]
    return [_signed(move, point) + ("" if exact else f" at {point.text}") for point, exact in near]


def remarks(answer: Sensitivity) -> list[str]:
    """Lines: further crossings, keys that take over nowhere, that do nothing, and that could not be moved."""
    lines = [takes_over(each) for each in answer.crossings[1:]]
    if answer.unreached:
        lines.append(f"{_reach(answer)}: {', '.join(answer.unreached)}.")
    if answer.idle:
        lines.append(f"Does nothing to the {_small(answer.called)} at these values: {', '.join(answer.idle)}.")
    return lines + [f"Could not be moved: {each}" for each in answer.stuck]


def _reach(answer: Sensitivity) -> str:
    """How far was looked."""
    times = f"{answer.far:g} times worse (latencies {answer.farther:g} times)"
    return f"Takes over nowhere up to {times}, or as far as is legal"


# --- the page ---------------------------------------------------------------------------------------------------------


def render(answer: Sensitivity) -> str:
    """The page, as HTML text."""
    parts = [made for made in (_tornado(answer), _crossings(answer), _idle(answer)) if made]
    heading = TITLE if answer.figure == STEP else OTHERS
    run = escape(title.of(answer.base.summary))
    header = (
        f'<p class="brand">Trainyard</p><h1>{heading}</h1><p class="sub run">{run}</p>'
        f'<p class="verdict">{escape(verdict(answer))}</p>'
    )
    return whole(heading, header, parts)


def _tornado(answer: Sensitivity) -> Section | None:
    if not answer.moves:
        return None
    less, more = (f"{abs(factor - 1) / PERCENT:.3g} %" for factor in answer.by)
    drawn = BRACKETS if any(each.ends for each in answer.moves) else ""
    lead = (
        f"Each key by itself {less} less and {more} more (whole numbers as near as is legal), everything else as it "
        f"is: {answer.runs} runs with one seed. Elasticity: percent of the {_small(answer.called)} for a percent of "
        f"the key{drawn}.{PRICES if any(each.kind == PRICE for each in answer.moves) else ''}"
    )
    bars = [
        {"name": each.key, "ends": [_bar(each, each.less, answer.unit), _bar(each, each.more, answer.unit)]}
        for each in answer.moves[:SHOWN]
    ]
    rows = [[_breaking(key), *map(escape, cells)] for key, *cells in _rows(answer)]
    side = folded(_head(answer), rows, SHOWN, (0,), "that move it less")
    body = legend([("the key at less", SIDES[0]), ("the key at more", SIDES[1])])
    body += plot("tornado", f"how far each key moves the {_small(answer.called)}") + side
    title_ = f"change of the {_small(answer.called)}"
    return Section("tornado", "Tornado", lead, body, {"bars": bars, "colours": SIDES, "title": title_})


SIDES = (PARTS[1], PARTS[0])
"""Colours of less and of more of a key, which are neither better nor worse."""


def _bar(move: Move, point: Point, unit: str) -> dict[str, Any]:
    share = 0.0 if point.value is None else point.value / move.value - 1
    return {"share": share, "text": f"{move.key} at {point.text} (now {move.base}): {_moved(move, point, unit)}"}


def _crossings(answer: Sensitivity) -> Section | None:
    if not answer.crossings and not answer.unreached:
        return None
    rows = [
        [f"<code>{_breaking(each.key)}</code>", escape(each.base), f"{'below' if each.below else 'above'} "
         f"{escape(each.text)}", f"{each.factor:.3g}", _state(each)]
        for each in answer.crossings
    ]  # fmt: skip
    lead = (
        f"Where a key takes over: from there on a percent of it moves the {_small(answer.called)} by half a percent or "
        "more, so more hangs on it than on everything else together. Nearest first."
    )
    body = table(("Key", "Now", "Binds", "Of now", ""), rows, (0, 4)) if rows else ""
    if answer.unreached:
        body += (
            f'<p class="lead after">{_reach(answer)}: '
            f"{', '.join(f'<code>{_breaking(key)}</code>' for key in answer.unreached)}.</p>"
        )
    return Section("crossings", "What takes over next", lead, body)


def _state(each: Crossing) -> str:
    if each.room:
        return "does not fit now" if each.binds else "does not fit"
    return "binds now" if each.binds else "next"


def _idle(answer: Sensitivity) -> Section | None:
    if not answer.idle and not answer.stuck:
        return None
    lines = [f"<code>{_breaking(key)}</code>" for key in answer.idle]
    body = f'<p class="lead">{", ".join(lines)}</p>' if lines else ""
    body += "".join(f'<p class="lead">Could not be moved: {escape(each)}</p>' for each in answer.stuck)
    return Section(
        "idle", "Keys that do nothing", f"At these values they do not move the {_small(answer.called)} at all.", body
    )
