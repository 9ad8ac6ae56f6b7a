"""The waterfall starts at zero, never skips, and ends at the step."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reports import waterfall
from sim.result import Bar
from tests.reports import sample


@given(st.lists(st.floats(-5, 10), min_size=1, max_size=8))
def test_each_bar_starts_where_the_last_ended(lengths: list[float]) -> None:
    bars = tuple(Bar(f"b{i}", seconds, "") for i, seconds in enumerate(lengths))
    *drawn, step = waterfall.steps(bars, sum(lengths))
    assert drawn[0]["base"] == pytest.approx(0)
    for before, after in pairwise(drawn):
        assert after["base"] == pytest.approx(before["base"] + before["length"], abs=1e-9)
    assert step["base"] == 0
    assert step["length"] == pytest.approx(sum(lengths), abs=1e-9)


def test_the_sum_is_the_step_and_meanings_are_shown() -> None:
    result = sample.result()
    made = waterfall.section(result)
    assert made is not None and made.data is not None
    assert made.data["bars"][-1]["length"] == pytest.approx(result.summary["step_time_s"])
    for bar in result.waterfall:
        assert bar.meaning in made.body


def test_what_takes_time_off_is_marked() -> None:
    made = waterfall.steps((Bar("ideal", 3.0, ""), Bar("worse", 2.0, ""), Bar("better", -1.0, "")), 4.0)
    assert [bar["colour"] for bar in made] == [waterfall.FIRST, waterfall.MORE, waterfall.LESS, waterfall.SUM]
    assert waterfall.seconds_signed(-0.25) == "−250.0 ms"


def test_no_bars_no_section() -> None:
    assert waterfall.section(sample.chunk_times()) is None
