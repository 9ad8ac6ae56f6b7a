"""A trace prices: its kernels are a table that prices scenarios of its GPU and stack; what it does not is told."""

import gzip
import json
from pathlib import Path

import pytest

from hwmodels.document import DocumentError
from hwmodels.tables import given
from numerics import __main__ as cli
from numerics.tables import calibrate, coverage, recording
from sim.assembly import machine
from sim.layout.plan import lay_out
from sim.scenario import load
from sim.simulation import run

ROOT = Path(__file__).parents[3]
TRACES, MODEL = ROOT / "tests" / "fixtures" / "traces", ROOT / "scenarios" / "models" / "deepseek_v3.yaml"
SIZES = {
    "small": {"vocabulary": 50304, "hidden": 1024, "layers": 6, "heads": 16, "kv_heads": 16, "head_width": 64,
              "activation": "gelu", "intermediate": 4096},
    "dense": {"vocabulary": 128256, "hidden": 4096, "layers": 2, "heads": 32, "kv_heads": 8, "head_width": 128,
              "activation": "swiglu", "intermediate": 14336},
}  # fmt: skip
BATCHES = {"small": (2, 1024), "dense": (1, 4096)}
STEPS_MS = {"small": 30.370, "dense": 52.916}
"""From the first kernel of the trace to the end of the last."""


def scenario(name: str, **model) -> dict:
    sequences, length = BATCHES[name]
    shape = {"family": "transformer", "name": name, "tied": False, "pattern": "attention+dense", "source": "trace"}
    return {
        "name": name, "cluster": {"node": "h200x1", "nodes": 1}, "model": shape | SIZES[name] | model,
        "precision": "bf16", "stack": {"name": "torch"}, "schedule": "1f1b", "outputs": ["result"],
        "batch": {"sequences": sequences, "sequence_length": length, "micro_batch": sequences},
    }  # fmt: skip


def written(path: Path, folder: Path) -> recording.Recording:
    found = recording.calibrated(path, None, MODEL)
    calibrate.write(found.tables, folder)
    return found


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """Folder of the tables of each trace."""
    folder = tmp_path_factory.mktemp("traced")
    for name in SIZES:
        written(TRACES / f"{name}.json.gz", folder / name)
    return folder


def changed(folder: Path, change) -> Path:
    """The dense trace, its events changed."""
    trace = json.loads(gzip.decompress((TRACES / "dense.json.gz").read_bytes()))
    trace["traceEvents"] = [kept for event in trace["traceEvents"] if (kept := change(event))]
    path = folder / "changed.json"
    path.write_text(json.dumps(trace))
    return path


def test_a_traces_own_step_comes_back(tables):
    """Not accuracy: the kernels of the step priced by themselves, all launches of it."""
    whole = load(scenario("dense"), tables=str(tables / "dense"))
    assert {row.how for row in coverage.covered(whole)} <= {"measured", "interpolated"}
    assert run(whole, interval=False).summary["step_time_s"] * 1e3 == pytest.approx(STEPS_MS["dense"], rel=0.03)


def test_a_step_that_its_host_binds_comes_back_by_what_the_trace_says_of_the_host(tables):
    found = recording.calibrated(TRACES / "small.json.gz", None, MODEL)
    lines = list(recording.report(found))
    assert "for 78% of its time the device waited for the host" in " ".join(lines)
    keys = next(line for line in lines if "cluster.node.launch" in line).split()
    words = [f"tables={tables / 'small'}", *(key for key in keys if key.startswith("cluster."))]
    step = run(load(scenario("small"), words), interval=False).summary["step_time_s"] * 1e3
    assert step == pytest.approx(STEPS_MS["small"], rel=0.25)  # the profiler slows other operations more
    rows = coverage.covered(load(scenario("small"), words))
    busy = sum(row.ns for row in rows) / 1e6
    assert busy == pytest.approx(6.736, rel=0.03)
    assert sum(row.launches for row in rows) == 459


def test_other_sizes_are_priced_by_what_is_near_with_a_spread(tables):
    other = load(scenario("dense", hidden=5120, intermediate=17920, layers=4), tables=str(tables / "dense"))
    rows = coverage.covered(other)
    whole = sum(row.ns for row in rows)
    assert sum(row.ns for row in rows if row.how == "interpolated") > 0.6 * whole
    pricer = machine(lay_out(other)).pricer
    near = [pricer.price(row.op).spread for row in rows if row.how == "interpolated"]
    exact = [pricer.price(row.op).spread for row in rows if row.how == "measured"]
    assert min(near) >= 0.06 and max(exact) < 0.06
    low, high = run(other).summary["intervals_90"]["step_time_s"]
    assert high / low > 1.05


def test_what_the_trace_has_no_rows_near_is_priced_as_without_it(tables):
    far = scenario("dense", hidden=512, intermediate=1024, heads=8, kv_heads=8, head_width=64, vocabulary=1024)
    plain, own = (machine(lay_out(load(far, **words))).pricer for words in ({}, {"tables": str(tables / "dense")}))
    rows = coverage.covered(load(far, tables=str(tables / "dense")))
    strangers = [row.op for row in rows if row.how == coverage.NOT]
    assert strangers and all(plain.price(op) == own.price(op) for op in strangers)


def test_a_trace_prices_its_own_gpu_alone(tables, tmp_path):
    path = changed(tmp_path, lambda e: {**e, "dur": e["dur"] * 4} if e.get("cat") == "kernel" else e)
    path.write_text(path.read_text().replace("NVIDIA H200", "NVIDIA A100-SXM4-80GB"))
    found = written(path, tmp_path / "a100")
    assert found.device == "a100" and found.prices
    with pytest.raises(DocumentError, match=r"are of A100 SXM 80 GB; H200 SXM \(cluster.node\) is another device"):
        load(scenario("dense"), tables=str(tmp_path / "a100"))
    theirs = scenario("dense") | {"cluster": {"node": {"base": "h200x1", "device": "a100"}, "nodes": 1}}
    rows = coverage.covered(load(theirs, tables=str(tmp_path / "a100")))
    assert sum(row.ns for row in rows if row.how != coverage.NOT) > 0.9 * sum(row.ns for row in rows)


def test_lost_kernels_are_told_and_cover_less(tmp_path):
    lost = iter(range(10**6))
    path = changed(tmp_path, lambda e: None if e.get("cat") == "kernel" and next(lost) % 3 == 0 else e)
    found = written(path, tmp_path / "lost")
    assert any("launches of kernels have no kernel in the trace" in line for line in recording.report(found))
    rows = coverage.covered(load(scenario("dense"), tables=str(tmp_path / "lost")))
    assert 0 < sum(row.launches for row in rows if row.how == coverage.NOT) < 200


def test_a_trace_without_shapes_says_what_would_write_them(tmp_path):
    def bare(event):
        return {**event, "args": {k: v for k, v in event.get("args", {}).items() if not k.startswith("Input")}}

    lines = list(recording.report(recording.calibrated(changed(tmp_path, bare), None, MODEL)))
    assert any("have no sizes there; record_shapes=True" in line for line in lines)


def test_a_kernel_that_no_device_could_run_so_fast_is_no_row(tmp_path):
    fast = changed(tmp_path, lambda e: {**e, "dur": e["dur"] / 4} if e.get("name", "").startswith("nvjet") else e)
    found = recording.calibrated(fast, None, MODEL)
    assert not [row for row in found.tables["gemm"]["rows"] if row["op"] == "gemm"]


def test_the_command_says_what_is_covered_and_where_it_went(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text(json.dumps(scenario("dense")))
    trace = str(TRACES / "dense.json.gz")
    assert cli.main(["calibrate", "--trace", trace, "--for", "mine.yaml"]) == cli.DONE
    shown = capsys.readouterr()
    (line,) = (line for line in shown.out.splitlines() if line.startswith("all"))
    assert line.split()[1] == "315" and line.endswith("0% / 0%")
    assert "python -m sim mine.yaml tables=out/traces/dense" in shown.err
    assert Path("out/traces/dense/gemm.json").is_file()
    assert cli.main(["calibrate", "--stale", "--for", "mine.yaml"]) == cli.WRONG
    assert "--for goes with --trace" in capsys.readouterr().err


def test_tables_travel_inside_a_scenario(tables):
    one = load(scenario("dense"), tables=str(tables / "dense"))
    again = load(one.resolved)
    assert again.scenario_hash == one.scenario_hash and given(again.tables) == given(one.tables)
    assert one.scenario_hash != load(scenario("dense")).scenario_hash


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ({"tables": "/nowhere"}, "/nowhere has no gemm.json; legal: a folder that"),
        ({"tables": {"rows": 3}}, "not the tables of a trace"),
        ({"stack": {"name": "deepseek"}}, "are of torch's kernels; the stack deepseek runs kernels of its own"),
    ],
)
def test_wrong_tables_are_refused_in_a_line(tables, words, line):
    with pytest.raises(DocumentError, match=line):
        load({**scenario("dense"), "tables": str(tables / "dense"), **words})


def test_tables_that_change_nothing_say_so(tables):
    from sim.experiments.unfelt import unfelt

    same = load(scenario("dense"), tables=str(tables / "dense"), pricing="roofline")
    assert "tables changes nothing: pricing roofline reads none" in list(unfelt(same))
    felt = load(scenario("dense"), tables=str(tables / "dense"))
    assert not any(line.startswith("tables ") for line in unfelt(felt))
