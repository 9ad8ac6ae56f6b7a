"""Whom the step waits for: the path covers the step, and names what is broken where it costs time."""

from dataclasses import replace
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim import assembly
from sim.analysis.critical import Critical, critical_ranks, described, named
from sim.disturbances.durations import Durations
from sim.engine import arrays
from sim.engine.lowering import lower
from sim.layout import plan
from sim.routing.imbalance import loads_of
from sim.scenario import Fault, from_mapping
from tests.examples import examples
from tests.oracles.timelines import last_end, own_duration, own_wire, run

TINY = {
    "cluster": {"node": "h800x8", "nodes": 2},
    "model": {"base": "deepseek_v2_lite", "layers": 8, "mtp_depth": 1, "q_rank": 128, "vocabulary": 1024},
    "parallel": {"pipeline": 2, "expert": 4},
    "schedule": "dualpipe",
    "batch": {"micro_batches": 8, "sequence_length": 512},
    "placement": "even",
}
ACROSS = ("cluster.nodes=8", "parallel.expert=16")
"""2 positions of 32 replicas, in expert groups of two nodes: exchanges feel slow NICs."""
SCHEDULES = ("dualpipe", "zb1p", "1f1b", "gpipe", "interleaved")
MS = 10**6


@cache
def lowered(*overrides):
    laid = plan.lay_out(from_mapping(TINY, overrides))
    machine = assembly.machine(laid)
    return laid, machine, lower(laid, machine)


@cache
def ran(faults, *overrides):
    laid, machine, _ = lowered(*overrides)
    return run(laid, machine, *faults)


def critical(*faults, overrides=()):
    """Ranks on the path; and the ns that the faults cost the step."""
    found = ran(faults, *overrides)
    ranks = critical_ranks(lowered(*overrides)[0], found.lowered, found.timeline, found.times)
    return ranks, found.timeline.end - ran((), *overrides).timeline.end


# --- the path ---------------------------------------------------------------------------------------------------------


def without_wires(low):
    """Messages take no time and wait for no reduction, so the path through the step is on ranks alone."""
    jobs = tuple(tuple(j._replace(sends=tuple((kind, 0) for kind, _ in j.sends)) for j in row) for row in low.jobs)
    return replace(low, jobs=jobs, syncs=tuple(replace(sync, reduces=(), gather_ns=0) for sync in low.syncs))


@examples(15, derandomize=True)
@given(schedule=st.sampled_from(SCHEDULES), slow=st.integers(0, 15), factor=st.sampled_from([1.0, 1.05, 1.5]),
       kind=st.sampled_from(["gpu", "link"]), routing=st.sampled_from(["balanced", "sampled"]), seed=st.integers(0, 3),
       positions=st.sampled_from([2, 4]), where=st.sampled_from([(), ACROSS]),
       messages=st.sampled_from(["hidden", "waited"]))  # fmt: skip
def test_the_path_covers_the_step_to_the_nanosecond(
    schedule, slow, factor, kind, routing, seed, positions, where, messages
):
    """Without wires, the seconds on ranks are the time at which the last step ends, and what the step costs more than
    an even one lies in the time beyond."""
    chosen = (f"schedule={schedule}", f"routing={routing}", f"seed={seed}", f"parallel.pipeline={positions}", *where)
    chosen += (f"comm.messages={messages}",)
    if positions == 4 and where:
        chosen += ("cluster.nodes=16",)
    laid, machine, low = lowered(*chosen)
    free = without_wires(low)
    times = Durations(
        laid, machine, free.kits, free.first_layer, loads_of(laid, machine), (Fault(kind, slow, factor),), 0.0
    )
    everyone, even = (
        arrays.run(free.parts, free.syncs, laid.mesh.columns(), each, own_wire)
        for each in (times, own_duration(free.parts))
    )
    found = critical_ranks(laid, free, everyone, times)
    last, base = last_end(everyone), last_end(even)
    assert sum(each.seconds for each in found) == pytest.approx(last / 1e9, rel=1e-9)
    assert sum(each.beyond_s for each in found) >= (last - base) / 1e9 - 1e-12
    assert [each.beyond_s for each in found] == sorted((each.beyond_s for each in found), reverse=True)


@pytest.mark.parametrize("schedule", ["dualpipe", "zb1p", "1f1b"])
def test_the_path_with_wires_is_not_longer_than_the_step(schedule):
    ranks, _ = critical(Fault("gpu", 7, 1.2), overrides=(f"schedule={schedule}", "routing=sampled"))
    last = last_end(ran((Fault("gpu", 7, 1.2),), f"schedule={schedule}", "routing=sampled").timeline) / 1e9
    assert 0.9 * last < sum(each.seconds for each in ranks) < last * (1 + 1e-9)


# --- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", ["dualpipe", "zb1p", "1f1b"])
@pytest.mark.parametrize("slow", [2, 7, 8, 15])
def test_the_slow_gpu_is_named(schedule, slow):
    found, _ = critical(Fault("gpu", slow, 1.5), overrides=(f"schedule={schedule}",))
    end = ran((Fault("gpu", slow, 1.5),), f"schedule={schedule}").timeline.end / 1e9
    assert found[0].rank == slow and found[0].seconds > 0.5 * end
    assert sum(each.seconds for each in found if each.rank // 4 == slow // 4) > 0.5 * end


WHEN = {
    "for good": {}, "until 20 ms": {"end_ns": 20 * MS}, "from 20 ms": {"start_ns": 20 * MS},
    "flapping": {"start_ns": MS, "every_ns": 10 * MS, "lasts_ns": 2 * MS},
}  # fmt: skip


@pytest.mark.parametrize("when", WHEN)
@pytest.mark.parametrize("schedule", ["dualpipe", "1f1b"])
@pytest.mark.parametrize("slow", [0, 13, 31, 32, 46, 63])
def test_the_slow_link_is_named(schedule, slow, when):
    """First and last members of groups and others, at both positions; whatever the fault costs."""
    found, cost = critical(Fault("link", slow, 20.0, **WHEN[when]), overrides=(f"schedule={schedule}", *ACROSS))
    assert cost > 0 and found[0].rank == slow
    assert found[0].beyond_s >= 0.99 * sum(each.beyond_s for each in found)


@pytest.mark.parametrize("when", WHEN)
@pytest.mark.parametrize("schedule", ["dualpipe", "1f1b"])
@pytest.mark.parametrize("slow", [5, 13, 58])
def test_the_slow_link_is_named_among_uneven_loads(schedule, slow, when):
    chosen = (f"schedule={schedule}", "routing=sampled", *ACROSS)
    found, cost = critical(Fault("link", slow, 100.0, **WHEN[when]), overrides=chosen)
    assert cost > 0 and found[0].rank == slow


@pytest.mark.parametrize("schedule", ["dualpipe", "1f1b"])
@pytest.mark.parametrize("faults", [{3: 2.0, 9: 20.0}, {9: 20.0, 3: 2.0}, {3: 2.0, 40: 20.0}])
def test_the_slowest_of_two_links_is_named(schedule, faults):
    links = (Fault("link", at, slower) for at, slower in faults.items())
    found, _ = critical(*links, overrides=(f"schedule={schedule}", *ACROSS))
    assert faults[found[0].rank] == 20.0


@pytest.mark.parametrize("schedule", ["dualpipe", "1f1b"])
@pytest.mark.parametrize("slow", [2, 7, 8, 15])
def test_a_link_that_slows_messages_only_is_named(schedule, slow):
    """Groups within a node: exchanges stay on NVLink."""
    found, cost = critical(Fault("link", slow, 50.0), overrides=(f"schedule={schedule}",))
    assert cost > 0 and found[0].rank == slow and found[0].beyond_s > 0


@pytest.mark.parametrize("longer", [0.5, 1.0, 2.0, 2.5])
def test_a_path_of_slow_messages_has_no_hole(longer):
    """A single micro-batch through two stages and back: whatever a message takes beside the step before it (a little
    more than the first one, than twice that), steps and both messages are all there is until the last step ends."""
    chosen = ("schedule=gpipe", "batch.micro_batches=1")
    first = ran((), *chosen).timeline.network[0][0]
    ready, alone = int(first.starts[0]), int(first.ends[0] - first.starts[0])
    latency = lowered(*chosen)[1].pricer.wires.latency_s * 1e9  # which a slow link leaves as it is
    slow = Fault("link", 0, (longer * ready + alone / 2 - latency) / (alone - latency))
    found, _ = critical(slow, overrides=chosen)
    last = last_end(ran((slow,), *chosen).timeline)
    assert found[0].rank == 0
    assert sum(each.seconds for each in found) == pytest.approx(last / 1e9, rel=1e-9)


def test_a_link_that_slows_rings_only_is_named():
    """No pipeline: gradients and parameters are all that crosses NICs."""
    found, cost = critical(Fault("link", 6, 50.0), overrides=("parallel.pipeline=1", "schedule=1f1b"))
    assert cost > 0 and found[0].rank == 6
    assert found[0].beyond_s == pytest.approx(cost / 1e9, rel=0.01)


# --- nobody -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [Fault("gpu", 5, 1.0), Fault("link", 5, 2.0, 10**12), Fault("gpu", 5, 3.0, 10**12)])
@pytest.mark.parametrize("schedule", ["dualpipe", "1f1b"])
def test_nobody_is_named_where_nothing_is_slow(schedule, fault):
    ranks, cost = critical(fault, overrides=(f"schedule={schedule}", *ACROSS))
    assert cost == 0 and all(each.beyond_s == 0 for each in ranks)
    assert named(lowered(*ACROSS)[0].mesh, ranks) == []


def test_the_named_are_the_first_few_with_their_parts():
    laid = lowered()[0]
    ranks = [Critical(13, 2.0, 0.3), *(Critical(r, 1.0, 0.02) for r in range(5)), Critical(9, 9, -1)]
    found = named(laid.mesh, ranks)
    assert [each["rank"] for each in found] == [13, 0, 1, 2, 3]
    assert found[0]["part"] == pytest.approx(0.75) and found[0]["seconds"] == 2.0


def test_a_rank_is_described_by_where_it_is():
    laid = lowered()[0]
    assert described(13, laid.mesh) == {"rank": 13, "pipeline_position": 1, "replica": 5, "node": 1}
