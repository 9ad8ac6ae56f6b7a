"""A group of ranks and its exchanges, one after another: each begins with a barrier, once the last rank has come."""

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial

from hwmodels.units import GIGA
from sim.communication.exchange.events.bells import Latch, Life
from sim.communication.exchange.events.cargo import Cargo, chunks, over_channels
from sim.communication.exchange.events.channel import Gpu, Place, Record
from sim.communication.exchange.events.combine import Combine
from sim.communication.exchange.events.dispatch import Dispatch
from sim.communication.exchange.events.servers import Memory, Port
from sim.communication.exchange.events.setting import Setting, Times, crew, sizes, times
from sim.engine.clock import Clock

Channel = Dispatch | Combine


class DeadlockError(RuntimeError):
    """Nothing can happen any more, and roles still wait: a bug of the model."""


@dataclass(frozen=True)
class Timing:
    """One exchange of a group, ns. came: when its last rank came. barrier: how long it took from then on. ends: of each
    rank [ranks], from the run's start. memory: bytes through the memory of the rank with most [0 where it cannot bind].
    """

    came: int
    barrier: int
    ends: tuple[int, ...]
    memory: float

    @property
    def start(self) -> int:
        """When channels begin."""
        return self.came + self.barrier

    @property
    def ns(self) -> int:
        """Of the kernel: from the barrier's end until the last rank is through."""
        return max(self.ends) - self.start


def run(
    cargos: Sequence[Cargo], setting: Setting, arrivals: Sequence[Sequence[int]] = (), record: Record | None = None
) -> list[Timing]:
    """All of one group's exchanges, in order. arrivals [exchanges][ranks]: ns before which a rank does not come to one;
    it comes as soon as it is through with the one before. record: of the first channel of the first rank, in the first.

    Raises DeadlockError.
    """
    collects = gc.isenabled()
    gc.disable()  # what a group makes lives until its end: looking for circles in it costs a third of the time
    try:
        return _Group(cargos, setting, arrivals, record).timings()
    finally:
        if collects:
            gc.enable()


def barrier_ns(cargo: Cargo, spent: Times) -> int:
    """Rounds in which every node hears from twice as many, then one inside the node."""
    rounds = 0
    while 1 << rounds < cargo.nodes:
        rounds += 1
    return rounds * spent.far + (spent.near if cargo.gpus > 1 else 0)


class _Group:
    """Ranks, and channels of each exchange. Where one rank stands for all, it is its own partner everywhere."""

    def __init__(
        self, cargos: Sequence[Cargo], setting: Setting, arrivals: Sequence[Sequence[int]], record: Record | None
    ) -> None:
        self.clock, self.cargos, self.setting, self.record = Clock(), cargos, setting, record
        first = cargos[0]
        self.ranks = len(first.to_nodes)
        alike = self.ranks < first.nodes * first.gpus
        self.nodes, self.gpus = (1, 1) if alike else (first.nodes, first.gpus)
        rate, windows = setting.memory / GIGA, setting.beside
        self.devices = [
            Gpu(Port(self.clock), Port(self.clock), Memory(rate, windows) if windows else None)
            for _ in range(self.ranks)
        ]
        self.arrivals = [*arrivals, *([0] * self.ranks for _ in cargos[len(arrivals) :])]
        self.gates = [Latch(self.clock, self.ranks) for _ in cargos]
        self.ends = [[0] * self.ranks for _ in cargos]
        self.came = [0] * len(cargos)
        self.channels: Callable[[int], list[list[Channel]]] = cache(self._channels)

    def timings(self) -> list[Timing]:
        lives = [self.clock.routine(self.life(rank)) for rank in range(self.ranks)]
        self.clock.work_off()
        if stuck := sum(not life.triggered for life in lives):
            raise DeadlockError(f"{stuck} of {self.ranks} ranks wait for ever in an exchange")
        memory = max(gpu.memory.used if gpu.memory else 0.0 for gpu in self.devices)
        barriers = [barrier_ns(cargo, times(cargo, self.setting)) for cargo in self.cargos]
        ends = (tuple(each) for each in self.ends)
        return [Timing(*each, memory) for each in zip(self.came, barriers, ends, strict=True)]

    def life(self, rank: int) -> Life:
        """Of a rank: exchanges in order."""
        clock = self.clock
        for number, cargo in enumerate(self.cargos):
            yield clock.until(self.arrivals[number][rank])
            self.came[number] = clock.now
            self.gates[number].come()
            yield self.gates[number].open
            yield clock.until(clock.now + barrier_ns(cargo, times(cargo, self.setting)))
            roles = [clock.routine(life) for channel in self.channels(number)[rank] for life in channel.lives()]
            yield from roles
            self.ends[number][rank] = clock.now

    # --- who stands where ---------------------------------------------------------------------------------------------

    def partner(self, rank: int, turn: int) -> int:
        """The rank `turn` nodes on, with the same index."""
        node, index = divmod(rank, self.gpus)
        return (node + turn) % self.nodes * self.gpus + index

    def mate(self, rank: int, shift: int) -> int:
        """The rank of the same node, `shift` on."""
        node, index = divmod(rank, self.gpus)
        return node * self.gpus + (index + shift) % self.gpus

    def received(self, cargo: Cargo) -> list[float]:
        """Rows that come to each rank, as a dispatch moves them [ranks]."""
        total = [0.0] * self.ranks
        for rank in range(self.ranks):
            for turn in range(cargo.nodes):
                there = self.partner(rank, turn)
                for shift, rows in enumerate(cargo.to_ranks[rank, turn].tolist()):
                    total[self.mate(there, shift)] += rows
        return total

    def _channels(self, number: int) -> list[list[Channel]]:
        """Of every rank, for the exchange of that number [ranks][channels]."""
        cargo, record = self.cargos[number], self.record if number == 0 else None
        received = self.received(cargo)
        made = [self._of_rank(cargo, rank, received[rank], record) for rank in range(self.ranks)]
        for rank, row in enumerate(made):
            for place, channel in enumerate(row):
                channel.partners = [made[self.partner(rank, turn)][place] for turn in range(cargo.nodes)]  # type: ignore[assignment]
                channel.mates = [made[self.mate(rank, shift)][place] for shift in range(cargo.gpus)]  # type: ignore[assignment]
        for row in made:
            for channel in row:
                channel.announce()
        return made

    def _of_rank(self, cargo: Cargo, rank: int, received: float, record: Record | None) -> list[Channel]:
        setting, room = self.setting, sizes(cargo, self.setting)
        team = crew(cargo, rank, received, setting)
        kind = partial(Combine if cargo.combine else Dispatch)
        count = max(1, min(setting.channels, cargo.tokens))
        row: list[Channel] = []
        for number, tokens in enumerate(over_channels(cargo.tokens, count)):
            plan = chunks(cargo, rank, tokens, number, full_rows(cargo, room.send))
            seen = record if (rank, number) == (0, 0) else None
            place = Place(
                self.clock, setting, cargo, times(cargo, setting), room, team, self.devices[rank], rank % self.gpus,
                tokens, plan, seen,
            )  # fmt: skip
            row.append(kind(place))
        return row


def full_rows(cargo: Cargo, send: int) -> int:
    """Rows of a full chunk for a node. Inside one node `send` are for each GPU, and a row may go to several."""
    if cargo.nodes > 1:
        return send
    copies = float(cargo.to_ranks.sum()) / max(1.0, float(cargo.to_nodes.sum()))
    return max(1, round(send * cargo.gpus / copies))
