"""`python -m sim sensitivity SCENARIO.yaml [key=value ...]`: what a step hangs on, on a page and printed."""

import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

from hwmodels.refused import Refused
from hwmodels.units import PERCENT
from sim.cli import pages
from sim.cli.command import Parser, helped, loaded, progress, refusals
from sim.result.archive import figures

if TYPE_CHECKING:
    from sim.result.sensitivity import Sensitivity

PROG = "python -m sim sensitivity"
HELP = """\
usage: python -m sim sensitivity SCENARIO.yaml [key=value ...] [--by 10 | --by 50/100] [--keys KEY,...]
       [--no-crossings] [--out DIR] [--format text|json] [-q]

What the step hangs on: every number that matters moved by itself (bandwidths, latencies, SMs, peaks, memory, batch,
comm.sms, loads, faults; prices by class), with elasticities; where each bandwidth would take over; and the keys that do
nothing. Efficiencies of links move with their bandwidths, and what counts parts (GPUs, ports) is left alone.

options:
  --by N | N/M         percent less, and more (default: 10; 50/100 halves and doubles)
  --keys KEY,...       these alone, or all that lie in one, such as cluster.node.nic
  --no-crossings       do not look for what takes over: about half of the time
  --out DIR            where sensitivity.html and sensitivity.json go (default: out/sensitivity); other files there stay
  --format text|json   json: print that JSON on stdout instead of tables
  -q, --quiet          no tables and no progress
exit codes: 0 done; 2 wrong input; 70 a bug of ours
"""
PAGE, DATA = "sensitivity.html", "sensitivity.json"
MARKS = {PAGE: "<h1>What the step hangs on", DATA: '"kind": "sensitivity"'}
"""What tells our files from others of those names."""
SLOW_S = 2.0
"""Seconds before progress is shown."""


def sensitivity(words: Sequence[str]) -> int:
    """Run what `words` say; the answer is the exit code."""
    return helped(words, HELP, _command)


def factors(text: str) -> tuple[float, float]:
    """Of less and more, by percent: "10", or "50/100". Raises Refused."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*%?\s*(?:/\s*\+?(\d+(?:\.\d+)?)\s*%?\s*)?", text)
    less, more = (float(each) * PERCENT for each in (match[1], match[2] or match[1])) if match else (0.0, 0.0)
    if not (0 < less < 1 and more > 0):
        raise Refused(f"--by expects percent less than 100, e.g. 10, or less and more, e.g. 50/100; found {text!r}")
    return 1 - less, 1 + more


def _command(words: Sequence[str]) -> int:
    parser = Parser(prog=PROG, add_help=False)
    parser.add_argument("words", nargs="*")
    parser.add_argument("--by", default="10")
    parser.add_argument("--keys", default="")
    parser.add_argument("--no-crossings", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("out", "sensitivity"))
    parser.add_argument("--format", choices=("text", "json"), default="text")
    parser.add_argument("-q", "--quiet", action="store_true")
    args = parser.parse_intermixed_args(words)
    by, keys = factors(args.by), tuple(filter(None, args.keys.split(",")))
    pages.check(args.out, MARKS)
    answer = _answer(args.words, by, keys, not args.no_crossings, not args.quiet and sys.stderr.isatty())
    from reports import sensitivity as report

    content = figures(answer.plain())
    page, data = pages.Page(report.render(answer), MARKS[PAGE]), pages.Page(content, MARKS[DATA])
    return pages.deliver(args, page, data, (PAGE, DATA), lambda: report.show(answer, sys.stdout))


def _answer(
    words: Sequence[str], by: tuple[float, float], keys: Sequence[str], crossings: bool, shown: bool
) -> "Sensitivity":
    """All runs. shown: whether progress is, with the rate and the time left."""
    from sim.experiments.sensitivity import sensitivity

    path, scenario = loaded(PROG, words)
    start = monotonic()

    def so_far(done: int, expected: int) -> None:
        spent = monotonic() - start
        if spent > SLOW_S:
            left = spent / done * max(0, expected - done)
            progress(f"{done} of about {expected} runs, {spent / done:.2f} s each, {left:.0f} s left", shown)

    try:
        with refusals(path):
            return sensitivity(replace(scenario, outputs=("result",)), by, keys, crossings, so_far)
    finally:
        progress("", shown)
