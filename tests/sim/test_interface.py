"""The Python interface: what `run` and `load` take, and what a Result shows, saves and turns into."""

import builtins
import json
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sim
from hwmodels.refused import Refused
from sim.result.trace import LANES, PHASES, Trace
from sim.scenario import SCENARIOS

SMALL = SCENARIOS / "dualpipe_8x20.yaml"
MAPPING = {
    "schedule": "1f1b", "parallel": {"pipeline": 2}, "batch": {"micro_batches": 4},
    "chunk_times": {"forward": "1 ms", "backward_input": "1 ms", "weight": "1 ms"},
}  # fmt: skip


def test_a_file_a_name_a_mapping_and_a_scenario_are_run_alike() -> None:
    ways = [SMALL, str(SMALL), "dualpipe_8x20", sim.load(SMALL), sim.load(SMALL).resolved]
    hashes = [sim.run(way, seed=3).summary["scenario_hash"] for way in ways]
    assert {*hashes} == {sim.load(SMALL, ["seed=3"]).scenario_hash}
    assert sim.run(MAPPING).summary["step_time_s"] == pytest.approx(15e-3)


def test_overrides_are_words_or_names_and_are_told() -> None:
    changes: dict[str, Any] = {"schedule": "zb1p", "fold": False, "chunk_times.p2p": "1 ms", "outputs": ["result"]}
    words = ["schedule=zb1p", "fold=false", "chunk_times.p2p=1 ms", 'outputs=["result"]']
    one, two = sim.run(SMALL, **changes), sim.run(SMALL, words)
    assert one.summary == two.summary and one.summary["overrides"] == words
    assert sim.load(sim.load(SMALL, ["seed=1"]), seed=2, jitter=None).overrides == ("seed=1", "seed=2", "jitter=null")
    assert sim.load(SMALL, limits={"memory": "1 GB"}).limits.memory_bytes == 10**9


def test_one_override_needs_no_list() -> None:
    assert sim.load(SMALL, "seed=2", fold=False).overrides == ("seed=2", "fold=false")
    assert sim.load(sim.load(SMALL), "seed=2").seed == sim.load(MAPPING, (word for word in ["seed=2"])).seed == 2


@pytest.mark.parametrize(("overrides", "line"), [
    ({"seed": 2}, "expected overrides, such as ['comm.sms=12'], or by name **{'comm.sms': 12}; found {'seed': 2}"),
    (None, "expected overrides, such as ['comm.sms=12'], or by name **{'comm.sms': 12}; found None"),
    ([("seed", 2)], "expected overrides, each as text such as 'comm.sms=12'; found ('seed', 2)"),
    (b"seed=2", "expected overrides, each as text such as 'comm.sms=12'; found 115"),
    ("seed", "<command line> seed: an override is written key=value, e.g. parallel.pipeline=8"),
])  # fmt: skip
def test_what_are_no_overrides_is_one_line(overrides: Any, line: str) -> None:
    with pytest.raises(Refused) as caught:
        sim.run(SMALL, overrides)
    assert str(caught.value) == line


@pytest.mark.parametrize(("scenario", "line"), [
    (3, "expected a scenario: a file, a name, a mapping or one that is loaded; found 3"),
    ("v3_2048gp", "v3_2048gp: cannot be read: No such file or directory"),
    ({"seed": 1}, "<mapping>: batch: missing"),
])  # fmt: skip
def test_what_is_no_scenario_is_refused(scenario: Any, line: str) -> None:
    with pytest.raises(Refused) as caught:
        sim.run(scenario)
    assert str(caught.value).startswith(line)


def test_a_result_shows_itself_in_a_line() -> None:
    result = sim.run("v2_lite", ['schedule="zb1p"'], outputs=["result"], interval=False, **{"parallel.expert": 4})
    assert re.fullmatch(
        r'<Result of DeepSeek-V2-Lite step on 128 H800s; with schedule="zb1p" parallel.expert=4; step \d\.\d+ s; '
        r"MFU, causal \d\d\.\d%; peak memory \d\d\.\d+ GB of 80 GB, position 1>",
        repr(result),
    )
    assert "<th>step</th><td>" in result._repr_html_() and "&quot;zb1p&quot;" in result._repr_html_()
    missed = sim.run(SMALL, **{"limits.step_time": "1 ms"})
    assert "infeasible the step takes 66.00 ms, more than limits.step_time 1.000 ms" in repr(missed)
    assert len(repr(missed.spans)) < 200 and repr(pickle.loads(pickle.dumps(missed))) == repr(missed)


def test_a_result_is_saved_as_data(tmp_path: Path) -> None:
    """What the command line writes but for the page, the traces and the time it took; beside what is there."""
    result = sim.run("v2_lite", outputs=["result", "events", "links"], interval=False)
    (tmp_path / "o").mkdir()
    for _ in range(2):
        assert result.save(tmp_path / "o") == tmp_path / "o"
        (tmp_path / "o" / "notes.txt").write_text("mine")
    names = {path.name for path in (tmp_path / "o").iterdir()}
    assert names == {"result.json", "scenario.yaml", "events.npz", "links.csv", "notes.txt"}
    written = json.loads((tmp_path / "o" / "result.json").read_text())
    assert set(written.pop("files")) == names - {"result.json", "notes.txt"}
    assert written == json.loads(json.dumps(result.summary))
    assert sim.load(tmp_path / "o" / "scenario.yaml").scenario_hash == result.summary["scenario_hash"]
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "result.json").write_text("{}")
    with pytest.raises(Refused, match="nothing in it is replaced"):
        result.save(tmp_path / "theirs")


def test_spans_become_a_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pandas")
    result = sim.run(SMALL)
    frame = result.to_frame()
    assert list(frame.columns) == list(Trace.COLUMNS) and len(frame) == len(result.spans) > 0
    assert (frame["end"] == result.spans.end).all() and frame["lane"].isin(LANES).all()
    assert (frame["phase"] == np.array(PHASES)[result.spans.phase]).all()
    assert frame["label"].iloc[0] == result.spans.labels[result.spans.label[0]] and (frame["price"] == "").all()
    assert len(sim.run(SMALL, outputs="result").to_frame()) == len(result.steps)
    real = builtins.__import__

    def without(name: str, *arguments: Any, **more: Any) -> Any:
        if name == "pandas":
            raise ImportError
        return real(name, *arguments, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(Refused, match="to_frame needs pandas: pip install pandas"):
        result.to_frame()


def test_what_was_changed_stays_with_the_name(tmp_path: Path) -> None:
    """In the file that a run writes, and over changes of changes; a name of one's own is one's own."""
    words = ["parallel.pipeline=4", "outputs=[result]"]
    first, name = sim.run(SMALL, words), sim.load(SMALL).name
    assert (first.summary["scenario"], first.summary["overrides"]) == (name, words)
    again = sim.load(first.save(tmp_path / "o") / "scenario.yaml")
    assert again.name == again.title == f"{name}, with parallel.pipeline=4" and again == sim.load(SMALL, words)
    twice = sim.load(sim.load(SMALL, words), "seed=2")
    assert (twice.name, twice.title) == (name, f"{name}, with parallel.pipeline=4 seed=2")
    assert twice.resolved["name"] == twice.title
    assert sim.load(SMALL, ["name=mine", "seed=2"]).title == "mine, with seed=2"
