"""A channel of a combine: one role sends rows to the forwarders of its node, one reduces and posts, one receives.

Chunks are those that a dispatch of the same tokens would move, and go the other way. Each role serves nodes in the
order of their tokens and passes over one whose buffers are full, as DeepEP V1's warps have a node each. A token is
reduced at its source once the rows of all its nodes are there. Inside one node forwarders are the source, and nothing
is posted.
"""

from bisect import insort
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from math import ceil
from typing import NamedTuple

from sim.communication.exchange.events.bells import Course, Life
from sim.communication.exchange.events.cargo import Chunk
from sim.communication.exchange.events.channel import NETWORK, NVLINK, Place, Role, first_full, give_back, take
from sim.communication.exchange.events.servers import Buffer


class Sheet:
    """A chunk on its way back through a forwarder to its home, whose tokens they are. missing: GPUs of the node that
    have not sent their rows yet. time: when the last of them are here."""

    __slots__ = ("chunk", "forwarder", "home", "missing", "time")

    def __init__(self, chunk: Chunk, forwarder: "Combine", home: "Combine") -> None:
        self.chunk, self.forwarder, self.home, self.time = chunk, forwarder, home, 0
        self.missing = len(chunk.split) - chunk.split.count(0)

    def land(self, time: int) -> None:
        """Rows of one more GPU are there at a time."""
        if time > self.time:
            self.time = time
        self.missing -= 1
        if not self.missing:
            self.forwarder.complete(self)


class Load(NamedTuple):
    """Rows that a sender hands over together. at: tokens up to which the first of them go. rows, busy, sheets [shifts]:
    for each forwarder of its node; how long they have a port, ns, none on the own GPU; to what they belong there."""

    at: int
    rows: tuple[int, ...]
    busy: list[int]
    sheets: tuple[Sheet, ...]


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
        self.sheets: list[deque[Sheet]] = [deque() for _ in range(nodes)]
        self.heads: list[tuple[int, int]] = []  # (at, turn) of the first sheets of queues that miss nobody, in order
        self.landing: deque[tuple[int, Chunk]] = deque()
        self.posted = [0] * nodes
        self.partners: Sequence[Combine] = ()
        self.mates: Sequence[Combine] = ()

    def announce(self) -> None:
        """Lay out who forwards what of this channel's tokens."""
        for chunk in self.place.plan:
            forwarder = self.partners[chunk.turn]
            forwarder.sheets[chunk.turn].append(Sheet(chunk, forwarder, self))

    def lives(self) -> list[Life]:
        """Its roles, as processes."""
        return [self.send(), self.forward(), *([] if self.place.inside else [self.receive()])]

    # --- send -------------------------------------------------------------------------------------------------------

    def send(self) -> Life:
        """Copy one load after another to the forwarders."""
        role, clock, end = self.sender, self.clock, self.clock.now
        queues = [self.loads(turn) for turn in range(self.place.cargo.nodes)]
        firsts = {turn: load for turn, queue in enumerate(queues) if (load := next(queue, None))}
        heads = sorted((load.at, turn) for turn, load in firsts.items())
        while heads:
            turn = yield from self.next_turn(firsts, heads)
            load, after = firsts[turn], next(queues[turn], None)
            if after is not None:
                firsts[turn] = after
                insort(heads, (after.at, turn))
            rows = sum(load.rows)
            end = role.work(rows, clock.now, 2 * rows)
            clock.at(end, self.push, load)
            if role.warps.next > clock.now:
                yield clock.until(role.warps.next)
        yield clock.until(end)

    def loads(self, turn: int) -> Iterator[Load]:
        """What goes over so many turns, in order: of each forwarder's next sheet the rows that are here."""
        row, mates, index = self.times.nvlink, self.mates, self.place.number
        order = [(number - index) % len(mates) for number in range(len(mates))]
        columns = [list(mate.sheets[turn]) for mate in mates]
        parts = [[sheet.chunk.split[-shift] for sheet in column] for shift, column in enumerate(columns)]
        for sheets, rows in zip(zip_longest(*columns), zip_longest(*parts, fillvalue=0), strict=True):
            if any(rows):
                busy = [0, *[ceil(count * row) for count in rows[1:]]]
                yield Load(next(sheets[shift].chunk.at for shift in order if rows[shift]), rows, busy, sheets)

    def next_turn(self, firsts: Mapping[int, Load], heads: list[tuple[int, int]]) -> Course[int]:
        """Of the first load, by its tokens, for which there is room; take it off the heads."""
        while True:
            now, sooner = self.clock.now, None
            for place, (_, turn) in enumerate(heads):
                buffers, rows = self.near[turn], firsts[turn].rows
                full = first_full(buffers, rows, now)
                if full is None:
                    take(buffers, rows, now)
                    del heads[place]
                    return turn
                sooner = earlier(sooner, full.next)
            yield from self.sender.until(sooner, "room at forwarders")

    def push(self, load: Load) -> None:
        """Rows are copied, and queue for the NVLink port; those for the own GPU are there."""
        if load.rows[0]:
            load.sheets[0].land(self.clock.now)
        self.port.book(sum(load.busy), self.spread, load)

    def spread(self, load: Load) -> None:
        """The port begins with the load: rows for all GPUs side by side."""
        now, near = self.clock.now, self.times.near
        end = now + sum(load.busy)
        for sheet, ns in zip(load.sheets, load.busy, strict=True):
            if ns:
                sheet.land(sheet.forwarder.port.receive(now, ns, end) + near)

    def complete(self, sheet: Sheet) -> None:
        """All rows of a sheet have left for this forwarder."""
        if self.sheets[sheet.chunk.turn][0] is sheet:
            insort(self.heads, (sheet.chunk.at, sheet.chunk.turn))
            self.forwarder.bell.ring()

    # --- forward ----------------------------------------------------------------------------------------------------

    def forward(self) -> Life:
        """Reduce the rows of one chunk after another, and post it."""
        role, clock, put_ns, end = self.forwarder, self.clock, self.times.put, self.clock.now
        row_ns, inside = self.place.crew.forward.row, self.place.inside
        lent = [[mate.near[turn][-shift] for shift, mate in enumerate(self.mates)] for turn in range(len(self.sheets))]
        for _ in range(sum(map(len, self.sheets))):
            sheet = yield from self.next_sheet()
            chunk, rows = sheet.chunk, sum(sheet.chunk.split)
            end = role.work(chunk.rows, clock.now, rows + chunk.rows, -(-rows * row_ns // chunk.rows))
            give_back(lent[chunk.turn], chunk.split, end)
            if not inside:
                self.posted[chunk.turn] = put = max(end, self.posted[chunk.turn]) + put_ns
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
                    room, rows = self.far[turn], sheet.chunk.rows
                    if self.place.inside or room.has(rows, now):
                        if not self.place.inside:
                            room.take(rows, now)
                        del self.heads[place]
                        queue.popleft()
                        if queue and not queue[0].missing:
                            insort(self.heads, (queue[0].chunk.at, turn))
                        return sheet
                    time, why = room.next, "room at receivers"
                sooner = earlier(sooner, time)
            yield from self.forwarder.until(sooner, why)

    def post(self, sheet: Sheet) -> None:
        """The chunk queues for the NIC; rows for the own node are there."""
        if sheet.chunk.turn:
            ns = ceil(sheet.chunk.rows * self.times.network)
            self.place.gpu.network.book(ns, self.leave, sheet, ns)
        else:
            sheet.home.arrive(sheet.chunk, self.clock.now)

    def leave(self, sheet: Sheet, ns: int) -> None:
        """The NIC begins with the chunk."""
        now, home = self.clock.now, sheet.home
        home.arrive(sheet.chunk, home.place.gpu.network.receive(now, ns, now + ns) + self.times.far)

    # --- receive ----------------------------------------------------------------------------------------------------

    def arrive(self, chunk: Chunk, time: int) -> None:
        """Rows of a chunk are here at a time."""
        self.landing.append((time, chunk))
        self.receiver.bell.ring()

    def receive(self) -> Life:
        """Reduce the rows of a token once all of them are here: as far as the node goes that is farthest behind. Their
        order is known when they leave, and so is their end."""
        role, place, landing = self.receiver, self.place, self.landing
        rows = sum(chunk.rows for chunk in place.plan)
        task_ns = -(-rows * place.crew.receive.row // max(place.tokens, 1))
        behind = {chunk.turn: Behind(self.partners[chunk.turn].far[chunk.turn]) for chunk in place.plan}
        nodes = behind.values()
        done = now = end = 0
        for _ in place.plan:
            while not landing:
                yield role.bell
            arrival, chunk = landing.popleft()
            now = max(now, arrival)
            behind[chunk.turn].add(chunk)
            through = min([node.reach for node in nodes])
            if through > done:
                tokens, done = through - done, through
                if role.record is not None and now > end:
                    role.record.waited(role.name, end or self.clock.now, now, "rows")
                end = role.work(tokens, now, tokens + tokens * rows // place.tokens, task_ns)
                for node in nodes:
                    node.free(done, end)
        yield self.clock.until(end)


class Behind:
    """Chunks from a node of which tokens are not reduced yet. room: that they took. reach: tokens up to which its rows
    are here."""

    __slots__ = ("begin", "chunks", "given", "reach", "room")

    def __init__(self, room: Buffer) -> None:
        self.chunks: deque[Chunk] = deque()
        self.room, self.begin, self.given, self.reach = room, 0, 0, 0

    def add(self, chunk: Chunk) -> None:
        self.chunks.append(chunk)
        self.reach = chunk.at

    def free(self, done: int, end: int) -> None:
        """Tokens up to `done` are reduced at `end`: so are their rows, which lie evenly in a chunk."""
        chunks, give = self.chunks, self.room.give
        while chunks and self.begin < done:
            at, _, rows, _ = chunks[0]
            if at > done:
                part = rows * (done - self.begin) // (at - self.begin)
                if part > self.given:
                    give(end, part - self.given)
                    self.given = part
                return
            if rows > self.given:
                give(end, rows - self.given)
            self.given, self.begin = 0, at
            chunks.popleft()


def earlier(one: int | None, other: int | None) -> int | None:
    """Of two moments, which may not be known."""
    return other if one is None else one if other is None else min(one, other)
