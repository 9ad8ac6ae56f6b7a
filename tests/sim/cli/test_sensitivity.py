"""`python -m sim sensitivity`: what it prints and writes, its options, mistakes in a line."""

import json
from pathlib import Path

import pytest

from hwmodels.refused import Refused
from sim.__main__ import main
from sim.cli.sensitivity import factors

CHUNKS = "dualpipe_8x20"


@pytest.fixture(autouse=True)
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_it_prints_and_writes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sensitivity", CHUNKS]) == 0
    out, err = capsys.readouterr()
    assert "hangs most, its batch aside, on chunk_times.overlapped" in out and "batch.micro_batches" in out
    assert err == "written to out/sensitivity/sensitivity.html\n"
    page = Path("out/sensitivity/sensitivity.html").read_text(encoding="utf-8")
    assert "chunk_times.forward at " in page
    found = json.loads(Path("out/sensitivity/sensitivity.json").read_text())
    assert found["kind"] == "sensitivity" and found["moves"][0]["key"] == "batch.micro_batches"
    assert main(["sensitivity", CHUNKS, "-q", "--by", "50/100"]) == 0 and capsys.readouterr() == ("", "")
    assert json.loads(Path("out/sensitivity/sensitivity.json").read_text())["by"] == [0.5, 2.0]


def test_json_is_pure(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sensitivity", CHUNKS, "--format", "json", "--keys", "chunk_times"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {move["key"].split(".")[0] for move in found["moves"]} == {"chunk_times"}


@pytest.mark.parametrize(("text", "ends"), [
    ("10", (0.9, 1.1)), ("10%", (0.9, 1.1)), ("50/100", (0.5, 2.0)), ("2.5 / +5 %", (0.975, 1.05)),
])  # fmt: skip
def test_percent_of_less_and_more(text: str, ends: tuple[float, float]) -> None:
    assert factors(text) == pytest.approx(ends)


@pytest.mark.parametrize("text", ["", "x", "0", "100", "-5", "10/0", "10/20/30"])
def test_other_percent_is_refused(text: str) -> None:
    with pytest.raises(Refused, match="--by expects percent less than 100"):
        factors(text)


@pytest.mark.parametrize("words", [
    ["nowhere.yaml"], [CHUNKS, "sed=1"], [CHUNKS, "--by", "x"], [CHUNKS, "--keys", "comm.sms"], [CHUNKS, "--keys", ""],
    [CHUNKS, "--bye"],
])  # fmt: skip
def test_wrong_input_is_two_and_one_line(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sensitivity", *words]) == 2
    out, err = capsys.readouterr()
    assert out == "" and "Traceback" not in err and err.count("\n") == 1
