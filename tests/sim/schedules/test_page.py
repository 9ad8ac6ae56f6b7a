"""Every row of the table in docs/SCHEDULES.md, simulated again."""

from pathlib import Path

import pytest

from sim.scenario import from_mapping
from sim.schedules.program import Shape, build, in_flight
from sim.simulation import run
from sim.validation import interleaving

PAGE = (Path(__file__).parents[3] / "docs" / "SCHEDULES.md").read_text(encoding="utf-8")
PAIRS = PAGE.split("<!-- interleaving -->")[1].split("<!-- /interleaving -->")[0]
ROWS = [
    [float(cell) for cell in line.strip("| ").split("|")]
    for line in PAGE.splitlines()
    if line.startswith("| ") and line[2].isdigit()
]
MESSAGE = "chunk_times.p2p=0.1 ms"


@pytest.mark.parametrize("row", ROWS, ids=lambda row: "-".join(f"{cell:g}" for cell in row[:4]))
def test_a_row_is_what_a_run_says(row):
    p, v, g, m = (int(cell) for cell in row[:4])
    chunk = f"{8 / v} ms"
    scenario = {
        "name": "page", "parallel": {"pipeline": p}, "batch": {"micro_batches": m},
        "schedule": {"name": "interleaved", "chunks": v, "group": g},
        "chunk_times": {"forward": chunk, "backward_input": chunk, "weight": chunk},
    }  # fmt: skip

    def bubble(*words):
        return run(from_mapping(scenario, words), interval=False).summary["step_time_s"] / (m * 24e-3) - 1

    held = in_flight(build("interleaved", Shape(p, m, v, group=g)))[0]
    told = [
        (p - 1) / (m * v), bubble(), held, held / v, bubble(MESSAGE), bubble(MESSAGE, "overlap.pipeline=false"),
    ]  # fmt: skip
    assert row[4:] == pytest.approx(told, abs=5.1e-5, rel=3e-4)
    assert told[0] == pytest.approx(told[1], rel=1e-9)


def test_there_are_rows():
    assert len(ROWS) == 9


def test_the_closed_form_is_exact_where_stages_are_alike():
    """For the positions, micro-batches and stages of the controlled pairs."""
    rows = [line.strip("| ").split(" | ") for line in PAIRS.splitlines() if line.startswith("| AB")]
    assert len(rows) >= 12
    for _, _, p, m, v, closed, alike, *_ in rows:
        exact = (int(p) - 1) / (int(m) * int(v))
        assert interleaving.alike(int(p), int(m), int(v)) == pytest.approx(exact, rel=1e-9)
        assert (float(closed), float(alike)) == pytest.approx((exact, exact), abs=5.1e-5)


def test_more_stages_shorten_the_bubble_of_a_run_and_the_page_says_so():
    """The layout with fewest rows, run again."""
    found = list(interleaving.table(["AB-019"]))
    bubbles = [row.ran for row in found]
    assert bubbles == sorted(bubbles, reverse=True) and [row.chunks for row in found] == [1, 2, 5, 10]
    for line in interleaving.markdown(found).splitlines()[2:]:
        assert line in PAIRS
