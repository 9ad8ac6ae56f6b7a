"""From a profiler trace to operations with times: what ran, how long, beside what.

`analyse` joins (`joins`), names (`rules`) and measures (`measures`). On DeepSeek's published profile it arrives by
itself at the figures that the calibration tables of the H800 are built from; on anyone's trace it lists each class of
kernel with its quantiles, with and without communication beside it. What was not understood is told by `unknowns`.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from difflib import SequenceMatcher

import numpy as np

from hwmodels.units import US_NS
from numerics.traces import joins, measures
from numerics.traces.intervals import Ints, covered
from numerics.traces.joins import Work
from numerics.traces.measures import Device, SmSplit
from numerics.traces.operations import Operation, deduce
from numerics.traces.rules import SMALL, Named, Rules
from numerics.traces.trace import LeftOut, Trace
from numerics.traces.window import TraceError


@dataclass(frozen=True)
class Analysis:
    """Everything found in a trace. groups: group -> wall time a repeat, ns.

    kernels: pieces of work in all; unjoined: those whose launch is not in the trace; launches: calls that start
    kernels, lost: those of which nothing is in the trace; left_out: events of categories that are not read.
    world_size: ranks of the job (0: unsaid).
    """

    source: str
    devices: tuple[Device, ...]
    rules: Rules
    kernels: int
    unjoined: int
    launches: int
    lost: int
    left_out: tuple[LeftOut, ...]
    operations: tuple[Operation, ...]
    groups: dict[str, tuple[int, ...]] = field(repr=False)
    world_size: int = 0

    @property
    def device(self) -> str:
        """Name of the kind of device that all of the trace ran on; "" when it is unsaid or there are several kinds."""
        names = {device.name for device in self.devices}
        return names.pop() if len(names) == 1 else ""

    @property
    def sms(self) -> SmSplit:
        """Multiprocessors of the first device."""
        return self.devices[0].sms

    def phase(self, name: str) -> tuple[Operation, ...]:
        """Operations of a phase by position, those without one last."""
        members = [op for op in self.operations if op.phase == name]
        return tuple(sorted(members, key=lambda op: (op.position < 0, op.position)))

    def phases(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(op.phase for op in self.operations if op.phase))


def analyse(trace: Trace, rules: Rules) -> Analysis:
    """Name and measure everything in `trace`; see `unknown` for what it made of it.

    Raises TraceError when nothing ran: a trace of annotations and launches alone.
    """
    work = joins.join(trace, rules)
    if not len(work.start_ns):
        raise TraceError(f"{trace.source}: annotations and launches only, no kernels and no operators between them")
    named, position = _label(work, _classes(work, rules), rules)
    communication = measures.communication_streams(work, named)
    operations = tuple(_operations(work, named, position, _beside_data(work, named)))
    return Analysis(
        trace.source, measures.devices(trace, work, named, communication), rules, len(named),
        int((work.joined == 0).sum()), trace.launches, trace.lost, trace.left_out, deduce(operations, rules),
        _groups(work, named, rules), _world_size(trace),
    )  # fmt: skip


def _beside_data(work: Work, named: list[Named]) -> Ints:
    """Of each piece of work the time in ns during which a kernel of its device moves data between ranks."""
    moves = measures.kinds(named) == "comm_data"
    out = np.zeros(len(named), np.int64)
    for device in np.unique(work.device):
        mine = work.device == device
        out[mine] = covered(measures.time_of(work, moves & mine), work.start_ns[mine], work.end_ns[mine])
    return out


def _world_size(trace: Trace) -> int:
    """Ranks of the job as torch notes them, or 0."""
    said = trace.head.get("distributedInfo")
    size = said.get("world_size") if isinstance(said, dict) else None
    return size if isinstance(size, int) and size > 0 else 0


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
            seen[key] = rules.classify(work.texts[name], annotation, tuple(grid), work.host)
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
        said = (work.name, work.dims, work.types, work.strides)
        kernel = (*(int(column[i]) for column in said), tuple(work.grid[i].tolist()))
        loose = (named[i].op,) if named[i].loose else kernel
        members[(phase, place) if place >= 0 else (phase, loose)].append(i)
    duration = work.end_ns - work.start_ns
    share = np.divide(data_ns, duration, out=np.zeros(len(duration)), where=duration > 0)
    for indices in members.values():
        i = indices[0]
        said = (work.operator, work.dims, work.types, work.strides, work.given, work.node)
        texts = (work.texts[column[i]] if column[i] >= 0 else "" for column in said)
        kernel_name = work.texts[work.name[i]]
        grids = tuple(grids_seen.setdefault(g, g) for g in map(tuple, work.grid[indices].tolist()))
        yield Operation(
            work.phase_name(i), position[i], named[i].op or kernel_name, named[i].kind, kernel_name, named[i].known,
            named[i].general, named[i].loose,
            tuple(int(work.repeat[j]) for j in indices), tuple(float(duration[j]) / US_NS for j in indices),
            tuple(float(share[j]) for j in indices), grids,
            tuple(int(work.shared_bytes[j]) for j in indices), tuple(bool(work.joined[j]) for j in indices),
            *texts,
        )  # fmt: skip


# --- groups -----------------------------------------------------------------------------------------------


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
