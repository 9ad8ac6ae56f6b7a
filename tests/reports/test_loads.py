"""Expert loads: the file reads back and agrees with result.json, the picture is the mean over groups."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from reports import loads
from reports.section import Section
from sim import simulation
from sim.result import Result, archive
from sim.scenario import load
from tests.reports import sample
from tests.reports.sample import unpack


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def made(result: Result) -> Section:
    found = loads.section(result)
    assert found is not None and found.data is not None
    return found


def test_the_file_has_every_rank_in_every_layer(tmp_path: Path) -> None:
    archive.write_loads(sample.loads()[0], tmp_path / "loads.csv")
    rows = read(tmp_path / "loads.csv")
    assert tuple(rows[0]) == archive.LOADS_HEAD
    assert [(row["layer"], row["rank"]) for row in rows[:9]] == [("3", str(r)) for r in range(8)] + [("4", "0")]
    assert (rows[-1]["layer"], rows[-1]["rank"], rows[-1]["pipeline_position"]) == ("6", "15", "1")
    assert [rows[5][f"padded_rows_{what}"] for what in ("mean", "min", "max")] == ["4224.2", "4096", "4480"]
    assert [rows[5][f"received_{what}"] for what in ("mean", "min", "max")] == ["2112.1", "2048", "2240"]
    assert (rows[0]["nodes_per_token_expected"], rows[0]["ranks_per_token_drawn"]) == ("1.9600", "2.3750")


def test_the_file_and_result_json_agree(tmp_path: Path) -> None:
    """Every rank of every MoE layer of V3: 59 x 128, at two pipeline positions each with half of the micro-batches."""
    result = simulation.run(load("scenarios/v3_sampled.yaml", ["outputs=[result,loads]"]), False)
    assert result.loads is not None
    archive.write_loads(result.loads, tmp_path / "loads.csv")
    rows, said = read(tmp_path / "loads.csv"), result.summary["expert_rows"]
    assert len(rows) == 2 * 59 * 128 and len({(row["layer"], row["rank"]) for row in rows}) == len(rows)
    assert sum(int(row["micro_batches"]) for row in rows) == 59 * 128 * 120
    assert min(int(row["padded_rows_min"]) for row in rows) == said["smallest"]
    assert max(int(row["padded_rows_max"]) for row in rows) == said["largest"]
    assert all(int(row["rank"]) // 128 == int(row["pipeline_position"]) for row in rows)
    for at, layer in enumerate(result.summary["routing"]["layers"]):
        mine = [row for row in rows if row["layer"] == str(layer)]
        received = np.average([float(row["received_mean"]) for row in mine])
        assert received / 4096 == pytest.approx(result.summary["routing"]["ranks_per_token"][at], abs=1e-4)
        assert {row["ranks_per_token_drawn"] for row in mine} == {f"{received / 4096:.4f}"}


def test_a_cell_is_the_mean_over_groups() -> None:
    drawn = sample.loads()[0]
    found = loads.cells(replace(drawn, rows=drawn.rows + 512 * (drawn.rank % 8 >= 4)[:, None]))
    assert found["mean"].tolist() == [4096 + 128 * (m + layer) + 256 for layer in range(4) for m in range(4)]
    assert (found["least"] == found["mean"] - 256 - 128).all() and (found["most"] == found["mean"] + 256 + 256).all()
    assert (found["received"] == (found["mean"] - 256) // 2).all()


def test_a_cell_counts_a_position_by_its_micro_batches() -> None:
    drawn = sample.loads()[0]
    rows = drawn.rows.copy()
    rows[:4] += 600
    one = replace(drawn, rows=rows, micro_batches=np.where(np.arange(32) < 4, 1, 5))
    assert loads.cells(one)["mean"][:4].tolist() == [4196 + 128 * m for m in range(4)]


def test_the_page_gets_every_layer_and_member() -> None:
    data = made(sample.result()).data
    assert data is not None
    assert unpack(data["table"])["mean"].tolist() == loads.cells(sample.loads()[0])["mean"].tolist()
    assert (data["layers"], data["members"], data["node"], data["expected"]) == ([3, 4, 5, 6], 4, 2, 4480)
    assert data["blocks"] == [{"layers": 3, "positions": [0]}, {"layers": 1, "positions": [1]}]


def test_the_text_says_what_was_drawn_and_what_is_expected() -> None:
    part = made(sample.result())
    assert "beside the 4,480 of experts" in part.lead
    assert "sampled &lt;&amp;&gt;" in part.body
    assert "0.300 in the mean over layers, 0.600 in layer 5" in part.body
    assert "5 % have up to 4,005 rows, half up to 4,050, 95 % up to 4,095" in part.body
    assert "1.96 nodes (expected) and 2.56 ranks (as drawn)" in part.body


def test_no_loads_no_section() -> None:
    assert loads.section(sample.chunk_times()) is None
