"""From a profiler trace to operations with times: what ran, how long, beside what, and what was not understood.

`analyse` joins (`joins`), names (`rules`) and measures. On DeepSeek's published profile it arrives by itself at the
figures that the calibration tables of the H800 are built from; on anyone's trace it lists each class of kernel with its
quantiles, with and without communication beside it, and the share of time that no rule knew.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from typing import NamedTuple

import numpy as np

from hwmodels.units import US_NS
from numerics.traces import joins
from numerics.traces.events import TraceError
from numerics.traces.intervals import Ints, common, covered, gaps, length, union
from numerics.traces.joins import Work
from numerics.traces.operations import Operation, deduce
from numerics.traces.rules import SMALL, Named, Rules
from numerics.traces.trace import Trace

LAUNCH_GAP_NS = 5 * US_NS
"""Longest idle time that is a boundary between two kernels and no wait: 899 of 912 gaps of the H800 profile are shorter
(99 % of them 1 to 4 us); the next ones are 6 us to 1.8 ms and have a cause of their own."""

SHOWN_CHARACTERS = 120
"""Of a kernel's name in a report; C++ templates can have thousands."""


class Overlap(NamedTuple):
    """What the device did, in nanoseconds. Communication is `data` (moves bytes) or `sync` (waits for peers).

    compute: some compute stream busy. exposed: communication while none is. idle: nothing at all. on_communication:
    compute kernels on communication streams. gaps: idle times of the compute streams, [length, start] [n, 2].
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

    def launch_gaps(self) -> Ints:
        """Lengths of the idle times that are boundaries between kernels."""
        return np.asarray(self.gaps[self.gaps[:, 0] <= LAUNCH_GAP_NS, 0], np.int64)

    def waits(self) -> Ints:
        """The other idle times, [length, start], longest first."""
        long = self.gaps[self.gaps[:, 0] > LAUNCH_GAP_NS]
        return np.asarray(long[np.argsort(-long[:, 0], kind="stable")], np.int64)


class Stream(NamedTuple):
    """A stream (or host thread). communication: most of its busy time is communication. gap_ns: mean launch gap."""

    number: int
    kernels: int
    busy_ns: int
    communication: bool
    launch_gaps: int
    gap_ns: float


class SmSplit(NamedTuple):
    """Multiprocessors: of the device, held by persistent compute kernels, and by communication kernels (0: unknown)."""

    device: int
    compute: int
    communication: int


@dataclass(frozen=True)
class Analysis:
    """Everything found in a trace. spans: (phase, repeat) -> wall time in ns; groups: group -> wall time a repeat.

    kernels: pieces of work in all; unjoined: those whose launch is not in the trace.
    world_size: ranks of the job (0: unsaid).
    """

    source: str
    device: str
    rules: Rules
    kernels: int
    unjoined: int
    operations: tuple[Operation, ...]
    overlap: Overlap
    streams: tuple[Stream, ...]
    sms: SmSplit
    spans: dict[tuple[str, int], int] = field(repr=False)
    groups: dict[str, tuple[int, ...]] = field(repr=False)
    world_size: int = 0

    def phase(self, name: str) -> tuple[Operation, ...]:
        """Operations of a phase by position, those without one last."""
        members = [op for op in self.operations if op.phase == name]
        return tuple(sorted(members, key=lambda op: (op.position < 0, op.position)))

    def phases(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(op.phase for op in self.operations if op.phase))


class Unknown(NamedTuple):
    """Something that was not understood: what it is, which kernel, how many, and its share of kernel time."""

    what: str
    name: str
    kernels: int
    share: float

    def __str__(self) -> str:
        return f"{self.what}: {shown(self.name)} ({self.kernels} times, {self.share:.2%} of kernel time)"


def analyse(trace: Trace, rules: Rules) -> Analysis:
    """Name and measure everything in `trace`; see `unknown` for what it made of it.

    Raises TraceError when nothing ran: a trace of annotations and launches alone.
    """
    work = joins.join(trace, rules)
    if not len(work.start_ns):
        raise TraceError(f"{trace.source}: annotations and launches only, no kernels and no operators between them")
    named, position = _label(work, _classes(work, rules), rules)
    data = _union(work, [n.kind == "comm_data" for n in named])
    operations = tuple(_operations(work, named, position, covered(data, work.start_ns, work.end_ns)))
    communication = _communication_streams(work, named)
    return Analysis(
        trace.source, trace.device_name(), rules, len(named), int((work.joined == 0).sum()), deduce(operations, rules),
        _overlap(work, named, data, communication), tuple(_streams(work, communication)),
        _sms(work, named, trace.sms()), _spans(work), _groups(work, named, rules),
        _world_size(trace),
    )  # fmt: skip


def _world_size(trace: Trace) -> int:
    """Ranks of the job as torch notes them, or 0."""
    said = trace.head.get("distributedInfo")
    size = said.get("world_size") if isinstance(said, dict) else None
    return size if isinstance(size, int) and size > 0 else 0


def shown(name: str) -> str:
    """A kernel's name for a terminal: one line, no control characters, cut where templates make it endless."""
    short = name if len(name) <= SHOWN_CHARACTERS else f"{name[:SHOWN_CHARACTERS]}..."
    return "".join(c if c.isprintable() else "?" for c in short)


def unknown(analysis: Analysis) -> tuple[Unknown, ...]:
    """What was not understood, the largest share of time first; empty when everything was."""
    total = sum(sum(op.us) for op in analysis.operations) or 1.0
    groups: dict[tuple[str, str], list[float]] = defaultdict(lambda: [0, 0.0])
    for op in analysis.operations:
        expected = op.phase in analysis.rules.sequences and op.position < 0 and not _loose(op, analysis.rules)
        if not op.known or expected:
            what = f"not in the sequence of {op.phase}" if op.known else "no rule for"
            entry = groups[what, op.kernel]
            entry[0] += len(op.us)
            entry[1] += sum(op.us)
    out = [Unknown(what, name, int(n), us / total) for (what, name), (n, us) in groups.items()]
    if analysis.unjoined:
        out.append(Unknown("launch not in the trace, or not the only one with its correlation id",
                           "no phase or dimensions for these", analysis.unjoined, 0.0))  # fmt: skip
    return tuple(sorted(out, key=lambda u: -u.share))


def unknown_share(analysis: Analysis) -> float:
    """Share of kernel time that no rule knew."""
    return sum(u.share for u in unknown(analysis) if u.what == "no rule for")


def _loose(op: Operation, rules: Rules) -> bool:
    return rules.classify(op.kernel, op.phase, op.grids[0]).loose


# --- names ------------------------------------------------------------------------------------------------------------


def _classes(work: Work, rules: Rules) -> list[Named]:
    """What each kernel is by its name; remembered, as a trace has few names and many kernels."""
    with_grid = any(rule.grid for rule in rules.rules)
    seen: dict[tuple[int, int, tuple[int, ...]], Named] = {}
    out = []
    for name, phase, grid in zip(work.name.tolist(), work.phase.tolist(), work.grid.tolist(), strict=True):
        key = (name, phase, tuple(grid) if with_grid else ())
        if key not in seen:
            annotation = work.phases[phase] if phase >= 0 else ""
            seen[key] = rules.classify(work.texts[name], annotation, tuple(grid))
        out.append(seen[key])
    return out


def _label(work: Work, named: list[Named], rules: Rules) -> tuple[list[Named], list[int]]:
    """Names and positions by the sequences of the rules: the place in a phase says what a kernel is for."""
    named, position = list(named), [-1] * len(named)
    members: dict[tuple[int, int], list[int]] = defaultdict(list)
    for i, (phase, repeat) in enumerate(zip(work.phase.tolist(), work.repeat.tolist(), strict=True)):
        if phase >= 0 and work.phases[phase] in rules.sequences and not named[i].loose:
            members[phase, repeat].append(i)
    for (phase, _), indices in members.items():
        template = rules.sequences[work.phases[phase]]
        for i, place in zip(indices, _places([named[i].kind for i in indices], template), strict=True):
            if place >= 0:
                kind, op = template[place]
                named[i], position[i] = named[i]._replace(kind=kind, op=op), place
    return named, position


def _places(kinds: list[str], template: tuple[tuple[str, str], ...]) -> list[int]:
    """Place of each kernel in the template, or -1; kernels that fit no place are left out of the alignment."""
    actual = ["small" if kind in SMALL else kind for kind in kinds]
    expected = ["small" if kind in SMALL else kind for kind, _ in template]
    if actual == expected:
        return list(range(len(actual)))
    out = [-1] * len(actual)
    for block in SequenceMatcher(None, actual, expected, autojunk=False).get_matching_blocks():
        out[block.a : block.a + block.size] = range(block.b, block.b + block.size)
    return out


def _operations(work: Work, named: list[Named], position: list[int], data_ns: Ints) -> Iterable[Operation]:
    """Pieces of work grouped into operations: by place where they have one, else by kernel, grid and dimensions."""
    members: dict[tuple[object, ...], list[int]] = defaultdict(list)
    grids_seen: dict[tuple[int, ...], tuple[int, ...]] = {}  # few, and repeated in every step: each is kept once
    for i, (phase, place) in enumerate(zip(work.phase.tolist(), position, strict=True)):
        kernel = (int(work.name[i]), int(work.dims[i]), int(work.types[i]), tuple(work.grid[i].tolist()))
        loose = (named[i].op,) if named[i].loose else kernel
        members[(phase, place) if place >= 0 else (phase, loose)].append(i)
    duration = work.end_ns - work.start_ns
    share = np.divide(data_ns, duration, out=np.zeros(len(duration)), where=duration > 0)
    for indices in members.values():
        i = indices[0]
        dims, types = (work.texts[column[i]] if column[i] >= 0 else "" for column in (work.dims, work.types))
        kernel_name = work.texts[work.name[i]]
        grids = tuple(grids_seen.setdefault(g, g) for g in map(tuple, work.grid[indices].tolist()))
        yield Operation(
            work.phase_name(i), position[i], named[i].op or kernel_name, named[i].kind, kernel_name, named[i].known,
            tuple(int(work.repeat[j]) for j in indices), tuple(float(duration[j]) / US_NS for j in indices),
            tuple(float(share[j]) for j in indices), tuple(int(work.stream[j]) for j in indices), grids,
            tuple(int(work.shared_bytes[j]) for j in indices), dims, types,
        )  # fmt: skip


# --- measures ---------------------------------------------------------------------------------------------------------


def _union(work: Work, chosen: Iterable[bool]) -> Ints:
    mask = np.fromiter(chosen, bool, len(work.start_ns))
    return union(work.start_ns[mask], work.end_ns[mask])


def is_communication(kind: str) -> bool:
    return kind.startswith("comm_")


def _communication_streams(work: Work, named: list[Named]) -> set[int]:
    """Streams that spend most of their busy time on communication."""
    busy: Counter[int] = Counter()
    for stream, start, end, n in zip(work.stream.tolist(), work.start_ns, work.end_ns, named, strict=True):
        busy[stream] += int(end - start) * (1 if is_communication(n.kind) else -1)
    return {stream for stream, balance in busy.items() if balance > 0}


def _overlap(work: Work, named: list[Named], data: Ints, communication: set[int]) -> Overlap:
    beside = [s in communication for s in work.stream.tolist()]
    comm = [is_communication(n.kind) for n in named]
    compute = _union(work, (not c and not b for c, b in zip(comm, beside, strict=True)))
    sync = _union(work, (n.kind == "comm_sync" for n in named))
    gemm = _union(work, (n.kind.startswith("gemm") for n in named))
    attention = _union(work, (n.kind.startswith("attn") for n in named))
    both = np.concatenate([compute, data])
    everything = _union(work, (True for _ in named))
    begin, end = int(work.start_ns.min()), int(work.end_ns.max())
    return Overlap(
        end - begin, length(compute), length(data), length(sync), length(data) - common(data, compute),
        length(sync) - common(sync, union(both[:, 0], both[:, 1])), end - begin - length(everything),
        length(_union(work, (b and not c for c, b in zip(comm, beside, strict=True)))), common(data, gemm),
        common(data, attention), _from(gaps(compute, begin), begin),
    )  # fmt: skip


def _from(idle: Ints, begin: int) -> Ints:
    return np.asarray(idle - np.array([0, begin]), np.int64)


def _streams(work: Work, communication: set[int]) -> Iterable[Stream]:
    for stream in sorted(set(work.stream.tolist())):
        busy = _union(work, work.stream == stream)
        between = gaps(busy, int(busy[0, 0])) if len(busy) else np.empty((0, 2), np.int64)
        short = between[between[:, 0] <= LAUNCH_GAP_NS, 0]
        mean = float(short.mean()) if len(short) else 0.0
        yield Stream(
            stream, int((work.stream == stream).sum()), length(busy), stream in communication, len(short), mean
        )


def _sms(work: Work, named: list[Named], device: int) -> SmSplit:
    """The commonest number of blocks, weighed by time, of products that fit on the device at once, and of exchanges."""
    blocks = work.grid.prod(1)
    time = {"gemm": Counter[int](), "comm_data": Counter[int]()}
    for count, start, end, n in zip(blocks.tolist(), work.start_ns, work.end_ns, named, strict=True):
        kind = "gemm" if n.kind.startswith("gemm") else n.kind
        if kind in time and 0 < count <= device:
            time[kind][count] += int(end - start)
    return SmSplit(device, *(t.most_common(1)[0][0] if t else 0 for t in time.values()))


def _spans(work: Work) -> dict[tuple[str, int], int]:
    bounds: dict[tuple[str, int], tuple[int, int]] = {}
    for i in np.flatnonzero(work.phase >= 0):
        key = (work.phase_name(int(i)), int(work.repeat[i]))
        low, high = bounds.get(key, (int(work.start_ns[i]), int(work.end_ns[i])))
        bounds[key] = (min(low, int(work.start_ns[i])), max(high, int(work.end_ns[i])))
    return {key: high - low for key, (low, high) in bounds.items()}


def _groups(work: Work, named: list[Named], rules: Rules) -> dict[str, tuple[int, ...]]:
    """Wall time, a repeat, of operations that share the device on several streams."""
    bounds: dict[tuple[str, int], list[int]] = defaultdict(list)
    for i, n in enumerate(named):
        match = rules.groups.search(n.op) if rules.groups else None
        if match:
            bounds[match[1], int(work.repeat[i])] += [int(work.start_ns[i]), int(work.end_ns[i])]
    out: dict[str, list[int]] = defaultdict(list)
    for (name, _), times in sorted(bounds.items()):
        out[name].append(max(times) - min(times))
    return {name: tuple(spans) for name, spans in out.items()}
