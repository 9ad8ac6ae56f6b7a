"""A pipeline schedule as data: what the rank at each position of the pipeline computes, in order.

A program holds compute only; sends, all-to-alls, gradient traffic and memory notes are added by lowering. It prints
as text, parses back, and is checked before it is run; text and messages call a position a rank, as papers on
schedules do. Schedules live in `sim/schedules`, one file each; the file's name is the schedule's name.

A *chunk* is one micro-batch on one stage. Its *passes* are F (forward), B (gradient of the input) and W (gradient of
the weights). F of a chunk needs F of the stage before; B needs its own F and B of the stage after; W needs its own B.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache, cached_property
from importlib import import_module
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple, Protocol, cast

from hwmodels.refused import Refused

KINDS = ("F", "B", "W", "BW", "F+B", "F+BW")
"""What a step can be: a forward, an input gradient, a weight gradient, a full backward, an overlapped pair."""

Pass = tuple[str, int, int]
"""("F", "B" or "W", stage, micro-batch)."""

Place = tuple[int, int]
"""(position, index into its steps)."""

Posts = Mapping[tuple[int, int, str], int]
"""(position, index into its steps, "F" or "B"), activations or gradients that a step takes in or gives out -> the step
before which they are asked for or handed on."""

SOME = 4
"""Positions of a pipeline that shows what a schedule does; twice as many micro-batches run under each."""


class Step(NamedTuple):
    """One step at one position. `stage` and `micro_batch` are of the forward half of a pair, or of the only half."""

    kind: str
    stage: int
    micro_batch: int
    stage_b: int = -1
    micro_batch_b: int = -1

    def passes(self) -> tuple[Pass, ...]:
        """What the step computes, e.g. F+BW -> F of one chunk, B and W of the other."""
        kind, stage, micro_batch, stage_b, micro_batch_b = self
        if len(kind) == 1:
            return ((kind, stage, micro_batch),)
        head, _, tail = kind.partition("+")
        first = [(letter, stage, micro_batch) for letter in head]
        return (*first, *[(letter, stage_b, micro_batch_b) for letter in tail]) if tail else tuple(first)

    def __str__(self) -> str:
        head, plus, tail = self.kind.partition("+")
        second = f"+{tail}{self.stage_b}.{self.micro_batch_b}" if plus else ""
        return f"{head}{self.stage}.{self.micro_batch}{second}"


@dataclass(frozen=True)
class Shape:
    """Size of a schedule.

    pipeline: positions.  micro_batches: per pipeline.  chunks: stages per position, where the schedule lets a scenario
    choose (`chunked`).  paired: a forward and the backward that follows it are one overlapped step, where the schedule
    lets a scenario choose (`pairing`).  waiting: weight gradients that a position puts off at most, where the schedule
    does so (`postponing`).  group: micro-batches that go through a stage of a position before its next one has them,
    where the schedule lets a scenario choose (`grouped`).  None: as many as it would."""

    pipeline: int
    micro_batches: int
    chunks: int = 2
    paired: bool = False
    waiting: int | None = None
    group: int | None = None

    def __post_init__(self) -> None:
        for name in ("pipeline", "micro_batches", "chunks", "group"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise Refused(f"{name} must be at least 1; got {value}")


@dataclass(frozen=True)
class Program:
    """A schedule of a given size.

    steps: by position, in order.  weight_copies: positions that hold a copy of each stage (2 under DualPipe).
    early, late: inputs asked for before an earlier step than the one that needs them, and outputs handed on before a
    later one than the next, by positions that wait for their messages between steps (`sim.layout.batches`)."""

    schedule: str
    positions: int
    stages: int
    micro_batches: int
    steps: tuple[tuple[Step, ...], ...]
    weight_copies: int = 1
    early: Posts = field(default_factory=dict, compare=False)
    late: Posts = field(default_factory=dict, compare=False)

    @cached_property
    def passes(self) -> tuple[tuple[tuple[Pass, ...], ...], ...]:
        """What each step computes, per rank, in order."""
        return tuple(tuple([step.passes() for step in steps]) for steps in self.steps)

    @cached_property
    def places(self) -> Mapping[Pass, Place]:
        """Place of each pass, the last where one runs twice."""
        return {done: (position, index) for position, steps in enumerate(self.passes)
                for index, passes in enumerate(steps) for done in passes}  # fmt: skip


class Misfit(NamedTuple):
    """Why a schedule cannot run a shape: a field of Shape, what it may be in words, and the nearest such number."""

    field: str
    legal: str
    nearest: int


class ScheduleFile(Protocol):
    """A file of sim/schedules; one that cannot run every shape also has `misfits(shape) -> Iterator[Misfit]`."""

    def stages(self, shape: Shape) -> int:
        """How many stages the pipeline has."""

    def build(self, shape: Shape) -> Program:
        """Steps of each position, of a shape without misfits."""


def names() -> tuple[str, ...]:
    """The schedules there are: the files in `sim/schedules` and in what was added to its path."""
    from sim import schedules

    return _names(tuple([(folder, Path(folder).stat().st_mtime_ns) for folder in schedules.__path__]))


@cache
def _names(folders: tuple[tuple[str, int], ...]) -> tuple[str, ...]:
    files = (file for folder, _ in folders for file in Path(folder).glob("*.py"))
    return tuple(sorted({file.stem for file in files} - {"__init__", "program"}))


def _schedule(name: str) -> ScheduleFile:
    """The schedule of that name; Refused if there is none."""
    if name not in names():
        close = get_close_matches(name, names(), 1)
        hint = f"did you mean '{close[0]}'?" if close else f"legal: {', '.join(names())}"
        raise Refused(f"unknown schedule '{name}', {hint}")
    return cast(ScheduleFile, import_module(f"sim.schedules.{name}"))


def build(name: str, shape: Shape) -> Program:
    """The program of schedule `name`; Refused if there is no such schedule or it cannot run `shape`."""
    for misfit in misfits(name, shape):
        of = f"{name} with pipeline {shape.pipeline}" if misfit.field != "pipeline" else name
        what = f"{misfit.field} {getattr(shape, misfit.field)}"
        raise Refused(f"{of} cannot run {what}; legal: {misfit.legal}, nearest {misfit.nearest}")
    return _schedule(name).build(shape)


def misfits(name: str, shape: Shape) -> tuple[Misfit, ...]:
    """Why schedule `name` cannot run `shape`, nothing where it can; Refused if there is no such schedule."""
    listed = getattr(_schedule(name), "misfits", None)
    return tuple(listed(shape)) if listed else ()


def stages(name: str, shape: Shape) -> int:
    """How many stages schedule `name` has; Refused if there is no such schedule."""
    return _schedule(name).stages(shape)


def chunked(name: str, pipeline: int) -> bool:
    """Whether a scenario says how many stages a rank of schedule `name` holds: whether its stages follow from that."""
    few, more = (Shape(pipeline, 1, chunks) for chunks in (2, 3))
    return name in names() and stages(name, few) != stages(name, more)


@cache
def pairing(name: str) -> tuple[bool, bool]:
    """Whether schedule `name` overlaps forwards with backwards where a scenario does not ask for it, and where it
    does."""
    alone, asked = (build(name, Shape(2, 8, paired=paired)).steps for paired in (False, True))
    some, pairs = (any("+" in step.kind for steps in rows for step in steps) for rows in (alone, asked))
    return some, pairs


def alternating(
    forwards: Sequence[Step], backwards: Sequence[Step], warm_up: int, paired: bool = False
) -> tuple[Step, ...]:
    """One forward, one backward: `warm_up` forwards, then a backward behind each forward (or beside it, paired), then
    the backwards that are left."""
    ahead = min(warm_up, len(forwards))
    steady = zip(forwards[ahead:], backwards, strict=False)
    if paired:
        middle = [Step(f"F+{b.kind}", f.stage, f.micro_batch, b.stage, b.micro_batch) for f, b in steady]
    else:
        middle = [step for pair in steady for step in pair]
    return (*forwards[:ahead], *middle, *backwards[len(forwards) - ahead :])


def postponing(name: str) -> bool:
    """Whether schedule `name` heeds a limit of the weight gradients that wait."""
    return _heeds(name, *(Shape(SOME, 2 * SOME, waiting=waiting) for waiting in (None, 0)))


def grouped(name: str) -> bool:
    """Whether schedule `name` heeds how many micro-batches go through a stage of a position before the next."""
    return _heeds(name, *(Shape(SOME, 2 * SOME, group=group) for group in (None, 2 * SOME)))


def _heeds(name: str, one: Shape, other: Shape) -> bool:
    return name in names() and build(name, one).steps != build(name, other).steps


def home(program: Program) -> dict[tuple[int, int], int]:
    """(stage, micro-batch) -> the position that computes it."""
    return {(stage, micro_batch): position for (_, stage, micro_batch), (position, _) in program.places.items()}


def in_flight(program: Program) -> list[int]:
    """Peak number of chunks whose activations a rank holds, by position.

    A chunk counts from the start of its forward to the end of its last backward pass: of W where the backward is
    split, for W still reads the inputs. In an overlapped pair the forward's chunk joins before the backward's leaves.
    The maximum over positions is what the DeepSeek-V3 report (arXiv:2412.19437, table 2) and the DualPipe README call
    activations: PP for 1F1B and ZB1P, PP+1 for DualPipe and DualPipeV.
    """
    rows = ([step.kind for step in steps] for steps in program.steps)
    moves = ([k.startswith("F") - last.endswith("W") for k, last in zip(row, ["", *row], strict=False)] for row in rows)
    return [max(accumulate(row), default=0) for row in moves]


def check(program: Program) -> None:
    """Refused (one line) unless every chunk runs exactly once F and once backward (BW, or B and later W), all on
    one rank, and the ranks never wait for each other in a circle."""
    if len(program.steps) != program.positions:
        raise Refused(f"{program.schedule}: {program.positions} ranks, but steps for {len(program.steps)}")
    for position, steps in enumerate(program.steps):
        for index, step in enumerate(steps):
            if wrong := _mistake(program, step):
                raise Refused(f"{program.schedule}: rank {position}, step {index + 1} ({step}): {wrong}")
    _check_once(program)
    _check_chunks(program)
    _check_progress(program)


def _mistake(program: Program, step: Step) -> str:
    """What is wrong with a step by itself, or nothing."""
    if step.kind not in KINDS:
        return f"kind '{step.kind}' is unknown; legal: {', '.join(KINDS)}"
    kind, *chunk = step
    paired = "+" in kind
    for stage, micro_batch in (chunk[:2], chunk[2:]) if paired else (chunk[:2],):
        if not 0 <= stage < program.stages:
            return f"stage {stage} is not in 0..{program.stages - 1}"
        if not 0 <= micro_batch < program.micro_batches:
            return f"micro-batch {micro_batch} is not in 0..{program.micro_batches - 1}"
    return "a pair needs two different chunks" if paired and chunk[:2] == chunk[2:] else ""


def _check_once(program: Program) -> None:
    """No pass runs twice."""
    places = program.places
    if len(places) < sum(len(passes) for steps in program.passes for passes in steps):
        rows = ((p, i, done) for p, steps in enumerate(program.passes) for i, each in enumerate(steps) for done in each)
        rank, step, done = next(row for row in rows if places[row[2]] != row[:2])
        where = f"rank {rank}, step {step + 1} and rank {places[done][0]}, step {places[done][1] + 1}"
        raise Refused(f"{program.schedule}: {_name(done)} runs twice: {where}")


def _check_chunks(program: Program) -> None:
    """Every chunk has its three passes, on one rank, W not before B."""
    for stage in range(program.stages):
        for micro_batch in range(program.micro_batches):
            chunk = [("F", stage, micro_batch), ("B", stage, micro_batch), ("W", stage, micro_batch)]
            at = [program.places.get(done) for done in chunk]
            if None in at:
                raise Refused(f"{program.schedule}: {_name(chunk[at.index(None)])} never runs")
            (position, _), (position_b, index_b), (position_w, index_w) = cast(list[Place], at)
            if not position == position_b == position_w:
                raise Refused(
                    f"{program.schedule}: F, B and W of stage {stage}, micro-batch {micro_batch} must be on one rank;"
                    f" got ranks {position}, {position_b} and {position_w}"
                )
            if index_w < index_b:
                order = f"{_name(chunk[2])} at step {index_w + 1}, before {_name(chunk[1])} at step {index_b + 1}"
                raise Refused(f"{program.schedule}: rank {position} runs {order}")


def needs(step: Step, stages: int) -> list[Pass]:
    """The passes of other steps that must be done before `step` starts."""
    return _needs(step.passes(), stages)


def _needs(passes: Sequence[Pass], stages: int) -> list[Pass]:
    """The same, of what a step computes."""
    wanted: list[Pass] = []
    for letter, stage, micro_batch in passes:
        if letter == "F" and stage > 0:
            wanted.append(("F", stage - 1, micro_batch))
        if letter == "B":
            wanted.append(("F", stage, micro_batch))
            if stage < stages - 1:
                wanted.append(("B", stage + 1, micro_batch))
        if letter == "W" and len(passes) == 1:
            wanted.append(("B", stage, micro_batch))
    return wanted


def _check_progress(program: Program) -> None:
    """Run all positions as far as they get; a need is met once its position has passed its place."""
    reached, before = [0] * program.positions, [-1]
    while reached != before:
        before = list(reached)
        for position, row in enumerate(program.passes):
            while reached[position] < len(row) and _ready(program, row[reached[position]], reached):
                reached[position] += 1  # at once: a rank may wait for its own earlier steps
    stuck = [position for position, row in enumerate(program.passes) if reached[position] < len(row)]
    if stuck:
        raise Refused(f"{program.schedule}: deadlock: {_circle(program, reached, stuck[0])}")


def _ready(program: Program, passes: Sequence[Pass], reached: Sequence[int]) -> bool:
    """Whether all that a step needs is done where positions have come so far."""
    for need in _needs(passes, program.stages):
        position, index = program.places[need]
        if index >= reached[position]:
            return False
    return True


def _circle(program: Program, reached: list[int], position: int) -> str:
    """Positions and what they wait for, once round the circle that stops `position`."""
    places, seen = program.places, dict[int, str]()
    while position not in seen:
        step = program.steps[position][reached[position]]
        need = next(n for n in needs(step, program.stages) if places[n][1] >= reached[places[n][0]])
        other = places[need][0]
        where = "later on the same rank" if other == position else f"on rank {other}"
        seen[position] = f"rank {position} at {step} waits for {_name(need)}, {where}"
        position = other
    circle = list(seen)
    return "; ".join(seen[each] for each in circle[circle.index(position) :])


def _name(done: Pass) -> str:
    letter, stage, micro_batch = done
    return f"{letter}{stage}.{micro_batch}"
