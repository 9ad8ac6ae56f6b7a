"""What channels of both directions have in common: where they stand, and how a role waits."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from sim.communication.exchange.events.bells import Bell, Life
from sim.communication.exchange.events.cargo import Cargo, Chunk
from sim.communication.exchange.events.servers import Buffer, Log, Memory, Port, Warps, beside_at
from sim.communication.exchange.events.setting import Crew, Setting, Team, Times
from sim.communication.exchange.roles import Buffers
from sim.engine.clock import Clock

NETWORK, NVLINK = "network", "NVLink"
"""Links that buffers stand behind."""


class Gpu(NamedTuple):
    """What the channels of a rank share, through one exchange after another. memory: None where it never binds."""

    network: Port
    nvlink: Port
    memory: Memory | None


class Record(Protocol):
    """Where a channel that is looked at writes down what it does."""

    def worked(self, role: str, start: int, end: int) -> None: ...

    def waited(self, role: str, start: int, end: int, why: str) -> None: ...

    def log(self, link: str) -> Log:
        """Of the buffers behind a link."""


class Place(NamedTuple):
    """Of a channel: what its group exchanges, how, and who its rank is there. number: of its GPU in the node. tokens:
    of the channel. plan: its chunks, as a dispatch moves them. record: None where nobody looks."""

    clock: Clock
    setting: Setting
    cargo: Cargo
    times: Times
    sizes: Buffers
    crew: Crew
    gpu: Gpu
    number: int
    tokens: int
    plan: Sequence[Chunk]
    record: Record | None

    @property
    def inside(self) -> bool:
        """Whether the group is one node."""
        return self.cargo.nodes == 1

    def log(self, link: str) -> Log | None:
        """Of the buffers behind a link."""
        return None if self.record is None else self.record.log(link)

    def buffers(self, link: str, rows: int, count: int, bell: Bell) -> list[Buffer]:
        """`count` buffers of so many rows behind a link, for the role with that bell; the first is on its own side."""
        log = self.log(link)
        back = self.times.far if link == NETWORK else self.times.near
        return [Buffer(rows, bell, back if number else 0, log) for number in range(count)]


class Role:
    """A role of a channel: a process with a bell that wakes it, and its warps. rows: that a task reads and writes."""

    __slots__ = ("bell", "clock", "memory", "name", "record", "row_bytes", "warps")

    def __init__(self, place: Place, name: str, team: Team) -> None:
        self.clock, self.name, self.record = place.clock, name, place.record
        self.memory, self.row_bytes = place.gpu.memory, place.cargo.row_bytes
        windows = place.setting.beside

        def slow(time: int, ns: int) -> int:
            window = beside_at(windows, time)
            return -int(-ns // (1 - window.sm)) if window else ns

        self.bell = Bell(self.clock)
        self.warps = Warps(team.warps, team.row, slow if windows else None)

    def until(self, time: int | None, why: str) -> Life:
        """Sleep until then, or until the bell rings where nobody knows when. why: what for, for the record."""
        start = self.clock.now
        yield self.bell if time is None else self.clock.until(time)
        if self.record is not None and why and self.clock.now > start:
            self.record.waited(self.name, start, self.clock.now, why)

    def room(self, buffers: Sequence[Buffer], rows: Sequence[int], why: str) -> Life:
        """Wait until all of the buffers have room for their rows, and take it."""
        while (full := first_full(buffers, rows, self.clock.now)) is not None:
            yield from self.until(full.next, why)
        take(buffers, rows, self.clock.now)

    def work(self, tasks: int, at: int, rows: int, task_ns: int = 0) -> int:
        """Do `tasks` tasks that may begin `at`, which read and write `rows` rows; when all have ended."""
        begin = self.warps.next
        end = self.warps.take(tasks, at, task_ns)
        if self.memory is not None:
            end = max(end, self.memory.take(at, rows * self.row_bytes))
        if self.record is not None:
            self.record.worked(self.name, max(at, begin), end)
        return end


def first_full(buffers: Sequence[Buffer], rows: Sequence[int], now: int) -> Buffer | None:
    """One of the buffers without room for its rows; None where all have it."""
    for buffer, count in zip(buffers, rows, strict=True):
        if buffer.free < count and not buffer.has(count, now):  # most have it without credits that have come since
            return buffer
    return None


def take(buffers: Sequence[Buffer], rows: Sequence[int], now: int) -> None:
    """Take the room."""
    for buffer, count in zip(buffers, rows, strict=True):
        buffer.free -= count
        if buffer.log is not None:
            buffer.log.append((now, count))
