"""What others leave of NICs to exchanges: closed forms of V3, and prices beside what passes."""

from functools import cache, partial
from pathlib import Path

import pytest

from hwmodels.op import AllToAll
from sim import assembly
from sim.communication import sharing
from sim.engine import events, lowering
from sim.engine.nic import FAIR
from sim.layout import plan
from sim.scenario import load
from tests.oracles import actor_per_rank as oracle

V3 = Path(__file__).parents[3] / "scenarios" / "v3_2048gpu.yaml"


@cache
def laid(*overrides):
    found = plan.lay_out(load(str(V3), ["outputs=[result]", *overrides]))
    return found, assembly.machine(found)


def exchanges(machine):
    unit = next(unit for unit in machine.units if unit.kind == "moe")
    return {k.op.beside: k.op for d in "FB" for part in machine.parts(unit, d) for k in part.kernels
            if isinstance(k.op, AllToAll)}  # fmt: skip


def test_what_is_left_is_the_bytes_that_pass():
    """Position 1 under DualPipe: two stages, each micro-batch in and out both ways."""
    found, machine = laid()
    nic, step_s = machine.pricer.wires.network, sharing.compute_seconds(found, machine)[1]
    message = machine.site.tokens * 7168 * 2 / nic
    sends = 2 * found.micro_batches * message  # 120 micro-batches over two stages, forward and backward
    assert machine.pricer.wires.left == pytest.approx(1 - sends / step_s) and 0.97 < 1 - sends / step_s < 0.98


def test_ranks_that_wait_for_their_messages_have_none_beside_exchanges():
    """And no message of theirs is on its way while a step of its sender or its receiver runs."""
    found, machine = laid("comm.messages=waited")
    assert machine.pricer.wires.left == 1.0
    low = lowering.lower(found, machine)
    records = events.run(low.actors, chunks=True).records
    for position, record in enumerate(records):
        for start, end, step, kind in zip(*[iter(record.network)] * 4, strict=True):
            if kind < 3:
                for end_at in (position, found.messages.targets[position][step, kind]):
                    other = records[end_at]
                    assert not any(s < end and e > start for s, e in zip(other.starts, other.ends, strict=True))


def test_where_nics_bind_steps_last_as_long_as_those_need():
    """A tenth of the bandwidth: messages take their part of the bytes, not of what compute would have taken."""
    found, machine = laid("cluster.node.nic.bandwidth=5 GB/s")
    sent_inside = partial(sharing._exchanged_bytes, machine)
    needed = [sharing._needed_s(found, machine, position, sent_inside) for position in range(16)]
    assert machine.pricer.wires.left == pytest.approx(1 - max(m / (m + x) for m, x in needed))
    nic = machine.pricer.wires.network
    exchanged = 4 * sum(op.wire_bytes() for op in exchanges(machine).values())  # 4 layers on a stage
    sent = machine.site.tokens * 7168 * 2
    assert needed[1] == pytest.approx((240 * sent / nic, 120 * exchanged / nic))


def test_slower_gpus_never_make_the_step_faster():
    """Where exchanges bind, what messages leave must not grow as kernels get slower."""

    def step(hbm):
        found, machine = laid(f"cluster.node.device.hbm.bandwidth={hbm} TB/s", "cluster.node.nic.bandwidth=5 GB/s",
                              "detail=chunk", "batch.sequences=4096")  # fmt: skip
        return events.run(lowering.lower(found, machine).actors).end

    steps = [step(hbm) for hbm in (3.35, 2.0, 1.0)]
    assert steps == sorted(steps)


@pytest.mark.parametrize("schedule", ["dualpipe", "1f1b", "zb1p", "gpipe"])
def test_steps_take_no_less_than_their_compute(schedule):
    found, machine = laid(f"schedule={schedule}")
    kits = lowering.lower(found, machine).kits
    for compute_s, row in zip(sharing.compute_seconds(found, machine), kits, strict=True):
        took = sum(kit.timing.total for kit in row) / 1e9
        assert 0.4 * took < compute_s <= took


def test_an_exchange_alone_is_slower_by_what_passes_and_beside_compute_is_not():
    found, machine = laid()
    own = assembly.unshared(found)
    for op in exchanges(machine).values():
        shared, bare = machine.pricer.price(op), own.pricer.price(op)
        assert 1.0 < shared.ns / bare.ns <= 1 / machine.pricer.wires.left + 1e-6
        assert shared.beside_ns == pytest.approx(bare.beside_ns, rel=1e-6)


def test_exchanges_keep_a_fair_part_beside_messages_that_fill_a_nic():
    """Of a model whose experts are few and whose stages are many."""
    _, machine, _ = oracle.lowered("cluster.nodes=8", "parallel.expert=16", "model.experts_per_token=1",
                                  "cluster.node.nic.bandwidth=1 GB/s", "precision=bf16")  # fmt: skip
    assert FAIR <= machine.pricer.wires.left < 0.9


def test_inside_a_node_nothing_is_shared():
    """Groups of one node do not use NICs: their exchanges are as fast whatever passes."""
    found, machine = laid("parallel.expert=8")
    own = assembly.unshared(found)
    for op in exchanges(machine).values():
        assert machine.pricer.price(op)[:2] == own.pricer.price(op)[:2]


def test_windows_are_the_exchanges_of_a_step():
    found, machine = laid()
    low = lowering.lower(found, machine)
    kit = next(k for k in low.kits[7] if k.fine.kind == "F+BW")
    ops = exchanges(machine)
    layers = sum(unit.kind == "moe" for unit in machine.stages[7])
    assert layers == 4
    assert len(kit.windows) == 4 * layers and list(kit.windows) == sorted(kit.windows)
    passed = sum((w.end - w.start) * w.part for w in kit.windows) / 1e9
    needed = layers * sum(op.wire_bytes() for op in ops.values()) / machine.pricer.wires.network
    assert passed == pytest.approx(needed)
    assert all(0.5 < w.part <= 1 and 0 <= w.start < w.end <= kit.timing.total for w in kit.windows)


def test_messages_of_one_node_pass_no_nic():
    _, _, low = oracle.lowered()
    sending = [job for row in low.jobs for job in row if job.sends]
    assert sending and not any(job.routes for job in sending)
    _, _, low = oracle.lowered("cluster.nodes=2", "parallel.expert=4")
    routes = [route for row in low.jobs for job in row for route in job.routes.values()]
    assert routes and all(len(set(route.ends)) == 2 for route in routes)
