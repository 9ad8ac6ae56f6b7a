"""What a step hangs on: every number that matters moved by a stated part, prices by class, and crossings.

All runs are paired: one seed draws loads and jitter in all of them. A key is moved to the worse first; one that does
not move the step by a nanosecond then does nothing, and is not moved further. The crossing of a key is where its
elasticity passes a half: from there on it moves the step by more than all else together.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from math import exp, inf, log, sqrt
from typing import NamedTuple

from hwmodels.figure import Figure
from hwmodels.refused import Refused
from hwmodels.units import NS_PER_S
from sim import assembly
from sim.analysis import communication, graph, metrics, uncertainty
from sim.experiments.unfelt import DESCRIPTIVE
from sim.layout.plan import lay_out
from sim.result import Result
from sim.result.sensitivity import MACHINE, PRICE, SCENARIO, Crossing, Move, Point, Sensitivity
from sim.scenario.files import load
from sim.scenario.values import Scenario
from sim.simulation import run, simulated

BY = 0.9, 1.1
"""Factors of less and more, unless something else is asked for."""
HALF = 0.5
"""Elasticity from which on a key binds: more of the step hangs on it than on everything else."""
FAR = 16.0
"""A crossing is looked for up to so many times worse."""
CHORD, CLOSE = 1.02, 1.015
"""Factors: of the chord that tells whether a key binds at the far end, and how near a crossing is found."""
WHOLE = ("gpus", "nics_per_gpu", "nics_per_leaf", "radix", "layers", "planes", "order", "groups", "hosts_per_switch",
         "peers", "dies")  # fmt: skip
"""Figures that count parts: another number is another machine, not a percentage of this one."""
ALONG = ("efficiency",)
"""Figures that are only ever read as a product with another one, the bandwidth."""
DEARER = ("latency", "launch", "spread", "jitter", "max_vio", "slower", "forward", "backward", "p2p")
"""Words of keys whose more is the worse."""
NUMBER = re.compile(r"\s*([+-]?[\d.]+(?:[eE][+-]?\d+)?)\s*(.*)")
Hear = Callable[[int, int], None]


class Key(NamedTuple):
    """Something to move. base: SI, text: as written. unit: behind the number. multiple: values are multiples of it; 0:
    any number."""

    key: str
    kind: str
    base: float
    text: str
    number: float
    unit: str
    multiple: int = 0

    @property
    def dearer(self) -> bool:
        """Whether more of it is the worse."""
        return any(word in part for word in DEARER for part in self.key.split(".")[-2:])

    def at(self, factor: float) -> tuple[str, float]:
        """Its value as written, and by what factor that lies from the base."""
        if not self.multiple:
            return f"{self.number * factor:.10g} {self.unit}".strip(), factor
        times, now = round(self.number * factor / self.multiple), round(self.number / self.multiple)
        if times == now and factor != 1:  # the next one that is legal
            times += 1 if factor > 1 else -1
        near = max(1, times) * self.multiple
        return f"{near:g}", near / self.number


def sensitivity(
    scenario: Scenario, by: tuple[float, float] = BY, keys: Iterable[str] = (), crossings: bool = True,
    hear: Hear = lambda done, all: None,
) -> Sensitivity:  # fmt: skip
    """Of a scenario. by: factors of less and more. keys: those that are asked for, or what they lie in; none: all.
    hear: hears how many runs are done, and about how many there will be. Raises Refused."""
    runs = Runs(scenario, hear)
    known = list(movable(scenario, keys))
    runs.expect(2 * len(known) + TRIED * sum(crossable(key) for key in known if crossings))
    moves = [_moved(runs, key, by) for key in known]
    prices = list(_prices(scenario, by)) if not keys else []
    felt = sorted((each for each in (*moves, *prices) if each.size), key=lambda each: -each.size)
    limits = ((key, move) for key, move in zip(known, moves, strict=True) if crossings and crossable(key))
    places = {key.key: _crossing(runs, key, move) for key, move in limits}
    reached = sorted((each for each in places.values() if each), key=lambda each: abs(log(each.factor)))
    idle = [each.key for each in moves if each.points and not each.size and not _stuck(each)]
    return Sensitivity(
        runs.base, by, tuple(felt), tuple(reached), tuple(key for key, each in places.items() if not each), FAR,
        (*idle, *_unread(scenario, keys)), tuple(f"{each.key}: {why}" for each in moves if (why := _stuck(each))),
        runs.count,
    )  # fmt: skip


TRIED = 6
"""Runs that a crossing takes, about: for the progress alone."""


@dataclass
class Runs:
    """The scenario and its runs under one changed key, each once."""

    scenario: Scenario
    hear: Hear
    known: dict[str, float | str] = field(default_factory=dict)
    count: int = 1
    expected: int = 1

    def __post_init__(self) -> None:
        self.scenario = replace(self.scenario, outputs=("result",))
        self.base: Result = run(self.scenario, True)
        self.step_s = float(self.base.summary["step_time_s"])

    def expect(self, more: int) -> None:
        """Tell of runs that are to come."""
        self.expected += more

    def step(self, word: str) -> float | str:
        """Seconds of the step under an override, or why it is refused."""
        if word not in self.known:
            self.count += 1
            self.hear(self.count, max(self.expected, self.count))
            try:
                self.known[word] = float(run(load(self.scenario, words(word)), False).summary["step_time_s"])
            except Refused as refused:
                self.known[word] = " ".join(str(refused).split())
        return self.known[word]


def words(word: str) -> list[str]:
    """An override with what gives way to it: micro-batches follow from sequences."""
    return [*(["batch.micro_batches=null"] if word.startswith("batch.sequences=") else []), word]


# --- keys -------------------------------------------------------------------------------------------------------------


def movable(scenario: Scenario, asked: Iterable[str] = ()) -> Iterator[Key]:
    """Numbers that may matter: of the machine, and of the scenario. asked: keys, or what they lie in; none: all."""
    words = list(asked)
    every = [*_of_machine(scenario), *_of_scenario(scenario)]
    for word in words:
        if not any(_in(key.key, word) for key in every):
            from hwmodels.document import did_you_mean

            near = did_you_mean(word, [key.key for key in every])
            raise Refused(f"--keys: nothing to move at {word!r}{near or '; see --help for what is moved'}")
    yield from (key for key in every if not words or any(_in(key.key, word) for word in words))


def _in(key: str, word: str) -> bool:
    return key == word or key.startswith(f"{word}.")


def _of_machine(scenario: Scenario) -> Iterator[Key]:
    for key, figure in scenario.cluster.figures.items() if scenario.cluster else ():
        last = key.split(".")[-1]
        if figure.value and last not in (*WHOLE, *ALONG) and not _descriptive(key):
            yield _key(key, figure)


def _key(key: str, figure: Figure) -> Key:
    match = NUMBER.fullmatch(figure.text)
    assert match, figure.text
    whole = isinstance(figure.value, int)
    return Key(key, MACHINE, figure.value, figure.text, float(match[1]), match[2], 1 if whole else 0)


def _descriptive(key: str) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in DESCRIPTIVE)


def _of_scenario(scenario: Scenario) -> Iterator[Key]:
    """Batch, SMs of communication, loads, faults, and times of chunks."""
    batch, routing = scenario.batch, scenario.routing
    if batch.sequences:
        once = scenario.data_parallel * batch.micro_batch  # of a micro-batch each; schedules that pair them need two
        yield _plain("batch.sequences", batch.sequences, once * (1 + (batch.sequences % (2 * once) == 0)))
    elif batch.micro_batches:
        yield _plain("batch.micro_batches", batch.micro_batches, 1 + (batch.micro_batches % 2 == 0))
    if scenario.model:
        yield _plain("batch.sequence_length", batch.sequence_length, _even(batch.sequence_length))
        if scenario.comm.sms:
            yield _plain("comm.sms", scenario.comm.sms, 2)
    for name in ("spread", "max_vio"):
        if value := getattr(routing, name):
            yield _plain(f"routing.{name}", value)
    if scenario.jitter:
        yield _plain("jitter", scenario.jitter)
    for place, fault in enumerate(scenario.faults):
        yield _plain(f"faults.{place}.slower", fault.slower)
    for name, ns in vars(scenario.chunk_times).items() if scenario.chunk_times else ():
        if ns:
            yield Key(f"chunk_times.{name}", SCENARIO, ns / NS_PER_S, f"{ns} ns", ns, "ns")


def _plain(key: str, value: float, multiple: int = 0) -> Key:
    return Key(key, SCENARIO, value, f"{value:g}" if multiple else f"{value!r}", value, "", multiple)


def _even(length: int) -> int:
    """A power of two that a length is a multiple of, as large as a tenth of it allows."""
    size = 1
    while length % (2 * size) == 0 and 2 * size * 16 <= length:
        size *= 2
    return size


def _unread(scenario: Scenario, asked: Iterable[str]) -> list[str]:
    """Figures of the machine that nothing reads."""
    figures = scenario.cluster.figures if scenario.cluster and not list(asked) else ()
    return [key for key in figures if _descriptive(key)]


# --- moving -----------------------------------------------------------------------------------------------------------


def _moved(runs: Runs, key: Key, by: tuple[float, float]) -> Move:
    """The worse side first; the other one only where that one is felt."""
    less, more = by
    first, second = (more, less) if key.dearer else (less, more)
    worse = _point(runs, key, first)
    idle = worse.step_s == runs.step_s
    better = Point(key.at(second)[0], key.at(second)[1], runs.step_s) if idle else _point(runs, key, second)
    runs.expect(-1 if idle else 0)
    low, high = (better, worse) if key.dearer else (worse, better)
    return Move(key.key, key.kind, key.text, runs.step_s, low, high)


def _point(runs: Runs, key: Key, factor: float) -> Point:
    text, exact = key.at(factor)
    if exact == 1:
        return Point(text, exact, runs.step_s)
    step = runs.step(f"{key.key}={text}")
    return Point(text, exact, None, step) if isinstance(step, str) else Point(text, exact, step)


def _stuck(move: Move) -> str:
    """Why a key could not be moved, where neither way is legal, or nothing."""
    return move.less.why or move.more.why if not move.points else ""


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
        points = [Point(f"{by[i]:.4g}", by[i], step + row.get(name, 0.0)) for i, row in enumerate(rows)]
        yield Move(name, PRICE, "1", step, *points)


# --- crossings --------------------------------------------------------------------------------------------------------


def crossable(key: Key) -> bool:
    """Whether a key may take over: a rate at which the machine moves bytes."""
    return key.kind == MACHINE and key.key.endswith(".bandwidth")


def _crossing(runs: Runs, key: Key, move: Move) -> Crossing | None:
    """Where the elasticity of a key passes HALF: towards the worse, or towards the better where it binds already.

    It is the lowest point of log(step) - HALF x log(how much worse), which is looked for by golden section: a step is
    the longest of paths whose times are sums, so its logarithm bends upwards.
    """
    binds = abs(move.elasticity or 0.0) >= HALF
    way = (1 if key.dearer else -1) * (-1 if binds else 1)  # of log(factor)
    slope = -HALF if not binds else HALF

    def height(far: float) -> float:
        step = runs.step(f"{key.key}={key.at(exp(way * far))[0]}")
        return log(step) + slope * far if isinstance(step, float) else inf

    end = log(FAR)
    if not move.size and height(end) == log(runs.step_s) + slope * end:
        return None
    if height(end) < height(end - log(CHORD)):
        return None
    far = _lowest(height, 0.0, end)
    factor = float(f"{exp(way * far):.4g}")
    text = f"{key.number * factor:.3g} {key.unit}".strip()
    return Crossing(key.key, key.base * factor, text, key.text, factor, not key.dearer, binds)


def _lowest(height: Callable[[float], float], low: float, high: float) -> float:
    """Where a function with one lowest point has it, as near as CLOSE, by golden section."""
    part = (sqrt(5) - 1) / 2
    a, b = high - part * (high - low), low + part * (high - low)
    left, right = height(a), height(b)
    while high - low > 2 * log(CLOSE):
        if left <= right:
            high, b, right = b, a, left
            a = high - part * (high - low)
            left = height(a)
        else:
            low, a, left = a, b, right
            b = low + part * (high - low)
            right = height(b)
    return (low + high) / 2
