"""docs/PLANNING.md: its files are written and its commands run, as a reader would."""

import re
import shlex
from pathlib import Path

import pytest

import sim
from sim.__main__ import main

PAGE = (Path(__file__).parents[2] / "docs" / "PLANNING.md").read_text(encoding="utf-8")
STEPS = PAGE.split("## Larger questions")[0]


def test_the_page_can_be_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, text in re.findall(r"^```\w+ (\S+)\n(.*?)^```", STEPS, re.MULTILINE | re.DOTALL):
        Path(name).write_text(text, encoding="utf-8")
    outputs = {}
    for line in re.findall(r"^    (python -m sim .*)$", STEPS, re.MULTILINE):
        words = shlex.split(line)[3:]
        assert main(words) == 0, line
        outputs[words[0]] = capsys.readouterr().out
    assert set(outputs) == {"check", "search", "out/searches/plan/best-1.yaml", "compare"}
    shown = PAGE.split("<!-- answer -->\n")[1].split("<!-- /answer -->")[0].splitlines()
    printed = outputs["search"].splitlines()  # figures of the page are as old as it; what is legal and asked is not
    assert shown[0].split() == printed[0].split()
    counted = "36 combinations, 28 of them legal"
    assert [sum(counted in line for line in lines) for lines in (shown, printed)] == [1, 1]
    answer = sim.search("plan.yaml", folder="out/searches/plan")  # all of it is kept there
    assert answer.winner.point.labels == sim.search("plan.yaml", folder="out/searches/plan").winner.point.labels
    frame = pytest.importorskip("pandas") and answer.to_frame()
    assert len(frame) == len(answer.rows) and frame["dollars"].is_monotonic_increasing
