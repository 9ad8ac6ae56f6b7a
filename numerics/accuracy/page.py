"""The page on prices (docs/PRICES.md): errors per class and rung, against published rates, and what follows.

Every figure on it is computed when the page is made; `python -m numerics accuracy --write` makes it again.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from textwrap import fill

import numpy as np

from hwmodels import tables as calibration
from hwmodels.price import RUNGS
from numerics.accuracy import cards_page, deepgemm, library_page
from numerics.accuracy.errors import (
    Miss,
    Repeat,
    Transfer,
    deviation,
    leave_out,
    points,
    repeats,
    roofline,
    score,
    spread,
    transfers,
)
from numerics.accuracy.markdown import WIDTH, percent, prose, table
from numerics.accuracy.siblings import measured_cards

PAGE = Path(__file__).resolve().parents[2] / "docs" / "PRICES.md"
SIDES = ("product", "attention", "stream", "latency")
HEAD = """
Made by `python -m numerics accuracy --write` from the committed tables; every figure is computed then, and a test
compares the page with what the program writes.

A price comes from a ladder: measured, interpolated, held, transferred, roofline. To see what each rung is worth, rows
are taken out of the H800 tables, all fits are made again without them, and the ladder prices the operation from what
is left. *row*: this row is gone; other row counts of the same kernel remain, some of them nearly the same. *size*:
all rows of its width are gone (a grouped product's N and K, a memory-bound kernel's bytes a row). *class*: all rows
of its class are gone.

Errors are price / measured - 1: the median and 95th percentile of their size, and the error of the sum of the times
("total"), which does not average out. *flat* is the rival: the roofline times one efficiency a class, fitted on the
same remaining rows (of all memory-bound kernels or all products when none of the class remain).
"""
CLASSES = """
Of {rows} rows left out one at a time, products come back with a median error of {products} (flat {flat_products}) and
memory-bound kernels with {memory} (flat {flat_memory}). Attention has one row a direction and nothing to price it by
without it, so its accuracy at other lengths and head counts is not known.
"""
BY_RUNG = """
*product*: all matrix products. *stream*: memory-bound kernels. *latency*: kernels under 20 us or more than five times
their bandwidth bound (index maps, routing, scale transposes). For the rung roofline nothing is measured, and flat is
fitted on all rows, the priced one included.
"""
REPEATS = """
What the rung measured is worth: how one operation differs between the four layers of the profile and between the
places of a layer where its shape comes again, each as if alone. Standard deviations from the range of the samples,
weighed by time. All samples share one GPU, one job and one minute: what is common to them (clocks, temperature, the
rank) is not in these figures; layer 0 of the profile is 3 to 4 % faster than the others. Time stamps are whole
microseconds.
"""
ELSEWHERE = """
DeepGEMM's authors published rates of their kernels alone on all 132 SMs of an H800; the tables come from a training
step on 112. The ladder prices the published shapes on 132 SMs; nothing was fitted to them. Where N and K are in the
tables ({known} figures, masked ones aside) prices are {shift} in the median. What it shows: utilisation a wave
carries over to another number of SMs within that. What it cannot tell apart: the kernel's version, the clocks under a
training step's power, and how a loop over one kernel differs from a step. Versions alone matter as much: the same six
shapes at M = 4096 changed their rate by {least} to {most} in a month. At M = 64 and 128 the ladder is outside what it
knows: the wave model counts tiles of 128 x 128, and these shapes have fewer such tiles than SMs or are bound by
reading weights. The masked rows have 256 to 1,024 rows a group, and no price counts groups. These
figures test other SMs, versions and surroundings; another chip is tested below.
"""
WEAK = """
Most time in the profile is wrong in these ten prices, of those made without the row or its size. Known weak spots:
"""
SPOTS = (
    "a product with few rows (decoding): {few} median, {few_worst} at worst, though its rung says interpolated;",
    "a stream whose other measured rows are small takes their launch time for bandwidth when it is large; one whose "
    "other rows span a narrow range of sizes takes bandwidth for launch time when it is smaller;",
    "index maps, routing and the like, when no row of theirs is left, take the bandwidth of another kind and are wrong "
    "by tens to hundreds of times;",
    "a BF16 product at the utilisation of FP8 ones: {bf16} median, flat {flat_bf16} (three small products only).",
)
SPREADS = """
The relative standard deviation of the true time around a price, so that 90 % lie within 1.645 of it; for the rung
measured, of one run. All gaps together. These are errors of single kernels, many of which average out over a step;
the totals above do not. A multiple (x...) means that the price is none: refuse instead. Roofline errs to one side:
the truth is slower.
"""
ORIGIN = """
The H800 tables hold {count} operations timed on {day} ({source}). {cards} Each table says its device, what is not
known of it and why, digests of its inputs, the command that writes it, and a digest of the program that wrote it: the
definitions reached by name from its entry points, file by file. Comments, docstrings, annotations and layout do not
count, nor does where an import finds what it brings, nor anything that the entry points do not reach.

`python -m numerics calibrate --stale` makes the digests again and lists the tables that another program wrote. A stale
table is not wrong: running its command today may give other figures, so run it and look at the difference. A change
of what a kernel reads or writes, of a fit or of a rounding makes tables stale; a new test or comment does not. Where
files only moved, `python -m numerics calibrate --moved` writes their new places beside the digests they had.
"""


def page() -> str:
    """The page as Markdown."""
    misses, last, seen, elsewhere = leave_out(), roofline(), repeats(), transfers()
    parts = {
        "# How good prices are": prose(HEAD),
        "## By class": _classes(misses),
        "## By rung": _rungs(misses, last),
        "## Repeats": _repeats(seen),
        "## Against published rates": _transfers(elsewhere),
        "## Between devices": cards_page.between(),
        "## Beside communication": cards_page.beside(),
        "## Two libraries of kernels": cards_page.kernels(),
        "## A vendor's kernels": library_page.library(),
        "## Where prices are weak": _weak(misses, elsewhere),
        "## Spreads that follow": _spreads(misses, last, seen, elsewhere),
        "## Where the tables come from": _staleness(),
    }
    return "\n\n".join(f"{title}\n\n{text}" for title, text in parts.items()) + "\n"


def _grouped(misses: Iterable[Miss], key: Callable[[Miss], tuple[object, ...]]) -> dict[tuple[object, ...], list[Miss]]:
    groups: dict[tuple[object, ...], list[Miss]] = defaultdict(list)
    for miss in misses:
        groups[key(miss)].append(miss)
    return groups


def _cells(misses: list[Miss]) -> list[str]:
    s = score(misses)
    return [
        str(s.prices), percent(s.median), percent(s.p95), percent(s.total, True), percent(s.flat_median),
        percent(s.flat_p95),
    ]  # fmt: skip


COLUMNS = "prices | median | p95 | total | flat median | flat p95"


def _classes(misses: list[Miss]) -> str:
    groups = _grouped(misses, lambda m: (m.label, m.gap))
    order = sorted({m.label for m in misses}, key=lambda name: (not name.startswith("product"), name))
    rows = [
        [name, gap, ", ".join(sorted({m.rung for m in groups[name, gap]}, key=RUNGS.index)), *_cells(groups[name, gap])]
        for gap in ("row", "size", "class") for name in order if (name, gap) in groups
    ]  # fmt: skip
    left = [m for m in misses if m.gap == "row"]
    products = score(m for m in left if m.side == "product")
    memory = score(m for m in left if m.side != "product")
    says = prose(
        CLASSES, rows=len(left), products=percent(products.median), flat_products=percent(products.flat_median),
        memory=percent(memory.median), flat_memory=percent(memory.flat_median),
    )  # fmt: skip
    return f"{says}\n\n{table(f'class | gap | rungs | {COLUMNS}', rows)}"


def _rungs(misses: list[Miss], last: list[Miss]) -> str:
    groups = _grouped([*misses, *last], lambda m: (m.rung, m.side, m.gap))
    order = sorted(groups, key=lambda k: (RUNGS.index(str(k[0])), SIDES.index(str(k[1])), str(k[2])))
    rows = [[rung, side, gap, *_cells(groups[rung, side, gap])] for rung, side, gap in order]
    return f"{prose(BY_RUNG)}\n\n{table(f'rung | limited by | gap | {COLUMNS}', rows)}"


def _repeats(seen: list[Repeat]) -> str:
    rows = []
    for side in SIDES:
        these = [r for r in seen if r.side == side]
        rows.append([side, len(these), percent(deviation(these)), percent(deviation(these, of_median=True))])
    return f"{prose(REPEATS)}\n\n{table('limited by | rows | one run | median of the row', rows)}"


def _regimes(elsewhere: list[Transfer]) -> dict[str, list[Transfer]]:
    regimes: dict[str, list[Transfer]] = defaultdict(list)
    for t in elsewhere:
        regimes[t.what.regime].append(t)
    return regimes


def _transfers(elsewhere: list[Transfer]) -> str:
    rows = []
    for regime, group in _regimes(elsewhere).items():
        error = [t.error for t in group]
        flat = percent(float(np.median([abs(t.flat_error) for t in group])))
        low, middle, high = (percent(float(x), True) for x in (min(error), np.median(error), max(error)))
        rows.append([regime, len(group), sum(t.known for t in group), low, middle, high, flat])
    known = [t for t in elsewhere if _known(t)]
    shift, moved = float(np.median([t.error for t in known])), _moved(elsewhere)
    says = prose(
        ELSEWHERE, known=len(known), shift=percent(shift, True), least=percent(min(moved), True),
        most=percent(max(moved), True),
    )  # fmt: skip
    head = "regime | figures | of known N, K | least | median | largest | flat median"
    return f"{says}\n\n{table(head, rows)}"


def _known(t: Transfer) -> bool:
    return t.known and "masked" not in t.what.regime


def _moved(elsewhere: list[Transfer]) -> list[float]:
    """Change of the published rate of one shape between the two tables."""
    first = {t.what.op: t.what.tflops for t in elsewhere if t.what.regime.endswith("first")}
    dense = [t for t in elsewhere if t.what.date == deepgemm.UPDATED and t.what.regime.startswith("dense")]
    return [t.what.tflops / first[t.what.op] - 1 for t in dense]


def _weak(misses: list[Miss], elsewhere: list[Transfer]) -> str:
    rows = [m for m in misses if m.gap != "class"]
    worst = sorted(rows, key=lambda m: -abs(m.priced_us - m.us) * m.samples)[:10]
    worst_rows = table(
        "class | limited by | gap | rung | measured us | priced us | error",
        ([m.label, m.side, m.gap, m.rung, f"{m.us:.1f}", f"{m.priced_us:.1f}", percent(m.error, True)] for m in worst),
    )
    small = [abs(t.error) for t in elsewhere if "M = 64" in t.what.regime or "M = 128" in t.what.regime]
    bf16 = score(m for m in misses if m.label == "product, BF16")
    figures = {
        "few": percent(float(np.median(small))), "few_worst": percent(max(small)), "bf16": percent(bf16.median),
        "flat_bf16": percent(bf16.flat_median),
    }  # fmt: skip
    spots = "\n".join(fill("- " + spot.format(**figures), WIDTH, subsequent_indent="  ") for spot in SPOTS)
    return f"{prose(WEAK)}\n\n{spots}\n\n{worst_rows}"


def spreads(
    misses: list[Miss], last: list[Miss], seen: list[Repeat], elsewhere: list[Transfer]
) -> dict[tuple[str, str], tuple[int, float]]:
    """(rung, side) -> number of prices, relative standard deviation of the truth around them."""
    out = {("measured", s): (len(r), deviation(r)) for s in SIDES if (r := [x for x in seen if x.side == s])}
    for rung in RUNGS[1:]:
        for side in SIDES:
            group = [m for m in [*misses, *last] if (m.rung, m.side) == (rung, side)]
            if group:
                out[rung, side] = len(group), score(group).spread
    known = [t for t in elsewhere if _known(t)]
    out["interpolated", "product, other SMs and version"] = len(known), spread((t.us, t.priced_us) for t in known)
    few = [t for t in elsewhere if t.what.regime in ("dense, M = 64", "dense, M = 128")]
    out["interpolated", "product, few rows"] = len(few), spread((t.us, t.priced_us) for t in few)
    return out


def _spreads(misses: list[Miss], last: list[Miss], seen: list[Repeat], elsewhere: list[Transfer]) -> str:
    by_rung = spreads(misses, last, seen, elsewhere)
    rows = [[rung, side, n, percent(value)] for (rung, side), (n, value) in sorted(by_rung.items(), key=_order)]
    return f"{prose(SPREADS)}\n\n{table('rung | limited by | prices | spread', rows)}"


def _order(item: tuple[tuple[str, str], object]) -> tuple[int, int, str]:
    rung, side = item[0]
    return RUNGS.index(rung), SIDES.index(side.split(",")[0]), side


def _staleness() -> str:
    tables = calibration.load("h800")
    day = _said(tables.device)["measured"]
    return prose(ORIGIN, count=len(points(tables)), day=day, source=tables.source, cards=_cards())


def _said(device: str) -> dict[str, str]:
    """Provenance of a device's products."""
    text = (calibration.FOLDER / device / "gemm.json").read_text(encoding="utf-8")
    said: dict[str, str] = json.loads(text)["provenance"]
    return said


def _cards() -> str:
    rows = [(name, len(points(calibration.load(name))), _said(name)) for name in measured_cards()]
    each = (f"{said['device']}: {count} operations at {said['measured'][:10]}" for name, count, said in rows)
    return f"Of this repository's kernels on a card: {'; '.join(each)}."
