"""The chain of steps and messages that the step waits for."""

from functools import cache
from itertools import pairwise

import pytest

from sim import critical, engine, plan
from sim.lower import lower
from sim.program import names
from sim.scenario import from_mapping

TINY = {
    "cluster": {"node": "h800x8", "nodes": 2},
    "model": {"base": "deepseek_v2_lite", "layers": 8, "mtp_depth": 1, "q_rank": 128, "vocabulary": 1024},
    "parallel": {"pipeline": 4, "expert": 4},
    "batch": {"micro_batches": 8, "sequence_length": 512},
    "placement": "even",
}
TIMES = {"forward": "10 us", "backward_input": "12 us", "weight": "8 us", "p2p": "3 us"}


@cache
def found(schedule, *overrides):
    laid = plan.lay_out(from_mapping({**TINY, "schedule": schedule}, overrides))
    low = lower(laid, plan.machine(laid))
    outcome = engine.run(low.actors)
    return laid, low, outcome, critical.chain(low, outcome)


@cache
def timed(schedule, pipeline=4, micro_batches=8, **times):
    laid = plan.lay_out(from_mapping({
        "schedule": schedule, "parallel": {"pipeline": pipeline}, "batch": {"micro_batches": micro_batches},
        "chunk_times": {**TIMES, **times},
    }))  # fmt: skip
    low = lower(laid, None)
    outcome = engine.run(low.actors)
    return laid, low, outcome, critical.chain(low, outcome)


def last_end(outcome):
    return max(record.ends[-1] for record in outcome.records)


def connected(low, outcome, chain):
    """From nothing to the end of the last step, without a gap but messages."""
    assert chain[0].start == 0 and chain[-1].end == last_end(outcome)
    assert chain[-1].message_ns == 0
    for a, b in pairwise(chain):
        assert a.end + a.message_ns == b.start and a.end >= a.start and a.message_ns >= 0
        assert a.until or (a.position, a.step + 1, a.message_ns) == (b.position, b.step, 0)
    assert sum(link.end - link.start + link.message_ns for link in chain) == last_end(outcome)


@pytest.mark.parametrize("detail", ["op", "layer", "chunk"])
@pytest.mark.parametrize("schedule", names())
def test_stretches_and_messages_are_the_time_to_the_end_of_the_last_step(schedule, detail):
    _, low, outcome, chain = found(schedule, f"detail={detail}")
    connected(low, outcome, chain)


@pytest.mark.parametrize("schedule", names())
def test_chains_of_chunk_times(schedule):
    _, low, outcome, chain = timed(schedule)
    connected(low, outcome, chain)


@pytest.mark.parametrize("schedule", names())
def test_links_are_steps_that_ran_then(schedule):
    _, low, outcome, chain = found(schedule)
    for link in chain:
        record = outcome.records[low.actor_of[link.position]]
        assert record.starts[link.step] == link.start <= link.end <= record.ends[link.step]
        assert link.until or link.end == record.ends[link.step]
        if link.message_ns:
            assert link.until in (1, 2)


def test_one_rank_is_its_own_chain():
    _, _, outcome, chain = timed("1f1b", pipeline=1)
    assert [link.step for link in chain] == list(range(16)) and not any(link.until for link in chain)
    assert last_end(outcome) == 8 * (10 + 12 + 8) * 1000


def test_gpipe_by_hand():
    """All forwards on the first rank, down the last micro-batch, up the first backward, all backwards on the first."""
    _, _, outcome, chain = timed("gpipe", pipeline=2, micro_batches=3)
    wires = sum(link.message_ns for link in chain)
    assert wires == 2 * 3000
    # F F F on one rank (30), F on the other (10), three whole backwards (60) and one more (20)
    assert last_end(outcome) == (40 + 80) * 1000 + wires
    assert {link.position for link in chain} == {0, 1}


def test_the_slowest_stage_is_where_the_time_is():
    """Three quarters of the layers on position 2."""
    _, _, outcome, chain = found("1f1b", "placement=[1, 1, 5, 1]", "model.mtp_depth=0")
    on = [0, 0, 0, 0]
    for link in chain:
        on[link.position] += link.end - link.start
    assert on[2] > 0.6 * last_end(outcome) and max(on) == on[2]
