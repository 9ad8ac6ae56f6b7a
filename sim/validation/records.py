"""What `python -m sim validate --write` writes into a checkout: the golden of predictions, the page, the chart, the
README's table. All texts are made before the first is written."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from hwmodels.refused import Refused
from sim.validation import beyond
from sim.validation.chart import chart
from sim.validation.page import page
from sim.validation.row import Row, Unanswered
from sim.validation.table import markdown

CHECKOUT = Path(__file__).parent.parent.parent
GOLDEN = Path("tests", "golden", "predictions.json")
PAGE, CHART, README = Path("docs", "VALIDATION.md"), Path("docs", "validation.svg"), Path("README.md")
RUNS = Path("docs", "RUNS.md")
START, END = "<!-- validate -->\n", "\n<!-- /validate -->"
RUNS_START, RUNS_END = "<!-- runs -->\n", "\n<!-- /runs -->"
"""Around the table of training runs, wherever it stands."""


def golden(rows: Sequence[Row]) -> dict[str, float]:
    """Predictions by id, to four significant digits."""
    return {row.id: float(f"{row.predicted:.4g}") for row in rows}


def runs(root: Path) -> str:
    """The table of training runs by kind, as their page has it; "" where there is none."""
    file = root / RUNS
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    return text.split(RUNS_START)[1].split(RUNS_END)[0] if RUNS_START in text else ""


def differences(before: Mapping[str, float], now: Mapping[str, float]) -> list[str]:
    """One line a prediction that moved, came or went."""
    return [
        f"{name}: {before.get(name, 'new')} -> {now.get(name, 'gone')}"
        for name in [*now, *(name for name in before if name not in now)]
        if before.get(name) != now.get(name)
    ]


def documents(
    rows: Sequence[Row], headlines: Sequence[Row], unanswered: Sequence[Unanswered], readme: str, readings: str = "",
    table: str = "", more: str = "",
) -> dict[Path, str]:  # fmt: skip
    """Path in the checkout -> content. `readme`: the README as it is; `readings`, `table` (of runs), `more` (of other
    kinds): see `page`. Raises Refused when the README has no marks."""
    if START not in readme or END not in readme:
        marks = f"{START.strip()} and {END.strip()}"
        raise Refused(f"{README}: the marks {marks} are missing; put them around the table")
    before, after = readme.split(START)[0], readme.split(END)[1]
    return {
        GOLDEN: json.dumps(golden(rows), indent=1) + "\n",
        PAGE: page(rows, unanswered, readings, table, more),
        CHART: chart(rows),
        README: before + START + markdown(headlines) + END + after,
    }


def write(
    root: Path, rows: Sequence[Row], headlines: Sequence[Row], unanswered: Sequence[Unanswered], readings: str = ""
) -> list[str]:
    """Write all records under `root`; the predictions that moved, one a line. Raises Refused."""
    readme, held = root / README, root / GOLDEN
    if not readme.is_file() or not (root / "pyproject.toml").is_file():
        raise Refused(f"{root}: no {README} and pyproject.toml here; --write needs a checkout of the source")
    own = readme.read_text(encoding="utf-8")
    texts = documents(rows, headlines, unanswered, own, readings, runs(root), beyond.section(root))
    before = json.loads(held.read_text(encoding="utf-8")) if held.is_file() else {}
    try:
        for path, content in texts.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(content, encoding="utf-8")
    except OSError as error:
        raise Refused(f"{error.filename}: cannot be written: {error.strerror}") from None
    return differences(before, golden(rows))
