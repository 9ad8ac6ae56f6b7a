"""`python -m sim compare A [B] [key=value ... [-- key=value ...]]`: two runs side by side, on a page and printed."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from hwmodels.refused import Refused
from sim.cli import pages, traced
from sim.cli.command import Parser, progress
from sim.result.archive import figures

if TYPE_CHECKING:
    from sim.result.comparison import Comparison

PROG = "python -m sim compare"
HELP = """\
usage: python -m sim compare A [B] [key=value ...] [-- key=value ...] [--out DIR] [--format text|json] [-q]
       python -m sim compare A TRACE.json.gz [key=value ...] [--out DIR] [--format text|json] [-q]

Two runs side by side: figures with the 90 % interval of their difference, what makes it by cause, memory by part, both
timelines on one axis, and the keys that differ. A and B are scenarios (files, or names from list) or folders of runs;
campaigns and served loads likewise, each with its own kind.

  compare v3_2048gpu comm.sms=12                       as its file says, and with a change
  compare v3_2048gpu comm.sms=12 -- comm.sms=16        a change, and another one
  compare a.yaml b.yaml                                two scenarios
  compare a.yaml b.yaml seed=1                         two scenarios, both with a change
  compare a.yaml b.yaml -- comm.sms=16                 the second with a change
  compare out/before out/after                         two runs, simulated again as their scenario.yaml says

  compare a.yaml trace.json.gz                         a profiler trace of a step: kernels by kind and shape,
                                                       and in their time (trace.html, trace.json)

The draws are paired: prices that both runs rest on are as wrong in both, so the difference is surer than either.

options:
  --out DIR            where compare.html and compare.json go (default: out/compare); other files there stay
  --format text|json   json: print that JSON on stdout instead of tables
  -q, --quiet          no tables and no progress
exit codes: 0 done; 2 wrong input; 70 a bug of ours
"""
AND = "\0and"
"""Stands for `--` between the words of both."""
MARKS = {"compare.html": "<h1>Two runs compared", "compare.json": '"kind": "comparison"'}
"""What tells our files from others of those names."""


class Side(NamedTuple):
    """One run: a scenario or a folder, and what is changed in it."""

    what: str
    overrides: tuple[str, ...]


def sides(words: Sequence[str]) -> tuple[Side, Side]:
    """Both runs that words name. Raises Refused."""
    if words.count(AND) > 1:
        raise Refused(f"-- stands once, between the changes of A and those of B; see {PROG} --help")
    cut = words.index(AND) if AND in words else len(words)
    before, after = words[:cut], words[cut + 1 :]
    files = [word for word in before if "=" not in word]
    if stray := [word for word in after if "=" not in word]:
        raise Refused(f"after -- expected changes of B, key=value; found {stray[0]!r}")
    if not 1 <= len(files) <= 2:
        raise Refused(f"expected one or two scenarios or folders of runs, found {len(files)}; see {PROG} --help")
    first = tuple(word for word in before if "=" in word)
    if AND in words:
        return Side(files[0], first), Side(files[-1], tuple(after))
    if len(files) == 1 and not first:
        raise Refused(f"expected a second scenario, or changes of the first one, key=value; see {PROG} --help")
    return Side(files[0], first if len(files) == 2 else ()), Side(files[-1], first)


def compare(words: Sequence[str]) -> int:
    """Run what `words` say; the answer is the exit code."""
    parser = Parser(PROG, worded=True)
    parser.add_argument("--out", type=Path, default=Path("out", "compare"))
    parser.tells()
    args = parser.parse_intermixed_args([AND if word == "--" else word for word in words])
    a, b = sides(args.words)
    if b.what.endswith(traced.ENDS):
        return traced.traced(a.what, a.overrides, b.what, args)
    pages.check(args.out, MARKS)
    both = _compared(a, b, not args.quiet and sys.stderr.isatty())
    from reports import comparison

    page, data = comparison.render(both), figures(both.plain())
    return pages.deliver(args, MARKS, page, data, lambda: comparison.show(both, sys.stdout), both.notes)


def _compared(a: Side, b: Side, shown: bool) -> "Comparison":
    """Both simulated. shown: whether progress is."""
    from sim.experiments import compare

    def hear(letter: str, title: str) -> None:
        progress(f"simulating {letter}: {title} ...", shown)

    try:
        return compare.compare(a.what, b.what, (a.overrides, b.overrides), hear=hear)
    finally:
        progress("", shown)
