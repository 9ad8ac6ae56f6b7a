"""What a step communicates, operation by operation: time, its bandwidth bound, and bytes as counted and on the wire.

Wire bytes cross this rank's NIC, NVLink bytes its NVLink port, each the busier way; logical bytes are what published
bandwidths count, rows for the own node (or, inside a node, the own GPU) included. The bound is bytes over effective
bandwidth, by the slower of the two kinds of link as this kind of traffic finds them: a time below it is a bug. Loads
are even and NICs healthy.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from hwmodels.collectives import Wires
from hwmodels.node import NVLINK
from hwmodels.op import AllToAll, Collective, Op, Send
from hwmodels.price import Price, Pricer
from hwmodels.units import NS_PER_S, seconds_to_ns
from sim.analysis.uncertainty import WIRE_SPREAD
from sim.communication.exchange import kernel
from sim.communication.exchange.ports import of_op
from sim.communication.exchange.price import KERNEL, Fidelity
from sim.engine.timeline import Timeline
from sim.layout import optimizer
from sim.layout.buckets import Bucket, buckets, gathered, reductions
from sim.layout.machine import Machine
from sim.layout.plan import Plan
from sim.layout.shards import NEVER, moves
from sim.layout.traffic import SPANS, Ring
from sim.scenario.values import ALWAYS, WHILE_RUNNING

KEPT = 256
"""Exchanges whose slowest stage is kept."""


class Row(NamedTuple):
    """One operation of one rank. where: which of its kind. alone_s: with all of its links to itself. shared_s: of an
    exchange beside what else passes its NICs on average, compute aside. beside_s: of an exchange while compute runs
    too; of a message beside the exchanges it met, on average over the step. None: not told apart. limited_by: the
    stage of the kernel that is busy longest, or the kind of link. way, sms: how NCCL does it, and the SMs that it holds
    meanwhile; None by closed forms."""

    name: str
    where: str
    alone_s: float
    shared_s: float | None
    beside_s: float | None
    bound_s: float
    logical_bytes: float
    wire_bytes: float
    nvlink_bytes: float
    limited_by: str
    way: str | None = None
    sms: int | None = None


def table(plan: Plan, machine: Machine, timeline: Timeline) -> list[dict[str, Any]]:
    """Exchanges of a layer with experts; what ranks that share a layer send each other, in a layer of each kind; of
    pipeline messages and each kind of ring the longest. Plain values.

    timeline: of ranks that are alike.
    """
    rows = [*_exchanges(machine), *_inside(machine), *_messages(plan, machine, timeline), *_rings(plan, machine)]
    return _plain(rows)


def timeless(plan: Plan, machine: Machine) -> list[dict[str, Any]]:
    """The rows of `table` that need no timeline: all but messages."""
    return _plain([*_exchanges(machine), *_inside(machine), *_rings(plan, machine)])


def _plain(rows: Sequence[Row]) -> list[dict[str, Any]]:
    return [{key: value for key, value in row._asdict().items() if value is not None} for row in rows]


def spread(plan: Plan, machine: Machine) -> float:
    """Relative spread of messages and gradient traffic: the widest of those that NCCL does, else of closed forms."""
    if not machine.pricer.nccl:
        return WIRE_SPREAD
    ops: list[Op] = [machine.message(plan.mesh, *ends) for ends in plan.messages.ends]
    ops += [op for _, _, op in _carried(plan, machine) if op.bytes()]
    return max((machine.pricer.price(op).spread for op in ops), default=WIRE_SPREAD)


def held(pricer: Pricer) -> dict[str, Any]:
    """How many SMs communication takes from compute, and when; `hold` is None where it takes none."""
    when = ALWAYS if pricer.held else WHILE_RUNNING
    return {"sms": pricer.comm_sms, "hold": when if pricer.comm_sms else None}


def _exchanges(machine: Machine) -> Iterator[Row]:
    routed = machine.routed_sorts
    parts = [part for unit in routed for direction in "FB" for part in machine.parts(unit, direction)]
    for op in dict.fromkeys(launch.op for part in parts for launch in part.kernels):  # one that runs again is the same
        if isinstance(op, AllToAll):
            counted = op.logical_bytes() if op.group_nodes > 1 else op.bytes()
            size = (counted, op.wire_bytes(), op.nvlink_bytes())
            links, price = machine.pricer.wires.alone, machine.pricer.price(op)
            alone_ns = max(1, seconds_to_ns(machine.pricer.exchange(op, links, machine.pricer.comm_sms)))
            inside = op.group // op.group_nodes
            row = _row(op.beside, f"a {routed[0].label} layer", price, links, size, inside)
            yield row._replace(
                alone_s=alone_ns / NS_PER_S, shared_s=price.ns / NS_PER_S, beside_s=price.beside_ns / NS_PER_S,
                limited_by=_limit(machine.pricer, op, links, row),
            )  # fmt: skip


def _inside(machine: Machine) -> Iterator[Row]:
    """Collectives and messages inside layers and at the ends of the model, those that are alike once; `beside_s` is
    while compute runs."""
    seen = set()
    for unit in {unit.kind: unit for unit in reversed(machine.units)}.values():
        for direction in "FBW":
            for launch in (launch for part in machine.parts(unit, direction) for launch in part.kernels):
                op, name = launch.op, f"{launch.name}({direction})"
                if isinstance(op, Collective | Send) and (unit.kind, name, op) not in seen:
                    seen.add((unit.kind, name, op))
                    size = (op.bytes(), op.wire_bytes(), op.nvlink_bytes())
                    inside = -(-op.ranks // op.nodes) if isinstance(op, Collective) else 2
                    price, links = machine.pricer.price(op, True), bounding(machine.pricer, op)
                    row = _row(name, f"a {unit.label} layer" if unit.block else unit.label, price, links, size, inside)
                    yield _taken(machine.pricer, op, row._replace(beside_s=price.beside_ns / NS_PER_S))


def _limit(pricer: Pricer, op: AllToAll, links: Wires, row: Row) -> str:
    fidelity = pricer.exchange
    assert isinstance(fidelity, Fidelity)
    if fidelity.model != KERNEL or not pricer.comm_sms:
        return row.limited_by
    return _limited_by(op, links, pricer.comm_sms, fidelity)


@lru_cache(maxsize=KEPT)
def _limited_by(op: AllToAll, links: Wires, sms: int, fidelity: Fidelity) -> str:
    return kernel.run(of_op(op), links, sms, fidelity.copy, fidelity.warps).limited_by


def _messages(plan: Plan, machine: Machine, timeline: Timeline) -> Iterator[Row]:
    """The dearest forward message between two positions; a backward one is as long and goes the other way."""
    price = machine.pricer.price
    sends = {ends: machine.message(plan.mesh, *ends) for ends in plan.messages.ends}
    if sends:
        (a, b, _), op = max(sends.items(), key=lambda item: price(item[1]).ns)
        size = (op.size, op.wire_bytes(), op.nvlink_bytes())
        goes, carried = plan.messages.targets[a], timeline.network[a]
        lasted = [int(t.ends[0] - t.starts[0]) for t in carried if goes.get((t.step, t.kind)) == b]
        beside_s = sum(lasted) / len(lasted) / NS_PER_S
        row = _row("pipeline message", f"position {a} to {b}", price(op), bounding(machine.pricer, op), size, 2)
        yield _taken(machine.pricer, op, row._replace(beside_s=beside_s))


def _rings(plan: Plan, machine: Machine) -> Iterator[Row]:
    """The dearest rings of all stages: over every rank that holds the stage, and over those with its experts; of what
    moves in buckets the dearest of these. What goes around a ring crosses NVLink at each rank and leaves a node through
    the NICs of all of its ranks."""
    price, dearest = machine.pricer.price, dict[str, tuple[int, int, Collective]]()
    for name, stage, op in _carried(plan, machine):
        ns = price(op).ns
        if op.bytes() and ns > dearest.get(name, (0,))[0]:
            dearest[name] = ns, stage, op
    for name, (_, stage, op) in dearest.items():
        size = (op.bytes(), op.wire_bytes(), op.nvlink_bytes())
        inside = -(-op.ranks // op.nodes)
        row = _row(name, f"stage {stage}", price(op), bounding(machine.pricer, op), size, inside)
        yield _taken(machine.pricer, op, row)


def _carried(plan: Plan, machine: Machine) -> Iterator[tuple[str, int, Collective]]:
    """Every collective of gradients and parameters, those of a bucket that are alike once, with its name and stage:
    reductions first, dense before experts."""
    own, moved = moves(plan.scenario), list[tuple[int, Ring, Collective]]()
    for stage in range(plan.program.stages):
        around, parts = optimizer.rings(plan, machine, stage), list[Bucket]()
        if own.beside or own.reduces != NEVER or own.gathers != NEVER:
            parts = list(buckets(plan, machine, stage))
        if own.beside or own.reduces != NEVER:
            moved += [(stage, *pair) for bucket in parts for pair in dict.fromkeys(bucket.reduce)]
        else:
            moved += [(stage, ring, optimizer.reducing(plan, machine, ring)) for ring in around]
        if own.gathers != NEVER:
            wanted = gathered(plan, machine, stage)
            moved += [(stage, *pair) for bucket in wanted for pair in dict.fromkeys(bucket.gather)]
        elif own.zero:
            moved += [(stage, ring, optimizer.gathering(machine, ring)) for ring in around if not ring.between]
    if own.reduces != NEVER:
        moved += [(each.stage, *pair) for each in reductions(plan, machine) for pair in each.around]
    moved.sort(key=lambda each: (each[2].kind == "all_gather", each[1].experts, each[1].between))
    for stage, ring, op in moved:
        what = "parameter" if op.kind == "all_gather" else "gradient"
        yield f"{what} {SPANS[op.kind]}{' of shards' * ring.between}, {ring.which}", stage, op


def bounding(pricer: Pricer, op: Collective | Send) -> Wires:
    """The links that bound a message or a collective: NCCL reaches more than the documents' effective bandwidth."""
    links = pricer.wires.slowed(op.slower)
    return links.nominal if pricer.nccl else links


def _taken(pricer: Pricer, op: Collective | Send, row: Row) -> Row:
    if not pricer.nccl:
        return row
    taken = pricer.nccl.take(op, pricer.wires)
    return row._replace(way=f"NCCL: {taken.way}", sms=taken.sms)


def _row(name: str, where: str, price: Price, links: Wires, size: tuple[float, float, float], inside: int) -> Row:
    """Row of one operation. size: logical, wire and NVLink bytes. inside: ranks of a node that talk to one another."""
    logical, wire, nvlink = size
    times = {"network": wire / links.network, links.nvlink.name or NVLINK: nvlink / links.nvlink.between(inside)}
    slower = max(times, key=lambda kind: times[kind])
    return Row(name, where, price.ns / NS_PER_S, None, None, times[slower], logical, wire, nvlink, slower)
