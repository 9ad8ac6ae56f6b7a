"""Which rules fit a trace, when it was recorded, whose dimensions it takes; a trace of torch's own gives tables."""

import json
from pathlib import Path

import pytest

from numerics.tables import recording
from numerics.traces import rules
from numerics.traces.trace import read_trace

TINY = Path(__file__).parents[1] / "traces" / "two_streams.json"
MODEL = Path(__file__).parents[3] / "scenarios" / "models" / "deepseek_v3.yaml"


def event(name, ts, **more):
    return {"ph": "X", "cat": "kernel", "name": name, "ts": ts, "dur": 10, "pid": 0, "tid": 7, "args": {}} | more


def trace(tmp_path, events, **head):
    path = tmp_path / "trace.json"
    path.write_text(json.dumps({**head, "traceEvents": events}))
    return path


def test_rules_are_those_that_know_most(tmp_path):
    assert recording.best(read_trace(TINY)) == "torch", "the plainest of those that know as much"
    ours = trace(tmp_path, [event("void deep::ep::internode::dispatch<8>", 1)])
    assert recording.best(read_trace(ours)) == "deepseek"
    phases = [event("vectorized_elementwise", 1), {**event("attn(F)", 0), "cat": "user_annotation"}]
    assert recording.best(read_trace(trace(tmp_path, phases))) == "deepseek"


@pytest.mark.parametrize(
    ("ts", "base", "day"),
    [(1740461679471346, {}, "2025-02-25"), (5, {"baseTimeNanoseconds": 1740461679471346000}, "2025-02-25"),
     (5, {}, "unsaid"), (5, {"baseTimeNanoseconds": "soon"}, "unsaid")],
)  # fmt: skip
def test_the_day_is_that_of_the_time_stamps(tmp_path, ts, base, day):
    assert recording.day(read_trace(trace(tmp_path, [event("gemm", ts)], **base))) == day


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [("hidden: 7168", "hidden: wide", "hidden"), ("hidden: 7168\n", "", "hidden (missing)"),
     ("hidden: 7168", "hidden: 7168\nwheels: 4", "wheels")],
)  # fmt: skip
def test_dimensions_that_are_none_are_named(tmp_path, old, new, said):
    path = tmp_path / "model.yaml"
    path.write_text(MODEL.read_text().replace(old, new))
    with pytest.raises(ValueError, match=r"not the dimensions of a model: ") as caught:
        recording.shape_of(path)
    assert str(caught.value).endswith(f": {said}")
    path.write_text("- 1\n")
    with pytest.raises(ValueError, match="a mapping of family"):
        recording.shape_of(path)


def test_rules_of_the_users_are_an_input_and_shipped_ones_part_of_the_program(tmp_path):
    own = tmp_path / "own.yaml"
    own.write_text("extends: torch\nkernels: [{class: norm, match: strange}]\n")
    found = recording.calibrated(TINY, own, MODEL)
    said = found.tables["gemm"]["provenance"]
    assert said["command"].endswith("--trace two_streams.json --map own.yaml --model scenarios/models/deepseek_v3.yaml")
    assert said["program"]["entries"][-1] == "numerics/traces/rules/torch.yaml" and "rules own.yaml" in said["inputs"]
    rules = "numerics/traces/rules"
    assert recording.rule_files(Path("deepseek")) == [f"{rules}/deepseek.yaml", f"{rules}/torch.yaml"]
    assert set(recording.rule_files(Path("megatron"))) >= {f"{rules}/megatron.yaml"}
    assert all("strange" not in line for line in recording.report(found))


def test_a_models_layers_on_an_unknown_card_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(recording, "has_layers", lambda analysis: True)
    with pytest.raises(ValueError, match="no device of hwmodels/devices is known for"):
        recording.calibrated(TINY, None, MODEL)


def test_many_strangers_are_summed_up(tmp_path):
    path = trace(tmp_path, [event(f"strange_{i}", 100 * i) for i in range(30)])
    lines = list(recording.report(recording.calibrated(path, None, MODEL), most=5))
    assert "not understood: 100.00% of kernel time" in lines[0]
    assert sum("no rule for" in line for line in lines) == 5
    assert any("and 26 more" in line for line in lines), "25 kernels, and that none was joined to its launch"


def test_a_training_loop_on_the_cpu_gives_its_products(tmp_path):
    torch = pytest.importorskip("torch")
    model = torch.nn.Sequential(torch.nn.Linear(48, 96), torch.nn.GELU(), torch.nn.Linear(96, 8))
    cpu = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=cpu, record_shapes=True) as profile:
        for _ in range(3):
            model(torch.randn(32, 48)).square().mean().backward()
    path = tmp_path / "loop.json"
    profile.export_chrome_trace(str(path))
    found = recording.calibrated(path, None, MODEL)
    assert not found.whole and found.device == "" and found.analysis.rules.name == rules.load("torch").name
    rows = found.tables["gemm"]["rows"]
    first = next(r for r in rows if (r["m"], r["n"], r["k"]) == (32, 96, 48))
    assert first["samples"] == 3 and 0 < first["low_us"] <= first["us"] <= first["high_us"]
    assert "reference" not in found.tables["gemm"] and found.tables["gemm"]["device"] == "CPU"
    assert json.dumps(found.tables)
