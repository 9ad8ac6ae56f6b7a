"""All replicas as arrays against the event engine with one actor a rank, span for span; and hand-made cases."""

from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sim import assembly
from sim.engine import arrays, events, steps
from sim.engine.actor import Job, Sync
from sim.engine.lowering import lower
from sim.engine.wire import GATHER, REDUCE, SLICE
from sim.layout import plan
from sim.models.layer import COMMUNICATION, COMPUTE, WEIGHT
from sim.scenario import Fault, load
from sim.schedules.program import names
from sim.step.template import STREAMS, Segment, Template, fixed
from tests.examples import examples
from tests.oracles import actor_per_rank as oracle
from tests.oracles.timelines import apart, crossings, own_duration, own_wire, part_by_part

V3 = Path(__file__).parents[3] / "scenarios" / "v3_2048gpu.yaml"

CLUSTERS = [(2, 1, 2), (2, 1, 4), (2, 2, 8), (2, 4, 4), (4, 2, 2), (4, 2, 4), (4, 4, 8), (3, 3, 4)]
"""(positions, nodes of 8 GPUs, expert group): 4 to 16 replicas."""
SCHEDULES = ("1f1b", "dualpipe", "dualpipev", "gpipe", "interleaved", "zb1p")


def random_times(seed, longest):
    """Durations and messages that differ from rank to rank, and one slow replica at each position."""
    random = np.random.default_rng(seed)
    known = {}

    def took(position, step, number, starts):
        key = (position, step, number)
        if key not in known:
            known[key] = random.integers(1, longest + 1, len(starts))
            slow = (seed + position) % len(starts)
            known[key][slow] = known[key][slow] * 13 // 10
        return known[key]

    def duration(position, step):
        return partial(took, position, step)

    def wire(position, step, kind, starts, ns):
        shortest = int(kind == GATHER)  # the engine keeps no all-gather of 0 ns
        return known.setdefault((position, kind, ns), random.integers(shortest, longest + 1, len(starts)))

    return duration, wire


def lowered(schedule, cluster, *overrides):
    positions, nodes, expert = cluster
    laid, _, low = oracle.lowered(
        f"schedule={schedule}", f"parallel.pipeline={positions}", f"cluster.nodes={nodes}",
        f"parallel.expert={expert}", f"batch.micro_batches={12 if positions == 3 else 8}", *overrides,
    )  # fmt: skip
    return laid, low


def compared(schedule, cluster, seed, longest, *overrides):
    laid, low = lowered(schedule, cluster, *overrides)
    duration, wire = random_times(seed, longest)
    syncs = [replace(sync, update_ns=5) for sync in low.syncs]
    many, one = oracle.both(low.parts, syncs, laid.data, cluster[2], duration, wire)
    oracle.same(many, one, low.parts, laid.data)


# --- against one actor a rank -----------------------------------------------------------------------------------------


OTHERWISE = (
    ("comm.messages=waited",), ("comm.messages=waited", "optimizer.reduce=after"), ("optimizer.reduce=after",),
)  # fmt: skip
"""Than messages hidden and gradients reduced in the drain."""


@examples(12, derandomize=True)
@given(
    schedule=st.sampled_from(SCHEDULES), cluster=st.sampled_from(CLUSTERS[:-1]), seed=st.integers(0, 10_000),
    longest=st.sampled_from([1, 2, 4, 30, 10**6, 10**9]),
)  # fmt: skip
@example(schedule="zb1p", cluster=CLUSTERS[-1], seed=0, longest=10**6)
@example(schedule="1f1b", cluster=CLUSTERS[-1], seed=1, longest=10**6)
@example(schedule="dualpipev", cluster=CLUSTERS[5], seed=7, longest=10**6)
@example(schedule="interleaved", cluster=CLUSTERS[5], seed=7, longest=10**6)
@example(schedule="dualpipe", cluster=CLUSTERS[5], seed=7, longest=2)
@example(schedule="interleaved", cluster=CLUSTERS[6], seed=7, longest=2)
def test_equal_to_one_actor_a_rank(schedule, cluster, seed, longest):
    """Messages and reductions share a lane, first in, first out; short times put much into the same nanosecond."""
    compared(schedule, cluster, seed, longest)


@examples(15, derandomize=True)
@given(
    schedule=st.sampled_from(SCHEDULES), cluster=st.sampled_from(CLUSTERS[:-1]), seed=st.integers(0, 10_000),
    longest=st.sampled_from([1, 2, 4, 30, 10**6, 10**9]), how=st.sampled_from(OTHERWISE),
)  # fmt: skip
@example(schedule="zb1p", cluster=CLUSTERS[-1], seed=0, longest=10**6, how=OTHERWISE[0])
@example(schedule="dualpipe", cluster=CLUSTERS[5], seed=7, longest=2, how=OTHERWISE[0])
@example(schedule="dualpipev", cluster=CLUSTERS[6], seed=7, longest=10**6, how=OTHERWISE[1])
def test_equal_where_messages_are_waited_for_and_gradients_reduced_after(schedule, cluster, seed, longest, how):
    """Both ends wait for each message, own ones included, and which of a step's two leaves first differs by replica."""
    compared(schedule, cluster, seed, longest, *how)


def test_a_reduction_before_a_message_by_hand() -> None:
    """Stage 1 is done at 10 and reduced until 110; the message that is ready at 20 leaves after it."""
    jobs = [(Job(fixed("BW", (1, -1), [10], [0])), Job(fixed("B", (0, -1), [10], [2]), sends=((2, 5),)))]
    syncs = [Sync(((0, 1, 100),))]
    many, one = oracle.both(jobs, syncs, 1, 1, own_duration(jobs), own_wire)
    oracle.same(many, one, jobs, 1)


@examples(20, derandomize=True)
@given(
    ready=st.tuples(*[st.integers(0, 8)] * 2), halves=st.tuples(*[st.integers(1, 9)] * 2),
    ns=st.tuples(*[st.integers(0, 6)] * 2),
)  # fmt: skip
def test_messages_pass_between_slices_of_reductions(ready, halves, ns):
    """On two replicas that come at different times, halves of a slice apart, so that much falls into one nanosecond."""
    half = SLICE // 2
    jobs = [(
        Job(fixed("BW", (2, -1), [half], [0])), Job(fixed("B", (1, -1), [half], [2]), sends=((2, ns[0] * half),)),
        Job(fixed("B", (0, -1), [half], [2]), sends=((2, ns[1] * half),)),
    )]  # fmt: skip
    times = [np.array([half, half]), np.array(ready) * half, np.array(ready[::-1]) * half]
    duration = lambda position, step: lambda number, starts: times[step]
    syncs = [Sync(((0, 2, halves[0] * half), (0, 1, halves[1] * half)), 5)]
    many, one = oracle.both(jobs, syncs, 2, 1, duration, own_wire)
    oracle.same(many, one, jobs, 2)
    for replica in range(2):
        mine = [t for t in many.network[0] if t.kind == REDUCE]
        assert sum(int(t.ends[replica] - t.starts[replica]) for t in mine) == sum(halves) * half


def test_a_reduction_lets_a_message_pass_by_hand() -> None:
    """Begun at 10, 5.2 slices long; the message that is ready in its fourth slice leaves behind that."""
    work = 3 * SLICE + 7
    jobs = [(Job(fixed("BW", (1, -1), [10], [0])), Job(fixed("B", (0, -1), [work], [2]), sends=((2, 5),)))]
    syncs = [Sync(((0, 1, 26 * SLICE // 5),))]
    many, one = oracle.both(jobs, syncs, 1, 1, own_duration(jobs), own_wire)
    oracle.same(many, one, jobs, 1)
    sent = sorted((int(t.starts[0]), int(t.ends[0]), t.kind) for t in many.network[0])
    passes = 10 + 4 * SLICE
    assert sent == [(10, passes, 3), (passes, passes + 5, 2), (passes + 5, passes + 5 + 6 * SLICE // 5, 3)]
    assert many.reduced[0].tolist() == [passes + 5 + 6 * SLICE // 5]


def test_a_message_that_the_last_holder_waits_for_goes_first() -> None:
    """Both positions hold stage 0. Position 1 is through with it only after a message that position 0 sends when it is
    itself through: no reduction can be before that message, and nothing else says so."""
    jobs = [
        (Job(fixed("BW", (0, -1), [10], [0])), Job(fixed("F", (1, -1), [10], [1]), sends=((1, 5),))),
        (Job(fixed("BW", (0, -1), [10], [0]), waits=((0, 1, 1),)),),
    ]
    syncs = [Sync(((0, 0, 100),)), Sync(((0, 0, 100),))]
    many, one = oracle.both(jobs, syncs, 1, 1, own_duration(jobs), own_wire)
    oracle.same(many, one, jobs, 1)
    assert [load.starts.tolist() for load in many.network[0]] == [[20], [35]]


@examples(30, derandomize=True)
@given(times=st.lists(st.integers(1, 9), min_size=14, max_size=14), ns=st.tuples(*[st.integers(0, 6)] * 3))
def test_a_reduction_between_two_outputs_of_a_step(times, ns):
    """The forward output brings the last holder of stage 0 on; the backward output may be ready before or after it, on
    one replica so and on the other so."""
    pair = two_outputs()
    jobs = [
        (
            Job(fixed("BW", (0, -1), [1], [0])), Job(pair, sends=((1, ns[0]), (2, ns[1]))),
            Job(pair, sends=((2, ns[1]),)),
        ),
        (Job(fixed("BW", (0, -1), [1], [0]), waits=((0, 1, 1),)), Job(fixed("B", (2, -1), [1], [0]), ((0, 1, 2),))),
    ]  # fmt: skip
    table = np.array(times).reshape(7, 2)
    syncs = [Sync(((0, 0, ns[2]),)), Sync(((0, 0, ns[2]), (1, 1, 3)))]
    many, one = oracle.both(jobs, syncs, 2, 1, lambda p, k: lambda i, at: table[(3 * p + k + i) % 7], own_wire)
    oracle.same(many, one, jobs, 2)


def two_outputs():
    """Two lanes side by side, each with an output: forward of compute, backward of the weight stream."""
    segments = (Segment(COMPUTE, 0, 1, 0, (), "", 1), Segment(WEIGHT, 0, 1, 0, (), "", 2))
    ones = ((1,), (), (1,), ())
    return Template("F+B", 1, 2, segments, ((0,), (), (1,), ()), ones, ones, ones, ((), (), (), ()))


def tie():
    """Both outputs ready at 10: one lane's was started later, and by an event that came later."""
    segments = (
        Segment(COMPUTE, 0, 1, 0, (2,), "", 0), Segment(WEIGHT, 0, 1, 0, (), "", 2),
        Segment(COMPUTE, 1, 2, 1, (), "", 1),
    )  # fmt: skip
    reordered = (segments[0]._replace(feeds=(1,)), segments[2]._replace(feeds=()), segments[1])
    durations = ((4, 6), (), (10,), ())
    order = ((0, 1), (), (2,), ())
    return Template("F+B", 0, 1, reordered, order, durations, durations, durations, ((), (), (), ()))


def test_two_outputs_in_the_same_nanosecond_leave_in_the_same_order() -> None:
    jobs = [(Job(tie(), sends=((1, 3), (2, 7))),)]
    many, one = oracle.both(jobs, [Sync()], 1, 1, own_duration(jobs), own_wire)
    oracle.same(many, one, jobs, 1)


STEADY = (Fault("node", 1, 1.3), Fault("gpu", 2, 1.1), Fault("link", 5, 5.0))
COMING_AND_GOING = (
    Fault("link", 5, 8.0, 10**6, every_ns=2 * 10**6, lasts_ns=10**6),
    Fault("gpu", 2, 1.5, 0, every_ns=10**6, lasts_ns=10**5),
    Fault("thermal", 9, 1.4, 10**6, time_constant_ns=10**7), Fault("node", 1, 1.3, 10**7, 3 * 10**7),
)  # fmt: skip


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(
    ("faults", "nodes", "expert", "messages"),
    [(STEADY, 2, 4, "hidden"), (COMING_AND_GOING, 4, 16, "hidden"), (COMING_AND_GOING, 2, 4, "waited"),
     (STEADY, 4, 16, "waited")],
)  # fmt: skip
def test_real_durations_of_ranks_that_differ(schedule, faults, nodes, expert, messages):
    """Expert loads, faults and jitter as `sim.disturbances.durations` has them, inside nodes and across.

    The events get the durations that the arrays found at their own starts, and must come to the same starts.
    """
    from sim.disturbances.durations import Durations
    from sim.routing.imbalance import loads_of

    laid, machine, low = oracle.lowered(
        f"schedule={schedule}", "routing={kind: sampled, spread: 0.3}", f"cluster.nodes={nodes}",
        f"parallel.expert={expert}", f"comm.messages={messages}",
    )  # fmt: skip
    times = Durations(laid, machine, low.kits, low.first_layer, loads_of(laid, machine), faults, 0.02)
    many = arrays.run(low.parts, low.syncs, laid.mesh.columns(), times, times.wire)
    one = events.run(oracle.actors(low.parts, low.syncs, laid.data, expert, *oracle.as_found(many)))
    oracle.same(many, one, low.parts, laid.data)
    ends = many.positions[0].ends
    assert len(set(ends[:, :8].ravel().tolist())) > 3 * len(ends)


@examples(15, derandomize=True)
@given(schedule=st.sampled_from(SCHEDULES), cluster=st.sampled_from(CLUSTERS[:-1]), seed=st.integers(0, 10_000),
       longest=st.sampled_from([1, 4, 30, 10**6]))  # fmt: skip
def test_a_step_done_at_once_is_the_step_done_by_segments(schedule, cluster, seed, longest):
    """Half of the positions take all their replicas alike; messages and the other half bring them out of step."""
    laid, low = lowered(schedule, cluster)
    each, wire = random_times(seed, longest)
    random = np.random.default_rng(seed)
    even = [[tuple(random.integers(0, longest + 1, len(job.template.segments)).tolist()) for job in row]
            for row in low.parts]  # fmt: skip

    def duration(position, step):
        return even[position][step] if (position + seed) % 2 else each(position, step)

    def one_by_one(position, step):
        found = duration(position, step)
        return (lambda number, starts: np.full(len(starts), found[number])) if isinstance(found, tuple) else found

    slow, fast = (arrays.run(low.parts, low.syncs, apart(laid.data, cluster[2]), ns, wire)
                  for ns in (one_by_one, duration))  # fmt: skip
    assert fast.end == slow.end
    for rows, others in zip(crossings(fast), crossings(slow), strict=True):
        for one, other in zip(rows, others, strict=True):
            assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def v3_all(schedule, *overrides):
    """V3's 2,048 ranks, 40 micro-batches a pipeline: as arrays, as one column, and as events part by part."""
    chosen = [f"schedule={schedule}", "batch.sequences=5120", "outputs=[result]", *overrides]
    laid = plan.lay_out(load(str(V3), chosen))
    low = lower(laid, assembly.machine(laid))
    alike = steps.run(low.actors, low.kits)
    jobs, syncs = steps.with_network_times(low.parts, low.syncs, alike)
    many = arrays.run(jobs, syncs, laid.mesh.columns(), own_duration(jobs), own_wire)
    return low, many, alike, events.run(part_by_part(low))


WAITED, AFTER = "comm.messages=waited", "optimizer.reduce=after"


@pytest.mark.parametrize(
    "chosen", [("dualpipe",), ("zb1p",), ("1f1b",), ("dualpipe", WAITED), ("dualpipe", AFTER), ("1f1b", WAITED, AFTER)]
)
def test_v3_where_all_are_alike(chosen):
    """Every one of 16 x 128 ranks does to the nanosecond what the one does that SimPy runs for its position, in chunks
    and part by part."""
    low, many, alike, one = v3_all(*chosen)
    assert many.end == alike.end == one.end
    assert (len(many.positions), many.columns.columns) == (16, 128)
    for position, (rows, single) in enumerate(zip(crossings(many), crossings(alike), strict=True)):
        record = one.records[position]
        assert (np.array([c.starts for c in rows]) == np.array(record.starts)[:, None]).all()
        assert (np.array([c.ends for c in rows]) == np.array(record.ends)[:, None]).all()
        assert all((a == b).all() for c, d in zip(rows, single, strict=True) for a, b in zip(c, d, strict=True))
        for lane in STREAMS:
            orders = [list(j.template.order[lane]) for j in low.parts[position]]
            starts, ends = (
                np.concatenate([getattr(c, name)[o] for c, o in zip(rows, orders, strict=True)])
                for name in ("segment_starts", "segment_ends")
            )
            assert (starts == np.array(record.phases[lane])[:, None]).all()
            assert (ends == np.array(record.kernels[lane])[:, None]).all()
        assert all((t.starts == t.starts[0]).all() and (t.ends == t.ends[0]).all() for t in many.network[position])
        norm, updated = many.update[position]
        assert norm == record.update[0] and (updated == record.update[1]).all()
        assert (many.reduced[position] == alike.reduced[position]).all()
        assert alike.update[position][0] == norm and (alike.update[position][1] == updated).all()


@pytest.mark.parametrize("chosen", [("dualpipe",), ("dualpipev",), ("zb1p",), ("1f1b",), ("dualpipe", WAITED, AFTER)])
def test_v3_network_where_all_are_alike(chosen):
    _, many, alike, one = v3_all(*chosen)
    for position, carried in enumerate(many.network):
        table = list(one.records[position].network)
        for found in (carried, alike.network[position]):
            sent = sorted((int(t.starts[0]), int(t.ends[0]), t.step, t.kind) for t in found)
            assert sent == sorted(zip(*[iter(table)] * 4, strict=True))


# --- rules, by hand ---------------------------------------------------------------------------------------------------


def chain(*lanes, exchange=()):
    """Segments that follow each other, one kernel of 1 ns each."""
    count = [0] * len(STREAMS)
    segments = []
    for i, lane in enumerate(lanes):
        feeds = (i + 1,) if i + 1 < len(lanes) else ()
        segments.append(Segment(lane, count[lane], count[lane] + 1, int(i > 0), feeds, "expert" * (i in exchange), 0))
        count[lane] += 1
    order = tuple(tuple(i for i, s in enumerate(segments) if s.lane == lane) for lane in STREAMS)
    durations = tuple((1,) * n for n in count)
    return Template("F", 0, -1, tuple(segments), order, durations, durations, durations, ((), (), (), ()))


def of(*rows):
    """Durations by segment and replica, the same in every step."""
    return lambda position, step: lambda number, starts: np.array(rows[number], dtype=np.int64)


def test_a_group_starts_when_its_slowest_member_arrives() -> None:
    """Groups of two: replicas 0 and 1 meet at 20, replicas 2 and 3 at 7; each takes its own bytes."""
    jobs = [(Job(chain(COMPUTE, COMMUNICATION, COMPUTE, exchange=[1])),)]
    found = arrays.run(jobs, [Sync()], apart(4, 2), of([10, 20, 7, 7], [5, 6, 3, 2], [1, 1, 1, 1]), own_wire)
    (crossing,) = crossings(found)[0]
    assert crossing.ready.tolist() == [[10, 20, 7, 7]]
    assert crossing.segment_starts[1].tolist() == [20, 20, 7, 7]
    assert crossing.ends.tolist() == [26, 27, 11, 10]
    assert found.end == 27


def test_a_group_of_one_waits_for_nobody() -> None:
    jobs = [(Job(chain(COMPUTE, COMMUNICATION, exchange=[1])),)]
    found = arrays.run(jobs, [Sync()], apart(2, 1), of([10, 20], [5, 5]), own_wire)
    assert found.positions[0].ends[0].tolist() == [15, 25]


def test_a_message_reaches_the_same_replica_of_the_next_position() -> None:
    jobs = [
        (Job(fixed("F", (0, -1), [1], [1]), sends=((1, 3),)),),
        (Job(fixed("F", (1, -1), [1], [0]), waits=((0, 0, 1),)),),
    ]
    times = {0: np.array([10, 40]), 1: np.array([1, 1])}
    wire = lambda p, step, kind, at, ns: np.array([ns, 9])
    found = arrays.run(jobs, [Sync(), Sync()], apart(2, 1), lambda p, k: lambda i, at: times[p], wire)
    (late,) = crossings(found)[1]
    assert late.starts.tolist() == [13, 49] and late.blame.tolist() == [1, 1]
    assert found.network[0][0].starts.tolist() == [10, 40]


def test_messages_of_a_position_queue() -> None:
    """The network lane is busy 25 ns a message, steps take 10."""
    step = Job(fixed("F", (0, -1), [10], [1]), sends=((1, 25),))
    jobs = [(step, step), tuple(Job(fixed("F", (1, -1), [1], [0]), waits=((0, i, 1),)) for i in range(2))]
    found = arrays.run(jobs, [Sync(), Sync()], apart(1, 1), own_duration(jobs), own_wire)
    assert found.positions[1].starts[:, 0].tolist() == [35, 60]


def test_gradients_wait_for_the_slowest_holder_and_everybody_for_the_norm() -> None:
    jobs = [(Job(fixed("BW", (0, -1), [1], [0])),)] * 2
    times = {0: np.array([10, 12]), 1: np.array([20, 3])}
    syncs = [Sync(((0, 0, 9),), 3, 6), Sync(((0, 1, 2),), 4, 6)]
    found = arrays.run(jobs, syncs, apart(2, 1), lambda p, k: lambda i, at: times[p], own_wire)
    assert [row.tolist() for row in found.reduced] == [[21, 21], [22, 22]]
    assert [(norm, ends.tolist()) for norm, ends in found.update] == [(22, [31, 31]), (22, [32, 32])]
    assert found.end == 32


def test_a_deadlock_is_no_silent_end() -> None:
    step = fixed("F", (0, -1), [1], [1])
    jobs = [(Job(step, ((1, 0, 2),)),), (Job(step, ((0, 0, 1),)),)]
    with pytest.raises(AssertionError, match="no deadlock"):
        arrays.run(jobs, [Sync(), Sync()], apart(2, 1), own_duration(jobs), own_wire)


@pytest.mark.parametrize("schedule", names())
def test_streams_steps_and_messages_keep_their_order(schedule):
    """On every rank: nothing overlaps on a lane, needs are kept, no exchange starts before its last member is there."""
    laid, low = lowered(schedule, (2, 2, 8))
    duration, wire = random_times(3, 1000)
    found = arrays.run(low.parts, low.syncs, apart(laid.data, 8), duration, wire)
    for row, rows in zip(low.parts, crossings(found), strict=True):
        assert all((b.starts >= a.ends).all() for a, b in pairwise(rows))
        for job, c in zip(row, rows, strict=True):
            before = {b: (a,) for lane in STREAMS for a, b in pairwise(job.template.order[lane])}
            met = dict(zip(job.template.meetings, c.ready, strict=True))
            for i, needed in enumerate(job.template.waits):
                ready = met.get(i, c.segment_starts[i])
                ended = [c.segment_ends[j] for j in (*needed, *before.get(i, ()))]
                assert (ready == np.maximum.reduce([c.starts, *ended])).all()
                assert (i in met) == bool(job.template.segments[i].meets)
                if i in met:
                    assert (c.segment_starts[i] == ready.reshape(-1, 8).max(1).repeat(8)).all()
    for carried in found.network:
        spans = sorted(carried, key=lambda t: int(t.starts[0]))
        assert all((b.starts >= a.ends).all() for a, b in pairwise(spans) if (a.starts <= b.starts).all())


def test_needs_are_feeds_turned_round() -> None:
    template = chain(COMPUTE, COMMUNICATION, COMPUTE)
    assert template.waits == ((), (0,), (1,))
