"""A channel of a combine: one role sends rows to the forwarders of its node, one reduces and posts, one receives.

Chunks are those that a dispatch of the same tokens would move, and go the other way. Each role serves nodes in the
order of their tokens and passes over one whose buffers are full, as DeepEP V1's warps have a node each. A token is
reduced at its source once the rows of all its nodes are there. Inside one node forwarders are the source, and nothing
is posted.
"""

from bisect import insort
from collections import deque
from collections.abc import Sequence
from math import ceil
from typing import NamedTuple

from sim.communication.exchange.events.bells import Course, Life
from sim.communication.exchange.events.cargo import Chunk
from sim.communication.exchange.events.channel import NETWORK, NVLINK, Needs, Place, Role, first_full, take
from sim.communication.exchange.events.servers import Buffer


class Sheet:
    """A chunk on its way back, at its forwarder. home: the channel whose tokens they are. missing: GPUs of the node
    that have not sent their rows yet. time: when the last of them are here. credits: for those who sent."""

    __slots__ = ("chunk", "credits", "home", "missing", "time")

    def __init__(self, chunk: Chunk, home: "Combine") -> None:
        self.chunk, self.home, self.time = chunk, home, 0
        self.missing = sum(rows > 0 for rows in chunk.split)
        self.credits: list[tuple[Buffer, int, int]] = []


class Part(NamedTuple):
    """Rows of a sheet that one GPU sends. shift: of its forwarder, seen from the sender. ns: of a port, of rows that go
    to another GPU."""

    shift: int
    rows: int
    sheet: Sheet
    ns: int


class Load(NamedTuple):
    """Parts that a sender hands over together, one for each forwarder of its node. at, turn: as of their chunks; the
    source's node is so many turns back."""

    at: int
    turn: int
    parts: list[Part]


class Combine:
    """partners [turns], mates [shifts]: the same channel of the ranks that a dispatch's rows would go through."""

    def __init__(self, place: Place) -> None:
        crew, nodes, gpus = place.crew, place.cargo.nodes, place.cargo.gpus
        self.place, self.clock, self.times, self.port = place, place.clock, place.times, place.gpu.nvlink
        self.sender = Role(place, "send", crew.send)
        self.forwarder = Role(place, "receive" if place.inside else "forward", crew.forward)
        self.receiver = Role(place, "receive", crew.receive)
        near = max(1, place.sizes.nvlink // nodes)  # a part for each source node, as in DeepEP V1
        self.near = [place.buffers(NVLINK, near, gpus, self.sender.bell) for _ in range(nodes)]
        self.far = place.buffers(NETWORK, place.sizes.network, nodes, self.forwarder.bell)
        self.loads: list[deque[Load]] = [deque() for _ in range(nodes)]
        self.sheets: list[deque[Sheet]] = [deque() for _ in range(nodes)]
        self.heads: list[tuple[int, int]] = []  # (at, turn) of the first sheets of queues that miss nobody, in order
        self.landing: deque[tuple[int, Chunk, Buffer, int]] = deque()
        self.posted = [0] * nodes
        self.partners: Sequence[Combine] = ()
        self.mates: Sequence[Combine] = ()

    def announce(self) -> None:
        """Lay out who sends what of this channel's tokens."""
        gpus, number, row = self.place.cargo.gpus, [0] * self.place.cargo.nodes, self.times.nvlink
        for chunk in self.place.plan:
            forwarder, sheet = self.partners[chunk.turn], Sheet(chunk, self)
            forwarder.sheets[chunk.turn].append(sheet)
            for shift, rows in enumerate(chunk.split):
                if rows:
                    part = Part(-shift % gpus, rows, sheet, ceil(rows * row) if shift else 0)
                    forwarder.mates[shift].hold(number[chunk.turn], part, chunk)
            number[chunk.turn] += 1

    def hold(self, number: int, part: Part, chunk: Chunk) -> None:
        """Be the one who sends a part of the `number`-th chunk that goes over so many turns."""
        queue = self.loads[chunk.turn]
        while len(queue) <= number:
            queue.append(Load(chunk.at, chunk.turn, []))
        queue[number].parts.append(part)

    def lives(self) -> list[Life]:
        """Its roles, as processes."""
        return [self.send(), self.forward(), *([] if self.place.inside else [self.receive()])]

    # --- send -------------------------------------------------------------------------------------------------------

    def send(self) -> Life:
        """Copy one load after another to the forwarders."""
        role, clock, end = self.sender, self.clock, self.clock.now
        queues = [deque(load for load in queue if load.parts) for queue in self.loads]
        heads = sorted((queue[0].at, turn) for turn, queue in enumerate(queues) if queue)
        while heads:
            load = yield from self.next_load(queues, heads)
            rows = sum(part.rows for part in load.parts)
            end = role.work(rows, clock.now, 2 * rows)
            clock.at(end, self.push, load)
            if role.warps.next > clock.now:
                yield clock.until(role.warps.next)
        yield clock.until(end)

    def next_load(self, queues: Sequence[deque[Load]], heads: list[tuple[int, int]]) -> Course[Load]:
        """The first load, by its tokens, for which there is room; take it off the queues."""
        while True:
            now, sooner = self.clock.now, None
            for place, (_, turn) in enumerate(heads):
                queue = queues[turn]
                needs = [(self.near[turn][part.shift], part.rows) for part in queue[0].parts]
                full = first_full(needs, now)
                if full is None:
                    take(needs, now)
                    del heads[place]
                    load = queue.popleft()
                    if queue:
                        insort(heads, (queue[0].at, turn))
                    return load
                sooner = earlier(sooner, full.next)
            yield from self.sender.until(sooner, "room at forwarders")

    def push(self, load: Load) -> None:
        """Rows are copied, and queue for the NVLink port; those for the own GPU are there."""
        now, total = self.clock.now, 0
        for part in load.parts:
            total += part.ns
            if not part.shift:
                self.land(load.turn, part, now, 0)
        self.port.book(total, self.spread, load, total)

    def spread(self, load: Load, total: int) -> None:
        """The port begins with the load: rows for all GPUs side by side."""
        now, near, turn, mates = self.clock.now, self.times.near, load.turn, self.mates
        end, land = now + total, self.land
        for part in load.parts:
            if part.shift:
                land(turn, part, mates[part.shift].port.receive(now, part.ns, end) + near, near)

    def land(self, turn: int, part: Part, time: int, back: int) -> None:
        """Rows are there at a time; their credit takes `back` ns to come back."""
        shift, rows, sheet, _ = part
        sheet.credits.append((self.near[turn][shift], rows, back))
        if time > sheet.time:
            sheet.time = time
        sheet.missing -= 1
        if not sheet.missing:
            self.mates[shift].complete(sheet)

    def complete(self, sheet: Sheet) -> None:
        """All rows of a sheet have left for this forwarder."""
        if self.sheets[sheet.chunk.turn][0] is sheet:
            insort(self.heads, (sheet.chunk.at, sheet.chunk.turn))
        self.forwarder.bell.ring()

    # --- forward ----------------------------------------------------------------------------------------------------

    def forward(self) -> Life:
        """Reduce the rows of one chunk after another, and post it."""
        role, clock, times, end = self.forwarder, self.clock, self.times, self.clock.now
        row_ns = self.place.crew.forward.row
        for _ in range(sum(map(len, self.sheets))):
            sheet = yield from self.next_sheet()
            chunk, rows = sheet.chunk, sum(sheet.chunk.split)
            end = role.work(chunk.rows, clock.now, rows + chunk.rows, -(-rows * row_ns // chunk.rows))
            Buffer.give_back(sheet.credits, end)
            if not self.place.inside:
                self.posted[chunk.turn] = put = max(end, self.posted[chunk.turn]) + times.put
                clock.at(put, self.post, sheet)
            if role.warps.next > clock.now:
                yield clock.until(role.warps.next)
        yield clock.until(max(end, *self.posted))

    def next_sheet(self) -> Course[Sheet]:
        """The first chunk, by its tokens, that is here and for which there is room; take it off its queue."""
        while True:
            now, sooner, why = self.clock.now, None, "rows"
            for place, (_, turn) in enumerate(self.heads):
                queue = self.sheets[turn]
                sheet = queue[0]
                time: int | None = sheet.time
                if sheet.time <= now:
                    needs: Needs = () if self.place.inside else ((self.far[turn], sheet.chunk.rows),)
                    full = first_full(needs, now)
                    if full is None:
                        take(needs, now)
                        del self.heads[place]
                        queue.popleft()
                        if queue and not queue[0].missing:
                            insort(self.heads, (queue[0].chunk.at, turn))
                        return sheet
                    time, why = full.next, "room at receivers"
                sooner = earlier(sooner, time)
            yield from self.forwarder.until(sooner, why)

    def post(self, sheet: Sheet) -> None:
        """The chunk queues for the NIC; rows for the own node are there."""
        now, chunk = self.clock.now, sheet.chunk
        if not chunk.turn:
            self.arrive(sheet, now, 0)
            return
        ns = ceil(chunk.rows * self.times.network)
        self.place.gpu.network.book(ns, self.leave, sheet, ns)

    def leave(self, sheet: Sheet, ns: int) -> None:
        """The NIC begins with the chunk."""
        now, port = self.clock.now, sheet.home.place.gpu.network
        far = self.times.far
        self.arrive(sheet, port.receive(now, ns, now + ns) + far, far)

    def arrive(self, sheet: Sheet, time: int, back: int) -> None:
        """Rows are there at a time; their credit takes `back` ns to come back."""
        sheet.home.landing.append((time, sheet.chunk, self.far[sheet.chunk.turn], back))
        sheet.home.receiver.bell.ring()

    # --- receive ----------------------------------------------------------------------------------------------------

    def receive(self) -> Life:
        """Reduce the rows of a token once all of them are here: as far as the node goes that is farthest behind. Their
        order is known when they leave, and so is their end."""
        role, place, landing = self.receiver, self.place, self.landing
        rows = sum(chunk.rows for chunk in place.plan)
        task_ns = -(-rows * place.crew.receive.row // max(place.tokens, 1))
        behind = {chunk.turn: Behind() for chunk in place.plan}
        done = now = end = 0
        for _ in place.plan:
            while not landing:
                yield role.bell
            arrival, chunk, credit, back = landing.popleft()
            now = max(now, arrival)
            behind[chunk.turn].add(chunk, credit, back)
            through = min(node.reach for node in behind.values())
            if through > done:
                tokens, done = through - done, through
                if role.record is not None and now > end:
                    role.record.waited(role.name, end or self.clock.now, now, "rows")
                end = role.work(tokens, now, tokens + tokens * rows // place.tokens, task_ns)
                for node in behind.values():
                    node.free(done, end)
        yield self.clock.until(end)


class Behind:
    """Chunks from a node of which tokens are not reduced yet. reach: tokens up to which its rows are here."""

    __slots__ = ("begin", "chunks", "given", "reach")

    def __init__(self) -> None:
        self.chunks: deque[tuple[Chunk, Buffer, int]] = deque()
        self.begin = self.given = self.reach = 0

    def add(self, chunk: Chunk, credit: Buffer, back: int) -> None:
        self.chunks.append((chunk, credit, back))
        self.reach = chunk.at

    def free(self, done: int, end: int) -> None:
        """Tokens up to `done` are reduced at `end`: so are their rows, which lie evenly in a chunk."""
        while self.chunks and self.begin < done:
            chunk, credit, back = self.chunks[0]
            whole = chunk.at <= done
            rows = chunk.rows if whole else chunk.rows * (done - self.begin) // (chunk.at - self.begin)
            if rows > self.given:
                credit.give(end + back, rows - self.given)
            self.given = 0 if whole else rows
            if not whole:
                return
            self.begin = chunk.at
            self.chunks.popleft()


def earlier(one: int | None, other: int | None) -> int | None:
    """Of two moments, which may not be known."""
    return other if one is None else one if other is None else min(one, other)
