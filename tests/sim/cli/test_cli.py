"""The command line: exit codes, what goes to which stream, and folders that are complete or not there."""

import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import reports
import sim
from hwmodels import device
from hwmodels.refused import Refused
from sim.__main__ import COMMANDS, main
from sim.analysis.feasible import judged
from sim.cli.command import BUG
from sim.cli.run import place
from sim.experiments.sweep import SWEEPS
from sim.result import archive
from sim.scenario import SCENARIOS, Scenario, shelves

SMALL = str(SCENARIOS / "dualpipe_8x20.yaml")
ROOT = SCENARIOS.parent


def fake_result(scenario: Scenario) -> SimpleNamespace:
    memory: Any = (SimpleNamespace(peak_bytes=70 * 10**9), SimpleNamespace(peak_bytes=75 * 10**9))
    mark = {"schema_version": 1, "scenario_hash": scenario.scenario_hash}
    summary = mark | {"step_time_s": 0.129, "seed": scenario.seed} | judged(scenario, 0.129, memory)
    return SimpleNamespace(summary=summary, memory=memory)


FAKED = {"report": "report.html", "trace": "trace/rank0000.json.gz", "events": "events.npz", "links": "links.csv",
         "loads": "loads.csv"}  # fmt: skip


def fake_write(result: Any, folder: Path, outputs: Sequence[str], wall_seconds: float) -> None:
    assert list(folder.iterdir()) == [] and wall_seconds > 0
    for name in set(outputs) - {"result"}:
        (folder / FAKED[name]).parent.mkdir(exist_ok=True)
        (folder / FAKED[name]).write_text(name)
    (folder / "result.json").write_text(json.dumps(result.summary) + "\n")


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """A simulation and reports that only leave traces; the working folder is new."""
    monkeypatch.setattr(sim, "run", fake_result, raising=False)
    monkeypatch.setattr(archive, "write", fake_write)
    folder = SimpleNamespace(write=lambda result, folder, outputs: None)
    terminal = SimpleNamespace(show=lambda result, stream: print("the table", file=stream))
    for name, module in (("folder", folder), ("terminal", terminal)):
        monkeypatch.setitem(sys.modules, f"reports.{name}", module)
        monkeypatch.setattr(reports, name, module, raising=False)
    monkeypatch.chdir(tmp_path)
    return monkeypatch


def there(folder: Path = Path()) -> list[str]:
    """All files and folders below `folder`, also hidden ones."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_a_run_writes_its_folder_and_talks_on_stderr(fakes: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([SMALL]) == 0
    out, err = capsys.readouterr()
    assert out == "" and err == "the table\nwritten to out/dualpipe_8x20\n"
    assert there() == ["out", "out/dualpipe_8x20"] + [
        f"out/dualpipe_8x20/{name}" for name in sorted([*FAKED.values(), "result.json", "trace"])
    ]  # fmt: skip


def test_run_is_understood_with_options_anywhere(fakes: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--out", "a/b", SMALL, "seed=3", "-q", "outputs=[result]"]) == 0
    assert capsys.readouterr() == ("", "")
    assert there() == ["a", "a/b", "a/b/result.json"]
    assert json.loads(Path("a/b/result.json").read_text())["seed"] == 3


def test_a_what_if_has_a_folder_of_its_own(fakes: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Named after its overrides; what decides no figure makes none, and what a name cannot hold gets a digest."""
    changes = [[], ["seed=1"], ["seed=2", "fold=false"], ["outputs=[result]"], ["limits.memory=90 GB"],
               ["limits.memory=90GB"], ["limits.memory= 90 GB"]]  # fmt: skip
    places = []
    for words in changes:
        assert main([SMALL, *words]) in (0, 1)
        places.append(capsys.readouterr().err.split("written to ")[1].splitlines()[0].removeprefix("out/dualpipe_8x20"))
    assert places[:4] == ["", ",seed=1", ",seed=2,fold=false", ""] and places[5] == ",limits.memory=90GB"
    assert len({*places}) == 6 and places[4].startswith(",limits.memory=90_GB-")
    assert json.loads(Path("out/dualpipe_8x20/result.json").read_text())["seed"] == 0
    assert place("s.yaml", ["faults=[{kind: gpu, at: 1, slower: 2}]", "name=" + "x" * 300, "jitter=0." + "1" * 300])
    assert len(place("s.yaml", ["jitter=0." + "1" * 300]).name) < 120


def test_json_on_stdout_is_the_file_and_nothing_else(fakes: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([SMALL, "--format", "json", "--out", "o"]) == 0
    assert capsys.readouterr().out == Path("o/result.json").read_text()


def test_an_older_folder_of_ours_is_replaced_whole(fakes: Any) -> None:
    assert main([SMALL, "--out", "o", "-q"]) == 0
    assert main([SMALL, "--out", "o", "-q", "outputs=[result]", "seed=1"]) == 0
    assert there() == ["o", "o/result.json"]
    Path("empty").mkdir()
    assert main([SMALL, "--out", "empty/", "-q"]) == 0
    assert Path("empty/result.json").is_file()


def test_folders_are_as_open_as_any_other(fakes: Any) -> None:
    assert main([SMALL, "--out", "o", "-q"]) == 0
    Path("plain").mkdir()
    assert Path("o").stat().st_mode == Path("plain").stat().st_mode


@pytest.mark.parametrize(("change", "line"), [
    ({"feasible": False, "infeasible": ["rank 3 needs 91.2 GB"]}, "rank 3 needs 91.2 GB"),
    ("limits.step_time=100 ms", "the step takes 129.0 ms, more than limits.step_time 100.0 ms"),
    ("limits.memory=72 GB", "a rank needs 75 GB, more than limits.memory 72 GB"),
])  # fmt: skip
def test_infeasible_is_exit_1_with_one_line_and_all_outputs(
    fakes: Any, capsys: pytest.CaptureFixture[str], change: Any, line: str
) -> None:
    words = [change] if isinstance(change, str) else []
    more = change if isinstance(change, dict) else {}
    fakes.setattr(sim, "run", lambda scenario: SimpleNamespace(summary=fake_result(scenario).summary | more))
    assert main([SMALL, *words, "--out", "o", "-q"]) == 1
    assert capsys.readouterr().err == f"infeasible: {line}\n"
    assert "o/report.html" in there()
    told = json.loads(Path("o/result.json").read_text())
    assert told["feasible"] is False and told["infeasible"] == [line]


def test_a_fault_that_changes_nothing_is_told(fakes: Any, capsys: pytest.CaptureFixture[str]) -> None:
    def run(scenario: Scenario) -> SimpleNamespace:
        found = fake_result(scenario)
        found.summary["faults_without_effect"] = ["faults[0]: changes nothing: slower is 1"]
        return found

    fakes.setattr(sim, "run", run)
    assert main([SMALL, "-q"]) == 0
    assert capsys.readouterr().err == f"{SMALL}: faults[0]: changes nothing: slower is 1\n"


def test_limits_that_hold_are_exit_0(fakes: Any) -> None:
    assert main([SMALL, "limits.step_time=129 ms", "limits.memory=75 GB", "-q"]) == 0


LEGAL = f"legal: {', '.join(COMMANDS)}, or a scenario (a file, or a name from list)"
WRONG = [
    (["fast"], f"unknown command 'fast'; {LEGAL}"),
    (["v3_2048gp"], f"unknown command 'v3_2048gp', did you mean 'v3_2048gpu'? {LEGAL}"),
    (["chek", "x"], f"unknown command 'chek', did you mean 'check'? {LEGAL}"),
    (["absent.yaml"], "absent.yaml: cannot be read: No such file or directory"),
    (["run"], "a scenario file is missing; see python -m sim --help"),
    ([SMALL, "--speed"], "unrecognized arguments: --speed; see python -m sim --help"),
    ([SMALL, "--out"], "argument --out: expected one argument; see python -m sim --help"),
    ([SMALL, "pipeline"], "<command line> pipeline: an override is written key=value, e.g. parallel.pipeline=8"),
    ([SMALL, "--out", "file"], "file: is a file; name a folder with --out"),
    ([SMALL, "--out", "file/o/p"], "<here>/file: is a file; name a folder with --out"),
    ([SMALL, "--out", "theirs"],
     "theirs: is not empty and has no result.json of a run, so nothing in it is replaced; name another with --out"),
    ([SMALL, "--out", "."], ".: is the working folder or above it; name a folder inside it with --out"),
    (["list", "gpus"],
     "unknown kind 'gpus'; legal: scenarios, sweeps, searches, models, devices, nodes, fabrics, schedules"),
    (["schema", "x"], "unrecognized arguments: x; see python -m sim --help"),
    (["check", SMALL, "fold=x"], "<command line> fold=x: expected true or false; found 'x'"),
]  # fmt: skip


@pytest.mark.parametrize(("words", "line"), WRONG, ids=[" ".join(words)[-40:] for words, _ in WRONG])
def test_wrong_input_is_exit_2_with_one_line(
    fakes: Any, capsys: pytest.CaptureFixture[str], words: list[str], line: str
) -> None:
    Path("file").write_text("x")
    Path("theirs").mkdir()
    Path("theirs/thesis.tex").write_text("x")
    before = there()
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert (out, err) == ("", line.replace("<here>", str(Path.cwd())) + "\n")
    assert there() == before


def test_a_place_that_cannot_be_written(fakes: Any, capsys: pytest.CaptureFixture[str]) -> None:
    def denied(**arguments: Any) -> str:
        raise PermissionError(13, "Permission denied")

    fakes.setattr(tempfile, "mkdtemp", denied)
    assert main([SMALL, "--out", "new/o"]) == 2
    assert capsys.readouterr().err == "new/o: cannot be written: Permission denied\n"
    assert there() == []


def test_what_a_schedule_refuses_is_one_line_and_leaves_nothing(fakes: Any, capsys: pytest.CaptureFixture[str]) -> None:
    def refuse(scenario: Scenario) -> None:
        raise Refused("dualpipe with pipeline 8 cannot run\nmicro_batches 7; legal: even numbers from 16 on")

    fakes.setattr(sim, "run", refuse)
    assert main([SMALL, "--out", "a/b/c"]) == 2
    line = "dualpipe with pipeline 8 cannot run micro_batches 7; legal: even numbers from 16 on"
    assert capsys.readouterr().err == f"{SMALL}: {line}\n"
    assert there() == []


FULL = OSError(28, "No space left on device")


@pytest.mark.parametrize(("stage", "error", "code", "said"), [
    ("write", FULL, 2, "o: cannot be written: No space left on device"),
    ("write", KeyboardInterrupt(), 130, "interrupted; nothing written"),
    ("run", KeyboardInterrupt(), 130, "interrupted; nothing written"),
    ("run", FULL, 70, "OSError: [Errno 28] No space left on device"),  # a simulation writes nothing
])  # fmt: skip
def test_what_fails_midway_leaves_the_older_folder_as_it_was(
    fakes: Any, capsys: pytest.CaptureFixture[str], stage: str, error: BaseException, code: int, said: str
) -> None:
    assert main([SMALL, "--out", "o", "-q"]) == 0
    before = there()

    def fail(*arguments: Any) -> None:
        if stage == "write":
            (arguments[1] / "result.json").write_text("{half")
        raise error

    fakes.setattr(*((archive, "write") if stage == "write" else (sim, "run")), fail)
    assert main([SMALL, "--out", "o", "-q", "seed=9"]) == code
    err = capsys.readouterr().err
    assert err == f"{said}\n" if code != 70 else err.startswith("Traceback ") and err.endswith(f"{said}\n")
    assert there() == before and json.loads(Path("o/result.json").read_text())["seed"] == 0
    assert main([SMALL, "--out", "new/o", "-q"]) == code
    assert there() == before


MISFITS = [
    (
        "layout.plan._checked",
        lambda schedule, shape: dict(zip([1], [1, 2], strict=True)),
        "ValueError: zip() argument 2 is longer",
    ),
    ("analysis.metrics.waterfall", lambda books: np.zeros(2) + np.zeros(3), "ValueError: operands could not be"),
    ("simulation.lay_out", lambda scenario: [0] * sys.maxsize, "MemoryError"),
    ("simulation.lay_out", lambda scenario: np.array([2**63 - 1]) + 2**64, "OverflowError: Python "),
]
"""Where, a bug that is planted there, and how the last line of its traceback begins."""


@pytest.mark.parametrize(("place", "bug", "last"), MISFITS, ids=[last for *_, last in MISFITS])
def test_a_bug_of_ours_is_a_traceback_and_never_wrong_input(
    monkeypatch: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], place: str, bug: Any, last: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(f"sim.{place}", bug)
    assert main([SMALL, "outputs=[result]"]) == BUG == 70
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("Traceback (most recent call last):") and err.splitlines()[-1].startswith(last)
    assert there() == []


@pytest.mark.parametrize(("command", "place"), [
    ("check", "simulation.lay_out"), ("tokens", "experiments.tokens.survey"), ("exchange", "cli.exchange.figures"),
])  # fmt: skip
def test_no_command_line_calls_a_bug_wrong_input(
    monkeypatch: Any, capsys: pytest.CaptureFixture[str], command: str, place: str
) -> None:
    importlib.import_module(f"sim.{place.rpartition('.')[0]}")
    monkeypatch.setattr(f"sim.{place}", lambda *arguments: list(zip([1], [1, 2], strict=True)))
    assert main([command, SMALL if command == "check" else str(SCENARIOS / "v2_lite.yaml")]) == BUG
    assert capsys.readouterr().err.endswith("ValueError: zip() argument 2 is longer than argument 1\n")


def test_list_check_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "devices"]) == 0
    assert capsys.readouterr().out == "\n  ".join(["devices:", *device.available()]) + "\n"
    assert main(["list"]) == 0
    listed = capsys.readouterr().out
    assert "  v3_2048gpu\n" in listed and "  dualpipe\n" in listed and "  mpft\n" in listed
    assert main(["check", SMALL]) == 0
    assert "nothing wrong (DualPipe, 8 ranks, 20 micro-batches; hash " in capsys.readouterr().out
    for words in (["--help"], ["-h"], ["run", "--help"], [SMALL, "-h"]):
        assert main(words) == 0
        assert capsys.readouterr().out.startswith("usage: python -m sim SCENARIO.yaml [key=value ...]")
    assert main([]) == 2


@pytest.mark.parametrize("word", ["dualpipe_8x20", "dualpipe_8x20.yaml", "scenarios/dualpipe_8x20.yaml"])
def test_what_is_listed_runs_from_any_folder(monkeypatch: Any, tmp_path: Path, capsys: Any, word: str) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([word, "outputs=[result]", "-q"]) == 0 and there() == [
        "out", "out/dualpipe_8x20", "out/dualpipe_8x20/result.json", "out/dualpipe_8x20/scenario.yaml"
    ]  # fmt: skip
    assert main(["check", "elsewhere/dualpipe_8x20.yaml"]) == 2
    assert main(["list", "scenarios", "sweeps"]) == 0
    for name in capsys.readouterr().out.split():
        if not name.endswith(":"):
            assert shelves.place(name).is_file() or shelves.place(name, SWEEPS).is_file()
    Path("dualpipe_8x20.yaml").write_text("schedule: [")  # a file of that name comes first
    assert main(["check", "dualpipe_8x20.yaml"]) == 2


def test_check_says_what_does_not_fit_and_writes_nothing(
    monkeypatch: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["check", "v2_lite", "batch.micro_batch=64", "batch.sequences=65536", "limits.step_time=1 ms"]) == 1
    out, err = capsys.readouterr()
    assert out == "" and there() == []
    first, second = err.splitlines()
    assert first.startswith("v2_lite: infeasible: does not fit in memory: a rank at position 1 of the pipeline needs ")
    assert second.startswith("v2_lite: infeasible: the step takes ")


def process(code: str, *words: str, cwd: Path) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", code, *words], cwd=cwd, text=True,
                            env={**os.environ, "PYTHONPATH": str(ROOT)},
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip


def test_help_imports_nothing_heavy(tmp_path: Path) -> None:
    heavy = {"pydantic", "numpy", "plotly", "yaml", "simpy", "rich", "networkx", "torch"}
    code = f"import sys; from sim.__main__ import main; main(['--help']); print({heavy} & set(sys.modules))"
    out, _ = process(code, cwd=tmp_path).communicate(timeout=30)
    assert out.endswith("set()\n")


def test_control_c_is_130_and_leaves_nothing(tmp_path: Path) -> None:
    code = ("import sys, time, sim; from sim.__main__ import main\n"
            "sim.run = lambda scenario: (print('running', flush=True), time.sleep(30))\n"
            "sys.exit(main(sys.argv[1:]))")  # fmt: skip
    child = process(code, SMALL, cwd=tmp_path)
    assert child.stdout is not None and child.stdout.readline() == "running\n"
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=30)
    assert (child.returncode, err) == (130, "interrupted; nothing written\n")
    assert there(tmp_path) == []


def test_control_c_inside_an_exec_is_130_too(tmp_path: Path) -> None:
    """As of a named tuple that is made: `python -m` would end by the signal."""
    code = "import sys; from sim.cli.command import answered as a; sys.exit(a(lambda: exec('raise KeyboardInterrupt')))"
    (tmp_path / "stopped.py").write_text(code)
    words, env = [sys.executable, "-m", "stopped"], {**os.environ, "PYTHONPATH": str(ROOT)}
    assert subprocess.run(words, cwd=tmp_path, env=env, capture_output=True, check=False).returncode == 130


def test_a_closed_pipe_is_141_without_a_word(tmp_path: Path) -> None:
    code = "import sys, time; time.sleep(0.3); from sim.__main__ import main; sys.exit(main(['schema']))"
    child = process(code, cwd=tmp_path)
    assert child.stdout is not None and child.stderr is not None
    child.stdout.close()
    err = child.stderr.read()
    child.stderr.close()
    deadline = time.monotonic() + 30
    while child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert (child.returncode, err) == (141, "")


@pytest.mark.parametrize("words", [[SMALL, "outputs=[result]"], ["no.yaml"], []])
def test_a_closed_pipe_for_tables_and_mistakes_is_141_too(words: list[str], tmp_path: Path) -> None:
    code = "import sys, time; time.sleep(0.3); from sim.__main__ import main; sys.exit(main(sys.argv[1:]))"
    child = process(code, *words, cwd=tmp_path)
    assert child.stdout is not None and child.stderr is not None
    child.stderr.close()
    assert child.stdout.read() == ""
    child.stdout.close()
    assert child.wait(timeout=60) == 141
