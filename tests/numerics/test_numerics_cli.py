import json
import subprocess
import sys
from pathlib import Path

import pytest

from numerics import __main__ as cli

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "scenarios" / "models" / "deepseek_v3.yaml"
FACTS = next((f for f in (ROOT.parent / "shared" / "facts", ROOT / "shared" / "facts") if f.is_dir()), ROOT)
OPS, SUMMARY = FACTS / "h800_dualpipe_trace_ops.csv", FACTS / "h800_dualpipe_trace.json"


def has_device():
    try:
        import torch
    except ImportError:
        return False
    return torch.cuda.is_available()


@pytest.mark.parametrize("words, said", [
    ([], "COMMAND"),
    (["benhc"], "invalid choice: 'benhc'"),
    (["study", "speed"], "choose from 'accumulation'"),
    (["calibrate"], "--facts"),
    (["bench", "--fast"], "unrecognized arguments: --fast"),
    (["calibrate", "--facts", "no.csv", "no.json", "--model", "no.yaml"], "no.csv: no such file"),
])  # fmt: skip
def test_wrong_input_is_one_line_and_exit_2(words, said, capsys):
    assert cli.main(words) == cli.WRONG
    error = capsys.readouterr().err.strip()
    assert said.replace("'accumulation'", "") in error.replace("'accumulation'", "") and "\n" not in error


def test_help(capsys):
    with pytest.raises(SystemExit) as done:
        cli.main(["--help"])
    assert done.value.code == 0
    shown = capsys.readouterr().out
    assert all(command in shown for command in ("check", "bench", "study", "calibrate"))


@pytest.mark.skipif(has_device(), reason="there is a CUDA device")
def test_bench_without_a_device_says_so_in_one_line(tmp_path, capsys):
    assert cli.main(["bench", "--quick", "--out", str(tmp_path / "b.json")]) == cli.UNMEASURABLE
    error = capsys.readouterr().err.strip()
    assert error.startswith("nothing can be measured here") and "\n" not in error
    assert not (tmp_path / "b.json").exists()


def test_check_passes_on_what_the_legs_say(monkeypatch, capsys):
    check = pytest.importorskip("numerics.check")
    for passed, code in ((True, cli.DONE), (False, cli.FAILED)):
        monkeypatch.setattr(check, "run", lambda show, passed=passed: passed)
        assert cli.main(["check"]) == code


def test_study_writes_where_it_is_told(monkeypatch, tmp_path):
    accumulation = pytest.importorskip("numerics.studies.accumulation")
    asked = []
    monkeypatch.setattr(accumulation, "main", asked.append)
    assert cli.main(["study", "accumulation", "--out", str(tmp_path)]) == cli.DONE
    assert asked == [tmp_path]


@pytest.mark.skipif(not OPS.is_file(), reason="the analysis of the profile is not here")
def test_calibrate_rewrites_the_shipped_tables(tmp_path):
    words = ["calibrate", "--facts", str(OPS), str(SUMMARY), "--model", str(MODEL), "--out", str(tmp_path)]
    assert cli.main(words) == cli.DONE
    for path in (ROOT / "hwmodels" / "tables" / "h800").glob("*.json"):
        assert json.loads((tmp_path / path.name).read_text()) == json.loads(path.read_text())


def test_calibrate_refuses_files_of_another_kind(tmp_path, capsys):
    ops, summary = tmp_path / "ops.csv", tmp_path / "summary.json"
    ops.write_text("a,b\n1,2\n")
    summary.write_text("{}")
    words = ["calibrate", "--facts", str(ops), str(summary), "--model", str(MODEL), "--out", str(tmp_path)]
    assert cli.main(words) == cli.WRONG
    assert "\n" not in capsys.readouterr().err.strip()


def test_the_command_line_needs_no_torch():
    """calibrate, and every mistake, work where torch and triton are not installed."""
    block = "import sys; sys.modules.update(torch=None, triton=None); from numerics.__main__ import main; "
    for words, code in ((["calibrate", "--facts", "x", "y", "--model", "z"], 2), (["bench"], 3)):
        done = subprocess.run(
            [sys.executable, "-c", block + f"sys.exit(main({words!r}))"], cwd=ROOT, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        assert done.returncode == code, done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
