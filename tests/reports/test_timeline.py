"""The timeline tiles the step: what runs and what idles, nothing lost and nothing twice."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hwmodels.units import NS_PER_S
from reports.palette import IDLE
from reports.timeline import idle_shares, price_mix, section, with_idle
from sim.result.trace import Trace
from tests.reports import sample
from tests.reports.sample import unpack


def steps(rows: list[tuple[int, int, int]]) -> Trace:
    """A trace of (rank, start, end) rows."""
    table = np.full((len(rows), len(Trace.COLUMNS)), -1, dtype=np.int64)
    for i, (rank, start, end) in enumerate(rows):
        table[i, :6] = rank, 0, 0, start, end, 0
    return Trace(*table.T, labels=("F",), prices=())


@st.composite
def schedules(draw: st.DrawFn) -> list[tuple[int, int, int]]:
    rows = []
    for rank in range(draw(st.integers(1, 4))):
        now = 0
        for gap, length in draw(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 5)), min_size=1, max_size=6)):
            rows.append((rank, now + gap, now + gap + length))
            now += gap + length
    return draw(st.permutations(rows))


@given(schedules())
def test_rows_tile_every_rank_from_zero_to_the_end_of_the_step(rows: list[tuple[int, int, int]]) -> None:
    tiled = with_idle(steps(rows), np.full(len(rows), -1))
    end = max(row[2] for row in rows)
    for rank in {row[0] for row in rows}:
        mine = tiled["position"] == rank
        starts, ends = (np.round(tiled[name][mine] * NS_PER_S).astype(int) for name in ("start", "end"))
        assert starts[0] == 0
        assert ends[-1] == end
        assert (starts[1:] == ends[:-1]).all()
        busy = sum(b - a for r, a, b in rows if r == rank)
        assert int((ends - starts)[tiled["kind"][mine] != IDLE].sum()) == busy
        assert abs(idle_shares(tiled)[rank] - (end - busy) / end) < 1e-9


def test_idle_rows_say_nothing_of_what_ran() -> None:
    tiled = with_idle(steps([(0, 5, 6)]), np.array([-1]))
    assert tiled["kind"].tolist() == [IDLE, 0]
    assert all(tiled[name][0] == -1 for name in ("stage", "micro_batch", "stage_b", "micro_batch_b", "price"))


def test_the_page_gets_every_step_to_the_nanosecond() -> None:
    result = sample.result()
    made = section(result)
    assert made is not None and made.data is not None
    found = unpack(made.data["table"])
    busy = found["kind"] != IDLE
    order = np.lexsort((result.steps.start, result.steps.position))
    assert (np.round(found["start"][busy] * NS_PER_S) == result.steps.start[order]).all()
    assert (np.round(found["end"][busy] * NS_PER_S) == result.steps.end[order]).all()
    assert (found["micro_batch_b"][busy] == result.steps.micro_batch_b[order]).all()
    assert len(made.data["margin"]) == sample.RANKS


def test_it_says_whose_spans_are_drawn() -> None:
    alike, differ, bare = (section(made()) for made in (sample.result, sample.differing, sample.chunk_times))
    assert alike is not None and differ is not None and bare is not None
    assert alike.data is not None and differ.data is not None
    assert "whose 128 ranks all do the same" in alike.lead and alike.data["ranks"] == []
    assert "drawn is the one of replica 3" in differ.lead and "at position 1 that is rank 131" in differ.lead
    assert differ.data["ranks"] == [128 * p + 3 for p in range(sample.RANKS)]
    assert bare.lead.startswith("Each row is a position of the pipeline. Drag")


def test_no_steps_no_section() -> None:
    empty = steps([])
    result = sample.result()
    assert section(type(result)(**{**result.__dict__, "steps": empty})) is None


def priced(rows: list[tuple[int, int, int, int]], prices: tuple[str, ...]) -> Trace:
    """A trace of (rank, start, end, price) rows."""
    bare = steps([row[:3] for row in rows])
    columns = {name: getattr(bare, name) for name in Trace.COLUMNS} | {"price": np.array([row[3] for row in rows])}
    rungs = tuple(price.split(":")[0] for price in prices)
    return Trace(**columns, labels=bare.labels, prices=prices, rungs=rungs)


def test_a_step_says_how_its_spans_were_priced() -> None:
    prices = ("measured: a", "roofline", "measured: b")
    first = [(0, 0, 30, 0), (0, 5, 15, 1), (0, 55, 60, -1), (0, 60, 70, 1)]
    spans = priced([*first, (1, 0, 10, 2), (1, 15, 20, 1)], prices)
    which, texts = price_mix(steps([(1, 0, 10), (0, 50, 80), (0, 0, 50), (1, 30, 40)]), spans)
    found = [texts[i] if i >= 0 else None for i in which.tolist()]
    assert found == ["100 % measured", "100 % roofline", "75 % measured, 25 % roofline", None]


def test_without_prices_there_is_no_mix() -> None:
    which, texts = price_mix(steps([(0, 0, 5)]), steps([(0, 1, 2)]))
    assert (which.tolist(), texts) == ([-1], [])


def test_every_step_of_the_sample_but_none_idle_has_a_mix() -> None:
    result = sample.result()
    made = section(result)
    assert made is not None and made.data is not None
    found = unpack(made.data["table"])
    assert ((found["mix"] >= 0) == (found["kind"] != IDLE)).all()
    assert found["mix"].max() < len(made.data["mixes"])
