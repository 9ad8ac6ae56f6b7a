"""How well known the prices of a run are, and which peak its MFU is over."""

import json
from pathlib import Path

import pytest

import sim
from sim.cli import command
from sim.scenario import SCENARIOS, load

LITE = ("model.layers=4", "batch.sequences=576", "outputs=[result]")


def summary(*words: str, file: str = "v2_lite") -> dict[str, object]:
    return sim.run(load(str(SCENARIOS / f"{file}.yaml"), [*LITE, *words]), interval=False).summary


@pytest.mark.parametrize(("words", "grade", "why"), [
    (("cluster.node=a100x8",), "roofline", "no kernel was measured on A100 SXM 80 GB or a sibling"),
    (("pricing=roofline",), "roofline", "as pricing: roofline asks"),
    (("cluster.node.device=a100", "cluster.node.nic.bandwidth=25GB/s"), "roofline", "no kernel was measured on A100"),
])  # fmt: skip
def test_a_run_of_bounds_says_so(words: tuple[str, ...], grade: str, why: str) -> None:
    found = summary(*words)
    line = str(found["price_warning"])
    assert found["price_grade"] == grade and line.startswith("mostly roofline (100 % of the time)") and why in line


@pytest.mark.parametrize(("words", "slower"), [
    (("cluster.node=mi300xx8",), "BF16 products take about twice as long"),
    (("cluster.node=mi300xx8", "precision=fp8"), "FP8 products take about 3.5 times as long"),
    (("cluster.node=mi355xx8", "precision=fp8"), "FP8 products take about 2.4 times as long"),
    (("pricing=roofline",), "BF16 products take about twice as long"),
])  # fmt: skip
def test_the_interval_counts_what_the_warning_says(words: tuple[str, ...], slower: str) -> None:
    """A bound is never beaten; a step whose products take as much longer as the line says is inside."""
    found = sim.run("v2_lite", [*LITE, "cluster.fabric=null", *words]).summary
    step, (low, high) = found["step_time_s"], found["interval_parts"]["prices"]
    products = [c for c in found["tornado"] if "products (roofline)" in c["cause"]]
    assert slower in found["price_warning"] and "the 90 % interval counts that" in found["price_warning"]
    assert step < low < step + sum(c["step_s"] for c in products) < high
    assert all(
        c["cheaper_s"] == 0 for c in found["tornado"] if "roofline" in c["cause"] and "exchange" not in c["cause"]
    )
    assert found["intervals_90"]["mfu"]["non_causal"][1] < found["mfu"]["non_causal"]


@pytest.mark.parametrize("words", [(), ("cluster.node=h200x8",), ("cluster.node.device.clock=1.2 GHz",)])
def test_a_run_of_measured_kernels_does_not(words: tuple[str, ...]) -> None:
    found = summary(*words)
    shares = found["price_shares"]
    assert isinstance(shares, dict) and found["price_warning"] is None
    assert found["price_grade"] == max(shares, key=lambda rung: shares[rung]) != "roofline"


def test_an_mfu_names_its_peak() -> None:
    """Of the dense BF16 peak, whatever the run computes in; at the clock and on the SMs that the scenario says."""
    for words, peak in (((), 989.0), (("cluster.node=a100x8",), 312.0), (("cluster.node.device.sms=66",), 494.5)):
        found = summary(*words)
        mfu, rate = found["mfu"], found["tflops_per_gpu"]
        assert found["mfu_peak"] == {"precision": "bf16", "tflops": pytest.approx(peak)}
        assert isinstance(mfu, dict) and isinstance(rate, dict)
        assert mfu["causal"] == pytest.approx(rate["causal"] / peak)
    assert sim.run(load(str(SCENARIOS / "zb_chunk_times.yaml"))).summary["mfu_peak"] is None


def test_the_first_lines_of_the_command_say_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from sim.__main__ import main

    words = [str(SCENARIOS / "v2_lite.yaml"), *LITE, "cluster.node=a100x8", "--out", str(tmp_path / "o")]
    assert main(words) == command.DONE
    text = capsys.readouterr().err
    assert text.index("mostly roofline (100 % of the time)") < text.index("Step time")
    assert "MFU, causal" in text and "of 312 TFLOP/s (dense BF16)" in " ".join(text.split())
    assert json.loads((tmp_path / "o" / "result.json").read_text())["price_grade"] == "roofline"
