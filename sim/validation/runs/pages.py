"""What `validate --runs FILE --write` writes into a checkout: the page, its chart, and the README's table of errors."""

from collections.abc import Callable, Sequence
from pathlib import Path

from hwmodels.refused import Refused
from sim.validation.records import CHECKOUT, README, RUNS, RUNS_END, RUNS_START
from sim.validation.runs.chart import chart
from sim.validation.runs.outcome import Outcome
from sim.validation.runs.page import page, sixths
from sim.validation.runs.rows import Run

CHART = Path("docs", "runs.svg")
HELD = ("Step time ", "Prices alone ")
"""How the lines of a run's answer begin that have its interval."""


def readme(text: str, outcomes: Sequence[Outcome], answer: Sequence[str]) -> str:
    """The README with the table of errors, and those lines of the run that it shows. Raises Refused without marks."""
    if RUNS_START not in text or RUNS_END not in text:
        raise Refused(
            f"{README}: the marks {RUNS_START.strip()} and {RUNS_END.strip()} are missing; put them around the table"
        )
    before, after = text.split(RUNS_START)[0], text.split(RUNS_END)[1]
    new = {name: line for name in HELD for line in answer if line.startswith(name)}
    lines = (before + RUNS_START + sixths(outcomes) + RUNS_END + after).split("\n")
    return "\n".join(next((new[name] for name in new if line.startswith(name)), line) for line in lines)


def write(
    rows: Sequence[Run], outcomes: Sequence[Outcome], answer: Callable[[], Sequence[str]], root: Path = CHECKOUT
) -> list[Path]:
    """All of it under `root`; the paths. answer: lines of the run that the README shows, as a terminal has them."""
    if not (root / README).is_file():
        raise Refused(f"{root}: no {README} here; --write needs a checkout of the source")
    texts = {
        RUNS: page(rows, outcomes), CHART: chart(outcomes),
        README: readme((root / README).read_text(encoding="utf-8"), outcomes, answer()),
    }  # fmt: skip
    for path, content in texts.items():
        (root / path).write_text(content, encoding="utf-8")
    return list(texts)
