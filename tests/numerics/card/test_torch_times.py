"""The run that times torch's kernels, on tiny shapes and a CPU: it runs, and its rows are what tables read."""

import json

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

from hwmodels.op import Attention, Gemm, Memory  # noqa: E402
from numerics.card import torch_plan, torch_times  # noqa: E402
from numerics.tables import library  # noqa: E402

FULL = list(torch_plan.cases(torch_plan.FULL))
CUDA_ONLY = {"mm wgrad"}
"""Calls that torch has on CUDA alone: products that add to FP32."""


@pytest.mark.skipif(torch.cuda.is_available(), reason="times tiny shapes only where there is no device")
def test_the_plan_runs_and_is_written(tmp_path):
    shown = []
    path = tmp_path / "run" / "bursts.json"
    document = torch_times.run(path, shown.append, 60.0)
    assert json.loads(path.read_text()) == document
    assert {row["name"] for row in document["rows"] if "refused" in row} <= CUDA_ONLY
    timed = [row for row in document["rows"] if "us" in row]
    assert len(timed) == len(list(torch_plan.cases(torch_plan.TINY))) - 2
    assert document["loaded"] == sum("loaded" in row for row in timed) > 0
    assert {"forward", "recorded", "backward", "chain_backward"} <= document["host"].keys()
    assert len(shown) >= 5


def test_a_run_out_of_time_says_so(tmp_path):
    document = torch_times.run(tmp_path / "bursts.json", lambda text: None, -1.0)
    assert {row["refused"] for row in document["rows"]} == {"no time was left"}


def test_the_plan_times_what_layers_do():
    ops = [case.op for case in FULL]
    assert Gemm(8192, 14336, 4096, "fprop", "bf16") in ops
    assert Attention("backward", 4, 32, 4096, 128, 128, kv_heads=8) in ops
    assert Memory("adam", 1 << 28, 8.0, 6.0) in ops
    assert max(op.flop() for op in ops if isinstance(op, Gemm)) <= torch_plan.MOST_FLOP
    assert 150 < sum(case.loaded for case in FULL) < 300
    assert {op.role for op in ops if isinstance(op, Gemm)} == {"fprop", "dgrad", "wgrad", library.WGRAD_BF16}
