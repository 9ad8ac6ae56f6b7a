"""Steps over eight GPUs: predicted, and compared as soon as there are rows."""

import json
from pathlib import Path

import pytest

from hwmodels.refused import Refused
from sim.__main__ import main
from sim.validation import torch_node
from sim.validation.torch_node import Step
from sim.validation.torch_pairs import Pair

OURS = Pair(90.0, 3.0, 2e9)


def test_every_run_of_four_gpus_is_laid_out_over_eight_and_knows_nothing_measured() -> None:
    runs = torch_node.runs()
    assert len(runs) == 9 and not [
        key for run in runs for key in run if "ms" in key or "peak" in key or key == "spread"
    ]
    axes = {run["kind"]: torch_node.scenario(run)["parallel"] for run in runs}
    assert axes["tp_sp"]["tensor"] == axes["1f1b"]["pipeline"] == axes["ep"]["expert"] == 8
    assert axes["tp2_fsdp"]["tensor"] == 2 and "tensor" not in axes["fsdp"]
    sequences = {run["kind"]: torch_node.scenario(run)["batch"]["sequences"] for run in runs}
    assert sequences["ddp"] == 16 and sequences["tp_sp"] == 1 and sequences["1f1b"] == 8


def test_a_page_without_rows_says_so_and_no_error() -> None:
    text = torch_node.page([Step("a", "ddp", OURS, None), Step("b", "ep", "cannot", None)])
    assert "| a | ddp | 90.00 / not measured yet | 3.00 / not measured yet | 2.00 / not measured yet |" in text
    assert (
        "| b | ep | refused | cannot | not measured yet |" in text and "%" not in text and "No row is measured" in text
    )


def test_rows_of_a_card_run_are_compared(tmp_path: Path) -> None:
    """By hand: 90 predicted, 100 measured; a run that failed on the card stays a prediction."""
    rows = [{"name": "a", "kind": "ddp", "step_ms": 100.0, "comm_alone_ms": 4.0, "peak_allocated": 1_000_000_000},
            {"name": "b", "kind": "ep", "error": "out of memory"}]  # fmt: skip
    file = tmp_path / "node_steps.json"
    file.write_text(json.dumps({"about": {"world": 8}, "runs": rows}))
    found = torch_node.measured(file)
    assert found == {("a", "ddp"): Pair(100.0, 4.0, 1e9)}
    text = torch_node.page([Step("a", "ddp", OURS, found["a", "ddp"]), Step("b", "ep", OURS, None)])
    assert "| a | ddp | 90.00 / 100.00, -10.0% | 3.00 / 4.00 | 2.00 / 1.00, +100.0% |" in text
    assert "off by 10.0% in the median of 1 runs" in text and "No row is measured" not in text


@pytest.mark.parametrize("world, row, words", [
    (4, {}, "has steps over 4 ranks, 8 are asked"),
    (8, {"name": "a", "kind": "ddp", "step_ms": 1.0}, "a run on CPUs measures nothing"),
])  # fmt: skip
def test_rows_of_other_machines_are_refused(world: int, row: dict[str, object], words: str, tmp_path: Path) -> None:
    file = tmp_path / "node_steps.json"
    file.write_text(json.dumps({"about": {"world": world}, "runs": [row]}))
    with pytest.raises(Refused, match=words):
        torch_node.measured(file)


def test_the_page_is_fresh_and_says_that_nothing_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["steps", "--gpus", "8"]) == 0
    renew = "run `python -m sim steps --gpus 8 --write`"
    assert capsys.readouterr().out == torch_node.PAGE.read_text(encoding="utf-8"), renew
    assert not torch_node.KEPT.exists()


def test_rows_go_with_eight_gpus(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["steps", "--measured", "x.json"]) == 2
    assert "--measured goes with --gpus 8" in capsys.readouterr().err
