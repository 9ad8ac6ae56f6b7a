"""Feasibility is one verdict: the run's, its record's, result.json's and the command line's."""

import json
from pathlib import Path

import pytest

from sim import simulation
from sim.__main__ import main
from sim.experiments.record import record
from sim.scenario import SCENARIOS, load

LITE = str(SCENARIOS / "v2_lite.yaml")
SMALL = str(SCENARIOS / "dualpipe_8x20.yaml")
TIGHT = ("cluster.node.device.hbm.capacity=1GB", "limits.step_time=1 ms", "limits.memory=2 GB")
BEGIN = ("does not fit in memory: a rank at position ", "the step takes ", "a rank needs ")


def test_all_reasons_are_in_the_answer_and_the_command_line_says_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["outputs=[result]", "model.layers=8", *TIGHT]
    result = simulation.run(load(LITE, words), False)
    lines = result.summary["infeasible"]
    assert [line.startswith(begin) for line, begin in zip(lines, BEGIN, strict=True)] == [True] * 3
    assert lines[1].endswith("more than limits.step_time 1.000 ms") and lines[2].endswith("limits.memory 2 GB")
    assert result.summary["feasible"] is False and result.feasible == (False, "; ".join(lines))
    assert record(load(LITE, words))["summary"]["infeasible"] == lines
    assert main([LITE, *words, "-q", "--out", str(tmp_path / "o")]) == 1
    hint, *told, advice = capsys.readouterr().err.splitlines()
    assert "hbm.capacity: 1GB is 1/40 of the least" in hint and told == [f"infeasible: {line}" for line in lines]
    assert advice == "advice: nothing that was tried fits"
    told = json.loads((tmp_path / "o" / "result.json").read_text())
    assert (told["feasible"], told["infeasible"], told["advice"]) == (False, lines, [])


def test_limits_of_chunk_times_are_judged_too() -> None:
    took = simulation.run(load(SMALL), False).summary["step_time_s"]
    assert simulation.run(load(SMALL, [f"limits.step_time={took!r} s"]), False).feasible == (True, "")
    fits, why = simulation.run(load(SMALL, [f"limits.step_time={0.99 * took!r} s"]), False).feasible
    assert not fits and why.startswith("the step takes ")


def test_a_copy_to_the_host_that_outlasts_the_step_is_told() -> None:
    """The average of a rank's parameters goes over PCIe while the next step runs."""
    within = simulation.run(load(LITE, ["outputs=[result]"]), False).summary
    assert 0 < within["host_copy_s"] < within["step_time_s"] and within["feasible"]
    slower = "cluster.node.pcie.bandwidth=2MB/s"
    beyond = simulation.run(load(LITE, ["outputs=[result]", slower]), False).summary
    size = within["host_copy_s"] - 1e-6
    assert beyond["host_copy_s"] == pytest.approx(size * 64e9 / 2e6 + 1e-6, rel=1e-6)
    assert not beyond["feasible"] and beyond["infeasible"][0].startswith("the copy of averaged parameters to the host")
