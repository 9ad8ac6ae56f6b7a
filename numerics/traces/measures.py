"""What the devices of a trace did: busy, beside each other, idle. Each device is measured alone, over the same time.

The time is that from the first start to the last end on any device. On the host all threads are one device, "CPU".
"""

from collections import Counter
from collections.abc import Iterable
from math import prod
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from hwmodels.units import US_NS
from numerics.traces.intervals import Ints, common, gaps, length, union
from numerics.traces.joins import Work
from numerics.traces.rules import Named
from numerics.traces.trace import Trace

Mask = npt.NDArray[np.bool_]
Names = npt.NDArray[np.str_]
LAUNCH_GAP_NS = 5 * US_NS
"""Longest idle time that is a boundary between two kernels and no wait: 899 of 912 gaps of the H800 profile are shorter
(99 % of them 1 to 4 us); the next ones are 6 us to 1.8 ms and have a cause of their own."""


class Overlap(NamedTuple):
    """What a device did, in nanoseconds. Communication is `data` (moves bytes) or `sync` (waits for peers).

    compute: some compute stream busy. exposed: communication while none is. idle: nothing at all. on_communication:
    compute kernels on communication streams. gaps: idle times of the compute streams, [length, start] [n, 2].
    idle_gaps: lengths of the times in which nothing at all runs, [n]; together they are `idle`.
    """

    total: int
    compute: int
    data: int
    sync: int
    data_exposed: int
    sync_exposed: int
    idle: int
    on_communication: int
    data_beside_gemm: int
    data_beside_attention: int
    gaps: Ints
    idle_gaps: Ints

    def launch_gaps(self) -> Ints:
        """Lengths of the idle times of the compute streams that are boundaries between kernels."""
        return np.asarray(self.gaps[self.gaps[:, 0] <= LAUNCH_GAP_NS, 0], np.int64)

    def waits(self) -> Ints:
        """The other idle times of the compute streams, [length, start], longest first."""
        long = self.gaps[self.gaps[:, 0] > LAUNCH_GAP_NS]
        return np.asarray(long[np.argsort(-long[:, 0], kind="stable")], np.int64)

    def on_communication_alone(self) -> int:
        """Time in which compute kernels on communication streams run and nothing else does."""
        return self.total - self.compute - self.data_exposed - self.sync_exposed - self.idle


class SmSplit(NamedTuple):
    """Multiprocessors: of the device, held by persistent compute kernels, and by communication kernels (0: unknown)."""

    device: int
    compute: int
    communication: int


class Device(NamedTuple):
    """A device of a trace. label: its number, or "host"; name: of its kind, "" when unsaid; kernels: pieces of work."""

    label: str
    name: str
    kernels: int
    sms: SmSplit
    overlap: Overlap


def devices(trace: Trace, work: Work, named: list[Named], communication: set[int]) -> tuple[Device, ...]:
    """Every device of the trace, in the order in which they come up in it."""
    labels = ("host",) if work.host else trace.labels()
    out = []
    for index, label in enumerate(labels):
        mine = work.device == index
        overlap = _overlap(work, named, mine, communication)
        sms = _sms(work, named, mine, 0 if work.host else trace.sms(index))
        out.append(Device(label, trace.device_name(index), int(mine.sum()), sms, overlap))
    return tuple(out)


def kinds(named: Iterable[Named]) -> Names:
    """Class of each piece of work."""
    return np.array([n.kind for n in named], dtype=np.str_)


def time_of(work: Work, chosen: Mask) -> Ints:
    """Times in which the chosen pieces of work run, as disjoint intervals [n, 2]."""
    return union(work.start_ns[chosen], work.end_ns[chosen])


def communication_streams(work: Work, named: list[Named]) -> set[int]:
    """Streams that spend most of their busy time on communication."""
    busy: Counter[int] = Counter()
    for stream, start, end, n in zip(work.stream.tolist(), work.start_ns, work.end_ns, named, strict=True):
        busy[stream] += int(end - start) * (1 if n.kind.startswith("comm_") else -1)
    return {stream for stream, balance in busy.items() if balance > 0}


def _overlap(work: Work, named: list[Named], mine: Mask, communication: set[int]) -> Overlap:
    kind = kinds(named)
    beside = np.isin(work.stream, list(communication))
    moves, waits = kind == "comm_data", kind == "comm_sync"
    works = mine & ~moves & ~waits
    compute, data, sync = (time_of(work, chosen) for chosen in (works & ~beside, mine & moves, mine & waits))
    gemm, attention = (time_of(work, mine & np.char.startswith(kind, head)) for head in ("gemm", "attn"))
    both = np.concatenate([compute, data])
    begin, end = int(work.start_ns.min()), int(work.end_ns.max())
    idle = _idle(time_of(work, mine), begin, end)
    return Overlap(
        end - begin, length(compute), length(data), length(sync), length(data) - common(data, compute),
        length(sync) - common(sync, union(both[:, 0], both[:, 1])), int(idle.sum()),
        length(time_of(work, works & beside)), common(data, gemm), common(data, attention),
        gaps(compute, begin) - np.array([0, begin]), idle,
    )  # fmt: skip


def _idle(busy: Ints, begin: int, end: int) -> Ints:
    """Lengths of the times between `begin` and `end` that are in none of the disjoint intervals `busy`."""
    last = int(busy[-1, 1]) if len(busy) else begin
    between = gaps(busy, begin)[:, 0]
    return np.concatenate([between, [end - last]]) if end > last else between


def _sms(work: Work, named: list[Named], mine: Mask, device: int) -> SmSplit:
    """The commonest number of blocks, weighed by time, of products that fit on the device at once, and of exchanges."""
    time = {"gemm": Counter[int](), "comm_data": Counter[int]()}
    for i in np.flatnonzero(mine):
        kind = "gemm" if named[i].kind.startswith("gemm") else named[i].kind
        blocks = prod(work.grid[i].tolist())
        if kind in time and 0 < blocks <= device:
            time[kind][blocks] += int(work.end_ns[i] - work.start_ns[i])
    return SmSplit(device, *(t.most_common(1)[0][0] if t else 0 for t in time.values()))
