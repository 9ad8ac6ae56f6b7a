"""What a slow NIC does to traffic: exchanges, pipeline messages, gradients and parameters.

Each operation is priced again, by the model that priced it, with the slow NIC's bandwidth; the ratio is how much
longer it takes while the fault lasts. So only what the NIC binds stretches: time on NVLink, in warps and in latencies
does not, and the stretch of an exchange beside compute stays what its table says. A message goes at the pace of the
slower of its two ends, a ring at that of its slowest hop (its channels split the bytes evenly, slow NIC or not).

An exchange is bound by the port with the largest load. What a NIC sends is as expected, for every rank has as many
tokens, and the whole group waits for it; what it receives follows the rank's load, and only that rank waits for it.
Three bounds remain. Members whose tokens do not cross the slow NIC could end a combine before it (they would wait at
the next exchange). Rows that a NIC receives for other ranks of its node count as expected, whoever is popular there.
Where a window covers a part of an operation, its latencies stretch with it in proportion.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import cache
from typing import NamedTuple

import numpy as np

from hwmodels.collectives import Wires
from hwmodels.nccl import library
from hwmodels.op import AllToAll, Collective, Send
from sim.disturbances.faults import SlowDown, Slowed, of_ranks
from sim.engine.wire import REDUCE
from sim.layout.buckets import reductions
from sim.layout.machine import Machine
from sim.layout.mesh import Columns, Times
from sim.layout.optimizer import gathering, rings
from sim.layout.plan import Plan
from sim.layout.traffic import BACKWARD, FORWARD, Ring, members
from sim.scenario.values import Fault


class Sending(NamedTuple):
    """What a segment sends. kind: of the group that it meets. ops: an exchange, or collectives and messages, one after
    another. rest: other kernels of it, as a part of those. expected: ns with even loads."""

    kind: str
    ops: tuple[AllToAll | Collective | Send, ...]
    rest: float
    expected: int


class Links:
    """Durations of traffic where some NICs are slow. columns: of replicas, each in one of its own."""

    def __init__(self, plan: Plan, machine: Machine, faults: Sequence[Fault], columns: Columns) -> None:
        self.plan, self.machine = plan, machine
        self.mesh, self.columns = plan.mesh, columns
        self.slow = of_ranks(faults, ("link",), self.mesh)
        self.exchanges, self.sends, self.rings = cache(self._exchanges), cache(self._sends), cache(self._rings)
        self.collectives = cache(self._collectives)
        self.slow_members, self.targets = cache(self._slow_members), plan.messages.targets
        self.reductions = reductions(plan, machine)

    def sent(self, position: int, starts: Times, work: Times, sending: Sending) -> Times:
        """Durations of what a segment sends, begun by all of a group at once, that alone takes `work` ns at each rank
        [column]."""
        if not sending.ops or not isinstance(sending.ops[0], AllToAll):
            return self.collectives(position, sending).durations(starts, work)
        slow = self.exchanges(position, sending.ops[0], sending.rest)
        if not slow.rows:
            return work
        sent = slow.durations(starts, np.full_like(work, sending.expected))
        longest: Times = np.maximum(slow.durations(starts, work), self.columns.latest(sent, "expert"))
        return longest

    def wire(self, position: int, step: int, kind: int, starts: Times, ns: int) -> Times:
        """A `sim.engine.lane.Wire`."""
        work = np.full(len(starts), ns, dtype=np.int64)
        if not self.slow:
            return work
        if kind in (FORWARD, BACKWARD):
            return self.sends(position, self.targets[position][step, kind]).durations(starts, work)
        at, left = starts, ns
        numbers = [step] if kind == REDUCE else self.plan.holds[position]
        around = [ring for number in numbers for ring in self.rings(number, kind)]
        total = sum(alone for alone, _ in around)
        for alone, slow in around:  # beside exchanges each takes its part of a longer time
            part = min(left, -(-alone * ns // max(total, 1)))
            at, left = at + slow.durations(at, np.full_like(work, part)), left - part
        return at - starts

    # --- who is to blame ----------------------------------------------------------------------------------------------

    def _slow_members(self, position: int, column: int, kind: str) -> tuple[int, ...]:
        """Columns with a slow NIC in the group of a kind that one is in."""
        mates, first = self.columns.mates(column, kind).tolist(), self.columns.first
        return tuple(mate for mate in mates if self.mesh.rank(position, int(first[mate])) in self.slow)

    def pacing(self, position: int, column: int, start: int, duration: int, sending: Sending) -> int:
        """Member of a column's group whose NIC makes what is sent from `start` on last its `duration` (ns); the column
        itself where that is none. See `sent`."""
        alone = np.full(self.columns.columns, sending.expected, dtype=np.int64)
        one = sending.ops[0] if sending.ops else None
        slow = (
            self.exchanges(position, one, sending.rest) if isinstance(one, AllToAll) else self._own(position, sending)
        )
        sent = slow.durations(np.full_like(alone, start), alone)
        among = self.slow_members(position, column, sending.kind)
        slowest = max(among, key=lambda member: int(sent[member]), default=column)
        return slowest if int(sent[slowest]) >= duration else column

    def slow_end(self, position: int, step: int, kind: int, replica: int) -> int | None:
        """Rank of the slow NIC at an end of a message, the sender's where both are as bad; None without one."""
        if not self.slow:
            return None
        return self._worst(self.mesh.rank(p, replica) for p in (position, self.targets[position][step, kind]))

    def slow_holder(self, position: int) -> int | None:
        """Rank of the slowest NIC among those that share a stage with a position, so meet in rings; None if none."""
        mine = set(self.plan.holds[position])
        return self._worst(r for r in self.slow if mine & set(self.plan.holds[self.mesh.place(r)[0]]))

    def _worst(self, ranks: Iterable[int]) -> int | None:
        slow = [rank for rank in ranks if rank in self.slow]
        return max(slow, key=lambda rank: max(fault.slower for fault in self.slow[rank]), default=None)

    # --- who feels what -----------------------------------------------------------------------------------------------

    def _at(self, places: Iterable[tuple[int, int]]) -> tuple[Fault, ...]:
        """Faults of the NICs at (position, replica)."""
        if not self.slow:
            return ()
        ranks = (self.mesh.rank(position, replica) for position, replica in places)
        return tuple(fault for rank in ranks for fault in self.slow.get(rank, ()))

    def _exchanges(self, position: int, op: AllToAll, rest: float) -> Slowed:
        wires, pricer = self.machine.pricer.wires.alone, self.machine.pricer
        slow_down = _slow_down(wires, lambda links: pricer.exchange(op, links, pricer.comm_sms), rest)
        return Slowed([self._at([(position, d)]) for d in self.columns.first.tolist()], slow_down, worst=True)

    def _own(self, position: int, sending: Sending) -> Slowed:
        """Collectives and messages, as each column's own NIC would have them."""
        return Slowed([self._at([(position, d)]) for d in self.columns.first.tolist()], self._slower(sending), True)

    def _collectives(self, position: int, sending: Sending) -> Slowed:
        """Collectives and messages of groups of a kind, which go at the pace of the slowest of each."""
        first = self.columns.first
        mates = [first[self.columns.mates(column, sending.kind)].tolist() for column in range(self.columns.columns)]
        faults = [self._at((position, mate) for mate in group) for group in mates] if self.slow else []
        return Slowed(faults, self._slower(sending), worst=True)

    def _slower(self, sending: Sending) -> SlowDown:
        pricer, ops = self.machine.pricer, [op for op in sending.ops if not isinstance(op, AllToAll)]

        def seconds(links: Wires) -> float:
            return sum(library.seconds(pricer.nccl, op, links, pricer.wires) for op in ops)

        return _slow_down(pricer.wires, seconds, sending.rest)

    def _sends(self, position: int, target: int) -> Slowed:
        op = self.machine.message(self.mesh, position, target)
        pricer = self.machine.pricer
        slow_down = _slow_down(pricer.wires, lambda links: library.seconds(pricer.nccl, op, links, pricer.wires))
        ends = [self._at([(position, d), (target, d)]) for d in self.columns.first.tolist()]
        return Slowed(ends, slow_down, worst=True)

    def _rings(self, number: int, kind: int) -> tuple[tuple[int, Slowed], ...]:
        """Rings of a reduction, or of the parameters of a stage, one after another: ns, and who is slow."""
        if kind == REDUCE:
            stage, around = self.reductions[number].stage, self.reductions[number].around
        else:
            whole = [ring for ring in rings(self.plan, self.machine, number) if not ring.between]
            stage, around = number, tuple((ring, gathering(self.machine, ring)) for ring in whole)
        return tuple(self._ring(op, self._around(stage, ring)) for ring, op in around)

    def _around(self, stage: int, ring: Ring) -> Sequence[tuple[Fault, ...]]:
        """Of each replica, faults of NICs in the rings like that which it is in."""
        faults: list[tuple[Fault, ...]] = [() for _ in range(self.mesh.replicas)]
        for ranks in members(self.mesh, self.plan.holders(stage), ring).tolist():
            slow = tuple(fault for rank in ranks for fault in self.slow.get(rank, ()))
            for replica in {self.mesh.place(rank)[1] for rank in ranks} if slow else ():
                faults[replica] += slow
        return faults

    def _ring(self, op: Collective, faults: Sequence[tuple[Fault, ...]]) -> tuple[int, Slowed]:
        pricer = self.machine.pricer
        slow_down = _slow_down(pricer.wires, lambda links: library.seconds(pricer.nccl, op, links, pricer.wires))
        own = [faults[replica] for replica in self.columns.first.tolist()]
        return pricer.price(op).ns, Slowed(own, slow_down, worst=True)


def _slow_down(wires: Wires, seconds: Callable[[Wires], float], rest: float = 0.0) -> SlowDown:
    """How many times as long something takes that alone takes `seconds` over given links; rest: a part no NIC slows."""

    def slow_down(fault: Fault, factor: float) -> float:
        alone = seconds(wires)
        if factor == 1 or not alone:
            return 1.0
        slow = replace(wires, nic=replace(wires.nic, bandwidth=wires.nic.bandwidth / factor))
        return max(1.0, (seconds(slow) / alone + rest) / (1 + rest))

    return slow_down
