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

from sim.communication.exchange.events.bells import Course, Life
from sim.communication.exchange.events.cargo import Chunk
from sim.communication.exchange.events.channel import NETWORK, NVLINK, Place, Role
from sim.communication.exchange.events.servers import Port
from sim.communication.exchange.events.sheets import Bay, Load, Progress, Sheet, Window


class Combine:
    """partners [turns], mates [shifts]: the same channel of the ranks that a dispatch's rows would go through. homes
    [turns]: whose rows come back through this one."""

    def __init__(self, place: Place) -> None:
        crew, nodes, gpus = place.crew, place.cargo.nodes, place.cargo.gpus
        self.place, self.clock, self.times, self.port = place, place.clock, place.times, place.gpu.nvlink
        self.sender = Role(place, "send", crew.send)
        self.forwarder = Role(place, "receive" if place.inside else "forward", crew.forward)
        self.receiver = Role(place, "receive", crew.receive)
        near = max(1, place.sizes.nvlink // nodes)  # a part for each source node, as in DeepEP V1
        self.near = [Window(near, gpus, self.times.near, self.sender.bell) for _ in range(nodes)]
        self.near_log = place.log(NVLINK)
        self.far_log = place.log(NETWORK)
        self.progress = Progress()
        self.bays = [self.bay(turn) for turn in range(nodes)]
        self.sheets: list[deque[Sheet]] = [deque() for _ in range(nodes)]
        self.heads: list[tuple[int, int]] = []  # (at, turn) of the first sheets of queues that miss nobody, in order
        self.landing: deque[tuple[int, Chunk]] = deque()
        self.posted = [0] * nodes
        self.homes = [self] * nodes
        self.partners: Sequence[Combine] = ()
        self.mates: Sequence[Combine] = ()
        self.ports: Sequence[Port] = ()

    def announce(self) -> None:
        """Lay out who forwards what of this channel's tokens, and whose ports its rows go to."""
        self.ports = [mate.port for mate in self.mates[1:]]
        for turn, forwarder in enumerate(self.partners):
            forwarder.homes[turn] = self
            forwarder.sheets[turn] += [Sheet(chunk, forwarder) for chunk in self.place.plan if chunk.turn == turn]

    def bay(self, turn: int) -> Bay:
        """Room for this channel's tokens that come back over so many turns."""
        chunks = [chunk for chunk in self.place.plan if chunk.turn == turn]
        return Bay(self.place.sizes.network, self.times.far if turn else 0, chunks, self.progress)

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
            if self.near_log is not None:
                self.near_log.append((clock.now, rows))
            end = role.work(rows, clock.now, 2 * rows)
            clock.at(end, self.push, load)
            if role.warps.next > clock.now:
                yield clock.until(role.warps.next)
        yield clock.until(end)

    def loads(self, turn: int) -> Iterator[Load]:
        """What goes over so many turns, in order: of each forwarder's next sheet the rows that are here."""
        mates, index = self.mates, self.place.number
        order = [(number - index) % len(mates) for number in range(len(mates))]
        columns = [list(mate.sheets[turn]) for mate in mates]
        parts = [[sheet.chunk.split[-shift] for sheet in column] for shift, column in enumerate(columns)]
        for sheets, rows in zip(zip_longest(*columns), zip_longest(*parts, fillvalue=0), strict=True):
            for shift in order:
                if rows[shift]:
                    yield Load(sheets[shift].chunk.at, rows, sheets)
                    break

    def next_turn(self, firsts: Mapping[int, Load], heads: list[tuple[int, int]]) -> Course[int]:
        """Of the first load, by its tokens, for which there is room; take it off the heads."""
        while True:
            now, sooner = self.clock.now, None
            for place, (_, turn) in enumerate(heads):
                window, load = self.near[turn], firsts[turn]
                shift = window.lacks(load, now)
                if shift is None:
                    window.take(load)
                    del heads[place]
                    return turn
                sooner = earlier(sooner, window.next(shift))
            yield from self.sender.until(sooner, "room at forwarders")

    def push(self, load: Load) -> None:
        """Rows are copied, and queue for the NVLink port; those for the own GPU are there."""
        now, row = self.clock.now, self.times.nvlink
        if load.rows[0]:
            load.sheets[0].land(now)
        busy = [ceil(rows * row) for rows in load.rows[1:]]
        self.port.book(sum(busy), self.spread, load, busy)

    def spread(self, load: Load, busy: list[int]) -> None:
        """The port begins with the load: rows for all GPUs side by side."""
        now, near, end = self.clock.now, self.times.near, self.port.out
        for sheet, ns, port in zip(load.sheets[1:], busy, self.ports, strict=True):
            if ns:
                sheet.land(port.receive(now, ns, end) + near)

    def complete(self, sheet: Sheet) -> None:
        """All rows of a sheet have left for this forwarder."""
        if self.sheets[sheet.chunk.turn][0] is sheet:
            insort(self.heads, (sheet.chunk.at, sheet.chunk.turn))
            self.forwarder.bell.ring()

    # --- forward ----------------------------------------------------------------------------------------------------

    def forward(self) -> Life:
        """Reduce the rows of one chunk after another, and post it."""
        role, clock, put_ns, near, end = self.forwarder, self.clock, self.times.put, self.times.near, self.clock.now
        row_ns, inside = self.place.crew.forward.row, self.place.inside
        logs = [(shift, mate.near_log) for shift, mate in enumerate(self.mates) if mate.near_log is not None]
        for _ in range(sum(map(len, self.sheets))):
            sheet = yield from self.next_sheet()
            chunk, rows = sheet.chunk, sum(sheet.chunk.split)
            if self.far_log is not None and not inside:
                self.far_log.append((clock.now, chunk.rows))
            end = role.work(chunk.rows, clock.now, rows + chunk.rows, -(-rows * row_ns // chunk.rows))
            sheet.reduce(end)
            for shift, log in logs:
                log.append((end + (near if shift else 0), -chunk.split[shift]))
            if not inside:
                self.posted[chunk.turn] = put = max(end, self.posted[chunk.turn]) + put_ns
                clock.at(put, self.post, chunk)
            if role.warps.next > clock.now:
                yield clock.until(role.warps.next)
        yield clock.until(max(end, *self.posted))

    def next_sheet(self) -> Course[Sheet]:
        """The first chunk, by its tokens, that is here and for which there is room; take it off its queue."""
        inside = self.place.inside
        while True:
            now, sooner, why = self.clock.now, None, "rows"
            for place, (_, turn) in enumerate(self.heads):
                queue = self.sheets[turn]
                sheet = queue[0]
                time: int | None = sheet.time
                if sheet.time <= now:
                    bay, rows = self.homes[turn].bays[turn], sheet.chunk.rows
                    if inside or bay.has(rows, now):
                        if not inside:
                            bay.free -= rows
                        del self.heads[place]
                        queue.popleft()
                        if queue and not queue[0].missing:
                            insort(self.heads, (queue[0].chunk.at, turn))
                        return sheet
                    time, why = bay.next(self.forwarder.bell), "room at receivers"
                sooner = earlier(sooner, time)
            yield from self.forwarder.until(sooner, why)

    def post(self, chunk: Chunk) -> None:
        """The chunk queues for the NIC; rows for the own node are there."""
        if chunk.turn:
            ns = ceil(chunk.rows * self.times.network)
            self.place.gpu.network.book(ns, self.leave, chunk, ns)
        else:
            self.arrive(chunk, self.clock.now)

    def leave(self, chunk: Chunk, ns: int) -> None:
        """The NIC begins with the chunk."""
        now, home = self.clock.now, self.homes[chunk.turn]
        home.arrive(chunk, home.place.gpu.network.receive(now, ns, now + ns) + self.times.far)

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
        reach = {chunk.turn: 0 for chunk in place.plan}
        done = now = end = 0
        for _ in place.plan:
            while not landing:
                yield role.bell
            arrival, chunk = landing.popleft()
            now = max(now, arrival)
            reach[chunk.turn] = chunk.at
            through = min(reach.values())
            if through > done:
                tokens, done = through - done, through
                if role.record is not None and now > end:
                    role.record.waited(role.name, end or self.clock.now, now, "rows")
                end = role.work(tokens, now, tokens + tokens * rows // place.tokens, task_ns)
                self.progress.add(done, end)
        for turn, partner in enumerate(self.partners):
            if partner.far_log is not None:
                partner.far_log += [(time, -freed) for time, freed in self.bay(turn).credits()]
        yield self.clock.until(end)


def earlier(one: int | None, other: int | None) -> int | None:
    """Of two moments, which may not be known."""
    return other if one is None else one if other is None else min(one, other)
