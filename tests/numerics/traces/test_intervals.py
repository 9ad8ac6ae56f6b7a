"""Interval arithmetic against counting on a small time line."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from numerics.traces.intervals import common, covered, gaps, innermost, length, union

spans = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 9)).map(lambda p: (p[0], p[0] + p[1])), max_size=12)


def columns(pairs: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    both = np.array(pairs, np.int64).reshape(-1, 2)
    return both[:, 0], both[:, 1]


def ticks(pairs: list[tuple[int, int]]) -> set[int]:
    return {t for a, b in pairs for t in range(a, b)}


@given(spans, spans)
def test_unions_lengths_and_covers_count_the_same_ticks(a: list[tuple[int, int]], b: list[tuple[int, int]]) -> None:
    one, other = union(*columns(a)), union(*columns(b))
    assert length(one) == len(ticks(a))
    assert common(one, other) == common(other, one) == len(ticks(a) & ticks(b))
    assert covered(one, *columns(b)).tolist() == [len(ticks(a) & set(range(*pair))) for pair in b]
    assert (one[1:, 0] > one[:-1, 1]).all(), "touching intervals join"


@given(spans)
def test_gaps_and_busy_time_fill_the_line(a: list[tuple[int, int]]) -> None:
    busy = union(*columns(a))
    end = int(busy[-1, 1]) if len(busy) else 0
    assert length(busy) + int(gaps(busy, 0)[:, 0].sum()) == end


@given(spans, st.lists(st.integers(0, 40), max_size=10))
def test_innermost_contains_and_nothing_later_begun_does(a: list[tuple[int, int]], times: list[int]) -> None:
    starts, ends = columns(a)
    for time, found in zip(times, innermost(starts, ends, np.array(times, np.int64)), strict=True):
        around = [i for i, (x, y) in enumerate(a) if x <= time <= y]
        assert (found in around) if around else found == -1
        assert not around or starts[found] == max(starts[i] for i in around)
