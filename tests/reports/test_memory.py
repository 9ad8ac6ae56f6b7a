"""Memory: peaks are peaks, and a thinned curve keeps them."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from reports import memory
from sim.result import MemoryCurve
from tests.reports import sample
from tests.reports.sample import unpack


@given(st.lists(st.integers(0, 100), min_size=1, max_size=400), st.integers(4, 60))
def test_a_thinned_curve_keeps_ends_and_peak(values: list[int], points: int) -> None:
    total = np.array(values)
    keep = memory.thin(total, points)
    assert len(keep) <= points + 1
    assert (np.diff(keep) > 0).all()
    assert keep[0] == 0
    assert keep[-1] == len(values) - 1
    assert total[keep].max() == total.max()


def test_parts_at_the_peak_sum_to_it() -> None:
    a, b = np.array([5, 1, 4]), np.array([1, 6, 3])
    curve = MemoryCurve(0, np.arange(3), {"a": a, "b": b}, 10)
    assert memory.at_peak(curve) == {"a": 1, "b": 6}
    assert sum(memory.at_peak(curve).values()) == curve.peak_bytes


def test_the_page_gets_every_curve() -> None:
    result = sample.result()
    made = memory.section(result)
    assert made is not None and made.data is not None
    names = [name for name, _ in made.data["parts"]]
    for drawn, curve in zip(made.data["curves"], result.memory, strict=True):
        rows = unpack(drawn["table"])
        assert drawn["capacity"] == curve.capacity_bytes
        assert sum(drawn["peak"]) == curve.peak_bytes
        for i, name in enumerate(names):
            assert (rows[str(i)] == curve.parts[name]).all()
    assert 'value="0" selected>position 0, peak' in made.body  # position 0 holds the most in the sample


def test_no_curves_no_section() -> None:
    assert memory.section(sample.chunk_times()) is None
