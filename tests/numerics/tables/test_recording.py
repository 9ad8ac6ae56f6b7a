"""Which rules fit a trace, when it was recorded, whose dimensions it takes; a trace of torch's own gives tables."""

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwmodels.refused import Refused
from numerics.tables import recording
from numerics.traces import rules
from numerics.traces.trace import read_trace
from tests.examples import examples
from tests.numerics.traces import made

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
    with pytest.raises(Refused, match=r"not the dimensions of a model: ") as caught:
        recording.shape_of(path)
    assert str(caught.value).endswith(f": {said}")
    path.write_text("- 1\n")
    with pytest.raises(Refused, match="a mapping of family"):
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
    with pytest.raises(Refused, match="no device of hwmodels/devices is known for"):
        recording.calibrated(TINY, None, MODEL)


def test_many_strangers_are_summed_up(tmp_path):
    path = trace(tmp_path, [event(f"strange_{i}", 100 * i) for i in range(30)])
    lines = list(recording.report(recording.calibrated(path, None, MODEL), most=5))
    assert "not understood: 100.00% of kernel time" in lines[0]
    assert "launch not in the trace" in lines[1] and "(30 times, 100.00% of kernel time)" in lines[1]
    assert sum("no rule for" in line for line in lines) == 4
    assert any("and 26 more" in line for line in lines), "26 kernels"


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


# --- what the report says ---------------------------------------------------------------------------------------------

GEMM = "my_bf16_gemm"


def lines(folder, events, device="", **head):
    found = recording.calibrated(made.write(folder, events, **head), None, MODEL, device=device)
    return found, list(recording.report(found))


def test_each_device_has_a_line_and_a_row(tmp_path):
    events = made.launched(GEMM, 100, 100, 1) + made.launched(GEMM, 200, 100, 2, device=1)
    found, said = lines(tmp_path, events, deviceProperties=made.properties("NVIDIA H200", "NVIDIA H200"))
    assert "2 pieces of work on 2 devices, each NVIDIA H200, rules PyTorch; all understood" in said[0]
    for number in (0, 1):
        (line,) = (line for line in said if f"device {number}, 1 pieces of work" in line)
        assert "of 200 us, compute was busy 100," in line and "idle 100: 0 launch gaps, 0 us, and 1 longer" in line
    rows = found.tables["operations"]["overlap_us"]
    assert [(r["device"], r["name"], r["compute_busy"], r["idle"]) for r in rows] == [
        ("0", "NVIDIA H200", 100, 100), ("1", "NVIDIA H200", 100, 100),
    ]  # fmt: skip
    found, said = lines(tmp_path, events, "1", deviceProperties=made.properties("NVIDIA H200", "NVIDIA H200"))
    assert "1 pieces of work on NVIDIA H200" in said[0] and any("of 100 us, compute was busy 100" in s for s in said)
    assert found.tables["gemm"]["provenance"]["command"].endswith(" --device 1")


@pytest.mark.parametrize(
    ("names", "device", "says"),
    [
        (("A100", "H100"), "", r"devices 0 \(A100\), 1 \(H100\); they are not of one kind: choose with --device"),
        (("H100", "H100"), "7", "nothing ran on device '7'; legal: 0, 1"),
    ],
)
def test_devices_that_share_no_tables_are_to_be_chosen_from(tmp_path, names, device, says):
    events = made.launched(GEMM, 100, 100, 1) + made.launched(GEMM, 200, 100, 2, device=1)
    with pytest.raises(Refused, match=says):
        lines(tmp_path, events, device, deviceProperties=made.properties(*names))
    found, _ = lines(tmp_path, events, "0", deviceProperties=made.properties(*names))
    assert found.analysis.device == names[0]


def test_a_models_layers_are_priced_from_one_device(tmp_path, monkeypatch):
    monkeypatch.setattr(recording, "has_layers", lambda analysis: True)
    events = made.launched(GEMM, 100, 100, 1) + made.launched(GEMM, 200, 100, 2, device=1)
    with pytest.raises(Refused, match="a model's layers are priced from one: choose with --device"):
        lines(tmp_path, events, deviceProperties=made.properties("NVIDIA H800", "NVIDIA H800"))


def test_lost_kernels_and_events_that_were_left_out_are_told(tmp_path):
    odd = made.span("xyz_device_events", "matmul_tile", 20, 500)
    events = [*made.launched(GEMM, 100, 100, 1), made.launch(3, 2), made.launch(4, 3), odd]
    _, said = lines(tmp_path, events)
    assert said[0].endswith("all that was read is understood")
    assert any("2 of 3 launches of kernels have no kernel in the trace" in line for line in said)
    assert any("left out: 1 events of category xyz_device_events, 500 us" in line for line in said)
    _, said = lines(tmp_path, [made.span("cpu_op", "aten::mm", 0, 10), odd])
    assert any("left out: 1 events of category xyz_device_events, 500 us" in line for line in said)
    assert not any("ProfilerActivity" in line for line in said), "another accelerator's were recorded"
    _, said = lines(tmp_path, [made.span("cpu_op", "aten::mm", 0, 10)])
    assert any("ProfilerActivity.CUDA records a GPU's" in line for line in said)
    many = [made.span(f"odd_{i}", "x", 0, 10 * i) for i in range(8)]
    _, said = lines(tmp_path, [*made.launched(GEMM, 100, 100, 1), *many])
    assert [line.split(",")[0].strip() for line in said if "left out" in line] == [
        *(f"left out: 1 events of category odd_{i}" for i in (7, 6, 5)), "left out: 5 events of 5 more categories",
    ]  # fmt: skip


def test_what_is_known_by_a_catch_all_alone_is_not_understood(tmp_path):
    events = [made.span("cpu_op", "aten::my_custom_thing", 0, 900), made.span("cpu_op", "aten::mm", 1000, 100)]
    _, said = lines(tmp_path, events)
    assert said[0].endswith("; known only by a catch-all: 90.00% of kernel time")
    events += [made.span("cpu_op", "own", 2000, 1000)]
    _, said = lines(tmp_path, events)
    assert said[0].endswith("not understood: 50.00% of kernel time, known only by a catch-all: 45.00% of kernel time")


def test_rates_that_nothing_can_be_held_against_are_said_to_be_so(tmp_path):
    """A product of 2^31 FLOPs in a nanosecond, on a device whose peak is known, and on one whose is not."""
    operator = made.span("cpu_op", "aten::mm", 0, 10, **{"Input Dims": [[1024, 1024], [1024, 1024]]})
    events = [operator, *made.launched(GEMM, 100, 0.001, 5)]
    _, said = lines(tmp_path, events, deviceProperties=made.properties("NVIDIA H200"))
    assert any("above the peak of h200" in line for line in said)
    _, said = lines(tmp_path, events, deviceProperties=made.properties("AMD Instinct MI300X"))
    assert any("no peak of AMD Instinct MI300X is known to check these rates by" in line for line in said)


# --- mangled traces ---------------------------------------------------------------------------------------------------

BIT = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=6),
    st.builds(list), st.builds(dict),
    st.just([[1, 2], [2, "x"]]), st.sampled_from(("kernel", "cpu_op", "cuda_runtime", "user_annotation", "gpu_memcpy")),
)  # fmt: skip
KEYS = st.sampled_from((
    "ph", "cat", "name", "ts", "dur", "pid", "tid", "args", "args.device", "args.stream", "args.correlation",
    "args.grid", "args.shared memory", "args.Input Dims", "args.Input type",
))  # fmt: skip


def whole():
    operands = {"Input Dims": [[4, 8], [8, 4]], "Input type": ["float", "float"]}
    operator = made.span("cpu_op", "aten::mm", 0, 10, **operands)
    other = made.span("xyz", "thing", 7, 8)
    return [operator, made.span("user_annotation", "forward", 0, 50), *made.launched(GEMM, 100, 50, 5),
            *made.launched("ncclDevKernel_AllReduce", 120, 50, 6, device=1), other]  # fmt: skip


def read_or_refused(path):
    """A report of a trace, or one line that says why not."""
    try:
        return list(recording.report(recording.calibrated(path, None, MODEL)))
    except Refused as refused:
        assert str(refused) and "\n" not in str(refused)
        return [str(refused)]


CHANGES = st.lists(st.tuples(st.integers(0, 6), KEYS, BIT), max_size=4)
HEADS = st.sampled_from(("deviceProperties", "distributedInfo", "baseTimeNanoseconds", "x"))


@examples(20)
@given(CHANGES, st.dictionaries(st.text(max_size=5), BIT, max_size=2), HEADS, BIT)
def test_any_field_may_hold_anything(tmp_path_factory, changes, entry, key, value):
    events = whole()
    for which, where, new in changes:
        first, _, second = where.partition(".")
        target = events[which] if not second else events[which]["args"]
        if isinstance(target, dict):
            target[second or first] = new
    folder = tmp_path_factory.mktemp("mangled")
    heads = {"deviceProperties": [entry, *made.properties("H100")], key: value}
    assert read_or_refused(made.write(folder, events, **heads))


@examples(40)
@given(st.integers(0, 2000), st.integers(0, 2000), st.binary(max_size=4), st.booleans())
def test_a_cut_or_overwritten_file_is_one_line_or_a_result(tmp_path_factory, cut, at, bytes_there, packed):
    path = made.write(tmp_path_factory.mktemp("cut"), whole(), deviceProperties=made.properties("H100"))
    text = path.read_bytes()
    data = gzip.compress(text) if packed else text
    data = data[:at] + bytes_there + data[at + len(bytes_there) :]
    path.write_bytes(data[: len(data) - cut % len(data)])
    assert read_or_refused(path)
