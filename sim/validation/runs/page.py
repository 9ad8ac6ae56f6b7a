"""docs/RUNS.md: published training runs beside simulated ones."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import exp
from pathlib import Path
from statistics import median
from typing import Any

from hwmodels.units import GIGA, PERCENT
from sim.analysis import left_out
from sim.result.markdown import table as markdown
from sim.validation.records import RUNS_END, RUNS_START
from sim.validation.runs import record, table, views, words
from sim.validation.runs.outcome import Outcome
from sim.validation.runs.rows import Run

FINDINGS = Path(__file__).parent / "findings.md"
"""What the figures say, by hand."""
HEAD = """\
# Published training runs, simulated

Written by `python -m sim validate --runs scenarios/published/training_runs.csv --write`. Each row is a run (or a
published figure of one) with its source; a program makes a scenario of it (`sim/validation/runs`), a committed table
says what its words mean (`words.yaml`), and what it does not say is left to defaults. No step, memory or throughput of
these rows is an input of any prediction: steps are predicted and compared. What the errors come to enters the 90 %
interval alone ([below](#intervals)).

![Predicted over measured, run by run](runs.svg)
"""
WORDS = """\
- *asked*: rows with a full layout, a step time and confidence above low. *ran*: of those, simulated. *layouts*: of
  those, each once, however many releases ran it.
- *median error*: over layouts, of |simulated / measured - 1|; *signed*: without the bars, so below zero is too fast.
- *inside 90 %*: runs whose measured step lies in the 90 % interval, learned on all runs; *rival*: the median error of a
  closed form of an afternoon (`sim/validation/rival.py`), as `--rival` prints it.
- *too large*: runs that need more memory here than their GPUs have, which did run.
- *unsaid*: keys that matter to a row and that it does not say, the median.
"""
NOISE = """\
## What no prediction can beat

- The same configuration run again: 0.33 % in the median, 1.1 % at nine of ten (60 MLPerf directories). Inside a run the
  slowest tenth of steps takes 1.9 % longer than the fastest, in the median.
- The same configuration at another vendor: 0.4 % (64 B200s, Llama 3.1 8B) to 9 % (72 GB300s); three sites with one
  recipe differ by 3.7 %.
- The same configuration in another release: dense 2.1 % in the median and 6.2 % at nine of ten, mixtures 1.6 % and
  30 % (Qwen3-30B on H100s: +77 % and -50 %).
- Three releases round tokens a second to multiples of 16, up to 2 %.
"""
INTERVALS = """\
## Intervals

An interval has two parts: prices as uncertain as their sources say, and what the model leaves out. The second is
learned by `--learn` on the errors of such runs (`sim/validation/runs/learn.py`, `sim/analysis/left_out.json`), a layout
once; it moves no prediction. How large it is goes by what is known of a run before it is measured: a mixture or dense,
deciding keys that it leaves open (or for which something else stands here), how far its step stays below half of the
BF16 peak, and in dense models what nobody timed (Mamba-2's scan, windows and sinks in attention, NVFP4, the merging of
torch's ring). These four are fitted to the median of remainders, and none makes a run surer. How many such sizes an
interval reaches to a side holds nineteen of twenty runs of a kind, each by the size that the other families teach
(conformal prediction, families in place of runs); a stack is stretched until four of five of each family of 20 rows or
more that ran it lie inside. So each family below was judged by what the others teach; the last column has reach and
stretch by the others alone too, and stands best for runs that nobody has seen. *down to*, *up to*: where prices are
sure, of a stack that nothing stretches.
"""
REACHES = ((0, 0.5), (1, 0.5), (2, 0.5), (1, 0.25), (3, 0.25))
"""Deciding keys unsaid and MFU of the runs whose reach is shown."""
MEMORY_NOTE = """\
Simulated: the fullest rank. Published: one rank's, or the largest, as allocated where the source gives both; a context
and libraries are in some of them.
"""
SCHEDULES = """\
## Schedules

The rows of Primus (family `primus`) give ratios between schedules and memory, but no batch: nothing here can say how
many micro-batches they had, so none is asked.
"""


def page(rows: Sequence[Run], outcomes: Sequence[Outcome]) -> str:
    """The page."""
    parts = [
        HEAD, RUNS_START + sixths(outcomes) + RUNS_END, "", WORDS,
        "## By family\n", markdown(table.HEAD, map(table.cells, table.totals(rows, outcomes))),
        "\n" + NOISE, INTERVALS, _intervals(),
        "\n## By kind\n", markdown(("kind", *table.HEAD[2:]), _groups(views.kinds(outcomes))),
        "\n## By layout and precision\n", markdown(("rows with", *table.HEAD[2:]), _groups(views.layouts(outcomes))),
        "\n## Refused\n", markdown(("rows", "why", "such as"), refusals(outcomes)),
        "\n" + _families(rows, outcomes),
        "\n## Pairs that differ in one thing\n", _pairs(outcomes),
        "\n## Strong scaling\n", _strong(outcomes),
        "\n## Weak scaling\n", _weak(outcomes),
        "\n## Memory\n", _memory(outcomes), "", SCHEDULES,
        "## What rows do not say\n", markdown(("key", "rows that leave it to the default"), _unsaid(outcomes)),
        "\n## What rows say that has no key\n", markdown(("rows", "what"), _notes(outcomes)),
        "\n## Furthest off\n", markdown((*table.SHORT, "why"), map(_reasoned, table.worst(outcomes))),
        "\n" + FINDINGS.read_text(encoding="utf-8"),
    ]  # fmt: skip
    return "\n".join(parts)


SIXTHS = ("published runs of", "runs", "layouts", "median error", "signed", "closed form", "inside 90 %")


def sixths(outcomes: Sequence[Outcome]) -> str:
    """The table of the README: a line a kind, then all."""
    groups = [*views.sixths(outcomes), ("all", list(outcomes))]
    return markdown(SIXTHS, (_sixth(table.total(name, len(rows), rows)) for name, rows in groups))


def _sixth(part: table.Sum) -> list[str]:
    inside = f"{part.inside / part.ran:.0%}" if part.ran else ""
    shares = (table.share(part.error, ""), table.share(part.bias, "+"), table.share(part.rival, ""))
    return [part.group, f"{part.ran} of {part.asked}", str(part.layouts), *shares, inside]


def _intervals() -> str:
    """What was learned, and how it does on families that it was not learned on."""
    held = record.held()
    unseen = held["unseen"]["families"]
    families = ([name, str(rows), *(f"{hits} ({hits / rows:.0%})" for hits in (inside, unseen[name][1]))]
                for name, (rows, inside) in held["judged"]["families"].items())  # fmt: skip
    return "\n".join([
        *(f"- {line}" for line in record.kept(held).splitlines()), "",
        markdown(("kind", "runs", "layouts", "what is known", "down to", "up to"), _reaches(held)), "",
        markdown(("family, judged by the others", "ran", "inside 90 %", "all by the others"), families),
    ])  # fmt: skip


def _reaches(held: Mapping[str, Any]) -> Iterator[list[str]]:
    """How far what is left out reaches, of runs of each kind of which more or less is known."""
    known = left_out.learned()
    for kind, side in held["sides"].items():
        of = left_out.Class(kind, next(iter(known.stretch)), "", "")
        for unsaid, mfu in REACHES:
            _, below, above = known.spread(of, unsaid, mfu)
            cells = [kind, str(side["runs"]), str(side["groups"]), f"MFU {mfu:.0%}, {unsaid} unsaid"]
            yield [*cells, *(f"x{exp(end):.2f}" for end in (-below, above))]


def _groups(groups: Iterable[tuple[str, Sequence[Outcome]]]) -> Iterator[list[str]]:
    for name, rows in groups:
        if rows:
            cells = table.cells(table.total(name, len(rows), rows))
            yield [name, *cells[2:]]


def refusals(outcomes: Sequence[Outcome]) -> Iterator[list[str]]:
    """Lines of a table: how many rows were refused, why, and one of them."""
    return ([str(count), why.replace("|", "\\|"), one] for count, why, one in table.reasons(outcomes))


def _families(rows: Sequence[Run], outcomes: Sequence[Outcome]) -> str:
    """Of each family its furthest runs."""
    blocks = ["## The furthest of each family\n"]
    shown = [line for name in dict.fromkeys(run.family for run in rows)
             for line in map(_reasoned, table.worst([o for o in outcomes if o.run.family == name], 3))]  # fmt: skip
    return "\n".join([*blocks, markdown((*table.SHORT, "why"), shown)])


def _reasoned(outcome: Outcome) -> list[str]:
    """A row with the reason why it is off, where it is known."""
    listed: Sequence[Mapping[str, Any]] = words.table("reasons")  # type: ignore[assignment]
    run = outcome.run
    mine = (each["why"] for each in listed if run.id in each.get("rows", ()) or run.family == each.get("family"))
    return [*table.line(outcome), next(mine, "not found")]


def _pairs(outcomes: Sequence[Outcome]) -> str:
    pairs = list(views.pairs(outcomes))
    lines = [[p.what, p.ids, f"{p.measured:+.1%}", f"{p.simulated:+.1%}", "" if p.signed else "wrong"] for p in pairs]
    right = sum(p.signed for p in pairs)
    off = median(abs(p.simulated - p.measured) for p in pairs) if pairs else 0.0
    said = f"{right} of {len(pairs)} signs are right; sizes are off by {off / PERCENT:.1f} points in the median."
    heads = ("change of the step", "rows", "measured", "simulated", "sign")
    return "\n".join([said, "", markdown(heads, lines)])


def _strong(outcomes: Sequence[Outcome]) -> str:
    lines: list[list[str]] = []
    for each in views.strong(outcomes):
        run = each.run
        if each.predicted_s and run.step_s:
            cells = [f"{run.gpus} x {run.gpu}", str(run.sequences), f"{each.predicted_s:.3g}", f"{run.step_s:.4g}"]
            lines.append([*cells, f"{each.error:+.1%}", table.share(each.rival, "+")])
    said = [
        f"From {g.fewest} to {g.most:,} {g.gpu}s x{g.measured:.1f} sequences a second measured, x{g.simulated:.1f} "
        f"simulated{f', x{g.rival:.1f} by the rival' if g.rival else ''}."
        for g in views.gains(outcomes)
    ]  # fmt: skip
    table_ = markdown(("DeepSeek-V3 on", "sequences", "simulated, s", "measured, s", "error", "rival"), lines)
    return "\n".join([*said, "", table_])


def _weak(outcomes: Sequence[Outcome]) -> str:
    series = sorted(views.weak(outcomes))
    lines = [[s.what, f"{s.fewest} to {s.most}", f"{s.measured:+.1%}", f"{s.simulated:+.1%}"] for s in series]
    if not series:
        return ""
    measured, simulated = median(s.measured for s in series), median(s.simulated for s in series)
    said = f"{len(series)} series: {measured:+.1%} measured and {simulated:+.1%} simulated in the median."
    heads = ("as many sequences a GPU", "GPUs", "measured", "simulated")
    return "\n".join([said, "", markdown(heads, lines)])


def _memory(outcomes: Sequence[Outcome]) -> str:
    rows = list(views.memory(outcomes))
    errors = [(each.answer.peak_bytes or 0) / size - 1 for each, size in rows]
    lines = [
        [*(each.run.id, each.run.family, each.run.model), f"{(each.answer.peak_bytes or 0) / GIGA:.1f}",
         f"{size / GIGA:.1f}", f"{error:+.1%}"]
        for (each, size), error in zip(rows, errors, strict=True)
    ]  # fmt: skip
    if not rows:
        return MEMORY_NOTE
    said = f"{len(rows)} runs: median error {median(map(abs, errors)):.1%}, signed {median(errors):+.1%}."
    heads = ("row", "family", "model", "simulated, GB", "published, GB", "error")
    return "\n".join([MEMORY_NOTE, said, "", markdown(heads, lines)])


def _unsaid(outcomes: Sequence[Outcome]) -> Iterator[list[str]]:
    count = Counter(key for each in outcomes for key in each.defaults)
    return ([f"`{key}`", str(number)] for key, number in count.most_common())


def _notes(outcomes: Sequence[Outcome]) -> Iterator[list[str]]:
    count = Counter(note for each in outcomes if each.error is not None for note in each.notes)
    return ([str(number), note.replace("|", "\\|")] for note, number in count.most_common())
