"""Predictions beside published figures: complete, sourced, and computed by the simulator. Closeness is not asked for,
closed forms aside: whether predictions are right is reported, not tested."""

import csv
import json
import re
from pathlib import Path

import pytest

from sim.__main__ import main
from sim.validation import predictions
from sim.validation.row import Row

PUBLISHED = Path(__file__).parents[4] / "shared" / "facts" / "published.csv"


@pytest.fixture(scope="module")
def rows() -> dict[str, Row]:
    return {row.id: row for row in predictions.compare_all()}


def test_every_row_is_answered_once(rows: dict[str, Row]) -> None:
    listed = [r["id"] for name in predictions.names() for r in predictions.published(name)["rows"]]
    assert listed == list(rows)
    assert all(row.predicted > 0 and row.published > 0 and row.source and row.group for row in rows.values())


def test_one_file_can_be_asked_for(rows: dict[str, Row]) -> None:
    alone = predictions.compare("schedules")
    assert alone == [row for row in rows.values() if row.group == alone[0].group]


def test_rows_say_whether_they_were_inputs(rows: dict[str, Row]) -> None:
    assert {row.input for row in rows.values()} == {"no", "partly", "yes"}
    assert all(row.why for row in rows.values() if row.input != "no")


def test_intervals_hold_their_prediction(rows: dict[str, Row]) -> None:
    sure = [row for row in rows.values() if row.low is not None and row.high is not None]
    assert len(sure) > 60
    assert all(row.low < row.predicted < row.high for row in sure)  # type: ignore[operator]


@pytest.mark.parametrize("name", ["models", "schedules", "fabrics"])
def test_closed_forms_agree_with_figures_by_formula(name: str) -> None:
    """Formulas exactly; sizes as far as their printed digits say what was counted. Money is no closed form."""
    for row in (row for row in predictions.compare(name) if "USD" not in row.unit):
        exact = name != "models" or row.id.startswith(("D-", "IS-T1"))
        assert abs(row.error) < (1e-4 if exact else 0.06), row.id


def test_every_validation_figure_is_answered_or_said_not_to_be(rows: dict[str, Row]) -> None:
    if not PUBLISHED.exists():
        pytest.skip("the collection of published figures is not here")
    with PUBLISHED.open(encoding="utf-8") as file:
        wanted = {r["id"] for r in csv.DictReader(file) if r["kind"] == "validation"}
    known = {name.split("/")[0] for name in rows} | {row.id.split("/")[0] for row in predictions.unanswered()}
    assert wanted <= known


def test_figures_are_those_of_the_collection(rows: dict[str, Row]) -> None:
    """Where the collection gives one plain number, it is the row's."""
    if not PUBLISHED.exists():
        pytest.skip("the collection of published figures is not here")
    with PUBLISHED.open(encoding="utf-8") as file:
        values = {r["id"]: r["value"] for r in csv.DictReader(file) if r["value"].replace(".", "").isdigit()}
    shared = [row for row in rows.values() if row.id in values]
    assert len(shared) > 30
    assert {row.id: row.published for row in shared} == {row.id: float(values[row.id]) for row in shared}


def test_nothing_is_both_answered_and_not(rows: dict[str, Row]) -> None:
    left = predictions.unanswered()
    assert not {row.id for row in left} & set(rows)
    assert all(row.reason for row in left) and len({row.id for row in left}) == len(left)


def test_overrides_reach_the_predictions(rows: dict[str, Row]) -> None:
    slower = {row.id: row for row in predictions.compare(overrides=("cluster.node.nic.bandwidth=20GB/s",))}
    assert slower["IS-T4-step"].predicted > rows["IS-T4-step"].predicted
    fitted = {row.id: row for row in predictions.compare("profile", ("pricing=fitted",))}
    assert fitted["PD-SPAN"].predicted != rows["PD-SPAN"].predicted


def test_hours_days_tokens_cost_and_steps_say_the_same(rows: dict[str, Row]) -> None:
    tokens, step = 15360 * 4096, rows["IS-T4-step"].predicted
    assert rows["IS-T4-tokens"].predicted == pytest.approx(tokens / step * 86400 / 1e9)
    hours = step * 2048 / 3600 / tokens * 1e12
    assert rows["V3-GPUH-T"].predicted == pytest.approx(hours / 1e3)
    assert rows["V3-DAYS-T"].predicted == pytest.approx(hours / 2048 / 24)
    assert rows["V3-T1-pre"].predicted == pytest.approx(14.8 * hours / 1e3)
    assert rows["V3-T1-usdpre"].predicted == pytest.approx(2 * 14.8 * hours / 1e6)


def test_the_readme_gets_about_twenty_rows(rows: dict[str, Row]) -> None:
    shown = predictions.headlines(rows.values())
    assert 15 <= len(shown) <= 25
    assert {"PD-SPAN", "IS-T4-step", "V3-GPUH-T"} <= {row.id for row in shown}


def test_the_table_goes_to_stderr_and_markdown_and_json_to_stdout(
    capsys: pytest.CaptureFixture[str], rows: dict[str, Row]
) -> None:
    assert main(["validate", "--all"]) == 0
    out, err = capsys.readouterr()
    assert out == "" and "step of 15360 sequences" in err and f"{len(rows)} figures answered" in err
    assert main(["validate"]) == 0
    out, err = capsys.readouterr()
    head, *groups, gap, last = err.splitlines()
    assert out == "" and len(groups) == len({row.group for row in rows.values()}) < 12 and gap == ""
    assert sum(int(re.split(r"  +", line)[1]) for line in groups) == len(rows) and last.endswith("; --all prints each")
    assert head.split()[:2] == ["group", "figures"] and max(map(len, err.splitlines())) < 140
    assert main(["validate", "--format", "markdown"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("# Validation") and err == ""
    assert main(["validate", "--format", "json"]) == 0
    out, err = capsys.readouterr()
    assert [row["id"] for row in json.loads(out)["rows"]] == list(rows) and err == ""


@pytest.mark.parametrize("words", [["--format", "yaml"], ["extra"]])
def test_wrong_words_are_one_line(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", *words]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
