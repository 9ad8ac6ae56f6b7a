"""docs/SERVING.md: published rows beside ours, and what serving depends on."""

from collections.abc import Iterable
from pathlib import Path

from hwmodels.document import read
from hwmodels.units import MS_NS, PERCENT
from sim.result.markdown import table
from sim.scenario.shelves import SCENARIOS
from sim.serving import curves
from sim.serving.curves import ACCEPTANCE, KEYS
from sim.serving.parts import parts
from sim.serving.rows import FILE, Compared, Row, compared, left_out

PAGE = SCENARIOS.parent / "docs" / "SERVING.md"
TEXT = Path(__file__).with_name("page.md")
"""What the page says, with places for tables in braces."""
UNITS = {
    "prefill": "tokens/s a node", "decode": "tokens/s a node", "decode_gpu": "tokens/s a GPU", "gain": "%",
    "ratio": "times", "served": "ms a token", "step": "ms a step", "output": "tokens/s a GPU",
}  # fmt: skip


def page() -> str:
    """The whole page."""
    both = compared()
    errors = sorted(abs(each.error) for each in both if each.row["reading"] != "gain")
    two, grouped = curves.rooms()
    return TEXT.read_text(encoding="utf-8").format(
        rows=_rows(both), parts=_parts(), sources=_sources(),
        left_out=table(("rows", "why not"), left_out().items(), ()),
        count=len(errors), within=sum(error <= 0.1 for error in errors), median=f"{errors[len(errors) // 2]:.0%}",
        overlap=_overlap(), drafts=_drafts(), copies=_copies(), sizes=_sizes(), forms=_forms(), keys=f"{KEYS:,.0f}",
        acceptance=f"{ACCEPTANCE / PERCENT:.0f} %", two=f"{two.sequences:,}", grouped=f"{grouped.sequences:,}",
        two_rate=f"{two.rate:,.0f}", grouped_rate=f"{grouped.rate:,.0f}", times=f"{two.rate / grouped.rate:.1f}",
    )  # fmt: skip


def _rows(both: Iterable[Compared]) -> str:
    head = ("row", "cards, ranks", "published", "ours", "off by", "unit", "note")
    cells = (
        (
            str(row["id"]), _ranks(row), f"{row['value']:,}", _short(ours), _off(row, ours),
            UNITS[row["reading"]], str(row.get("note", "")),
        )
        for row, ours in both
    )  # fmt: skip
    return table(head, cells, numbers=(2, 3, 4))


def _parts() -> str:
    head = ("row", "part of a layer", "published, ms", "ours", "off by, ms")
    cells = (
        (row, name, f"{published:.2f}", "" if ours is None else f"{ours:.2f}",
         "" if ours is None else f"{ours - published:+.2f}")
        for row, name, published, ours in parts()
    )  # fmt: skip
    return table(head, cells, numbers=(2, 3, 4))


def _off(row: Row, ours: float) -> str:
    """By how much we are off: gains by points."""
    if row["reading"] == "gain":
        return f"{ours - row['value']:+.1f} points"
    return f"{ours / row['value'] - 1:+.1%}"


def _ranks(row: object) -> str:
    assert isinstance(row, dict)
    split = [f"{word}{row[key]}" for word, key in (("TP", "tensor"), ("EP", "expert")) if key in row]
    return f"{row['cards']}, {' '.join(split)}{', two micro-batches' * bool(row.get('overlap'))}"


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _sources() -> str:
    return "\n".join(f"- {name}: {text}" for name, text in read(FILE).content["sources"].items())


def _overlap() -> str:
    head = ("sequences a GPU", "one micro-batch, ms", "two, ms", "gain", "half the batch takes, of the whole")
    rows = (
        (str(each.batch), f"{each.one / MS_NS:.1f}", f"{each.two / MS_NS:.1f}", f"{each.one / each.two - 1:+.0%}",
         f"{each.half / each.one:.0%}")
        for each in curves.overlap()
    )  # fmt: skip
    return table(head, rows, numbers=range(5))


def _drafts() -> str:
    rows = ((str(batch), *(f"{gain:.2f}" for gain in gains)) for batch, gains in curves.drafts())
    return table(("sequences a GPU", "1 draft", "2", "3"), rows, numbers=range(4))


def _copies() -> str:
    head = ("most popular expert over the mean", "busiest rank over the mean", "with 32 copies", "decode step gains")
    rows = (
        (f"{1 + above:.1f}", f"{alone:.2f}", f"{copied:.2f}", f"{times:.2f} times")
        for above, alone, copied, times in curves.copies()
    )
    return table(head, rows, numbers=range(4))


def _sizes() -> str:
    head = ("sequences a GPU", "EP16, tokens/s a GPU", "EP32", "EP32 over EP16")
    rows = (
        (str(batch), f"{one:,.0f}", f"{other:,.0f}", f"{other / one:.2f} times") for batch, one, other in curves.sizes()
    )
    return table(head, rows, numbers=range(4))


def _forms() -> str:
    rows = ((f"{queries:,}", f"{one:,.0f}", f"{other:,.0f}") for queries, one, other in curves.forms())
    return table(("new tokens", "absorbed, us", "plain, us"), rows, numbers=range(3))
