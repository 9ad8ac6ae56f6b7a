"""What the engine runs and records: plain values that share nothing by accident."""

import pickle
from dataclasses import astuple

import pytest

from sim.engine.actor import Actor, Job, Outcome, Record, Sync
from sim.step.template import STREAMS, fixed

STEP = fixed("F", (0, -1), [5], [1])


def test_a_rank_is_alone_unless_told() -> None:
    actor = Actor("rank 0", (Job(STEP),))
    assert (actor.groups, dict(actor.peers), actor.sync) == ({}, {}, Sync((), 0, 0))
    assert (actor.jobs[0].waits, actor.jobs[0].sends) == ((), ())


def test_records_share_no_columns() -> None:
    one, two = Record(), Record()
    one.starts.append(1)
    one.phases[0].append(2)
    one.kernels[-1].append(3)
    assert two == Record()
    assert one != two
    assert len(two.phases) == len(two.kernels) == len(STREAMS)


def test_phases_and_kernels_of_one_lane_are_apart() -> None:
    record = Record()
    record.phases[0].append(7)
    assert [len(lane) for lane in (*record.phases, *record.kernels)] == [1, *[0] * 7]


def test_times_fit_in_64_bits() -> None:
    record = Record()
    record.ends.append(2**62)
    assert record.ends[0] == 2**62
    with pytest.raises(OverflowError):
        record.blame.append(2**10)
    with pytest.raises(TypeError):
        record.starts.append(1.5)  # type: ignore[arg-type]


def test_jobs_and_actors_do_not_change() -> None:
    for value, name in ((Job(STEP), "template"), (Actor("a", ()), "groups"), (Sync(), "update_ns")):
        with pytest.raises(AttributeError):
            setattr(value, name, None)


def test_all_of_it_can_be_pickled() -> None:
    actor = Actor("a", (Job(STEP, ((0, 0, 1),), ((1, 5),)),), {"expert": 3}, Sync(((0, 0, 4),), 1, 2), {0: 1})
    outcome = Outcome((Record(),), 10, 3)
    copy, again = pickle.loads(pickle.dumps((actor, outcome)))
    assert astuple(copy) == astuple(actor) and again == outcome  # templates are who they are, so compare what they hold
