"""Kernels as they are drawn against kernels that SimPy runs: one rank a position, and all ranks where they differ.

What is drawn inside a step comes from one run of its kit; here every kernel of every step is an event of its own.
"""

from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.analysis import spans
from sim.engine import arrays, events, steps
from sim.engine.lowering import lower
from sim.layout import mesh, plan
from sim.layout.traffic import BACKWARD, FORWARD
from sim.scenario import from_mapping
from sim.schedules.program import names
from sim.simulation import simulated
from sim.step.template import STREAMS, pieces
from tests.examples import examples
from tests.oracles import actor_per_rank as oracle
from tests.oracles.solo import alone
from tests.oracles.timelines import crossings, kernel_by_kernel, own_duration, own_wire, part_by_part

CLUSTERS = [(2, 1, 8, 2), (2, 2, 8, 8), (2, 8, 2, 4), (4, 8, 2, 4), (4, 4, 8, 4)]
"""(positions, nodes, GPUs of a node, expert group). In the third and fourth exchanges meet messages on NICs."""
UNEVEN = (
    "routing={kind: sampled, spread: 0.4}", "jitter=0.05",
    "faults=[{kind: gpu, at: 5, slower: 1.5}, {kind: node, at: 0, slower: 1.2, start: 5 ms, end: 30 ms}, "
    "{kind: link, at: 3, slower: 8, start: 1 ms, every: 3 ms, lasts: 1 ms}]",
)  # fmt: skip


def settings_of(schedule, cluster, *more):
    positions, nodes, gpus, expert = cluster
    return (
        f"schedule={schedule}", f"parallel.pipeline={positions}", f"cluster.nodes={nodes}",
        f"cluster.node.gpus={gpus}", f"parallel.expert={expert}", *more,
    )  # fmt: skip


def of_record(record, templates):
    """Start (after its launch gap) and end of each kernel by lane, as the events have them."""
    found = []
    for lane in STREAMS:
        rows, done, begun = [], iter(record.kernels[lane]), iter(record.phases[lane])
        for template in templates:
            for number in template.order[lane]:
                at = next(begun)
                for i in range(template.segments[number].first, template.segments[number].stop):
                    end = next(done)
                    rows.append((at + template.gap_ns[lane][i], end))
                    at = end
        assert next(done, None) is next(begun, None) is None
        found.append(rows)
    return found


def as_drawn(trace, position):
    """The same of a trace."""
    own = trace.where((trace.position == position) & (trace.sms >= 0))
    lanes = (own.where(own.lane == lane) for lane in STREAMS)
    return [list(zip(rows.start.tolist(), rows.end.tolist(), strict=True)) for rows in lanes]


# --- ranks that are alike ---------------------------------------------------------------------------------------------


@examples(12, derandomize=True)
@given(schedule=st.sampled_from(names()), cluster=st.sampled_from(CLUSTERS), speed=st.sampled_from([5, 50]))
def test_chunks_with_what_is_drawn_are_the_run_of_all_kernels(schedule, cluster, speed):
    """To the nanosecond: steps, kernels, messages that meet exchanges, reductions and the optimizer."""
    laid, _, low = oracle.lowered(*settings_of(schedule, cluster, f"cluster.node.nic.bandwidth={speed}GB/s"))
    timeline = steps.run(low.actors, low.kits)
    trace = spans.spans(laid, low, timeline, 0, "op")[0]
    for fine in (events.run(kernel_by_kernel(low)), events.run(part_by_part(low))):
        assert fine.end == timeline.end and fine.events > timeline.events
        for record, done, carried, update in zip(
            fine.records, timeline.positions, timeline.network, timeline.update, strict=True
        ):
            assert list(record.starts) == done.starts[:, 0].tolist() and list(record.ends) == done.ends[:, 0].tolist()
            assert list(record.blame) == done.blame[:, 0].tolist()
            sent = [value for t in carried for value in (int(t.starts[0]), int(t.ends[0]), t.step, t.kind)]
            assert list(record.network) == sent and record.update == (update[0], int(update[1][0]))
    whole = events.run(kernel_by_kernel(low))
    for position, (record, kits) in enumerate(zip(whole.records, low.kits, strict=True)):
        assert as_drawn(trace, position) == of_record(record, [kit.fine for kit in kits])


@pytest.mark.parametrize("schedule", names())
def test_given_times_are_drawn_as_they_run(schedule):
    times = {"forward": "3 us", "backward_input": "4 us", "weight": "2 us", "overlapped": "8 us", "p2p": "1 us"}
    laid = plan.lay_out(from_mapping({
        "schedule": schedule, "parallel": {"pipeline": 4}, "batch": {"micro_batches": 8}, "chunk_times": times,
    }))  # fmt: skip
    low = lower(laid, None)
    timeline = steps.run(low.actors, low.kits)
    records = events.run(kernel_by_kernel(low)).records
    for detail in ("op", "layer", "chunk"):
        trace = spans.spans(laid, low, timeline, 0, detail)[0]
        for position, record in enumerate(records):
            own = trace.where((trace.position == position) & (trace.lane == STREAMS[0]))
            assert own.start.tolist() == list(record.starts) and own.end.tolist() == list(record.ends)


@pytest.mark.parametrize("schedule", names())
@pytest.mark.parametrize("cluster", [CLUSTERS[1], CLUSTERS[3]])
def test_one_column_of_arrays_is_the_run_of_steps(schedule, cluster):
    """Where nothing tells ranks apart: times, blame, insides, network, reductions and update."""
    low = oracle.lowered(*settings_of(schedule, cluster))[2]
    alike = steps.run(low.actors, low.kits)
    jobs, syncs = steps.with_network_times(low.parts, low.syncs, alike)
    found = arrays.run(jobs, syncs, mesh.one(), own_duration(jobs), own_wire)
    assert found.end == alike.end
    for rows, others in zip(crossings(found), crossings(alike), strict=True):
        for one, other in zip(rows, others, strict=True):
            assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    for name in ("reduced", "update"):
        for a, b in zip(getattr(found, name), getattr(alike, name), strict=True):
            assert np.array_equal(a[-1], b[-1]) and np.array_equal(a[0], b[0])
    for row, other in zip(found.network, alike.network, strict=True):
        table = [sorted((int(t.starts[0]), int(t.ends[0]), t.step, t.kind) for t in each) for each in (row, other)]
        assert table[0] == table[1]


@pytest.mark.parametrize("schedule", names())
def test_coarse_forms_of_a_kit_leave_as_the_fine_one_does(schedule):
    """Parts, chunk, inside and outputs are one run told four times."""
    for kit in oracle.lowered(*settings_of(schedule, CLUSTERS[1]))[2].known:
        parts, chunk = alone(kit.parts), alone(kit.chunk)
        assert parts.segments == kit.part_times and parts.total == chunk.total == kit.outputs[0] == kit.timing.total
        for kind in (FORWARD, BACKWARD):
            fine = kit.fine.senders.get(kind)
            ready = kit.timing.segments[fine][1] if fine is not None else 0
            assert ready == kit.outputs[kind]
            for template, timing in ((kit.parts, parts), (kit.chunk, chunk)):
                made = template.senders.get(kind)
                assert (timing.segments[made][1] if made is not None else 0) == ready
        assert np.array_equal(np.stack(kit.inside[:2], axis=1)[..., 0], np.array(kit.part_times).reshape(-1, 2))
        assert kit.inside.ready[:, 0].tolist() == [kit.part_times[i][0] for i in kit.parts.meetings]


# --- ranks that differ ------------------------------------------------------------------------------------------------


def actors_as_drawn(laid, ran):
    """One actor a rank whose kernels last as they are drawn on that rank; and the traces of all columns."""
    timeline, low, data = ran.timeline, ran.lowered, laid.data
    assert timeline.columns.columns == data
    traces = [spans.spans(laid, low, timeline, column, "op")[0] for column in range(data)]
    coarse = oracle.actors(low.parts, low.syncs, data, laid.mesh.expert, *oracle.as_found(timeline))
    found = []
    for rank, actor in enumerate(coarse):
        position, replica = laid.mesh.place(rank)
        rows = [iter(lane) for lane in as_drawn(traces[replica], position)]
        steps = zip(actor.jobs, low.kits[position], crossings(timeline)[position], strict=True)
        jobs = tuple(
            job._replace(template=lasting(kit, rows, crossing.segment_starts[:, replica].tolist()))
            for job, kit, crossing in steps
        )
        assert not any(list(lane) for lane in rows)
        found.append(replace(actor, jobs=jobs))
    return found, traces


def lasting(kit, rows, begun):
    """The fine template with durations and launch gaps as drawn: the kernels of a part follow each other from when it
    begins, so what lies between two ends is how long the second took, and the sums are exact."""
    ns, gaps = ([[0] * len(lane) for lane in kit.fine.alone] for _ in range(2))
    drawn = [list(islice(rows[lane], len(kit.fine.alone[lane]))) for lane in STREAMS]
    for piece, at in zip(pieces(kit.composition.phases), begun, strict=True):
        for segment in (kit.fine.segments[i] for i in piece):
            for i in range(segment.first, segment.stop):
                start, end = drawn[segment.lane][i]
                ns[segment.lane][i], gaps[segment.lane][i], at = end - at, start - at, end
    ns, gaps = (tuple(map(tuple, table)) for table in (ns, gaps))
    assert all(0 <= gap <= each for gap, each in zip(sum(gaps, ()), sum(ns, ()), strict=True))
    return replace(kit.fine, alone=ns, beside=ns, gap_ns=gaps)


@settings(max_examples=10, deadline=None, derandomize=True)
@given(schedule=st.sampled_from(names()), cluster=st.sampled_from(CLUSTERS[:4]), seed=st.integers(0, 5),
       chosen=st.sets(st.sampled_from(UNEVEN), min_size=1))  # fmt: skip
def test_every_kernel_of_every_rank(schedule, cluster, seed, chosen):
    """Loads, faults and jitter: arrays with what is drawn inside their parts equal one actor a rank with kernels that
    last as drawn, at the start and end of every kernel. The largest cluster is below, under every schedule."""
    held(schedule, cluster, f"seed={seed}", *sorted(chosen))


@pytest.mark.parametrize("schedule", names())
def test_every_kernel_of_every_rank_under_every_schedule(schedule):
    held(schedule, CLUSTERS[4], *UNEVEN)


def held(schedule, cluster, *uneven):
    laid, machine, _ = oracle.lowered(*settings_of(schedule, cluster, "batch.micro_batches=8", "fold=false", *uneven))
    ran = simulated(laid, machine)
    actors, traces = actors_as_drawn(laid, ran)
    one = events.run(actors)
    assert one.end == ran.timeline.end
    assert any(np.ptp(done.ends, axis=1).any() for done in ran.timeline.positions), "ranks differ"
    for rank, (record, actor) in enumerate(zip(one.records, actors, strict=True)):
        position, replica = laid.mesh.place(rank)
        done = ran.timeline.positions[position]
        assert list(record.starts) == done.starts[:, replica].tolist()
        assert list(record.ends) == done.ends[:, replica].tolist()
        assert as_drawn(traces[replica], position) == of_record(record, [job.template for job in actor.jobs]), rank
