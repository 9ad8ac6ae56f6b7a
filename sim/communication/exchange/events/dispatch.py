"""A channel of a dispatch: one role packs tokens and posts chunks, one forwards what arrives, one receives.

Packers go through the channel's tokens in order; a chunk whose rows are packed is posted by a warp of its own. Room at
the other end is taken before a chunk is packed, as DeepEP V1 takes slots there. Inside one node nothing is packed: the
role that forwards sends the channel's own rows.
"""

from collections import deque
from collections.abc import Sequence
from math import ceil

from sim.communication.exchange.events.bells import Life
from sim.communication.exchange.events.cargo import Chunk
from sim.communication.exchange.events.channel import NETWORK, NVLINK, Place, Role
from sim.communication.exchange.events.servers import Buffer

Bytes = list[tuple[int, int]]
"""Shift, and nanoseconds of a port."""


class Dispatch:
    """partners [turns], mates [shifts]: the same channel of the ranks that its rows go through."""

    def __init__(self, place: Place) -> None:
        crew, cargo = place.crew, place.cargo
        self.place, self.clock, self.times = place, place.clock, place.times
        self.sender = Role(place, "send", crew.send)
        self.forwarder = Role(place, "send" if place.inside else "forward", crew.forward)
        self.receiver = Role(place, "receive", crew.receive)
        self.far = place.buffers(NETWORK, place.sizes.network, cargo.nodes, self.sender.bell)
        self.near = place.buffers(NVLINK, place.sizes.nvlink, cargo.gpus, self.forwarder.bell)
        self.arriving: deque[tuple[int, Chunk, Buffer | None]] = deque()
        self.landing: deque[tuple[int, int, Buffer]] = deque()
        self.posted = self.chunks = self.parts = 0
        self.partners: Sequence[Dispatch] = ()
        self.mates: Sequence[Dispatch] = ()

    def announce(self) -> None:
        """Tell the other ends how much will come."""
        for chunk in self.place.plan:
            partner = self.partners[chunk.turn]
            partner.chunks += 1
            for mate, rows in zip(partner.mates, chunk.split, strict=True):
                mate.parts += rows > 0

    def lives(self) -> list[Life]:
        """Its roles, as processes."""
        if self.place.inside:
            self.arriving.extend((self.clock.now, chunk, None) for chunk in self.place.plan)
            return [self.forward(), self.receive()]
        return [self.send(), self.forward(), self.receive()]

    # --- send -------------------------------------------------------------------------------------------------------

    def send(self) -> Life:
        """Pack and post one chunk after another."""
        role, clock, packed = self.sender, self.clock, 0
        for chunk in self.place.plan:
            yield from role.room((self.far[chunk.turn],), (chunk.rows,), "room at forwarders")
            tokens, packed = chunk.at - packed, chunk.at
            end = role.work(tokens, clock.now, tokens + chunk.rows)
            self.posted = max(end, self.posted) + self.times.put
            clock.at(self.posted, self.post, chunk)
            if role.warps.next > clock.now:
                yield clock.until(role.warps.next)
        yield clock.until(self.posted)

    def post(self, chunk: Chunk) -> None:
        """The chunk queues for the NIC; rows for the own node are there."""
        now = self.clock.now
        if not chunk.turn:
            self.arrive(chunk, now)
            return
        ns = ceil(chunk.rows * self.times.network)
        self.place.gpu.network.book(ns, self.leave, chunk, ns)

    def leave(self, chunk: Chunk, ns: int) -> None:
        """The NIC begins with the chunk."""
        now, port = self.clock.now, self.partners[chunk.turn].place.gpu.network
        self.arrive(chunk, port.receive(now, ns, now + ns) + self.times.far)

    def arrive(self, chunk: Chunk, time: int) -> None:
        partner = self.partners[chunk.turn]
        partner.arriving.append((time, chunk, self.far[chunk.turn]))
        partner.forwarder.bell.ring()

    # --- forward ----------------------------------------------------------------------------------------------------

    def forward(self) -> Life:
        """Copy the rows of one chunk after another to the GPUs of the node."""
        role, clock, arriving = self.forwarder, self.clock, self.arriving
        for _ in range(self.chunks):
            while not arriving:
                yield from role.until(None, "rows")
            arrival, chunk, credit = arriving.popleft()
            if arrival > clock.now:
                yield from role.until(arrival, "rows")
            yield from role.room(self.near, chunk.split, "room at receivers")
            rows = sum(chunk.split)
            end = role.work(rows, clock.now, 2 * rows)
            if credit is not None:
                credit.give(end, chunk.rows)
            clock.at(end, self.push, chunk)
            if role.warps.next > clock.now:
                yield clock.until(role.warps.next)

    def push(self, chunk: Chunk) -> None:
        """Rows are copied, and queue for the NVLink port; those for the own GPU are there."""
        now, row = self.clock.now, self.times.nvlink
        if chunk.split[0]:
            self.land(0, chunk.split[0], now)
        loads = [(shift, ceil(rows * row)) for shift, rows in enumerate(chunk.split) if rows and shift]
        total = sum(ns for _, ns in loads)
        self.place.gpu.nvlink.book(total, self.spread, chunk, loads, total)

    def spread(self, chunk: Chunk, loads: Bytes, total: int) -> None:
        """The port begins with the chunk: rows for all GPUs side by side."""
        now, near = self.clock.now, self.times.near
        for shift, ns in loads:
            end = self.mates[shift].place.gpu.nvlink.receive(now, ns, now + total)
            self.land(shift, chunk.split[shift], end + near)

    def land(self, shift: int, rows: int, time: int) -> None:
        """Rows are there at a time."""
        mate = self.mates[shift]
        mate.landing.append((time, rows, self.near[shift]))
        mate.receiver.bell.ring()

    # --- receive ----------------------------------------------------------------------------------------------------

    def receive(self) -> Life:
        """Copy rows to where experts read them. Their order is known when they leave, and so is their end."""
        role, landing, left, end = self.receiver, self.landing, self.parts, 0
        while left:
            while not landing:
                yield role.bell
            while landing:
                arrival, rows, credit = landing.popleft()
                if role.record is not None and arrival > end:
                    role.record.waited(role.name, end or self.clock.now, arrival, "rows")
                end = role.work(rows, arrival, 2 * rows)
                credit.give(end, rows)
                left -= 1
        yield self.clock.until(end)
