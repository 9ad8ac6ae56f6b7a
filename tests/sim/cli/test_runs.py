"""validate --runs: JSON of every row, the rival, what is learned and refused, and a user's own intervals."""

import csv
import json

import pytest

from sim.__main__ import main
from sim.analysis import left_out
from sim.simulation import run
from sim.validation.runs import learn
from sim.validation.runs.rows import FILE

with FILE.open(encoding="utf-8", newline="") as opened:
    LINES = list(csv.DictReader(opened))


def written(path, *names, **changes):
    """A file of some rows."""
    rows = [{**row, **changes} for row in LINES if row["id"] in names]
    with path.open("w", newline="") as file:
        out = csv.DictWriter(file, LINES[0].keys())
        out.writeheader()
        out.writerows(rows)
    return str(path)


def test_json_is_a_list_of_rows_with_intervals_that_hold_the_prediction_of_the_run(tmp_path, capsys):
    path = written(tmp_path / "runs.csv", "MLP-039", "MB-003", "PRI-002")
    assert main(["validate", "--runs", path, "--format", "json"]) == 0
    rows = {row["id"]: row for row in json.loads(capsys.readouterr().out)}
    assert list(rows) == ["MB-003", "MLP-039", "PRI-002"]
    ran = rows["MLP-039"]
    assert ran["error"] == pytest.approx(ran["predicted"] / ran["published"] - 1)
    low, high = ran["interval_90"]
    assert low < high and ran["reason"] is None and ran["rival"] is None
    assert rows["PRI-002"]["predicted"] is None and rows["PRI-002"]["interval_90"] is None
    assert rows["PRI-002"]["reason"].startswith("not asked")


def test_the_rival_stands_beside_every_error(tmp_path, capsys):
    path = written(tmp_path / "runs.csv", "MLP-039")
    assert main(["validate", "--runs", path, "--rival", "--format", "json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["rival"] > 0 and row["rival_error"] == pytest.approx(row["rival"] / row["published"] - 1)
    main(["validate", "--runs", path])
    assert "rival" not in capsys.readouterr().out
    main(["validate", "--runs", path, "--rival"])
    assert "rival" in capsys.readouterr().out


def test_a_file_of_ones_own_says_whether_its_runs_are_enough(tmp_path, capsys):
    path = written(tmp_path / "runs.csv", "MLP-039", "LF-085")
    assert main(["validate", "--runs", path]) == 0
    assert f"intervals of their own, dense: 2 layouts ran, fewer than {learn.ENOUGH + 1}" in capsys.readouterr().err


def test_rows_that_are_one_scenario_are_simulated_once(tmp_path, monkeypatch, capsys):
    from sim.validation.runs import outcome

    calls = []
    monkeypatch.setattr(outcome, "simulate", lambda scenario, interval: calls.append(1) or run(scenario, interval))
    path = tmp_path / "runs.csv"
    one = next(row for row in LINES if row["id"] == "MLP-039")
    with path.open("w", newline="") as file:
        out = csv.DictWriter(file, one.keys())
        out.writeheader()
        out.writerows([one, {**one, "id": "again", "step_s": "2.0"}])
    assert main(["validate", "--runs", str(path), "--format", "json"]) == 0
    first, again = json.loads(capsys.readouterr().out)
    assert len(calls) == 1 and first["predicted"] == again["predicted"] and first["error"] != again["error"]


def test_learning_writes_what_runs_read(tmp_path, monkeypatch, capsys):
    path = written(tmp_path / "runs.csv", "MLP-039", "LF-085", "LF-061", "AB-001")
    monkeypatch.setattr(left_out, "FILE", tmp_path / "left_out.json")
    try:
        assert main(["validate", "--runs", path, "--learn"]) == 0
        said = capsys.readouterr().err
        content = json.loads((tmp_path / "left_out.json").read_text())
        assert content["runs"] == {**content["runs"], "file": "runs.csv", "asked": 4, "ran": 4}
        groups = sum(side.groups for side in left_out.learned().sides.values())
        assert "each family judged by the others" in said and groups == 4
    finally:
        left_out.learned.cache_clear()


@pytest.mark.parametrize("flag", ["--learn", "--write"])
def test_what_is_learned_or_written_takes_all_rows(tmp_path, capsys, flag):
    path = written(tmp_path / "runs.csv", "MLP-039")
    assert main(["validate", "--runs", path, "--family", "mlperf", flag]) == 2
    assert f"{flag} takes all rows" in capsys.readouterr().err
