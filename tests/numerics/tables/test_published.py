"""Likenesses of cards: what published rows say of prices carried over."""

import csv
import json

import pytest

from hwmodels import likeness
from hwmodels.op import Attention, Gemm
from hwmodels.refused import Refused
from numerics import __main__ as cli
from numerics.tables import published

GEMM = ["gpu", "precision", "m", "n", "k", "us", "us_sustained"]
HEADS = ["gpu", "direction", "heads", "kv_heads", "dim_qk", "dim_v", "batch", "seq", "causal", "us"]


def written(folder, times):
    """Published times of an A100 that are so many times what is carried over."""
    products = [Gemm(m, 4096, 4096, precision="bf16") for m in (1024, 2048, 4096, 8192)]
    heads = [Attention("forward", 1, 32, s, 128, 128, kv_heads=8) for s in (4096, 8192)]
    with (folder / "gemm.csv").open("w") as file:
        out = csv.writer(file)
        out.writerow(GEMM)
        for op in products:
            us = published.price_us("a100", op) * times
            out.writerow(["A100", "bf16", op.m, op.n, op.k, us, ""])
            out.writerow(["B200", "bf16", op.m, op.n, op.k, us, 1.21 * us])
        out.writerow(["A100", "fp8", 1024, 4096, 4096, 1.0, ""])
        out.writerow(["A100", "bf16", 128, 4096, 4096, 1.0, ""])
    with (folder / "attention.csv").open("w") as file:
        out = csv.writer(file)
        out.writerow(HEADS)
        for op in heads:
            us = published.price_us("a100", op) * times
            out.writerow(["A100", "fwd", 32, 8, 128, 128, 1, op.sequence, 1, us])
        out.writerow(["A100", "fwd", 32, 8, 192, 128, 1, 4096, 1, 1.0])


def test_a_ratio_is_published_over_carried_over(tmp_path):
    written(tmp_path, 1.3)
    rows = {row["device"]: row["ratios"] for row in published.compared(tmp_path)["likeness"]["rows"]}
    a100 = rows["A100 SXM 80 GB"]
    assert (a100["gemm"]["ratio"], a100["gemm"]["rows"], a100["gemm"]["spread"]) == (1.3, 4, 0.05)
    assert (a100["attention"]["ratio"], a100["attention"]["rows"]) == (1.3, 2)


def test_a_card_that_meets_its_limit_is_priced_between_burst_and_metered(tmp_path):
    written(tmp_path, 1.0)
    with (tmp_path / "gemm.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert published.metered(rows, "B200") == pytest.approx(1.21)
    assert published.metered(rows, "A100") == published.metered(rows, "") == 1.0


def test_the_committed_table_is_read(tmp_path):
    table = json.loads(likeness.FILE.read_text())
    assert {row["device"] for row in table["rows"]} == {each.device for each in likeness.likenesses()}
    assert {"source", "provenance", "rows"} <= table.keys()
    with pytest.raises(Refused, match=r"no gemm\.csv and no attention\.csv"):
        published.compared(tmp_path)
    assert cli.main(["calibrate", "--likeness", str(tmp_path)]) == cli.WRONG
