"""Traces with known faults of importers, and of real training steps, where the folder they lie in is at hand."""

from pathlib import Path

import pytest

from hwmodels.refused import Refused
from numerics.tables import recording
from numerics.traces.trace import read_trace

SHARED = Path(__file__).parents[4] / "shared" / "cases"
CASES, STEPS = SHARED / "importer", SHARED / "traces"
MODEL = Path(__file__).parents[3] / "scenarios" / "models" / "deepseek_v3.yaml"
needs_cases = pytest.mark.skipif(not CASES.exists(), reason="the cases are not here")


def imported(name: str) -> tuple[recording.Recording, list[str]]:
    found = recording.calibrated(CASES / f"{name}.json", None, MODEL)
    return found, list(recording.report(found))


def shares(found: recording.Recording) -> dict[str, float]:
    return {row["class"]: row["share"] for row in found.tables["classes"]["rows"]}


@needs_cases
def test_the_share_of_unjoined_launches() -> None:
    _, said = imported("t1_unjoined")
    assert "not understood: 90.00% of kernel time" in said[0]
    assert "launch not in the trace" in said[1] and "(3 times, 90.00% of kernel time)" in said[1]


@needs_cases
def test_the_only_device_named_is_the_device() -> None:
    found, _ = imported("t2_device_id")
    assert (found.analysis.device, found.analysis.sms.device) == ("AMD Instinct MI300X", 304)


@needs_cases
def test_products_with_a_fused_activation() -> None:
    found = shares(imported("t3_fused_product")[0])
    assert sum(share for kind, share in found.items() if kind.startswith("gemm")) == pytest.approx(0.9)
    assert found["swiglu"] == pytest.approx(0.1) and len(found) == 4


@needs_cases
def test_a_namespace_is_no_product() -> None:
    found = shares(imported("t4_fbgemm_namespace")[0])
    assert {kind: share for kind, share in found.items() if kind.startswith("gemm")} == {"gemm_bf16": 0.3}
    assert found["embedding"] == 0.5


@needs_cases
def test_phases_of_compiled_code_and_collectives() -> None:
    found, _ = imported("t7_phase_of_compiled")
    assert {op.phase for op in found.analysis.operations} == {"forward"} and len(found.analysis.operations) == 2


@needs_cases
def test_a_catch_all_is_no_understanding() -> None:
    _, said = imported("t8_host_only")
    assert "understood" not in said[0] and "known only by a catch-all: 90.00%" in said[0]


@needs_cases
def test_events_of_other_accelerators_are_told() -> None:
    _, said = imported("t9_other_accelerator")
    assert any("1 events of category xyz_device_events, 500 us" in line for line in said)
    assert not any("ProfilerActivity" in line for line in said)


@needs_cases
def test_an_execution_trace_says_its_keys() -> None:
    with pytest.raises(Refused, match=r"keys found: nodes, pid, schema"):
        read_trace(CASES / "t10_small_et.json")


@needs_cases
def test_two_devices_are_busy_half_of_the_time_each() -> None:
    found, said = imported("t11_two_devices")
    for device in found.analysis.devices:
        assert (device.overlap.total, device.overlap.compute) == (200_000, 100_000)
    assert len(found.analysis.devices) == 2 and sum("of 200 us, compute was busy 100" in line for line in said) == 2


@pytest.mark.skipif(not STEPS.exists(), reason="the steps are not here")
@pytest.mark.parametrize(
    ("name", "kernels", "classes"),
    [
        ("dense", 315, {"gemm_bf16": 0.567, "attn_bwd": 0.033, "activation": 0.006}),
        ("mixture", 484, {"gemm_bf16": 0.254, "gemm_grouped": 0.104, "attn_bwd": 0.038}),
        ("compiled", 209, {"gemm_bf16": 0.648, "attn_bwd": 0.036, "swiglu": 0.009}),
        ("small", 459, {"gemm_bf16": 0.338, "attn_bwd": 0.056, "activation": 0.026}),
    ],
)
def test_training_steps_of_a_gpu_are_understood_and_their_time_adds_up(
    name: str, kernels: int, classes: dict[str, float]
) -> None:
    found = recording.calibrated(STEPS / f"{name}.json.gz", None, MODEL)
    said = list(recording.report(found))
    assert f"{kernels} pieces of work on NVIDIA H200, rules PyTorch; all understood" in said[0]
    shared = shares(found)
    assert {kind: shared[kind] for kind in classes} == pytest.approx(classes, abs=1e-3)
    assert {op.phase for op in found.analysis.operations} == {"forward", "backward", "optimizer"}
    (o,) = (device.overlap for device in found.analysis.devices)
    assert o.compute + o.idle == o.total and int(o.idle_gaps.sum()) == o.idle
    assert found.analysis.lost == 0 and found.analysis.left_out == ()
