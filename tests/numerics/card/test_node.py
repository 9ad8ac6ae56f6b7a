"""The program that times a node's GPUs, on two CPU processes; and what compute and collectives lose by each other."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from hwmodels import tables
from hwmodels.op import Collective, Gemm
from numerics.tables import node

TIMED = Path(__file__).parents[3] / "numerics" / "card" / "timed"


def pair(kernel: str, size: int, kernel_ratio: float, ratio: float) -> dict[str, object]:
    return {"op": "all_gather", "kernel": kernel, "bytes": size, "kernel_us": 100.0, "us": 50.0,
            "kernel_beside_us": 100.0 * kernel_ratio, "beside_us": 50.0 * ratio}  # fmt: skip


def test_factors_are_geometric_means_of_the_largest_vector() -> None:
    """By hand: products of 1.1 and 1.21, whose mean is sqrt(1.331); the small vector's wait counts nowhere."""
    made = node.rows([pair("fprop", 8, 1.1, 2.0), pair("wgrad", 8, 1.21, 1.0), pair("copy", 8, 1.5, 4.0),
                      pair("fprop", 4, 9.0, 9.0)])  # fmt: skip
    factors = {row["class"]: (row["factor"], row["kernels"]) for row in made}
    assert factors == {"gemm_bf16": (pytest.approx(1.331**0.5, 1e-3), 2), "memory": (1.5, 1), "network": (2.0, 3)}
    (error,) = (row["error"] for row in made if row["class"] == "network")
    assert error == pytest.approx(math.log(2) * (2 / 3) ** 0.5, 1e-3)


def test_the_committed_table_is_what_the_card_said() -> None:
    table = tables.load("h200/torch").contention
    assert {name: row["factor"] for name, row in table.items()} == {
        row["class"]: row["factor"] for row in node.contention(TIMED)
    }
    assert node.contention(TIMED.parent) == []


def test_collectives_and_products_beside_each_other_cost_more() -> None:
    """Also where the library's kernels are another card's, by likeness."""
    from hwmodels import node as nodes
    from hwmodels.collectives import wires
    from hwmodels.price import Pricer

    for name in ("h200x8", "h100x8"):
        machine = nodes.load(name)
        pricer = Pricer(machine.device, wires(machine, None), 0, library="torch")
        sent = pricer.price(Collective("all_gather", 2.0**28, 8, 1), on_comm_sms=True)
        product_of = Gemm(8192, 14336, 4096, "fprop", "bf16")
        product = pricer.price(product_of)
        assert sent.beside_ns / sent.ns == pytest.approx(1.428, 1e-3)
        assert product.beside_ns / product.ns == pytest.approx(1.148, 1e-3)
        fewer = Pricer(machine.device, wires(machine, None), 16, held=False, library="torch")
        assert fewer.price(product_of).beside_ns == product.beside_ns, "SMs that NCCL takes are in the factor"


def test_two_processes_tell_every_collective_alone_and_beside_a_kernel(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    words = [
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        "2",
        "--master-port",
        "29617",
        "-m",
        "numerics.card.node",
    ]
    done = subprocess.run([sys.executable, *words, "--device", "cpu", "--quick", "--out", str(tmp_path)],
                          capture_output=True, text=True, check=False, timeout=240)  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads((tmp_path / "node.json").read_text())
    ops = {"all_reduce", "all_gather", "reduce_scatter", "all_to_all", "send_recv"}
    assert {row["op"] for row in told["sizes"]} == {row["op"] for row in told["beside"]} == ops
    assert {row["kernel"] for row in told["beside"]} == {"fprop", "dgrad"} and told["about"]["world"] == 2
    assert all(row["us"] > 0 for row in told["sizes"])
