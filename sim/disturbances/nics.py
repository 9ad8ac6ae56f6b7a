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

import numpy as np

from hwmodels.collectives import Wires
from hwmodels.nccl import library
from hwmodels.op import AllToAll, Collective
from sim.disturbances.faults import SlowDown, Slowed, of_ranks
from sim.engine.wire import REDUCE
from sim.layout.buckets import reductions
from sim.layout.machine import Machine
from sim.layout.mesh import Times
from sim.layout.optimizer import gathering, rings
from sim.layout.plan import Plan
from sim.layout.traffic import BACKWARD, FORWARD, Ring, members
from sim.scenario.values import Fault


class Links:
    """Durations of traffic where some NICs are slow."""

    def __init__(self, plan: Plan, machine: Machine, faults: Sequence[Fault]) -> None:
        self.plan, self.machine = plan, machine
        self.mesh = plan.mesh
        self.slow = of_ranks(faults, ("link",), self.mesh)
        self.exchanges, self.sends, self.rings = cache(self._exchanges), cache(self._sends), cache(self._rings)
        self.everybody = self.mesh.columns()
        self.slow_members, self.targets = cache(self._slow_members), plan.messages.targets
        self.reductions = reductions(plan, machine)

    def exchange(self, position: int, starts: Times, work: Times, expected: int, op: AllToAll, rest: float) -> Times:
        """Durations of an exchange, begun by all of a group at once, that alone takes `work` ns at each rank and
        `expected` ns with even loads. rest: other kernels in it, as a part of the exchange itself."""
        slow = self.exchanges(position, op, rest)
        if not slow.rows:
            return work
        sent = slow.durations(starts, np.full_like(work, expected))
        longest: Times = np.maximum(slow.durations(starts, work), self.everybody.latest(sent, "expert"))
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

    def _slow_members(self, position: int, replica: int) -> tuple[int, ...]:
        """Replicas with a slow NIC in the expert group of a replica."""
        mates = self.mesh.group("expert", replica)
        return tuple(mate for mate in mates if self.mesh.rank(position, mate) in self.slow)

    def pacing(
        self, position: int, replica: int, start: int, expected: int, duration: int, op: AllToAll, rest: float
    ) -> int:
        """Member of a replica's group whose NIC makes an exchange, begun at `start`, last its `duration` (ns); the
        replica itself where that is none. See `exchange`."""
        alone = np.full(self.mesh.replicas, expected, dtype=np.int64)
        sent = self.exchanges(position, op, rest).durations(np.full_like(alone, start), alone)
        slowest = max(self.slow_members(position, replica), key=lambda member: int(sent[member]), default=replica)
        return slowest if int(sent[slowest]) >= duration else replica

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
        return Slowed([self._at([(position, d)]) for d in range(self.mesh.replicas)], slow_down, worst=True)

    def _sends(self, position: int, target: int) -> Slowed:
        op = self.machine.message(self.mesh, position, target)
        pricer = self.machine.pricer
        slow_down = _slow_down(pricer.wires, lambda links: library.seconds(pricer.nccl, op, links, pricer.wires))
        ends = [self._at([(position, d), (target, d)]) for d in range(self.mesh.replicas)]
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
        return pricer.price(op).ns, Slowed(faults, slow_down, worst=True)


def _slow_down(wires: Wires, seconds: Callable[[Wires], float], rest: float = 0.0) -> SlowDown:
    """How many times as long something takes that alone takes `seconds` over given links; rest: a part no NIC slows."""

    def slow_down(fault: Fault, factor: float) -> float:
        alone = seconds(wires)
        if factor == 1 or not alone:
            return 1.0
        slow = replace(wires, nic=replace(wires.nic, bandwidth=wires.nic.bandwidth / factor))
        return max(1.0, (seconds(slow) / alone + rest) / (1 + rest))

    return slow_down
