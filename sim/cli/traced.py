"""`python -m sim compare SCENARIO TRACE.json.gz`: a profiler trace beside a simulated step."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from hwmodels.refused import Refused
from sim.cli.command import DONE, refusals

ENDS = (".json", ".json.gz")
"""Of a trace's name."""


def traced(what: str, overrides: Sequence[str], trace: str, form: str) -> int:
    """Join a trace's kernels with those of a scenario (or of a run's folder), and print where they part."""
    from sim.experiments.compare import scenario
    from sim.validation.traced import joined

    asked = scenario(what, overrides)
    with TemporaryDirectory() as folder:
        _read(trace, Path(folder))
        with refusals(what):
            rows = joined(asked, Path(folder))
    if form == "json":
        print(json.dumps([row._asdict() for row in rows], indent=1))
        return DONE
    from reports import joins

    joins.show(asked.title, trace, rows, sys.stdout)
    return DONE


def _read(trace: str, folder: Path) -> None:
    """Tables of a trace, by the program that reads traces. Raises Refused with its line."""
    if not Path(trace).is_file():
        raise Refused("cannot be read: No such file", trace)
    words = [sys.executable, "-m", "numerics", "calibrate", "--trace", str(Path(trace).resolve()), "--out", str(folder)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Refused((done.stderr.strip().splitlines() or ["is no trace that can be read"])[-1], trace)
