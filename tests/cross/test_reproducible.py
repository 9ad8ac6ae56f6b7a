"""The same scenario gives the same bytes, in any process; results travel; failures leave nothing behind."""

import json
import os
import pickle
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import yaml

TIMING = "wall_seconds"


def command(*words, **kwargs):
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=60, **kwargs)


@pytest.fixture(scope="module")
def scenario_file(tmp_path_factory):
    content = {
        "cluster": {"node": "h800x8", "nodes": 1},
        "model": {"base": "deepseek_v2_lite", "layers": 4, "vocabulary": 1024},
        "parallel": {"pipeline": 2, "expert": 4},
        "schedule": "dualpipe",
        "batch": {"micro_batches": 8, "sequence_length": 512},
    }
    path = tmp_path_factory.mktemp("scenarios") / "tiny.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def test_same_bytes_in_fresh_processes(scenario_file, tmp_path):
    """Also under another hash seed; only the line with the wall-clock time may differ."""
    texts, events, pages = [], [], []
    for seed in ("1", "2"):
        out = tmp_path / seed
        done = command(
            "-m", "sim", str(scenario_file), "--out", str(out), "-q", "outputs=[result,report,events]",
            env=os.environ | {"PYTHONHASHSEED": seed},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        lines = (out / "result.json").read_text().splitlines()
        texts.append([line for line in lines if TIMING not in line])
        assert len(lines) == len(texts[-1]) + 1
        pages.append((out / "report.html").read_bytes())
        with np.load(out / "events.npz", allow_pickle=False) as columns:
            events.append({name: columns[name] for name in columns.files})
    assert texts[0] == texts[1] and pages[0] == pages[1]
    assert events[0].keys() == events[1].keys()
    for name, column in events[0].items():
        np.testing.assert_array_equal(column, events[1][name])


def test_no_torch(scenario_file, tmp_path):
    """Neither `import sim` nor a run with all outputs imports torch, triton or numerics."""
    program = (
        "import sys, sim\n"
        "heavy = {'torch', 'triton', 'numerics', 'pydantic', 'networkx', 'plotly', 'simpy'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "from sim.__main__ import main\n"
        f"assert main([{str(scenario_file)!r}, '--out', {str(tmp_path / 'out')!r}, '-q']) == 0\n"
        "assert not {'torch', 'triton', 'numerics'} & set(sys.modules)\n"
    )
    done = command("-c", program)
    assert done.returncode == 0, done.stderr


def test_pickle(small):
    result = small()
    again = pickle.loads(pickle.dumps(result))
    assert again.summary == result.summary and again.scenario == result.scenario
    assert (again.waterfall, again.stages, again.feasible) == (result.waterfall, result.stages, result.feasible)
    assert (again.pair_name, again.price_sources) == (result.pair_name, result.price_sources)
    for name in ("steps", "spans", "pair"):
        ours, theirs = getattr(result, name), getattr(again, name)
        assert (ours.labels, ours.prices) == (theirs.labels, theirs.prices)
        assert all((getattr(ours, c) == getattr(theirs, c)).all() for c in ours.COLUMNS)
    for ours, theirs in zip(result.memory, again.memory, strict=True):
        assert (ours.times == theirs.times).all() and ours.peak_bytes == theirs.peak_bytes
    json.dumps(again.summary)


def test_resolved_scenario_runs_the_same(small):
    """What a run says its scenario was gives the same run."""
    from sim.scenario import from_mapping
    from sim.simulation import run

    first = small()
    second = run(from_mapping(first.scenario), interval=False)
    assert second.summary == first.summary


def test_out_of_memory_is_exit_code_1(v3_file, tmp_path):
    """GPipe keeps all 120 micro-batches of V3: simulated, written, and told in one line, with advice below it."""
    done = command(
        "-m", "sim", str(v3_file), "schedule=gpipe", "detail=chunk", "outputs=[result]", "-q", "--out",
        str(tmp_path / "out"),
    )  # fmt: skip
    assert done.returncode == 1
    first, *advice = done.stderr.splitlines()
    assert first.startswith("infeasible: does not fit in memory: a rank at position ")
    assert advice and all(line.startswith("advice: ") and " fits: " in line for line in advice)
    assert (tmp_path / "out" / "result.json").exists()


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_run_leaves_nothing(v3_file, tmp_path, sent, code):
    """Stopped while it works, at op detail with all outputs and eight times the batch (many seconds)."""
    out = tmp_path / "deep" / "out"
    process = subprocess.Popen(
        [sys.executable, "-m", "sim", str(v3_file), "detail=op", "batch.sequences=122880", "-q", "--out", str(out)],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 30
    while not out.parent.exists() and time.monotonic() < deadline:  # its scratch folder: the run is on
        time.sleep(0.01)
    time.sleep(0.6)  # past the imports, in which a signal can be lost
    process.send_signal(sent)
    _, said = process.communicate(timeout=30)
    assert process.returncode == code
    assert list(tmp_path.iterdir()) == []
    assert "Traceback" not in said
