"""Collectives: the fit finds planted figures, what is left out is out, and the page says what the program has."""

import math
from pathlib import Path

import numpy as np
import pytest

from hwmodels.nccl import figures, tuner
from hwmodels.op import Collective
from hwmodels.units import GIB, KIB, MICRO
from numerics.__main__ import main
from numerics.accuracy.nccl import fit, page, rows, scores, torch_rows
from numerics.accuracy.nccl.rows import Row

ROOT = Path(__file__).parents[3]
TABLE = ROOT.parent / "shared" / "data" / "kernels" / "collectives.csv"
HEAD = "gpu,op,ranks,nodes,bytes,dtype,us,busbw_gbs,src\n"
SIZES = [4 * KIB * 4**i for i in range(9)]


def planted(kinds: tuple[str, ...] = ("all_gather", "all_reduce", "all_to_all")) -> list[Row]:
    """Rows that take exactly what the committed figures say."""
    own, links = figures.load("hopper").figures, rows.wires(rows._node("H100"), None)
    ops = [Collective(kind, size, ranks, 1) for kind in kinds for size in SIZES for ranks in (2, 4, 8)]
    blank = [Row("H100", "hopper", op, links, 1 / MICRO, "n1") for op in ops]
    return [row._replace(us=fit.ratio(row, fit.way(row), own) / MICRO) for row in blank]


def test_the_fit_finds_planted_figures() -> None:
    held = planted()
    again = fit.fit(held)
    assert max(abs(math.log(fit.ratio(row, fit.way(row), again))) for row in held) < 0.01


def test_a_disturbed_row_moves_little() -> None:
    held = planted(("all_gather",))
    held[5] = held[5]._replace(us=3 * held[5].us)
    again = fit.fit(held)
    off = [abs(math.log(fit.ratio(row, fit.way(row), again))) for i, row in enumerate(held) if i != 5]
    assert np.median(off) < 0.02


def test_rows_left_out_are_priced_without_themselves() -> None:
    held = planted(("all_gather",))
    slow = [row._replace(us=2 * row.us) if row.op.ranks == 8 else row for row in held]
    missed = [miss for gap, miss in scores.left_out(slow) if gap == "number of ranks" and miss.row.op.ranks == 8]
    assert missed and np.median([miss.ratio for miss in missed]) == pytest.approx(0.5, abs=0.1)
    assert {gap for gap, _ in scores.left_out(slow)} == {"number of ranks", "band of sizes"}  # one GPU, one operation


def test_scores() -> None:
    assert scores.score([1.1, 0.9, 1.3])[:2] == (3, pytest.approx(0.1)) and scores.score([])[0] == 0
    row = planted()[0]
    assert scores.spreads([scores.Miss(row, fit.way(row), math.e)]) == {"ring, LL": 1.0}
    assert [scores.band(row._replace(op=row.op._replace(size=s))) for s in (KIB, GIB)] == [
        "to 512 KiB", "1 GiB and more"
    ]  # fmt: skip


def test_rows_are_read_with_their_machines(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_text(
        HEAD + "GB200,all_reduce,144,36,536870912,fp32,2156.8,493.94,c0\nH20,all_reduce,16,2,1048576,fp32,121.8,16,c2\n"
        "MI300X,all_reduce,8,1,4096,fp32,48,1,z2\nH100,alltoall,8,1,4096,fp16,9,1,n1\n"
    )
    rack, h20, h100 = rows.read(file)
    assert (rack.op.ranks, rack.op.nodes, rack.architecture) == (144, 2, "blackwell")
    assert h20.links.nic.bandwidth == 50e9 and h20.op.nodes == 2
    assert h100.op == Collective("all_to_all", 4096, 8, 1, form="fp16")
    assert [rows.fitted(row) for row in (rack, h20, h100)] == [False, False, True]
    assert not rows.fitted(rack._replace(source="z1", op=rack.op._replace(size=4096.0)))
    assert rows.fitted(rack._replace(source="z1"))


def test_the_page_has_the_committed_figures() -> None:
    text = page.PAGE.read_text(encoding="utf-8")
    held = {name: dict(figures.load(name).figures) for name in tuner.GENERATIONS}
    assert page._figures(held) in text and page._torch() in text


def test_torch_takes_what_the_model_says() -> None:
    """Nothing was fitted to it; large all-to-alls of torch are faster than those of nccl-tests."""
    off = {kind: np.abs(np.array(ratios) - 1) for kind, ratios in torch_rows.ratios().items()}
    assert max(np.median(values) for values in off.values()) < 0.2
    for kind in ("all_reduce", "all_gather", "reduce_scatter"):
        assert off[kind].max() < 0.15


@pytest.mark.skipif(not TABLE.exists(), reason="the table of measured collectives is not here")
def test_measured_collectives_come_back() -> None:
    held = {name: dict(figures.load(name).figures) for name in tuner.GENERATIONS}
    missed = [miss for miss in scores.misses(rows.read(TABLE), held) if rows.fitted(miss.row)]
    for gpu in {miss.row.gpu for miss in missed}:
        own = scores.score(miss.ratio for miss in missed if miss.row.gpu == gpu)
        ring = scores.score(scores.rival(miss.row) for miss in missed if miss.row.gpu == gpu)
        assert own.median < 0.06 and own.p95 < 0.2 and abs(own.bias) < 0.04 and ring.median > 4 * own.median


def test_sweeps_across_domains_come_back() -> None:
    """H100s of five clusters, small vectors among them, to which nothing is fitted."""
    held = {name: dict(figures.load(name).figures) for name in tuner.GENERATIONS}
    missed = [miss for miss in scores.misses(rows.read(rows.FAR), held) if miss.row.gpu == "H100"]
    assert len(missed) == 74 and not any(rows.fitted(miss.row) for miss in missed)
    own = scores.score(miss.ratio for miss in missed)
    ring = scores.score(scores.rival(miss.row) for miss in missed)
    assert own.median < 0.1 and own.p95 < 0.25 and ring.median > 3 * own.median


def test_a_table_that_is_not_there_is_said_in_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["collectives", str(tmp_path / "none.csv")]) == 2
    assert "none.csv" in capsys.readouterr().err
