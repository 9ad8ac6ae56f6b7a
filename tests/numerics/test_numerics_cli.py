import gzip
import json
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from numerics import __main__ as cli

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "scenarios" / "models" / "deepseek_v3.yaml"
PROFILE = ROOT.parent / "shared" / "data" / "deepseek_v3_train_profile.json"
TINY = Path(__file__).parent / "traces" / "two_streams.json"
H200 = Path(__file__).parent / "traces" / "h200_mlp.json.gz"


STUDY = ROOT / "numerics" / "training" / "runs" / "study.yaml"


def has_device():
    try:
        import torch
    except ImportError:
        return False
    return torch.cuda.is_available()


@pytest.mark.parametrize("words, said", [
    ([], "COMMAND"),
    (["benhc"], "invalid choice: 'benhc'"),
    (["study", "speed"], "invalid choice: 'speed'"),
    (["study", "training"], "study training needs --corpus DIR"),
    (["train", "no.yaml", "--corpus", "none"], "no.yaml"),
    (["train", str(STUDY), "--corpus", "none"], "none: no corpus"),
    (["train", str(STUDY)], "--corpus"),
    (["corpus", "nowhere", "--out", "x"], "0 files of *.c"),
    (["calibrate"], "--trace --gpu --again --torch --node --node-rows --timed --attention --stale --moved is required"),
    (["calibrate", "--trace", "a.json", "--gpu"], "not allowed with"),
    (["calibrate", "--gpu", "--map", "a.yaml"], "--map goes with --trace, not with --gpu"),
    (["calibrate", "--stale", "--quick"], "--quick goes with --gpu, not with --stale"),
    (["calibrate", "--stale", "--out", "x"], "--stale writes nothing"),
    (["calibrate", "--moved", "--out", "x"], "--moved writes where the tables are"),
    (["calibrate", "--trace", "no.json"], "no.json"),
    (["calibrate", "--trace", str(TINY), "--map", "abacus"], "abacus"),
    (["calibrate", "--trace", str(TINY), "--device", "5"], "nothing ran on device '5'; legal: 0"),
    (["calibrate", "--gpu", "--device", "5"], "--device goes with --trace, not with --gpu"),
    (["calibrate", "--trace", str(TINY), "--map", "no.yaml"], "no.yaml"),
    (["calibrate", "--trace", str(TINY), "--model", "no.yaml"], "no.yaml"),
    (["census", "--model", "no.yaml"], "no.yaml"),
    (["bench", "--fast"], "unrecognized arguments: --fast"),
])  # fmt: skip
def test_wrong_input_is_one_line_and_exit_2(words, said, capsys):
    assert cli.main(words) == cli.WRONG
    error = capsys.readouterr().err.strip()
    assert said in error and "\n" not in error


def test_help(capsys):
    with pytest.raises(SystemExit) as done:
        cli.main(["--help"])
    assert done.value.code == 0
    shown = capsys.readouterr().out
    assert all(command in shown for command in ("check", "bench", "study", "calibrate", "accuracy", "census"))


@pytest.mark.skipif(has_device(), reason="there is a CUDA device")
def test_bench_without_a_device_says_so_in_one_line(tmp_path, capsys):
    assert cli.main(["bench", "--quick", "--out", str(tmp_path / "b.json")]) == cli.UNMEASURABLE
    error = capsys.readouterr().err.strip()
    assert error.startswith("nothing can be measured here") and "\n" not in error
    assert not (tmp_path / "b.json").exists()


def test_check_passes_on_what_the_legs_say(monkeypatch, capsys):
    check = pytest.importorskip("numerics.card.check")
    for passed, code in ((True, cli.DONE), (False, cli.FAILED)):
        monkeypatch.setattr(check, "run", lambda show, passed=passed: passed)
        assert cli.main(["check"]) == code


def test_study_writes_where_it_is_told(monkeypatch, tmp_path):
    accumulation = pytest.importorskip("numerics.training.accumulation")
    asked = []
    monkeypatch.setattr(accumulation, "main", asked.append)
    assert cli.main(["study", "accumulation", "--out", str(tmp_path)]) == cli.DONE
    assert asked == [tmp_path]


@pytest.mark.skipif(has_device(), reason="there is a CUDA device")
def test_calibrate_without_a_device_says_so_in_one_line(tmp_path, capsys):
    assert cli.main(["calibrate", "--gpu", "--out", str(tmp_path / "h200")]) == cli.UNMEASURABLE
    error = capsys.readouterr().err.strip()
    assert error.startswith("nothing can be measured here") and "\n" not in error
    assert not (tmp_path / "h200").exists()


@pytest.mark.skipif(not PROFILE.is_file(), reason="the published profile is not here")
def test_calibrate_rewrites_the_shipped_tables(tmp_path, capsys):
    assert cli.main(["calibrate", "--trace", str(PROFILE), "--out", str(tmp_path)]) == cli.DONE
    assert "all understood" in capsys.readouterr().out
    for path in (ROOT / "hwmodels" / "tables" / "h800").glob("*.json"):
        assert (tmp_path / path.name).read_bytes() == path.read_bytes()


@pytest.mark.skipif(not PROFILE.is_file(), reason="the published profile is not here")
def test_a_model_that_runs_other_kernels_is_exit_1(tmp_path, capsys):
    model = tmp_path / "model.yaml"
    model.write_text(MODEL.read_text().replace("q_rank: 1536", "q_rank: 0"))
    words = ["calibrate", "--trace", str(PROFILE), "--model", str(model), "--out", str(tmp_path / "out")]
    assert cli.main(words) == cli.FAILED
    error = capsys.readouterr().err.strip()
    assert error.endswith("attn(F): the trace runs 'q_a', the model does not") and "\n" not in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("text, said", [
    ("", "empty"), ('{"traceEvents": [{"ph": "X",', "byte"), ("a,b\n1,2\n", "byte"), ("[]", "no kernels"),
    ('{"traceEvents": [{"ph": "X", "cat": "kernel", "name": "k", "ts": "soon", "dur": 1}]}', "soon"),
    ('{"traceEvents": [{"ph": "X", "cat": "user_annotation", "name": "a", "ts": 1, "dur": 1, "pid": 1, "tid": 1}]}',
     "no kernels and no operators"),
])  # fmt: skip
def test_a_malformed_trace_is_one_line_and_exit_2(text, said, tmp_path, capsys):
    path = tmp_path / "broken.json"
    path.write_text(text)
    assert cli.main(["calibrate", "--trace", str(path), "--out", str(tmp_path / "out")]) == cli.WRONG
    error = capsys.readouterr().err.strip()
    assert said in error and "broken.json" in error and "\n" not in error
    assert not (tmp_path / "out").exists()


def test_a_trace_without_a_models_layers_gives_products_and_classes(tmp_path, capsys):
    assert cli.main(["calibrate", "--trace", str(TINY)]) == cli.DONE
    shown = capsys.readouterr()
    assert (
        "strange_kernel (1 times, 5.71% of kernel time)" in shown.out
        and "no device of hwmodels is called Made" in shown.out
    )
    assert "nothing written: say where with --out DIR" in shown.err
    assert cli.main(["calibrate", "--trace", str(TINY), "--map", "torch", "--out", str(tmp_path)]) == cli.DONE
    assert sorted(p.name for p in tmp_path.iterdir()) == ["classes.json", "gemm.json", "operations.json"]
    (row,) = json.loads((tmp_path / "gemm.json").read_text())["rows"]
    assert (row["m"], row["n"], row["k"], row["us"], row["samples"]) == (256, 128, 512, 36.0, 2)
    kinds = {r["class"]: r for r in json.loads((tmp_path / "classes.json").read_text())["rows"]}
    assert kinds["comm_data"]["us"] == 60.0 and sum(r["share"] for r in kinds.values()) == pytest.approx(1, abs=1e-3)


def test_a_gpus_trace_is_told_and_written(tmp_path, capsys):
    assert cli.main(["calibrate", "--trace", str(H200), "--out", str(tmp_path)]) == cli.DONE
    shown = capsys.readouterr().out
    for said in (
        "132 pieces of work on NVIDIA H200, rules PyTorch; all understood", "gemm_bf16        51.4%  15 times",
        "idle 10019.108: 80 launch gaps, 101.692 us, and 51 longer waits, 9917.416 us",
        "4 products with known sides: 762.3 to 844.6 TFLOP/s",
    ):  # fmt: skip
        assert said in shown
    table = json.loads((tmp_path / "operations.json").read_text())
    assert table["device"] == "h200" and [d["launch_gap_count"] for d in table["overlap_us"]] == [80]
    assert sum(r["kernels"] for r in table["rows"]) == 132 and table["rows"][0]["class"] == "gemm_bf16"


def test_a_trace_without_kernels_is_said_to_time_the_host(tmp_path, capsys):
    op = {"ph": "X", "cat": "cpu_op", "name": "aten::mm", "ts": 1, "dur": 5, "pid": 1, "tid": 1}
    path = tmp_path / "host.json"
    path.write_text(json.dumps([op]))
    assert cli.main(["calibrate", "--trace", str(path)]) == cli.DONE
    assert "no kernels in the trace: these are times of host operators" in capsys.readouterr().out


def test_a_rate_above_the_peak_is_doubted(tmp_path, capsys):
    trace = json.loads(gzip.decompress(H200.read_bytes()))
    for event in trace["traceEvents"]:
        if event.get("name", "").startswith("nvjet"):
            event["dur"] /= 2
    path = tmp_path / "fast.json"
    path.write_text(json.dumps(trace))
    assert cli.main(["calibrate", "--trace", str(path)]) == cli.DONE
    assert "4 of them above the peak of h200: the trace's sides or times cannot be right" in capsys.readouterr().out


def test_names_do_not_reach_the_terminal_raw(tmp_path, capsys):
    event = {"ph": "X", "cat": "kernel", "name": "\ud800\x1b[31mred\n" + "x" * 500, "ts": 1, "dur": 5}
    path = tmp_path / "odd.json"
    path.write_text(json.dumps([event]))
    assert cli.main(["calibrate", "--trace", str(path), "--out", str(tmp_path / "out")]) == cli.DONE
    (line,) = (line for line in capsys.readouterr().out.splitlines() if "no rule for" in line)
    assert "??[31mred?xxx" in line and "xxx... (1 times" in line and len(line) < 200


def test_out_is_checked_before_a_trace_is_read(tmp_path, capsys):
    taken = tmp_path / "taken"
    taken.write_text("mine")
    assert cli.main(["calibrate", "--trace", str(tmp_path / "none.json"), "--out", str(taken)]) == cli.WRONG
    assert "is a file; a folder for the tables is needed" in capsys.readouterr().err
    assert taken.read_text() == "mine"


def test_tables_are_written_all_or_none(tmp_path, monkeypatch):
    from numerics.tables import calibrate

    tables = {name: {"device": "x", "provenance": {}, "rows": [{"a": 1}]} for name in ("one", "two")}
    calibrate.write(tables, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert sorted(before) == ["one.json", "two.json"]
    written = Path.write_text

    def full(self, *given, **named):
        if self.stem == "two":
            raise OSError(28, "No space left on device")
        return written(self, *given, **named)

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space"):
        calibrate.write({name: {**table, "rows": [{"a": 2}]} for name, table in tables.items()}, tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_an_interrupt_is_one_word(monkeypatch, capsys):
    from numerics.tables import recording

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(recording, "calibrated", interrupted)
    assert cli.main(["calibrate", "--trace", str(TINY)]) == cli.INTERRUPTED == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_stale_tables_are_listed_and_exit_1(tmp_path, monkeypatch, capsys):
    from numerics.tables import provenance

    assert provenance.stale("h800") == []  # a trace is enough to write these again; a card's need the card
    monkeypatch.setattr(provenance, "stale", lambda device: [])
    assert cli.main(["calibrate", "--stale"]) == cli.DONE
    assert capsys.readouterr().out.startswith("fresh: ")
    monkeypatch.setattr(provenance, "stale", lambda device: [f"{device}/gemm.json: stale"])
    assert cli.main(["calibrate", "--stale"]) == cli.FAILED
    shown = capsys.readouterr().out
    assert "h800/gemm.json: stale" in shown and "h200/torch/gemm.json" in shown and "twins" not in shown


def test_tables_are_told_where_their_program_moved(tmp_path, monkeypatch, capsys):
    """Only the places change, a line each; digests, figures and the tables that did not move stay byte for byte."""
    from numerics.tables import provenance

    kept = shutil.copytree(ROOT / "hwmodels" / "tables" / "h800", tmp_path / "h800") / "gemm.json"
    before = kept.read_text()
    kept.write_text(before.replace("numerics.tables.calibrate:", "numerics.attic.calibrate:"))
    for name in ("stale", "moved"):
        monkeypatch.setattr(provenance, name, partial(getattr(provenance, name), tables=tmp_path))
    monkeypatch.setattr(cli, "TABLES", tmp_path)
    assert cli.main(["calibrate", "--stale"]) == cli.FAILED
    capsys.readouterr()
    assert cli.main(["calibrate", "--moved"]) == cli.DONE
    shown = capsys.readouterr()
    assert shown.out == "fresh: h800\n" and shown.err.endswith("h800: gemm\n") and kept.read_text() == before


def test_contention_is_made_again_from_rows(tmp_path, capsys):
    assert cli.main(["calibrate", "--again", "h200", "--out", str(tmp_path)]) == cli.DONE
    assert [p.name for p in tmp_path.iterdir()] == ["contention.json"]
    made, there = (json.loads((folder / "contention.json").read_text()) for folder in (tmp_path, cli.TABLES / "h200"))
    assert "--again" in made["provenance"].pop("made_again")
    there["provenance"].pop("made_again", None)
    assert made == there
    capsys.readouterr()
    assert cli.main(["calibrate", "--again", "h20"]) == cli.WRONG
    assert capsys.readouterr().err == "--again h20: no rows beside communication; legal: h200\n"


def test_accuracy_prints_or_writes_the_page(tmp_path, monkeypatch, capsys):
    from numerics.accuracy import page

    monkeypatch.setattr(page, "PAGE", tmp_path / "PRICES.md")
    monkeypatch.setattr(page, "page", lambda: "# How good prices are")  # accuracy/test_errors.py has it whole
    assert cli.main(["accuracy"]) == cli.DONE
    shown = capsys.readouterr().out
    assert shown.startswith("# How good prices are") and not page.PAGE.exists()
    assert cli.main(["accuracy", "--write"]) == cli.DONE
    assert page.PAGE.read_text() == shown


def test_census_answers_with_its_own_code(monkeypatch):
    census = pytest.importorskip("numerics.census.census")
    asked = []
    monkeypatch.setattr(census, "main", lambda shape: asked.append(shape.name) or 1)
    assert cli.main(["census"]) == cli.FAILED and asked == ["DeepSeek-V3"]


def test_the_command_line_needs_no_torch():
    """calibrate, and every mistake, work where torch and triton are not installed."""
    block = "import sys; sys.modules.update(torch=None, triton=None); from numerics.__main__ import main; "
    for words, code in ((["calibrate", "--trace", "x"], 2), (["bench"], 3), (["calibrate", "--gpu"], 3)):
        done = subprocess.run(
            [sys.executable, "-c", block + f"sys.exit(main({words!r}))"], cwd=ROOT, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        assert done.returncode == code, done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
