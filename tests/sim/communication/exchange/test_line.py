"""A line of stages: the vectorised recursion against a literal one, and against closed forms."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.communication.exchange.line import Stage, finish_s

stage = st.builds(
    lambda service, servers, latency, room, credit: Stage(
        "", np.array(service), servers, latency / 8, room, credit / 8
    ),
    st.lists(st.integers(0, 9), min_size=2, max_size=2).map(lambda v: [x / 8 for x in v]),
    st.integers(1, 4), st.integers(0, 9), st.integers(1, 6), st.integers(0, 9),
)  # fmt: skip
"""Eighths are exact in binary, so both recursions must agree to the last bit."""


def literal(stages: list[Stage], chunks: int) -> list[float]:
    """The definition, one chunk and one stage at a time."""
    out = []
    for rank in range(len(stages[0].service_s)):
        end: dict[tuple[int, int], float] = {}
        for i in range(chunks):
            for k, s in enumerate(stages):
                start = end.get((k - 1, i), 0.0) + s.latency_s
                start = max(start, end.get((k, i - s.servers), 0.0))
                if k + 1 < len(stages) and i >= stages[k + 1].room:
                    start = max(start, end[k + 1, i - stages[k + 1].room] + stages[k + 1].credit_s)
                end[k, i] = start + float(s.service_s[rank])
        out.append(max(end[len(stages) - 1, i] for i in range(chunks)))
    return out


@given(st.lists(stage, min_size=1, max_size=5), st.integers(1, 25))
@settings(deadline=None)
def test_equals_the_literal_recursion(stages: list[Stage], chunks: int) -> None:
    assert finish_s(stages, chunks).tolist() == literal(stages, chunks)


def test_an_unblocked_line_runs_at_its_slowest_stage() -> None:
    stages = [Stage("", np.array([t]), 1, lag, 100) for t, lag in ((2.0, 0.0), (5.0, 1.0), (3.0, 4.0))]
    assert finish_s(stages, 40)[0] == 2 + 5 + 3 + 1 + 4 + 39 * 5


def test_a_short_buffer_runs_at_its_round_trip() -> None:
    """One place in front of the second stage: its chunk and the credit must pass before the next one starts."""
    stages = [Stage("", np.array([2.0])), Stage("", np.array([3.0]), 1, 1.0, 1, 4.0)]
    cycle = 2 + 1 + 3 + 4
    assert finish_s(stages, 10)[0] == 9 * cycle + 2 + 1 + 3


def test_servers_share_a_stage() -> None:
    assert finish_s([Stage("", np.array([6.0]), 3)], 12)[0] == pytest.approx(24)


@given(st.lists(stage, min_size=1, max_size=4), st.integers(1, 20))
@settings(deadline=None)
def test_more_room_never_delays(stages: list[Stage], chunks: int) -> None:
    wider = [s._replace(room=s.room + 1) for s in stages]
    assert (finish_s(wider, chunks) <= finish_s(stages, chunks)).all()


def test_room_that_is_taken_early_is_held_for_longer() -> None:
    """Taken before the first stage: its cycle takes in the work of both stages before the buffer."""
    stages = [
        Stage("", np.array([2.0])),
        Stage("", np.array([1.0]), room=99),
        Stage("", np.array([3.0]), 1, 1.0, 1, 4.0),
    ]
    early = [*stages[:2], stages[2]._replace(since=2)]
    assert finish_s(stages, 10)[0] == 2 + 9 * (1 + 1 + 3 + 4) + 1 + 1 + 3
    assert finish_s(early, 10)[0] == 9 * (2 + 1 + 1 + 3 + 4) + 2 + 1 + 1 + 3
