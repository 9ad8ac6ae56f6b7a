"""Commands on many runs: a sweep, and a study, which is a sweep that ships with a page that tells it."""

import argparse
import sys
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from hwmodels.refused import Refused
from sim.cli.command import BUG, DONE, INTERRUPTED, WRONG, Parser, executor, heard, progress

if TYPE_CHECKING:
    from sim.experiments.record import Record
    from sim.experiments.sweep import Sweep


def sweep(words: list[str]) -> int:
    args = _sweep_parser().parse_intermixed_args(words)
    if not args.words:
        raise Refused("a sweep file is missing, e.g. scenarios/sweeps/stragglers.yaml; see python -m sim --help")
    return _swept(args, Path(args.words[0]))[1]


def study(words: list[str]) -> int:
    from reports.studies.page import STUDIES, check, renew
    from sim.scenario.shelves import SCENARIOS

    parser = _sweep_parser()
    parser.add_argument("--docs", type=Path, default=Path("docs"))
    args = parser.parse_intermixed_args(words)
    if not args.words or args.words[0] not in STUDIES:
        problem = f"unknown study {args.words[0]!r}" if args.words else "a study is missing"
        raise Refused(f"{problem}; legal: {', '.join(STUDIES)}")
    name = args.words[0]
    check(name, args.docs)
    points, code = _swept(args, SCENARIOS / "sweeps" / f"{name}.yaml")
    if code == DONE:
        print("written:", *renew(name, list(points), _published(), args.docs))
    return code


def _published() -> dict[str, float]:
    """Figures that studies compare with, by id, in the units of scenarios/published."""
    from sim.validation.predictions import published

    rows = (row for name in ("deepseek_v3", "profile") for row in published(name)["rows"])
    return {row["id"]: float(row["value"]) for row in rows}


def _sweep_parser() -> Parser:
    parser = Parser(worded=True)
    parser.runs()
    parser.add_argument("--out", type=Path)
    parser.add_argument("-q", "--quiet", action="store_true")
    return parser


def _place(args: argparse.Namespace, path: Path) -> tuple[str, Path]:
    """Where a sweep runs, and the file of its runs. Raises Refused for words that are wrong, and where what stands
    beside that file would be replaced and is not of a sweep."""
    from reports.search import MARK
    from sim.cli import pages
    from sim.experiments import table

    kept = args.out or Path("out", "sweeps", f"{path.stem}.jsonl")
    where = executor(args)
    if kept.suffix != ".jsonl":
        raise Refused(f"{kept}: --out of a sweep is a file that ends in .jsonl")
    table.check_table(kept)
    if kept.parent.is_dir():  # else the file of runs says what is wrong with it
        pages.check(kept.parent, {kept.with_suffix(".html").name: MARK})
    return where, kept


def _swept(args: argparse.Namespace, path: Path) -> "tuple[Iterable[tuple[dict[str, str], Record]], int]":
    """Run a sweep, print and write its table. Answers each point's labels with its record, and the exit code."""
    from sim.experiments import sweep, table

    where, kept = _place(args, path)
    shown = not args.quiet and sys.stderr.isatty()
    try:
        plan, hear = sweep.read_sweep(path, args.words[1:]), heard(shown)
        records = sweep.records_of(plan, where, kept, lambda done, all: hear("run", done, all))
        table.write_csv(table.table(plan, records), kept)
        _page(plan, records, kept)
    except KeyboardInterrupt:
        print(f"interrupted; the runs done are in {kept}, and the same command goes on from there", file=sys.stderr)
        return [], INTERRUPTED
    finally:
        progress("", shown)
    print(table.text(list(islice(table.table(plan, records), table.MOST + 1))))
    if len(records) > table.MOST:
        print(f"... and {len(records) - table.MOST:,} more in {kept.with_suffix('.csv')}")
    ran = ((point.labels, entry) for point, entry in zip(plan.points, records, strict=True))
    return ran, _problems(path, plan, records)


def _page(plan: "Sweep", records: "Sequence[Record]", kept: Path) -> None:
    """The page beside a file of runs."""
    from reports.search import MARK, render_sweep
    from sim.cli import pages
    from sim.experiments import table

    text = render_sweep(table.plain(plan, records))
    pages.write(kept.parent, {kept.with_suffix(".html").name: pages.Page(text, MARK)})


def _problems(path: Path, plan: "Sweep", records: "Sequence[Record]") -> int:
    """Tell what did not run, and columns that nothing has; answers the exit code."""
    from sim.experiments import table

    failures, code = dict[str, None](), DONE
    for point, entry in zip(plan.points, records, strict=True):
        if why := table.lack(entry):
            print(f"{path}: {point.title}: {why}", file=sys.stderr)
            code = WRONG if "error" in entry else code
        if "failed" in entry:
            failures[entry["failed"]] = None
    for line in table.empty(plan, records):
        print(f"{path}: {line}", file=sys.stderr)
        code = WRONG
    print(*failures, sep="\n", end="", file=sys.stderr)
    return BUG if failures else code
