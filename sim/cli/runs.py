"""The command `validate --runs`: published training runs beside simulated ones."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from hwmodels.refused import Refused
from sim.cli.command import BUG, DONE, Parser, executor, heard, progress

if TYPE_CHECKING:
    from sim.validation.runs.outcome import Outcome
    from sim.validation.runs.rows import Run


def runs(words: list[str]) -> int:
    """A table a family goes to stdout (--format json: a value a row), a row a run to --out; --write renews
    docs/RUNS.md, its chart and the README's table in a checkout (of unseen_runs.csv docs/UNSEEN.md), --learn what the
    second part of intervals is."""
    from sim.result.folder import writing
    from sim.validation.runs import rows, table, unseen
    from sim.validation.runs.outcome import FAILED

    parser = Parser()
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--family", action="append")
    parser.runs()
    parser.add_argument("--out", type=Path)
    parser.add_argument("--format", choices=("text", "json"), default="text")
    for flag in ("--write", "--learn", "--rival"):
        parser.add_argument(flag, action="store_true")
    args = parser.parse_args(words)
    where = executor(args)
    every = given = rows.read(Path(args.runs))
    if args.family:
        given = _of_families(given, args.family)
        if args.write or args.learn:
            raise Refused(f"--{'learn' if args.learn else 'write'} takes all rows of a file; leave out --family")
    if args.learn:
        unseen.spared(every)
    if args.out and args.out.suffix != ".csv":
        raise Refused(f"{args.out}: --out of validate --runs is a file that ends in .csv")
    outcomes = _outcomes(list(rows.asked(given)), where, args.rival or args.write)
    if args.learn:
        outcomes = _learn(args.runs, outcomes)
    outcomes = _owned(args.runs, outcomes)
    json_ = args.format == "json"
    print(json.dumps(table.plain(given, outcomes), indent=1) if json_ else table.text(given, outcomes))
    if args.out:
        with writing(args.out):
            args.out.parent.mkdir(parents=True, exist_ok=True)
            args.out.write_text(table.written(given, outcomes), encoding="utf-8")
    if args.write:
        _write(args.runs, every, outcomes)
    return BUG if any(each.refused.startswith(FAILED) for each in outcomes) else DONE


def _write(file: Path, given: "tuple[Run, ...]", outcomes: "list[Outcome]") -> None:
    """The pages of training runs; of the blind set its own, which is of the first look."""
    from sim.validation.runs import pages, rows, unseen

    blind = file.resolve() == rows.UNSEEN.resolve()
    for path in unseen.write(given, outcomes) if blind else pages.write(given, outcomes, _answer):
        print(f"written to {path}", file=sys.stderr)


def _answer() -> list[str]:
    """The answer of the reference run, as a terminal shows it."""
    from io import StringIO

    from reports.terminal import show
    from sim.scenario import load
    from sim.simulation import run

    shown = StringIO()
    show(run(load("v3_2048gpu", ["outputs=[result]"])), shown)
    return [line.rstrip() for line in shown.getvalue().splitlines()]


def _learn(file: Path, outcomes: "list[Outcome]") -> "list[Outcome]":
    """Write what these runs say that the model leaves out, and tell how well that holds; the runs with intervals as
    they now are."""
    from sim.analysis import left_out
    from sim.result.folder import writing
    from sim.validation.runs import record
    from sim.validation.runs.outcome import renewed

    content = record.record(file, outcomes)
    with writing(left_out.FILE):
        left_out.FILE.write_text(record.text(content), encoding="utf-8")
    left_out.learned.cache_clear()
    print(record.kept(content), f"written to {left_out.FILE}", sep="\n", file=sys.stderr)
    return [renewed(each) for each in outcomes]


def _owned(file: Path, outcomes: "list[Outcome]") -> "list[Outcome]":
    """With intervals of their own, where the file is not the one that those which ship were learned on."""
    from sim.validation.runs import own, record

    if not outcomes or record.digest(file) == record.held().get("runs", {}).get("digest"):
        return outcomes
    owned, lines = own.owned(outcomes)
    print(*lines, sep="\n", file=sys.stderr)
    return owned


def _of_families(given: "tuple[Run, ...]", names: list[str]) -> "tuple[Run, ...]":
    from hwmodels.document import unknown

    known = dict.fromkeys(run.family for run in given)
    if wrong := [name for name in names if name not in known]:
        raise Refused(f"--family: {unknown(wrong[0], 'family', known)}")
    return tuple(run for run in given if run.family in names)


def _outcomes(asked: "list[Run]", where: str, beside: bool) -> "list[Outcome]":
    """Of all rows in their order, with the rate and the time left on stderr while they run."""
    from sim.validation.runs.outcome import outcomes

    shown = sys.stderr.isatty()
    hear = heard(shown, "rows")
    so_far = lambda done: hear("run", done, len(asked))
    order = {run.id: place for place, run in enumerate(asked)}
    try:
        return sorted(outcomes(asked, where, so_far, beside), key=lambda each: order[each.run.id])
    finally:
        progress("", shown)
