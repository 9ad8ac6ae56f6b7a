"""A trace beside a simulated step: rows of both timelines, tiled without gaps, and a page that nothing is cut on."""

from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest

from reports import joins
from reports.palette import OPS
from sim.validation.traced import Bars, Joined
from tests.reports.test_fits import BROWSER, looked_at

ROWS = [
    Joined("product, fprop", "4096 x 128256 x 4096 bf16", 1, 5.9e-3, 1, 5.4e-3),
    Joined("memory, <sort>", "14 B", 0, 0.0, 3, 1.5e-5), Joined("memory, adam", "291.9 MB", 2, 2e-4, 0, 0.0),
]  # fmt: skip
TRACE = Bars(("stream 7", "stream 9"), (0, 0, 1), ("nvjet_<gemm>", "flash_fwd", "ncclDevKernel_AllGather"),
             (0, 500_000, 100_000), (400_000, 900_000, 300_000))  # fmt: skip
STEP = Bars(("compute",), (0, 0), ("gate_up", "attention"), (0, 600_000), (500_000, 1_000_000))


class Cell(NamedTuple):
    row: int
    kind: int
    start: int
    end: int
    name: str


def test_rows_are_tiled_to_the_end_of_the_longer_one() -> None:
    cells = [Cell(*each) for each in joins._tiled(TRACE, 0, 1_000_000)]
    for row in (0, 1):
        own = [cell for cell in cells if cell.row == row]
        assert own[0].start == 0 and own[-1].end == 1_000_000
        assert all(a.end == b.start for a, b in pairwise(own))
    kinds = [OPS[cell.kind].short for cell in cells if cell.kind < len(OPS)]
    assert kinds == ["gemm", "attention", "exchange"]
    assert [cell.end - cell.start for cell in cells if cell.kind == len(OPS)] == [100_000, 100_000, 100_000, 700_000]


def test_a_kernel_that_begins_before_the_last_one_ends_is_cut() -> None:
    late = Bars(("s",), (0, 0, 0), ("a", "b", "c"), (0, 50, 60), (100, 120, 90))
    cells = [Cell(*each) for each in joins._tiled(late, 0, 150)]
    assert [(cell.start, cell.end) for cell in cells] == [(0, 100), (100, 120), (120, 150)]


def test_the_page_says_both() -> None:
    text = joins.render("a step", "t.json", ROWS, TRACE, STEP)
    for words in ("trace, stream 7", "simulated, compute", "2 streams, 1 lane of", "busy 80.0 %", "busy 90.0 %",
                  "memory, &lt;sort&gt;", "Where they part", "default-src 'none'"):  # fmt: skip
        assert words in text, words
    none = joins.render("a step", "t.json", ROWS, Bars((), (), (), (), ()), STEP)
    assert 'id="timeline-plot"' not in none and "Where they part" in none


@pytest.mark.skipif(not BROWSER, reason="no Chromium")
def test_nothing_is_cut(tmp_path: Path) -> None:
    for width, seen in looked_at(joins.render("a step", "t.json", ROWS, TRACE, STEP), tmp_path).items():
        assert seen["found"] == [], width
