"""The command `validate --runs`: published training runs beside simulated ones."""

import argparse
import sys
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

from hwmodels.refused import Refused
from hwmodels.units import SECONDS_PER_MINUTE
from sim.cli.command import BUG, DONE, progress

if TYPE_CHECKING:
    from sim.validation.runs.outcome import Outcome
    from sim.validation.runs.rows import Run


def runs(args: argparse.Namespace) -> int:
    """A table a family goes to stdout, a row a run to --out; --write renews docs/RUNS.md of a checkout."""
    from sim.result.folder import writing
    from sim.validation.runs import page, rows, table
    from sim.validation.runs.outcome import FAILED

    if args.jobs < 1:
        raise Refused(f"--jobs expects a whole number, 1 or more; found {args.jobs}")
    given = rows.read(Path(args.runs))
    if args.family:
        given = _of_families(given, args.family)
    if args.out and args.out.suffix != ".csv":
        raise Refused(f"{args.out}: --out of validate --runs is a file that ends in .csv")
    outcomes = _outcomes(list(rows.asked(given)), args.jobs)
    print(table.text(given, outcomes))
    if args.out:
        with writing(args.out):
            args.out.parent.mkdir(parents=True, exist_ok=True)
            args.out.write_text(table.written(given, outcomes), encoding="utf-8")
    if args.write:
        page.PAGE.write_text(page.page(given, outcomes), encoding="utf-8")
        print(f"written to {page.PAGE}", file=sys.stderr)
    return BUG if any(each.refused.startswith(FAILED) for each in outcomes) else DONE


def _of_families(given: "tuple[Run, ...]", names: list[str]) -> "tuple[Run, ...]":
    from hwmodels.document import unknown

    known = dict.fromkeys(run.family for run in given)
    if wrong := [name for name in names if name not in known]:
        raise Refused(f"--family: {unknown(wrong[0], 'family', known)}")
    return tuple(run for run in given if run.family in names)


def _outcomes(asked: "list[Run]", jobs: int) -> "list[Outcome]":
    """Of all rows in their order, with the rate and the time left on stderr while they run."""
    from sim.validation.runs.outcome import outcomes

    start, shown = monotonic(), sys.stderr.isatty()

    def so_far(done: int) -> None:
        each = (monotonic() - start) / done
        left = (len(asked) - done) * each / SECONDS_PER_MINUTE
        progress(f"{done} of {len(asked)} rows, {each:.2f} s each, {left:.1f} min left", shown)

    order = {run.id: place for place, run in enumerate(asked)}
    try:
        return sorted(outcomes(asked, jobs, so_far), key=lambda each: order[each.run.id])
    finally:
        progress("", shown)
