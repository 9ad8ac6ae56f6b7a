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
