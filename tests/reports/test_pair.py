"""The pair: SM counts over time, busy time of streams, kinds of ops."""

from dataclasses import replace

import numpy as np
import pytest

from hwmodels.units import NS_PER_S
from reports.pair import COMPUTE_LANES, EXCHANGE_LANES, device_sms, left, occupancy, op_kinds, section, union_ns
from reports.ranks import HEALTHY
from sim.result.trace import LANES, Trace
from tests.reports import sample
from tests.reports.sample import unpack


def spans(*rows: tuple[str, int, int, int]) -> Trace:
    """A trace of (lane, start, end, sms) rows."""
    table = np.zeros((len(rows), len(Trace.COLUMNS)), dtype=np.int64)
    for i, (lane, start, end, sms) in enumerate(rows):
        table[i, 1], table[i, 3], table[i, 4], table[i, 12] = LANES.index(lane), start, end, sms
    return Trace(*table.T, labels=("op",), prices=("p",))


def test_occupancy_is_what_runs() -> None:
    pair = spans(("compute", 0, 10, 112), ("compute", 10, 20, 50), ("communication", 5, 15, 20))
    times, held = occupancy(pair, COMPUTE_LANES)
    assert (np.round(times * NS_PER_S).tolist(), held.tolist()) == ([0, 10, 20], [112, 50, 0])
    times, held = occupancy(pair, EXCHANGE_LANES)
    assert (np.round(times * NS_PER_S).tolist(), held.tolist()) == ([5, 15], [20, 0])


def test_two_compute_streams_share_one_pool() -> None:
    full = spans(("compute", 0, 10, 112), ("weight", 5, 15, 112))
    assert occupancy(full, COMPUTE_LANES)[1].tolist() == [112, 112, 112, 0]
    halves = spans(("compute", 0, 20, 112), ("compute", 20, 30, 56), ("weight", 20, 30, 56))
    assert occupancy(halves, COMPUTE_LANES)[1].tolist() == [112, 112, 0]


def test_spans_without_sms_hold_none() -> None:
    times, held = occupancy(spans(("compute", 0, 10, -1)), COMPUTE_LANES)
    assert len(times) == len(held) == 0


def test_union_merges_what_touches_and_keeps_gaps() -> None:
    compute = (("compute", 0, 4, 1), ("weight", 3, 6, 1), ("compute", 6, 7, 1), ("compute", 9, 10, 1))
    pair = spans(*compute, ("host", 7, 9, 1))
    assert union_ns(pair, COMPUTE_LANES) == [(0, 7), (9, 10)]


@pytest.mark.parametrize(
    ("scenario", "sms"),
    [
        ({"cluster": {"node": {"device": {"sms": 132}}}}, 132),
        ({"cluster": {"node": {"device": {"sms": {"value": 108, "source": "datasheet"}}}}}, 108),
        ({"cluster": {"node": "h800x8"}}, None),
        ({}, None),
    ],
)
def test_the_device_is_found_when_it_is_spelled_out(scenario: dict[str, object], sms: int | None) -> None:
    assert device_sms(scenario) == sms


def test_every_op_reaches_the_page() -> None:
    result = sample.result()
    made = section(result)
    assert made is not None and made.data is not None and result.pair is not None
    found = unpack(made.data["table"])
    lengths = np.round((found["end"] - found["start"]) * NS_PER_S).astype(np.int64)
    assert (lengths == result.pair.end - result.pair.start).all()
    assert (found["kind"] == op_kinds(result.pair)).all()
    assert found["start"].min() == 0
    lanes = [name for _, name in made.data["lanes"]]
    assert lanes == ["compute", "weight gradients", "communication", "pipeline sends"]
    assert made.data["device_sms"] == 132


def test_a_pair_that_stands_for_no_rank_says_so() -> None:
    made, alike = section(sample.differing()), section(sample.result())
    assert made is not None and made.lead.endswith(
        f". {HEALTHY} In the run it takes 131.0 ms (129.0 ms to 133.0 ms by rank; on the ranks of position 8, mean of"
        " 52 each)."
    )
    assert alike is not None and "differ" not in alike.lead


def test_no_pair_no_section() -> None:
    assert section(sample.chunk_times()) is None


def test_a_schedule_without_pairs_shows_a_chunk() -> None:
    made = section(replace(sample.result(), pair_name="B of stage 1"))
    assert made is not None and made.data is not None
    assert (made.title, made.data["what"]) == ("One chunk, op by op", "chunk")
    made = section(sample.result())
    assert made is not None and made.title == "One pair, op by op"


def test_compute_gives_back_what_communication_takes() -> None:
    """132 SMs while nothing communicates and 112 beside it; never more in all than the device has."""
    pair = spans(("compute", 0, 10, 132), ("communication", 5, 15, 20), ("compute", 12, 20, 132))
    own, others = occupancy(pair, COMPUTE_LANES), occupancy(pair, EXCHANGE_LANES)
    times, held = left(own, others, 132)
    assert (np.round(times * NS_PER_S).tolist(), held.tolist()) == ([0, 5, 10, 12, 15, 20], [132, 112, 0, 112, 132, 0])
    apart = spans(("compute", 0, 10, 112), ("communication", 5, 15, 20))
    always = occupancy(apart, COMPUTE_LANES)
    assert left(always, occupancy(apart, EXCHANGE_LANES), 132) is always
    assert left(own, others, None) is own
