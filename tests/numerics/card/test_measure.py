import json
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

from numerics.card import bench, check, measure, workload  # noqa: E402
from numerics.kernels.compile import Report  # noqa: E402
from numerics.kernels.launches import variants  # noqa: E402
from numerics.reference import compare  # noqa: E402

no_device = pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens without a CUDA device")
CEILINGS = {"copy_bytes_per_s": 4e12, "bf16_flop_per_s": 8e14, "fp8_flop_per_s": 1.6e15}


def row(us=10.0, kind="ours", variant="halves", **more):
    return {
        "family": "gemm", "case": "1x1x1", "variant": variant, "kind": kind, "median_us": us, "low_us": us,
        "high_us": us, "flop_per_s": 1e15, "bytes_per_s": 1e12, "bound": "matrix", "of_bound": 0.5, **more,
    }  # fmt: skip


def test_summary_is_median_and_tenths():
    timing = measure.summary([float(x) for x in range(101)])
    assert (timing.median_us, timing.low_us, timing.high_us, timing.repetitions) == (50.0, 10.0, 90.0, 101)
    assert measure.summary([3.0]) == measure.Timing(3.0, 3.0, 3.0, 1)


def test_what_events_add_is_what_one_takes_more_than_one_of_many(monkeypatch):
    slept = []
    monkeypatch.setattr(torch.cuda, "_sleep", slept.append)

    def time_call(call):
        """A GPU on which a kernel takes 10 us, a launch 1 us and a pair of events 4 us."""
        slept.clear()
        call()
        return measure.Timing(4.0 + 11.0 * len(slept) - 1.0, 0.0, 0.0, 1)

    monkeypatch.setattr(measure, "time_call", time_call)
    assert measure.events_us() == pytest.approx(14 - 11, abs=0.05)
    assert measure.Timing(5.0, 4.0, 9.0, 30).less(3.0) == measure.Timing(2.0, 1.0, 6.0, 30)


@no_device
def test_nothing_is_measured_without_a_device():
    with pytest.raises(measure.NoDevice, match="nothing can be measured here"):
        measure.require_device()
    with pytest.raises(measure.NoDevice):
        bench.run(True, print)


@pytest.mark.parametrize("line, values", [
    ("1980, 3201, 688.4, 55\n", [1980.0, 3201.0, 688.4, 55.0]), ("[N/A], 1, 2, 3", None), ("1, 2", None), ("", None),
])  # fmt: skip
def test_readings_of_the_card(line, values):
    assert measure.parsed(line) == values


def test_monitor_means_what_lies_between():
    monitor = measure.Monitor()
    monitor.readings = [(1.0, [1, 1, 1, 1]), (2.0, [2, 4, 6, 8]), (3.0, [4, 6, 8, 10]), (4.0, [9, 9, 9, 9])]
    assert monitor.between(1.5, 3.5) == dict(zip(measure.QUERY, (3, 5, 7, 9), strict=True))
    assert monitor.between(5, 6) == {}


@pytest.mark.parametrize("line, figures, bits", [
    ("1980, 3201, 688.4, 55, 0x0000000000000024\n", "1980, 3201, 688.4, 55", 0x24), ("1, 2, 3, 4", "1, 2, 3, 4", None),
    ("", "", None),
])  # fmt: skip
def test_the_last_column_may_say_why_clocks_are_low(line, figures, bits):
    assert measure.split(line) == (figures, bits)


def test_reasons_are_shares_of_the_readings_between():
    monitor = measure.Monitor()
    monitor.reasons = [(1.0, 0x8), (2.0, 0x4), (3.0, 0x44), (4.0, 0x1), (5.0, 0x0), (9.0, 0x8)]
    assert monitor.slowed(1.5, 5.5) == {"software power cap": 0.5, "hardware thermal slowdown": 0.25}
    assert monitor.slowed(6, 7) == {}, "idle and nothing are no reasons"


def test_reasons_are_asked_by_the_name_this_driver_knows(tmp_path):
    tool = tmp_path / "nvidia-smi"
    tool.write_text('#!/bin/sh\ncase "$1" in *throttle*) echo 0x0000000000000001;; *) exit 2;; esac\n')
    tool.chmod(0o755)
    assert measure.reasons_field(str(tool)) == ("clocks_throttle_reasons.active",)
    tool.write_text("#!/bin/sh\nexit 2\n")
    assert measure.reasons_field(str(tool)) == ()


def test_monitor_does_nothing_without_nvidia_smi(monkeypatch):
    monkeypatch.setattr(measure.shutil, "which", lambda name: None)
    with measure.Monitor() as monitor:
        pass
    assert monitor.readings == [] and measure.driver() == "unknown"


def test_sources_change_with_the_kernels(tmp_path):
    (tmp_path / "a.py").write_text("1")
    before = measure.sources(tmp_path)
    (tmp_path / "a.py").write_text("2")
    assert before.keys() == measure.sources(tmp_path).keys() == {"a.py"}
    assert before != measure.sources(tmp_path)
    assert {"gemm.py", "attention.py", "casts.py"} <= measure.sources().keys()


@pytest.mark.parametrize("flop, size, fp8, seconds, name", [
    (1.6e15, 1.0, True, 1.0, "matrix"), (1.6e15, 1.0, False, 2.0, "matrix"), (1.0, 8e12, True, 2.0, "memory"),
])  # fmt: skip
def test_bound_is_the_slower_ceiling(flop, size, fp8, seconds, name):
    case = workload.Case("gemm", "x", flop, size, lambda device: None, fp8)
    assert bench.bound_of(case, CEILINGS) == (pytest.approx(seconds), name)


def test_verdicts_compare_the_best_with_the_best():
    rows = [row(10.0), row(8.0, variant="flat"), row(1.0, variant=workload.NEVER), row(16.0, "library", "torch a"),
            row(12.0, "library", "torch b"), {**row(kind="library"), "refused": "absent"}]  # fmt: skip
    del rows[-1]["median_us"]
    (found,) = bench.verdicts(rows)
    assert (found["variant"], found["library"], found["times_library"]) == ("flat", "torch b", 1.5)
    (alone,) = bench.verdicts([row()])
    assert alone["library"] is None and alone["times_library"] is None


def test_a_refused_row_says_why():
    assert "not timed: row 3" in bench.line({**row(), "refused": "row 3 error 1 is over 0.003"})
    assert "1000.0" in bench.line(row()) and "50%" in bench.line(row())


def test_differences_are_bitwise_where_exact():
    x = torch.randn(64, 64)
    near = x * (1 + 1e-6)
    assert bench.differences(near, x, exact=False) == ""
    assert "differ" in bench.differences(near, x, exact=True)
    assert "differ" in bench.differences([x, torch.tensor([1])], [x, torch.tensor([2])], exact=False)
    spoiled = x.clone()
    spoiled[5] = 0
    assert "row 5" in bench.differences(spoiled, x, exact=False, tolerance=0.5)


def test_every_case_is_wrong_when_its_output_is(monkeypatch):
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    good = torch.randn(64, 64)
    work = workload.Work({}, expected=lambda: good, tolerance=compare.PRODUCT)
    assert bench.verify(work, lambda: good) == ""
    assert "gain" in bench.verify(work, lambda: good * 1.03)
    assert bench.verify(work, lambda: 1 / 0).startswith("ZeroDivisionError")


def test_documents_are_json(tmp_path):
    bench.write({"rows": [row()]}, tmp_path / "a" / "bench.json")
    assert json.loads((tmp_path / "a" / "bench.json").read_text())["rows"][0]["variant"] == "halves"


def test_cases_cover_the_published_shapes():
    names = {case.name for case in workload.cases() if case.family == "gemm"}
    assert names == {f"{m}x{n}x{k}" for m in (64, 128, 4096) for n, k in workload.WEIGHTS}
    families = {case.family for case in workload.cases(quick=True)}
    assert families == {case.family for case in workload.cases()}
    assert {"gemm", "wgrad", "grouped", "masked", "attention", "casts", "swiglu", "norm", "rope", "gate"} <= families


CASES = list(workload.cases(quick=True))


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.family} {case.name}")
def test_cases_build_without_memory_and_launch_kernels(case):
    work = case.build("meta")
    assert work.ours
    for call in work.ours.values():
        assert variants(call)


def test_torch_takes_the_library_calls():
    work = next(iter(workload.gemms((4096,), workload.WEIGHTS[-1:]))).build("meta")
    for name, call in work.library.items():
        assert call().shape == (4096, 7168), name


class Launched:
    def __init__(self, module, name, spills=0, sass=""):
        self.kernel = SimpleNamespace(fn=SimpleNamespace(__module__=module, __name__=name), __name__=name)
        self.report = Report(name, "", sass, 100, 0, spills)

    def compile(self):
        return self.report


QGMMA = "        /*0a10*/                   QGMMA.64x64x32.F32.E4M3.E4M3 R24, gdesc[UR4], R24 ;\n"


def test_leg_two_wants_wgmma_and_no_spills():
    assert check.faults(Launched("numerics.kernels.gemm", "_gemm", sass=QGMMA)) == []
    assert check.faults(Launched("numerics.kernels.gemm", "_gemm")) == ["no QGMMA"]
    assert check.faults(Launched("numerics.kernels.attention", "_keys", sass=QGMMA)) == ["no HGMMA"]
    assert check.faults(Launched("numerics.kernels.norm", "_forward", spills=8)) == ["8 bytes of spills a thread"]


def test_check_says_which_legs_cannot_run(monkeypatch):
    def impossible(show):
        raise check.Impossible("no such thing here")

    said = []
    for leg in ("semantics", "device"):
        monkeypatch.setattr(check, leg, impossible)
    monkeypatch.setattr(check, "code", lambda show: True)
    assert check.run(said.append)
    why = "not run here: no such thing here"
    assert said == [f"semantics: {why}", "code: passed", f"device: {why}"]
    monkeypatch.setattr(check, "code", lambda show: False)
    assert not check.run(said.append)


@no_device
def test_the_device_leg_cannot_run_without_one():
    with pytest.raises(check.Impossible, match="no CUDA device"):
        check.device(print)
