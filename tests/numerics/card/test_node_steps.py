"""The program that times training steps and exchanges over a node's GPUs, on two CPU processes."""

import json
from pathlib import Path

import pytest

pytest.importorskip("torch")

from numerics.card import node_exchange
from tests.numerics.card import ranks

KERNELS = [
    {"name": "ncclDevKernel_AllGather", "ts": 0.0, "dur": 10.0}, {"name": "gemm", "ts": 4.0, "dur": 8.0},
    {"name": "gemm", "ts": 20.0, "dur": 1.0}, {"name": "ncclDevKernel_AllGather", "ts": 20.5, "dur": 2.0},
]  # fmt: skip


def test_communication_is_alone_where_no_other_kernel_runs() -> None:
    """By hand: 0 to 10 and 20.5 to 22.5 us, beside compute from 4 to 10 and 20.5 to 21."""
    from numerics.card import node_steps  # dear, with all that shards: not while tests are listed

    told = node_steps.communication(KERNELS)
    assert told["comm_busy_ms"] == pytest.approx(0.012) and told["comm_alone_ms"] == pytest.approx(0.0055)
    assert told["compute_busy_ms"] == pytest.approx(0.009)
    assert told["top"] == [[12.0, 2, "ncclDevKernel_AllGather"], [9.0, 2, "gemm"]]


def test_the_hottest_rank_receives_what_the_skew_says_and_all_rows_arrive() -> None:
    for count in (2, 4, 8):
        parts = node_exchange.shares(count, node_exchange.SKEW)
        assert sum(parts) == pytest.approx(1) and parts[0] == max(parts) == node_exchange.SKEW / count
        assert node_exchange.shares(count, 1.0) == [1 / count] * count


def test_every_layout_takes_steps_on_two_processes(tmp_path: Path) -> None:
    from numerics.card import node_steps  # before the ranks are forked

    ranks.run(2, "numerics.card.node_steps", "--device", "cpu", "--out", str(tmp_path), said=tmp_path / "said")
    rows = json.loads((tmp_path / "node_steps.json").read_text())["runs"]
    assert [row["kind"] for row in rows] == [run.kind for run in node_steps.DRY]
    assert not [row for row in rows if "error" in row or not row["step_ms"] > 0]


def test_exchanges_go_both_ways_on_two_processes(tmp_path: Path) -> None:
    ranks.run(2, "numerics.card.node_exchange", "--device", "cpu", "--out", str(tmp_path), said=tmp_path / "said")
    rows = json.loads((tmp_path / "node_exchange.json").read_text())
    assert {row["skew"] for row in rows["alone"]} == {1.0, node_exchange.SKEW} and len(rows["beside"]) == 1
