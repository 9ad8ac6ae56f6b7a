"""What `validate --runs --write` writes: a chart of every run, the README's table, and nothing without marks."""

import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from hwmodels.refused import Refused
from sim.validation import records
from sim.validation.runs import page, pages, views, words
from sim.validation.runs.chart import chart
from sim.validation.runs.outcome import Answer, Outcome
from sim.validation.runs.rows import FILE, asked, read

ROOT = Path(__file__).parents[3]
ROWS = read(FILE)
RAN = [Outcome(run, Answer(run.step_s * 1.05, run.step_s, run.step_s * 1.2, rival_s=run.step_s * 0.8))
       for run in asked(ROWS)]  # fmt: skip
ANSWER = ["Step time  1 s  0.9 s to 1.1 s (90 %)", "Prices alone  ± 1 %", "Tokens a day  3"]


def test_the_chart_has_a_dot_a_run_and_a_line_a_family():
    drawing = ElementTree.fromstring(chart(RAN))
    dots = [each for each in drawing.iter() if each.tag.endswith("circle")]
    assert len(dots) == len(RAN) + 2  # and two of the legend
    texts = [each.text for each in drawing.iter() if each.tag.endswith("text")]
    families = {each.run.family for each in RAN}
    assert families <= set(texts) and any("537 published training runs" in str(text) for text in texts)
    beyond = replace(RAN[0], answer=RAN[0].answer._replace(step_s=RAN[0].run.step_s * 100))
    assert 'cx="' in chart([beyond])


def test_the_table_of_the_readme_has_six_kinds_and_every_run_in_one():
    lines = page.sixths(RAN).splitlines()
    assert len(lines) == 2 + 6 + 1 and len(views.SIXTHS) == 6
    counts = [int(re.findall(r"\| (\d+) of ", line)[0]) for line in lines[2:]]
    assert sum(counts[:-1]) == counts[-1] == len(RAN)
    assert all("| 5.0% | +5.0% | 20.0% | 100% |" in line for line in lines[2:])


def test_pages_are_written_together(tmp_path):
    (tmp_path / "docs").mkdir()
    text = f"head\n{records.RUNS_START}old{records.RUNS_END}\nStep time  x\nTokens a day  y\n"
    (tmp_path / "README.md").write_text(text)
    written = pages.write(ROWS, RAN, lambda: ANSWER, tmp_path)
    assert {path.name for path in written} == {"RUNS.md", "runs.svg", "README.md"}
    readme = (tmp_path / "README.md").read_text()
    assert page.sixths(RAN) in readme and "old" not in readme
    assert ANSWER[0] in readme and "Tokens a day  y" in readme  # other lines of the answer are held elsewhere
    assert page.sixths(RAN) in (tmp_path / "docs" / "RUNS.md").read_text()


def test_a_readme_without_marks_is_refused_before_anything_is_written(tmp_path):
    (tmp_path / "README.md").write_text("nothing")
    with pytest.raises(Refused, match="marks"):
        pages.write(ROWS, RAN, lambda: ANSWER, tmp_path)
    assert not (tmp_path / "docs").exists()


def test_reasons_are_of_rows_and_families_that_there_are():
    ids, families = {run.id for run in ROWS}, {run.family for run in ROWS}
    for each in words.table("reasons"):
        assert set(each.get("rows", ())) <= ids and each.get("family", "papers") in families and each["why"]
    assert "a low state of the clock" in page.page(ROWS, RAN)
