"""What a step hangs on, or any other kind of run: every number that matters moved by a stated part, prices by class,
and crossings. Runs are tasks of `sim.experiments.moving`, so they go to any executor."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from math import log
from typing import Any

from hwmodels.refused import Refused
from hwmodels.units import GB, NS_PER_S
from sim import assembly
from sim.analysis import communication, graph, metrics, uncertainty
from sim.experiments import kinds
from sim.experiments.executors import executor
from sim.experiments.kind import MAX, Kind, Measure, value
from sim.experiments.movable import Key, asked, descriptive, of_file, of_scenario
from sim.experiments.moving import FAR, FARTHER, STEP, Moved, Subject, Task, moved
from sim.layout.plan import lay_out
from sim.result.comparison import Run
from sim.result.sensitivity import MACHINE, PRICE, Crossing, Move, Point, Sensitivity
from sim.scenario.values import Scenario
from sim.simulation import run, simulated

BY = 0.9, 1.1
"""Factors of less and more, unless something else is asked for."""
CAPACITY = "cluster.node.device.hbm.capacity"
STORES = ("capacity", "spread", "jitter", "max_vio", "slower")
"""Words of keys that never take over: room is there or not, and chance is no resource."""
MOVES, TRIES = 3, 6
"""Runs that moving a key and finding its crossing take, about: for the progress alone."""
Hear = Callable[[int, int], None]


def silent(done: int, of: int) -> None:
    """Hears nothing."""


def sensitivity(
    scenario: Scenario, by: tuple[float, float] = BY, keys: Iterable[str] = (), crossings: bool = True,
    hear: Hear = silent, where: str = "local:1", intervals: bool = True,
) -> Sensitivity:  # fmt: skip
    """Of a training step. by: factors of less and more. keys: those that are asked for, or what they lie in; none: all.
    crossings, intervals: whether these are looked for. hear: hears how many runs are done, and about how many there
    will be. where: the runs run, as `sim.experiments.executors` has it. Raises Refused."""
    words, scenario = tuple(keys), replace(scenario, outputs=("result",))
    known = asked(of_scenario(scenario), words)
    base = run(scenario, True)
    subject = Subject(scenario, (), STEP, float(base.summary[STEP]))
    prices = [] if words else list(_prices(scenario, by))
    drawn = intervals and base.draws is not None
    rows = _every(subject, known, by, crossings, drawn, hear, where)
    room = _room(known, base.summary) if crossings else []
    unread = [key for key in (scenario.cluster.figures if scenario.cluster and not words else ()) if descriptive(key)]
    return _answer(base, by, (*rows, *room), prices, unread)


def of_kind(
    source: Any, overrides: Sequence[str] = (), by: tuple[float, float] = BY, keys: Iterable[str] = (),
    crossings: bool = True, hear: Hear = silent, where: str = "local:1", of: str = "",
) -> Sensitivity:  # fmt: skip
    """The same of a campaign, a served load or any other kind. of: a word of its figures; "": the first one. Raises
    Refused."""
    own, words, overrides = _kind(source), tuple(keys), tuple(overrides)
    measure = own.measures[0] if not of else _measure(own, of)
    made = kinds.load(source, overrides)
    base = own.run(made)
    now = value(base.summary, measure.key)
    if now is None and measure.needs[0]:
        raise Refused(f"--of: {measure.lacking}")
    if not now or now < 0:
        raise Refused(f"{measure.word}: is {'not there' if now is None else now}, so no part of it moves")
    subject = Subject(source, overrides, measure.key, now)
    known = asked(of_file(own, kinds.content(source, overrides), own.machine(made)), words)
    rows = _every(subject, known, by, crossings and measure.best != MAX, False, hear, where)
    return replace(_answer(base, by, rows, [], []), figure=measure.key, called=measure.name, unit=measure.unit)


def _kind(source: Any) -> Kind:
    own = kinds.of(source)
    assert own is not None, "a training step"
    return own


def _measure(own: Kind, word: str) -> Measure:
    legal = [each.word for each in own.measures]
    if word not in legal:
        from hwmodels.document import unknown

        raise Refused(f"--of: {unknown(word, 'figure', legal)}")
    return own.measure(word)


# --- runs -------------------------------------------------------------------------------------------------------------


def _every(
    subject: Subject, known: Sequence[Key], by: tuple[float, float], crossings: bool, intervals: bool, hear: Hear,
    where: str,
) -> list[tuple[Key, Moved, bool]]:  # fmt: skip
    """Each key with how it was moved, and whether it was asked where it takes over."""
    tasks = [Task(subject, key, by, intervals) for key in known]
    total = 1 + MOVES * len(known) + (TRIES * len(known) if crossings else 0)
    with executor(where) as ready:
        moves = _results(ready.results(moved, tasks), len(tasks), lambda runs: hear(1 + runs, max(total, 1 + runs)))
        done = 1 + sum(each.runs for each in moves)
        chosen = [i for i, each in enumerate(moves) if crossings and crossable(known[i], each.move)]
        further = [tasks[i]._replace(move=moves[i].move) for i in chosen]
        total = done + TRIES * len(further)
        places = _results(
            ready.results(moved, further), len(further), lambda runs: hear(done + runs, max(total, done + runs))
        )
    crossed = dict(zip(chosen, places, strict=True))
    return [
        (key, each._replace(crossing=crossed[i].crossing, runs=each.runs + crossed[i].runs), True) if i in crossed
        else (key, each, False)
        for i, (key, each) in enumerate(zip(known, moves, strict=True))
    ]  # fmt: skip


def _results(coming: Iterator[tuple[int, Moved]], count: int, hear: Callable[[int], None]) -> list[Moved]:
    """Results in the order of their tasks. hear: hears how many runs they took so far."""
    each = dict[int, Moved]()
    for number, one in coming:
        each[number] = one
        hear(sum(done.runs for done in each.values()))
    return [each[number] for number in range(count)]


def crossable(key: Key, move: Move) -> bool:
    """Whether a key may take over: whatever moves the figure, and rates at which the machine moves bytes though they do
    not yet; but no room and no chance."""
    parts = key.key.split(".")
    if any(word in parts[-1] for word in STORES) or not move.points:
        return False
    return bool(move.size) or (key.kind == MACHINE and parts[-1] in ("bandwidth", "latency"))


def _answer(
    base: Run, by: tuple[float, float], rows: Sequence[tuple[Key, Moved, bool]], prices: Sequence[Move],
    unread: Sequence[str],
) -> Sensitivity:  # fmt: skip
    moves = [each.move for _, each, _ in rows if each.move.points or each.move.less.why]
    felt = sorted((each for each in (*moves, *prices) if each.size), key=lambda each: -each.size)
    reached = sorted((each.crossing for _, each, _ in rows if each.crossing), key=lambda each: abs(log(each.factor)))
    nowhere = [key.key for key, each, asked_ in rows if asked_ and not each.crossing]
    idle = [each.key for each in moves if each.points and not each.size and not _stuck(each)]
    stuck = [f"{each.key}: {why}" for each in moves if (why := _stuck(each))]
    return Sensitivity(
        base, by, tuple(felt), tuple(reached), tuple(nowhere), FAR, FARTHER, (*idle, *unread), tuple(stuck),
        1 + sum(each.runs for _, each, _ in rows),
    )  # fmt: skip


def _stuck(move: Move) -> str:
    """Why a key could not be moved, where neither way is legal, or nothing."""
    return move.less.why or move.more.why if not move.points else ""


def _room(known: Iterable[Key], summary: Any) -> Iterator[tuple[Key, Moved, bool]]:
    """Below which memory of a device the run does not fit: its peak, which needs no further run."""
    worst = summary["worst_memory"]
    for key in known if worst else ():
        if key.key == CAPACITY:
            at, point = float(worst["peak_bytes"]), Point(key.text, 1.0, None)
            crossing = Crossing(key.key, at, f"{at / GB:.3g} GB", key.text, at / key.base, True, at > key.base, True)
            yield key, Moved(Move(key.key, MACHINE, key.text, 0.0, point, point), crossing, 0), False


def _prices(scenario: Scenario, by: tuple[float, float]) -> Iterator[Move]:
    """Classes of prices, as times: less and more of what each takes."""
    if scenario.model is None:
        return
    plan = lay_out(scenario)
    machine, _ = assembly.assembled(plan)
    ran = simulated(plan, machine)
    books = metrics.ledgers(ran.lowered, ran.timeline, machine.pricer)
    tracks = graph.graph(ran.lowered, ran.timeline, *([ran.times.pace] if ran.times else []))
    wires, step = communication.spread(plan, machine), ran.timeline.end / NS_PER_S
    rows = [
        {c.name: c.step_s for c in uncertainty.sensitivity(ran.lowered, tracks, books, wires, factor - 1).causes}
        for factor in by
    ]
    for name in rows[0]:
        less, more = (Point(f"{by[i]:.4g}", by[i], step + row.get(name, 0.0)) for i, row in enumerate(rows))
        yield Move(name, PRICE, "1", step, less, more)
