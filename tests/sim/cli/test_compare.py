"""`python -m sim compare`: which words name which run, what it prints and writes, mistakes in a line."""

import json
from pathlib import Path

import pytest

from hwmodels.refused import Refused
from sim.__main__ import main
from sim.cli.compare import AND, Side, sides

CHUNKS = "dualpipe_8x20"


@pytest.fixture(autouse=True)
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(("words", "a", "b"), [
    ("a.yaml b.yaml", ("a.yaml", ()), ("b.yaml", ())),
    ("a.yaml b.yaml seed=1", ("a.yaml", ("seed=1",)), ("b.yaml", ("seed=1",))),
    ("a.yaml seed=1 seed=2", ("a.yaml", ()), ("a.yaml", ("seed=1", "seed=2"))),
    ("a.yaml seed=1 -- seed=2", ("a.yaml", ("seed=1",)), ("a.yaml", ("seed=2",))),
    ("a.yaml b.yaml seed=1 --", ("a.yaml", ("seed=1",)), ("b.yaml", ())),
    ("a.yaml -- seed=2", ("a.yaml", ()), ("a.yaml", ("seed=2",))),
])  # fmt: skip
def test_words_name_two_runs(words: str, a: tuple[str, tuple[str, ...]], b: tuple[str, tuple[str, ...]]) -> None:
    assert sides([AND if word == "--" else word for word in words.split()]) == (Side(*a), Side(*b))


@pytest.mark.parametrize(("words", "line"), [
    ("a.yaml", "expected a second scenario, or changes of the first one"),
    ("a b c", "expected one or two scenarios or folders of runs, found 3"),
    ("seed=1", "expected one or two scenarios or folders of runs, found 0"),
    ("a seed=1 -- b", "after -- expected changes of B, key=value; found 'b'"),
    ("a -- seed=1 -- seed=2", "-- stands once"),
])  # fmt: skip
def test_words_that_do_not_are_one_line(words: str, line: str) -> None:
    with pytest.raises(Refused, match=line):
        sides([AND if word == "--" else word for word in words.split()])


def test_it_prints_and_writes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", CHUNKS, "schedule=1f1b"]) == 0
    out, err = capsys.readouterr()
    assert "B takes " in out and "schedule.name" in out and "pipeline fill" in out
    assert err == "written to out/compare/compare.html\n"
    page = Path("out/compare/compare.html").read_text(encoding="utf-8")
    assert "A, position 0" in page and "B, position 7" in page and 'src="http' not in page
    assert json.loads(Path("out/compare/compare.json").read_text())["kind"] == "comparison"
    assert main(["compare", CHUNKS, "schedule=1f1b", "-q"]) == 0 and capsys.readouterr() == ("", "")


def test_what_is_against_a_side_goes_to_stderr_also_when_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", CHUNKS, "limits.step_time=1 us", "-q"]) == 0
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("B is infeasible: ") and err.count("\n") == 1


def test_json_is_pure(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", CHUNKS, "--format", "json", "--", "seed=2"]) == 0
    out = capsys.readouterr().out
    found = json.loads(out)
    assert out == Path("out/compare/compare.json").read_text() and found["keys"] == {"seed": [0, 2]}
    assert found["figures"]["step_time_s"]["difference"] == 0


def test_files_of_others_stay(capsys: pytest.CaptureFixture[str]) -> None:
    Path("here").mkdir()
    Path("here/compare.html").write_text("mine")
    assert main(["compare", CHUNKS, "seed=2", "--out", "here"]) == 2
    assert capsys.readouterr().err.startswith("here/compare.html: is no file of ours and would be replaced;")
    assert Path("here/compare.html").read_text() == "mine" and not Path("here/compare.json").exists()
    Path("file").write_text("x")
    assert main(["compare", CHUNKS, "seed=2", "--out", "file"]) == 2
    assert capsys.readouterr().err == "file: is a file; name a folder with --out\n"


@pytest.mark.parametrize("words", [["nowhere.yaml", "seed=1"], [CHUNKS, "sed=1"], [CHUNKS, "schedule=nothing"]])
def test_wrong_input_is_two_and_no_traceback(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", *words]) == 2
    out, err = capsys.readouterr()
    assert out == "" and "Traceback" not in err and err.count("\n") == 1


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare"]) == 2 and "usage: python -m sim compare" in capsys.readouterr().err
    assert main(["compare", "--help"]) == 0 and "paired" in capsys.readouterr().out
