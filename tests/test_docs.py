"""What the documents say is what the programs print."""

import json
import re
from pathlib import Path

import pytest

from sim.validation import chart, page, predictions, records
from sim.validation.row import Row

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
MOVED = "predictions moved: run `python -m sim validate --write` and add a PREDICTION line to CHANGELOG.md"


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return predictions.compare_all()


def test_no_prediction_has_moved(rows: list[Row]) -> None:
    """The gate: predictions change on purpose or not at all. It does not ask whether they are right."""
    held = json.loads((ROOT / records.GOLDEN).read_text(encoding="utf-8"))
    assert records.differences(held, records.golden(rows)) == [], MOVED


def test_the_table_in_the_readme_is_what_validate_finds(rows: list[Row]) -> None:
    shown = README.split(records.START)[1].split(records.END)[0]
    assert shown == predictions.markdown(predictions.headlines(rows)), MOVED


def test_the_page_of_validation_is_what_validate_writes(rows: list[Row]) -> None:
    assert (ROOT / records.PAGE).read_text(encoding="utf-8") == page.page(rows, predictions.unanswered()), MOVED


def test_the_chart_is_what_validate_writes(rows: list[Row]) -> None:
    assert (ROOT / records.CHART).read_text(encoding="utf-8") == chart.chart(rows), MOVED


def test_the_changelog_has_the_prediction(rows: list[Row]) -> None:
    found = {row.id: row.predicted for row in rows}
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    latest = re.search(r"PREDICTION: .*?step ([\d.]+) s.*?layers ([\d.]+) ms", text)
    assert latest
    assert (latest[1], latest[2]) == (f"{found['IS-T4-step']:.2f}", f"{found['PD-SPAN']:.1f}"), MOVED


def test_every_linked_file_exists() -> None:
    for name in ("README.md", "ARCHITECTURE.md", "docs/VALIDATION.md"):
        path = ROOT / name
        for target in re.findall(r"\]\(([^)#:]+)\)", path.read_text(encoding="utf-8")):
            assert (path.parent / target).exists(), target


def test_every_scenario_named_in_the_readme_exists() -> None:
    for path in re.findall(r"scenarios/\w+\.yaml", README):
        assert (ROOT / path).exists(), path
