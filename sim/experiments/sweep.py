"""Many runs of one scenario: points that overrides make, simulated in parallel, kept line by line, resumed.

A sweep is a YAML file: a scenario, overrides for all of its points, axes whose product makes points, points beside it.

    name: schedules and communication SMs
    scenario: ../v3_2048gpu.yaml        # relative to this file
    overrides: [comm.sms=20]            # of every point (default: none)
    axes:
      schedule: [dualpipe, zb1p]        # a list: the axis is a scenario's key, its items are values
      network:                          # a mapping: any name, and for each label one override or a list of them
        as built: []
        doubled: cluster.node.nic.bandwidth=100GB/s
    also: {balanced: [routing=balanced]}      # single points beside the product
    columns: {step (s): step_time_s}    # what the table shows: dotted keys (see sim.experiments.record.figure)
    fresh_processes: true               # a process for each point, so that its peak memory is its own

Only result figures are kept, so `outputs` is always [result].
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hwmodels.document import Document, DocumentError, Place, Problem, dotted, unknown
from sim.experiments import executors, kinds, space
from sim.experiments.record import OWN, Book, Record, record, stamp
from sim.experiments.space import ALWAYS_LAST, Point, Product
from sim.result import figures
from sim.scenario import shelves

SWEEPS = shelves.SCENARIOS / "sweeps"
"""Where the sweeps are that ship."""
KEYS = ("name", "scenario", "overrides", "axes", "also", "columns", "fresh_processes")
COLUMNS = {
    "step (s)": "step_time_s", "bubble": "bubble_fraction", "exposed (s)": "exposed_communication_s",
    "GPU-hours a trillion tokens": "gpu_hours_per_trillion_tokens", "CPU (s)": "cost.cpu_s",
}  # fmt: skip
"""What a table shows unless the sweep says otherwise."""


@dataclass(frozen=True)
class Points(Sequence[Point]):
    """Points of a product, and single ones beside it, each made when it is asked for."""

    product: Product | None
    beside: tuple[Point, ...] = ()

    def __len__(self) -> int:
        return len(self.product or ()) + len(self.beside)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        inside = len(self) - len(self.beside)
        place = index + len(self) if index < 0 else index
        return self.product[place] if self.product and 0 <= place < inside else self.beside[place - inside]


@dataclass(frozen=True)
class Sweep:
    """A sweep as read. path: of its file. scenario: path of the scenario file. columns: heading -> key of a record.
    extra: overrides that every point has from the command line."""

    path: str
    name: str
    scenario: str
    points: Points
    columns: dict[str, str]
    fresh_processes: bool
    extra: tuple[str, ...] = ()

    @property
    def axes(self) -> tuple[str, ...]:
        """Names of the axes, in order."""
        product = self.points.product
        return (*(axis.name for axis in (product.axes if product else ())), *(("point",) if self.points.beside else ()))


def read_sweep(path: Path, extra: Sequence[str] = ()) -> Sweep:
    """The sweep in a YAML file, or one that ships by its name; `extra` overrides come last at every point.

    Raises DocumentError.
    """
    shown, path = str(path), shelves.place(str(path), SWEEPS)
    document = shelves.document(shown, SWEEPS)
    _check(document)
    content = document.content
    shared, last = tuple(content.get("overrides", ())), (*extra, *ALWAYS_LAST)
    axes = tuple(space.axis(name, values) for name, values in content.get("axes", {}).items())
    also = space.axis("", content.get("also", {})).stops
    beside = tuple(Point({"point": stop.label}, (*shared, *stop.overrides, *last)) for stop in also)
    scenario = shelves.beside(content["scenario"], path.parent)
    columns = content["columns"] if "columns" in content else _columns(scenario)
    return Sweep(
        shown, str(content.get("name", path.stem)), scenario,
        Points(Product(axes, shared, last) if axes or not beside else None, beside),
        dict(columns), bool(content.get("fresh_processes", False)), tuple(extra),
    )  # fmt: skip


def _columns(scenario: str) -> Mapping[str, str]:
    """What the table shows of a scenario's kind."""
    own = kinds.of(scenario)
    return COLUMNS if own is None else own.columns


def _check(document: Document) -> None:
    """Raise DocumentError with all that is wrong with the form of a sweep."""
    content, problems = document.content, list[Problem]()

    def wrong(message: str, *key: str | int) -> None:
        problems.append(Problem(document.place(key), dotted(key), message))

    if not isinstance(content, Mapping):
        wrong("expected keys and values, e.g. scenario: ../v3_2048gpu.yaml")
        raise DocumentError(problems)
    if "scenario" not in content and ("batch" in content or "schedule" in content):
        what = "is a scenario, not a sweep; a sweep names one (scenario: FILE) and axes, see scenarios/sweeps"
        raise DocumentError([Problem(Place(document.place(()).file), "", what)])
    for key in content:
        if key not in KEYS:
            wrong(unknown(key, "key", KEYS), key)
    if not isinstance(content.get("scenario"), str):
        wrong("missing; expected a scenario file, e.g. ../v3_2048gpu.yaml" if "scenario" not in content
              else f"expected a scenario file; found {content['scenario']!r}", "scenario")  # fmt: skip
    if not space.words(content.get("overrides", [])):
        wrong(f"expected a list of key=value; found {content['overrides']!r}", "overrides")
    if not isinstance(content.get("fresh_processes", False), bool):
        wrong(f"expected true or false; found {content['fresh_processes']!r}", "fresh_processes")
    for key, example in (("axes", "schedule: [dualpipe, zb1p]"), ("also", "balanced: [routing=balanced]"),
                         ("columns", "step (s): step_time_s")):  # fmt: skip
        if not isinstance(content.get(key, {}), Mapping):
            wrong(f"expected a mapping, e.g. {{{example}}}; found {content[key]!r}", key)
            continue
        for name, value in content.get(key, {}).items():
            if message := _mistake(key, name, value):
                wrong(message, key, name)
    if problems:
        raise DocumentError(problems)


def _mistake(part: str, name: str, value: Any) -> str:
    """What is wrong with one axis, point or column, or nothing."""
    if part == "columns":
        return _column(value)
    if part == "also":
        return "" if isinstance(value, str) or space.words(value) else f"expected overrides, key=value; found {value!r}"
    return space.mistake(name, value)


def _column(key: Any) -> str:
    """What is wrong with the key of a column, before anything runs, or nothing."""
    if not isinstance(key, str):
        return f"expected a key of the result, e.g. step_time_s; found {key!r}"
    if figures.legal(key, OWN):
        return ""
    return f"unknown figure {key!r}{figures.nearest(key, OWN)}; docs/REFERENCE.md lists the keys of result.json"


# --- running ----------------------------------------------------------------------------------------------------------


class Records(Sequence[Record]):
    """Records of points in their order, each from the book when it is asked for."""

    def __init__(self, book: Book, each: Sequence[str | Record]) -> None:
        self.book, self.each = book, each

    def __len__(self) -> int:
        return len(self.each)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        one = self.each[index]
        return self.book[one] if isinstance(one, str) else one


def runs(
    scenario: str, overrides_list: Sequence[Sequence[str]], jobs: int = 1, *, kept: Path | None = None,
    fresh_processes: bool = False, progress: Callable[[int, int], None] | None = None, executor: str = "",
) -> Records:  # fmt: skip
    """Records of a scenario file under each list of overrides, in their order.

    jobs: processes at a time; executor: where runs run instead, as `sim.experiments.executors` has it. kept: a JSONL
    file that gets each record as it comes; runs it holds already, by scenario hash and by the code that ran them, are
    not run again. progress: called with (points done, all). Runs that are alike run once. A run that is refused, its
    scenario included, gives a record with `error`, one that a bug of ours ends a record with `failed`. Raises
    DocumentError when all scenarios are wrong, and Refused when `kept` is not such a file, or full.
    """
    book, mark, each = Book(kept, stamp()), stamp(), list[str | Record]()
    asked = _Asked(scenario, overrides_list, book, each)
    where = executor or f"local:{jobs}"
    with executors.executor(where, fresh_processes) as ready:
        for number, entry in ready.results(record, iter(asked)):
            book.add(entry | {"stamp": mark, "overrides": list(asked.words.pop(number))})
            if progress:
                progress(len(each) - len(asked.words), len(overrides_list))
    if asked.problems and not any(isinstance(one, str) for one in each):
        book.close()
        raise DocumentError(asked.problems)
    return Records(book, each)


MOST_PROBLEMS = 100
"""Of scenarios that are wrong, kept to be told."""


class _Asked:
    """Scenarios to run, each loaded when a worker takes it. each: scenario hash of the points so far, or the record of
    a refusal. words: overrides of those that run, by their number among them."""

    def __init__(
        self, path: str, overrides_list: Sequence[Sequence[str]], book: Book, each: list[str | Record]
    ) -> None:
        self.path, self.overrides_list, self.book, self.each = path, overrides_list, book, each
        self.words, self.problems = dict[int, Sequence[str]](), list[Problem]()

    def __iter__(self) -> Iterator[kinds.Value]:
        taken, number = set[str](), 0
        for overrides in self.overrides_list:
            try:
                one = kinds.load(self.path, overrides)
            except DocumentError as error:
                self.problems += error.problems[: MOST_PROBLEMS - len(self.problems)]
                self.each.append({"error": "; ".join(f"{each.key}: {each.message}" for each in error.problems)})
                continue
            self.each.append(one.scenario_hash)
            if one.scenario_hash not in taken and one.scenario_hash not in self.book:
                taken.add(one.scenario_hash)
                self.words[number], number = overrides, number + 1
                yield one


# --- a whole sweep ----------------------------------------------------------------------------------------------------


class _Overrides(Sequence[Sequence[str]]):
    """Overrides of each point of a sweep."""

    def __init__(self, points: Sequence[Point]) -> None:
        self.points = points

    def __len__(self) -> int:
        return len(self.points)

    def __getitem__(self, index: Any) -> Any:
        return self.points[index].overrides


def records_of(
    sweep: Sweep, executor: str = "local:1", kept: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Records:  # fmt: skip
    """A record for each point, in order; see `runs`. Raises DocumentError where the overrides of all are wrong."""
    fresh, words = sweep.fresh_processes, _Overrides(sweep.points)
    try:
        return runs(sweep.scenario, words, kept=kept, fresh_processes=fresh, progress=progress, executor=executor)
    except DocumentError as error:
        raise DocumentError([_placed(problem, sweep) for problem in error.problems]) from None


def _placed(problem: Problem, sweep: Sweep) -> Problem:
    """The problem of an override that the sweep's file gives is laid to that file."""
    prefix = "<command line> "
    given = problem.place.file.removeprefix(prefix)
    if given == problem.place.file or given in sweep.extra:
        return problem
    return Problem(Place(f"{sweep.path}: {given}"), problem.key, problem.message)
