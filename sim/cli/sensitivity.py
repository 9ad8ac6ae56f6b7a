"""`python -m sim sensitivity SCENARIO.yaml [key=value ...]`: what a step hangs on, on a page and printed."""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hwmodels.refused import Refused
from hwmodels.units import PERCENT
from sim.cli import pages
from sim.cli.command import Parser, executor, heard, loaded, progress, refusals
from sim.result.archive import figures

if TYPE_CHECKING:
    from sim.result.sensitivity import Sensitivity

PROG = "python -m sim sensitivity"
HELP = """\
usage: python -m sim sensitivity SCENARIO.yaml [key=value ...] [--by 10 | --by 50/100] [--keys KEY,...] [--of FIGURE]
       [--no-crossings] [--no-intervals] [--jobs N | --executor WORD] [--out DIR] [--format text|json] [-q]

What the step hangs on: every number that matters moved by itself (bandwidths, latencies, SMs, peaks, memory, batch,
comm.sms, loads, faults; prices by class), with elasticities; where each would take over; and the keys that do nothing.
Efficiencies of links move with their bandwidths, and what counts parts (GPUs, ports) is left alone. Of a campaign or a
served load every number of its machine and of its file, but for those that say how something is cut.

options:
  --by N | N/M         percent less, and more (default: 10; 50/100 halves and doubles)
  --keys KEY,...       these alone, or all that lie in one, such as cluster.node.nic
  --of FIGURE          of a campaign or a served load: which figure is moved, a word of its searches, such as dollars,
                       ttft or tpot (default: days, or the time of a request)
  --no-crossings       do not look for what takes over: about half of the time
  --no-intervals       no 90 % intervals of elasticities: a third of the time of what is left
  --jobs N             so many runs at a time (default: 1)
  --executor WORD      where they run instead: local:N, or dask:HOST:PORT, a scheduler that `dask scheduler` started
  --out DIR            where sensitivity.html and sensitivity.json go (default: out/sensitivity); other files there stay
  --format text|json   json: print that JSON on stdout instead of tables
  -q, --quiet          no tables and no progress
exit codes: 0 done; 2 wrong input; 70 a bug of ours
"""
MARKS = {"sensitivity.html": "<h1>What the ", "sensitivity.json": '"kind": "sensitivity"'}
"""What tells our files from others of those names."""


def factors(text: str) -> tuple[float, float]:
    """Of less and more, by percent: "10", or "50/100". Raises Refused."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*%?\s*(?:/\s*\+?(\d+(?:\.\d+)?)\s*%?\s*)?", text)
    less, more = (float(each) * PERCENT for each in (match[1], match[2] or match[1])) if match else (0.0, 0.0)
    if not (0 < less < 1 and more > 0):
        raise Refused(f"--by expects percent less than 100, e.g. 10, or less and more, e.g. 50/100; found {text!r}")
    return 1 - less, 1 + more


def sensitivity(words: Sequence[str]) -> int:
    """Run what `words` say; the answer is the exit code."""
    parser = Parser(PROG, worded=True)
    parser.add_argument("--by", default="10")
    parser.add_argument("--keys")
    parser.add_argument("--of", default="")
    parser.add_argument("--no-crossings", action="store_true")
    parser.add_argument("--no-intervals", action="store_true")
    parser.runs()
    parser.add_argument("--out", type=Path, default=Path("out", "sensitivity"))
    parser.tells()
    args = parser.parse_intermixed_args(words)
    by, keys = factors(args.by), tuple(filter(None, (args.keys or "").split(",")))
    if args.keys is not None and not keys:
        raise Refused(f"--keys expects keys with commas between; found {args.keys!r}")
    pages.check(args.out, MARKS)
    answer = _answer(args, by, keys, not args.quiet and sys.stderr.isatty())
    from reports import sensitivity as report

    page, data = report.render(answer), figures(answer.plain())
    return pages.deliver(args, MARKS, page, data, lambda: report.show(answer, sys.stdout))


def _answer(args: argparse.Namespace, by: tuple[float, float], keys: Sequence[str], shown: bool) -> "Sensitivity":
    """All runs. shown: whether progress is."""
    from sim.experiments import kinds
    from sim.experiments.sensitivity import of_kind, sensitivity

    where, crossings = executor(args), not args.no_crossings
    runs = heard(shown, "runs")
    hear = lambda done, expected: runs("done", done, expected)
    try:
        if args.words and kinds.of(args.words[0]):
            with refusals(args.words[0]):
                return of_kind(args.words[0], args.words[1:], by, keys, crossings, hear, where, args.of)
        if args.of:
            raise Refused("--of is of campaigns and served loads; a training step is moved by its time")
        path, scenario = loaded(PROG, args.words)
        with refusals(path):
            return sensitivity(scenario, by, keys, crossings, hear, where, not args.no_intervals)
    finally:
        progress("", shown)
