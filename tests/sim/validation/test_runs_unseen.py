"""Runs that nobody here had seen: their page is of the first look, which nothing changes, and none is learned from."""

import csv
import re
import shutil
from dataclasses import replace
from pathlib import Path

from sim.__main__ import main
from sim.analysis import left_out
from sim.validation.runs import record, table, unseen, words
from sim.validation.runs.outcome import Answer, Outcome
from sim.validation.runs.rows import FILE, UNSEEN, asked, read

ROOT = Path(__file__).parents[3]
ROWS = read(UNSEEN)
FIRST = unseen.first(ROWS)


def test_the_page_is_of_the_first_look_at_every_row():
    assert [each.run.id for each in FIRST] == [run.id for run in asked(ROWS)] == [run.id for run in ROWS]
    assert (ROOT / unseen.PAGE).read_text(encoding="utf-8") == unseen.text(ROWS), "validate --runs FILE --write"
    assert len(ROWS) >= 120 and len({run.source for run in ROWS}) >= 15


def test_the_readme_says_what_the_first_look_found():
    sums = table.total("all", len(ROWS), FIRST)
    text = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert f"{sums.inside} of {sums.ran} do" in text and "which the promise does not pass" in text
    assert f"a median error of {100 * sums.error:.1f} % beside the closed form's {100 * sums.rival:.1f} %" in text


def test_no_row_is_changed_after_the_look_without_being_told():
    known, says = unseen.looked(), unseen.digests()
    told = unseen.FINDINGS.read_text(encoding="utf-8")
    assert all(known[name]["row"] == row or f"{name}:" in told for name, row in says.items())


def test_a_later_run_leaves_the_first_look_as_it_is(tmp_path, monkeypatch):
    text = unseen.FIRST.read_text(encoding="utf-8")
    later = [Outcome(each.run, Answer(1.0, 0.9, 1.1, rival_s=1.0)) for each in FIRST]
    assert unseen.ledger(later) == text
    monkeypatch.setattr(unseen, "FIRST", tmp_path / "first.csv")
    (tmp_path / "docs").mkdir()
    lines = text.splitlines(keepends=True)
    unseen.FIRST.write_text("".join(lines[:-1]), encoding="utf-8")  # a row that was not looked at
    unseen.write(ROWS, later, tmp_path)
    written = unseen.FIRST.read_text(encoding="utf-8").splitlines(keepends=True)
    assert written[:-1] == lines[:-1] and written[-1].split(",")[2] == "1"
    assert (tmp_path / unseen.PAGE).read_text(encoding="utf-8") == unseen.text(ROWS)


def test_a_row_that_says_something_else_is_named(monkeypatch):
    assert "none." in unseen.mended(ROWS)
    says = unseen.digests()
    monkeypatch.setattr(unseen, "digests", lambda: {**says, ROWS[3].id: "0"})
    assert f"after the look: {ROWS[3].id}." in unseen.mended(ROWS)


def test_nothing_is_learned_on_them(tmp_path, capsys, monkeypatch):
    assert record.held()["runs"]["file"] == FILE.name
    with UNSEEN.open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    shutil.copy(left_out.FILE, tmp_path)
    monkeypatch.setattr(left_out, "FILE", tmp_path / left_out.FILE.name)
    mixed = tmp_path / "runs.csv"
    with mixed.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, lines[0])
        writer.writeheader()
        writer.writerow(lines[7] | {"id": "mine", "family": "mine", "group": "mine"})
    for path, row in ((UNSEEN, "UN-KF-01"), (mixed, "mine")):
        assert main(["validate", "--runs", str(path), "--learn"]) == 2
        assert f"--learn: row {row} is one of unseen_runs.csv" in capsys.readouterr().err
    unseen.spared(read(FILE))


def test_no_row_is_one_of_the_given():
    given = {(run.model, run.gpu, run.gpus, run.sequences, run.sequence_length, run.step_s) for run in read(FILE)}
    ours = {(run.model, run.gpu, run.gpus, run.sequences, run.sequence_length, run.step_s) for run in ROWS}
    assert not given & ours
    assert all((run.source and "@" in run.where) or run.where.startswith("docs.nvidia.com") for run in ROWS)


def test_coverage_is_told_with_how_sure_it_is():
    low, high = unseen.wilson(64, 100)
    assert (round(low, 3), round(high, 3)) == (0.558, 0.714)  # (0.6535 -+ 0.0801) / 1.0271
    assert unseen.wilson(0, 0) == (0.0, 1.0)
    said = unseen.coverage(FIRST)
    inside = sum(each.inside for each in FIRST)
    assert said.startswith(f"**{inside} of 114 runs lie") and said.endswith("is not kept.")
    assert "With 8 refused rows as misses it is 60%" in said
    good = [Outcome(replace(each.run, step_s=1.0), Answer(1.0, 0.9, 1.1)) for each in FIRST]
    assert unseen.coverage(good).endswith("is kept.")
    low, high = map(float, re.findall(r"anew give (\d+)% to (\d+)%", said)[0])
    assert low < 100 * inside / 114 < high


def test_what_is_known_of_rows_is_of_rows_that_missed():
    missed = {each.run.id for each in FIRST if not each.inside}
    far = [name for said in words.table("unseen") for name in said["rows"]]
    assert len(set(far)) == len(far) and set(far) <= {run.id for run in ROWS}
    assert len(missed & set(far)) > 0.75 * len({each.run.id for each in FIRST if each.error and not each.inside})
