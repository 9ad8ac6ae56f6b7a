"""Tables of a library's kernels: calls become kernels, two states one price, and the committed ones are fresh."""

import json
import math

import pytest

from hwmodels import library as vendor
from hwmodels import node as nodes
from hwmodels import tables
from hwmodels.op import Attention, Gemm, Memory
from hwmodels.refused import Refused
from numerics import __main__ as cli
from numerics.tables import cards
from numerics.tables import library as made
from numerics.tables.provenance import stale

GAP = tables.load("h200").launch_gap_us
CLOCK = {"gemm": 1.21, "attention forward": 1.21, "attention backward": 1.0, "alone": 1.3, "alone attention": 1.15,
         "slope": 0.1, "apart": 0.01}  # fmt: skip


def product(us=1000.0, **more):
    row = {"op": "gemm", "m": 4096, "n": 4096, "k": 4096, "role": "fprop", "precision": "bf16", "name": "mm fprop",
           "us": us, "low_us": us, "high_us": us, "samples": 5, "kernels": [["nvjet", us]]}  # fmt: skip
    return row | more


def memory(kind, us, kernels, **more):
    row = {"op": "memory", "kind": kind, "rows": 8192, "read": 8192.0, "write": 4096.0, "name": kind, "us": us,
           "low_us": us, "high_us": us, "samples": 5, "kernels": kernels}  # fmt: skip
    return row | more


def test_events_and_launches_are_no_part_of_a_kernel():
    row = made.net(product(kernels=[["Memset", 1.0], ["nvjet", 990.0]], loaded={"us": 1200.0}), 2.0, 1.0)
    assert (row["us"], row["loaded_us"]) == (996.0, 1198.0)


def test_a_price_is_the_middle_of_both_states():
    ((op, row),) = made.kernels(product(), CLOCK)
    assert op == Gemm(4096, 4096, 4096, "fprop", "bf16")
    assert (row["low_us"], row["us"], row["high_us"]) == (1000.0, 1100.0, 1210.0)


def test_a_long_burst_has_met_the_limit_itself():
    ((_, row),) = made.kernels(product(6000.0), CLOCK)
    rested = 6000 * (1.3 - 0.1 * math.log(2)) / 1.3
    assert row["low_us"] == pytest.approx(rested, rel=1e-3)
    assert row["us"] == pytest.approx(rested * 1.1, rel=1e-3)


def test_a_long_burst_of_attention_lacks_less():
    op = Attention("forward", 1, 96, 16384, 128, 128)
    row = {"op": "attention", **op._asdict(), "name": "sdpa", "us": 6000.0, "low_us": 6000.0, "high_us": 6000.0,
           "samples": 5, "kernels": [["flash_fprop", 6000.0]]}  # fmt: skip
    ((_, found),) = made.kernels(row, CLOCK)
    assert found["low_us"] == pytest.approx(6000 * (1.15 - 0.05 * math.log(2)) / 1.15, rel=1e-3)


def test_weight_gradients_say_what_they_are_written_in():
    assert made.operation(product(role="wgrad_bf16")) == Gemm(4096, 4096, 4096, "wgrad", "bf16", result="bf16")
    assert made.operation(product(role="wgrad")).result == "fp32"


def test_the_kernels_of_a_call_share_its_time():
    backward = memory("norm_backward", 60.0, [["layer_norm_grad_input", 30.0], ["GammaBeta", 10.0]])
    (grads, of_grads), (weights, of_weights) = made.kernels(backward, CLOCK)
    assert grads == Memory("norm_backward", 8192, 8192.0, 4096.0)
    assert weights == Memory("norm_weight_gradient", 8192, 8192.0, 0.0)
    assert (of_grads["burst_us"], of_weights["burst_us"]) == (45.0, 15.0)
    assert of_grads["us"] == pytest.approx(math.sqrt(45 * 30), rel=1e-3)  # half of what it reads is in the cache


def test_attention_backward_is_three_kernels_and_two_sums():
    op = Attention("backward", 2, 32, 4096, 128, 128, kv_heads=8)
    parts = {
        "Memset": 1.0,
        "compute_dot_do_o": 50.0,
        "flash_bprop": 800.0,
        "convert_dq": 49.0,
        "fmha_reduce_head": 60.0,
    }
    times = dict.fromkeys(("us", "low_us", "high_us"), 1000.0)
    row = {"op": "attention", **op._asdict(), **times, "name": "sdpa", "samples": 5,
           "kernels": [*map(list, parts.items()), ["fmha_reduce_head", 40.0]]}  # fmt: skip
    whole, *around = made.kernels(row, CLOCK)
    assert whole[0] == op and whole[1]["us"] == 800.0
    assert [found.kind for found, _ in around] == ["attention_prepare", "attention_finish", "attention_reduce"]
    assert around[2][0] == Memory("attention_reduce", 8192, 2.0 * 32 * 128, 2.0 * 8 * 128)
    assert around[2][1]["us"] == 50.0


def test_clocks_are_company_over_bursts():
    bursts = [product(500.0), product(200.0, m=2048, loaded_us=240.0), product(9000.0, m=65536, loaded_us=9000.0),
              product(1000.0, m=8192, loaded_us=1200.0)]  # fmt: skip
    company = [{"name": "fprop 4096 4096 4096", "us": 600.0 + GAP + 2.0, "burst_us": 1.0, "calls": 1},
               {"name": "log_softmax", "us": 30.0 + GAP + 0.5, "burst_us": 20.0 + GAP + 2.0, "calls": 4}]  # fmt: skip
    found = made.clocks(bursts, company, 2.0, GAP)
    assert (found["gemm"], found["softmax"], found["alone"]) == (1.2, 1.5, 1.2)
    assert found["slope"] == pytest.approx(0.2 / math.log(3), rel=1e-3)


def test_equal_operations_become_one_row():
    add = Memory("elementwise", 8, 4.0, 2.0)
    calls = [
        (add, {"us": us, "low_us": us, "high_us": us, "samples": 5, "names": [name]})
        for us, name in ((1.0, "add"), (3.0, "mul"))
    ]
    (row,) = made.merged(calls)
    assert row["names"] == ["add", "mul"] and row["samples"] == 10 and (row["low_us"], row["high_us"]) == (1.0, 3.0)


def test_committed_tables_are_fresh_and_of_one_run():
    assert stale("h200/torch") == []
    found = [json.loads(path.read_text()) for path in sorted((tables.FOLDER / "h200" / "torch").glob("*.json"))]
    assert len(found) == 5
    for key in ("device", "library", "reference", "provenance", "source"):
        assert len({json.dumps(table[key], sort_keys=True) for table in found}) == 1
    assert found[0]["reference"] == cards.reference("h200")
    (host,) = [table for table in found if "graph_gap_us" in table]
    assert host["graph_gap_us"] < host["launch_gap_us"] == tables.load("h200/torch").launch_gap_us
    again = host["recorded_us"]["mul"] / 1e6  # measured beside the tables; what runs take is the node's
    assert again == pytest.approx(nodes.load("h200x1").launch.forward_s, rel=0.03)


def test_a_folder_without_a_run_is_refused(tmp_path, capsys):
    with pytest.raises(Refused, match=r"no bursts\.json and no company\.json"):
        made.calibrated(tmp_path)
    assert cli.main(["calibrate", "--timed", str(tmp_path)]) == cli.WRONG
    assert "calibrate --torch" in capsys.readouterr().err


def test_fp8_products_have_a_clock_of_their_own() -> None:
    """By hand: BF16 loses 20 % alone and 10 % in company, FP8 30 % alone: half of that in company."""
    factors = {"alone": 1.2, "gemm": 1.1, "slope": 0.0}
    rows = [{"us": 1000.0, "loaded_us": 1300.0}, {"us": 10.0, "loaded_us": 90.0}, {"us": 1000.0}]
    of_fp8 = made.of_scaled(factors, rows)
    assert of_fp8 == {"alone": 1.3, "gemm": pytest.approx(1.15), "slope": 0.0}
    assert made.of_scaled(factors, rows[1:]) == pytest.approx(factors)


def test_fp8_products_are_priced_by_their_own_rows() -> None:
    rows = tables.load("h200/torch").library.exact
    fast, plain = (rows[vendor.identity(Gemm(8192, 28672, 8192, "fprop", precision))] for precision in ("fp8", "bf16"))
    assert 1.7 < plain["us"] / fast["us"] < 2.0 and "_scaled_mm fprop" in fast["names"]
