"""`python -m sim compare SCENARIO TRACE.json.gz`: a profiler trace beside a simulated step."""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from hwmodels.refused import Refused
from sim.cli import pages
from sim.cli.command import refusals

ENDS = (".json", ".json.gz")
"""Of a trace's name."""
MARKS = {"trace.html": "<h1>A trace beside a simulated step", "trace.json": '"kind": "trace"'}
"""What tells our files from others of those names."""


def traced(what: str, overrides: Sequence[str], trace: str, args: argparse.Namespace) -> int:
    """Join a trace's kernels with those of a scenario (or of a run's folder), and write and print where they part."""
    from sim.experiments.compare import scenario
    from sim.validation.traced import joined, measured_bars, simulated_bars

    pages.check(args.out, MARKS)
    asked = scenario(what, overrides)
    with TemporaryDirectory() as folder:
        _read(trace, Path(folder))
        with refusals(what):
            rows, ours = joined(asked, Path(folder)), simulated_bars(asked)
    from reports import joins

    content = {"kind": "trace", "trace": trace, "scenario": asked.title, "rows": [row._asdict() for row in rows]}
    page = joins.render(asked.title, trace, rows, measured_bars(Path(trace)), ours)
    data = json.dumps(content, indent=1) + "\n"
    return pages.deliver(args, MARKS, page, data, lambda: joins.show(asked.title, trace, rows, sys.stdout))


def _read(trace: str, folder: Path) -> None:
    """Tables of a trace, by the program that reads traces. Raises Refused with its line."""
    if not Path(trace).is_file():
        raise Refused("cannot be read: No such file", trace)
    words = [sys.executable, "-m", "numerics", "calibrate", "--trace", str(Path(trace).resolve()), "--out", str(folder)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Refused((done.stderr.strip().splitlines() or ["is no trace that can be read"])[-1], trace)
