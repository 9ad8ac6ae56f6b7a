"""Actors from a plan: every output that changes rank is sent once and waited for once, at the price of its link."""

from dataclasses import replace
from pathlib import Path

import pytest

from hwmodels.collectives import Hindrance
from sim import assembly
from sim.engine.lowering import lower
from sim.layout import optimizer, plan
from sim.layout.machine import Hindrances
from sim.layout.traffic import BACKWARD, FORWARD
from sim.scenario import from_mapping, load
from sim.schedules.program import names

V3 = str(Path(__file__).parents[3] / "scenarios" / "v3_2048gpu.yaml")
FIXED = "placement=[4,4,4,4,4,4,4,4,4,4,4,4,4,4,4,1]"


def times_only(schedule, pipeline=4, micro_batches=8, p2p="2 us"):
    times = {"forward": "3 ms", "backward_input": "4 ms", "weight": "2 ms", "overlapped": "8 ms", "p2p": p2p}
    mapping = {
        "schedule": schedule, "parallel": {"pipeline": pipeline}, "batch": {"micro_batches": micro_batches},
        "chunk_times": times,
    }  # fmt: skip
    laid = plan.lay_out(from_mapping(mapping))
    return laid, lower(laid, None)


@pytest.fixture(scope="module")
def main():
    laid = plan.lay_out(load(V3, [FIXED, "detail=op"]))
    machine = assembly.machine(laid)
    return laid, machine, lower(laid, machine)


def jobs(low, position):
    return low.actors[position].jobs


@pytest.mark.parametrize("schedule", names())
def test_every_crossing_output_is_waited_for_once(schedule):
    """Waits, found step by step, are the chunks whose neighbour stage is on another rank: no more, no fewer."""
    laid, low = times_only(schedule)
    where = {done: (rank, i) for rank, steps in enumerate(laid.program.steps) for i, s in enumerate(steps)
             for done in s.passes()}  # fmt: skip
    for rank, steps in enumerate(laid.program.steps):
        for index, step in enumerate(steps):
            expected = []
            for letter, stage, micro_batch in step.passes():
                before = {"F": (stage - 1, FORWARD), "B": (stage + 1, BACKWARD)}.get(letter)
                source = where.get((letter, before[0], micro_batch)) if before else None
                if source and source[0] != rank:
                    expected.append((*source, before[1]))
            assert list(jobs(low, rank)[index].waits) == expected


@pytest.mark.parametrize("schedule", names())
def test_sends_and_waits_balance(schedule):
    laid, low = times_only(schedule)
    sends = sum(len(job.sends) for p in range(4) for job in jobs(low, p))
    waits = sum(len(job.waits) for p in range(4) for job in jobs(low, p))
    hops = 8 * (laid.program.stages - 1) * 2  # every micro-batch, every boundary, there and back
    inside = 8 * 2 * sum(b - a == 1 for held in laid.holds for a in held for b in held)
    if schedule == "dualpipe":  # the two middle stages are on two ranks, each crossing there once a micro-batch
        inside = 0
    assert sends == waits == hops - inside
    assert {ns for p in range(4) for job in jobs(low, p) for _, ns in job.sends} == {2000}


def test_durations_from_chunk_times():
    """F, B, W, B+W as given; an overlapped pair as given; what each one sends leaves at its end."""
    found = {}
    for schedule in names():
        _, low = times_only(schedule)
        for row in low.kits:
            for kit in row:
                assert kit.chunk is kit.parts is kit.fine
                found[kit.fine.kind] = (kit.timing.total, [s.sends for s in kit.fine.segments])
    ms = 1_000_000
    assert found == {
        "F": (3 * ms, [1]), "B": (4 * ms, [2]), "W": (2 * ms, [0]), "BW": (6 * ms, [2]), "F+BW": (8 * ms, [3]),
    }  # fmt: skip


def test_pipeline_messages_of_v3(main):
    """4096 rows of 7168 BF16 at 40 GB/s: 1,468.0064 us; 2.8 us under one leaf, 3.7 us across the spine.

    A position is 128 GPUs, 16 nodes; 32 nodes share a leaf of their plane, so every second neighbour is across.
    """
    laid, _, low = main
    near, far = 1_468_007 + 2_800, 1_468_007 + 3_700
    for position in range(16):
        for step, job in zip(laid.program.steps[position], jobs(low, position), strict=True):
            for kind, ns in job.sends:
                half = step.stage_b if kind == BACKWARD and step.stage_b >= 0 else step.stage
                down = (half == position) == (kind == FORWARD)  # towards higher ranks
                other = position + 1 if down else position - 1
                assert ns in ({near} if position // 2 == other // 2 else {far})


def test_kits_are_shared(main):
    """A template is built once for each kind of step on each pair of alike stages, not once a micro-batch."""
    laid, _, low = main
    different = {id(kit) for row in low.kits for kit in row}
    assert len(different) < 40 < sum(map(len, low.kits))
    assert {id(kit) for kit in low.known} == different
    assert len({kit.number for kit in low.known}) == len(low.known) == len(different)
    assert [len(row) for row in low.kits] == [len(steps) for steps in laid.program.steps]


def test_first_layers(main):
    assert main[2].first_layer == tuple(range(0, 61, 4))


def test_gradients_wait_for_the_last_weight_gradient(main):
    laid, _, low = main
    for position in (0, 5, 15):
        actor = low.actors[position]
        last = {}
        for i, step in enumerate(laid.program.steps[position]):
            last |= {stage: i for letter, stage, _ in step.passes() if letter == "W"}
        assert {stage: after for after, stage, _ in actor.sync.reduces} == last
        assert max(last.values()) == len(actor.jobs) - 1


@pytest.mark.parametrize(("dense", "experts"), [(1.5, 2.5), (2.5, 1.5)])
def test_the_harder_hindrance_of_two_rings_counts(main, dense, experts):
    """Gradients of experts and of the rest are one load on the network: it hinders exchanges as the worse ring does."""
    laid, machine, _ = main
    rings = {("reduce_scatter", 7, False): Hindrance(1.0, dense), ("reduce_scatter", 7, True): Hindrance(1.0, experts)}
    low = lower(laid, replace(machine, hindrances=Hindrances(rings=rings)))
    for position in laid.holders(7):
        assert low.syncs[position].routes[7].hindrance.exchanges == 2.5
    assert low.syncs[0].routes[0].hindrance.exchanges == 0


def test_outputs_leave_before_the_step_ends(main):
    """In a pair the forward output is ready after combine(F), the backward one after attn(B); attn(W) comes after."""
    laid, _, low = main
    kit = next(k for s, k in zip(laid.program.steps[7], low.kits[7], strict=True) if s.kind == "F+BW")
    ends = {s.sends: kit.timing.segments[i][1] for i, s in enumerate(kit.fine.segments) if s.sends}
    assert set(ends) == {1, 2}
    assert ends[1] < kit.timing.total and ends[2] < kit.timing.total
    assert kit.composition.phases[kit.composition.forward_out].label == "combine(F)"
    assert kit.composition.phases[kit.composition.backward_out].label == "attn(B)"


def test_actors(main):
    """One a position, that meets nobody: each stands for all replicas there."""
    low = main[2]
    assert [actor.groups for actor in low.actors] == [{}] * 16
    assert all(actor.peers == {p: p for p in range(16)} for actor in low.actors)
    assert [actor.jobs for actor in low.actors] == list(low.jobs)


def test_parts_are_the_same_steps(main):
    """Messages, routes and windows of chunks, with a task a part."""
    low = main[2]
    for chunks, row, kits in zip(low.jobs, low.parts, low.kits, strict=True):
        for job, part, kit in zip(chunks, row, kits, strict=True):
            assert (job.template, part.template) == (kit.chunk, kit.parts)
            assert part._replace(template=job.template) == job and job.windows == kit.windows


def test_reductions_meet_the_exchanges_of_all_that_hold_the_stage(main):
    """DualPipe: two positions a stage. Rings take longer than their NICs need, for the dense one is bound by NVLink."""
    laid, machine, low = main
    for position, sync in enumerate(low.syncs):
        assert {stage for _, stage, _ in sync.reduces} == set(sync.routes) == set(laid.holds[position])
        for _, stage, ns in sync.reduces:
            route = sync.routes[stage]
            assert route.ends == tuple(p for p, held in enumerate(laid.holds) if stage in held)
            wire = sum(ring.wire_bytes() for ring in optimizer.reduce_rings(laid, machine, stage))
            needed = wire / machine.pricer.wires.network * 1e9
            assert route.hindrance.slower == pytest.approx(ns / needed) and 1.1 < ns / needed < 2


def test_rings_inside_a_node_meet_nothing():
    laid = plan.lay_out(load(V3, ["cluster.nodes=2", "parallel.pipeline=2", "parallel.expert=8", "detail=chunk",
                                  "batch={sequences: 64}", "model.layers=6", "schedule=1f1b"]))  # fmt: skip
    assert not any(route.ends for sync in lower(laid, assembly.machine(laid)).syncs for route in sync.routes.values())
