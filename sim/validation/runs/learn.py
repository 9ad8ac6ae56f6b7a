"""What published runs say that the model leaves out: left_out.json, learned class by class and judged family by family.

A run's error is the logarithm of measured over predicted. What of it lies beyond the spread of prices is its remainder:
added to that spread as an independent cause, it reaches the error. A class's remainders are pooled with those of the
class around it, as if that had so many runs more (a Dirichlet prior), so few runs of one kind lean on all the others.
A layout counts once, however many releases ran it; a family counts as the square root of its layouts, since runs of one
publisher are wrong together. What is chosen (levels, pooling, ...) is chosen by leaving whole families out.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from math import log
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from sim.analysis.left_out import EVERYTHING, Class, Learned, Spread, joined
from sim.validation.runs.outcome import Outcome

Floats = npt.NDArray[np.float64]
LEVELS = (
    ("kind", "stack"), ("kind", "stack", "generation"), ("kind", "generation", "stack"),
    ("kind", "stack", "generation", "scale"), ("kind", "blocks", "generation", "stack"),
)  # fmt: skip
"""Orders in which classes may be told apart."""
POOLING, SHARES, UNSAID = (1.0, 3.0, 10.0), (0.25, 0.5, 0.75, 1.0), (1.1, 1.3)
STRETCH = (1.0, 1.15, 1.3, 1.5, 1.75, 2.0)
"""What may be chosen: runs that the class around counts for, the share of prices' spread, the factor for each deciding
key that is not said (at least a tenth: an open choice is never as sure as one that is said), and of remainders."""
GROUND: tuple[tuple[float, float], ...] = ((-0.5, 0.25), (0.0, 0.5), (0.5, 0.25))
"""Remainders and their weights before any run is seen: a factor of 1.65 either way in one of two. A judgement, which
stands under the class of all runs alone."""
APART = ("kind", "blocks", "launched")
"""Levels for a stack that no run had: neither software nor GPU, but what of a model and a host is left out on any."""
TAIL = 0.05
"""Beyond either end of the interval."""
PROMISE, EACH, LARGE = (0.85, 0.95), 0.80, 20
"""Runs inside of all, and of each family with so many rows, when the family was not learned on."""
PENALTY = 2 / (2 * TAIL)
"""Width that a miss costs for its distance: the interval score of a 90 % interval (Gneiting and Raftery, Strictly
proper scoring rules, prediction, and estimation, JASA 102, 2007, eq. 43)."""
ALIKE = 0.05
"""Of scores that a few rows in the tails decide: choices closer than that are told apart by how sharp they are."""
LEVELS_KEPT = (0.05, 0.25, 0.5, 0.75, 0.95)
"""Quantiles of remainders that are written."""


class Case(NamedTuple):
    """A run that was predicted. error, low, high: logarithms over the predicted step, of the measured one and of the
    ends that prices give. weight: one over the runs of its layout. unsaid: deciding keys that it does not say."""

    family: str
    group: str
    of: Class
    error: float
    low: float
    high: float
    unsaid: int
    weight: float = 1.0


def cases(outcomes: Sequence[Outcome]) -> list[Case]:
    """Of all rows that ran; a row without a group is one by itself."""
    ran = [each for each in outcomes if each.error is not None and each.answer.parts]
    groups = [each.run.group or each.run.id for each in ran]
    return [_case(each, group, 1 / groups.count(group)) for each, group in zip(ran, groups, strict=True)]


def _case(each: Outcome, group: str, weight: float) -> Case:
    parts, step = each.answer.parts, each.predicted_s
    assert step and each.run.step_s
    low, high = (log(end / step) for end in parts["prices"])
    error, unsaid = log(each.run.step_s / step), len(parts["unsaid"])
    return Case(each.run.family, group, Class(**parts["class"]), error, low, high, unsaid, weight)


@dataclass(frozen=True)
class Columns:
    """Cases as arrays."""

    cases: Sequence[Case]

    def of(self, name: str) -> Floats:
        """A field of all cases."""
        return np.array([getattr(case, name) for case in self.cases], float)

    def beyond(self, share: float, unsaid: float) -> Floats:
        """Remainders, below zero where the run was faster than the middle of what prices give; those of runs that leave
        deciding keys open as if they did not."""
        low, high, off = self.of("low"), self.of("high"), self.of("error")
        off = off - (low + high) / 2
        left = np.sqrt(np.maximum(off**2 - ((high - low) / 2 * share) ** 2, 0.0))
        return np.asarray(np.sign(off) * left / unsaid ** self.of("unsaid"))


class Choice(NamedTuple):
    """See LEVELS to STRETCH. stretch: of dense models, and of mixtures: families of one kind say nothing of another."""

    levels: tuple[str, ...]
    pooling: float
    share: float
    unsaid: float
    stretch: tuple[float, float]

    def stretched(self, kind: str) -> float:
        """The factor of a kind; of all runs the larger."""
        dense, mixed = self.stretch
        return {"dense": dense, "mixture": mixed}.get(kind, max(self.stretch))


class Pool(NamedTuple):
    """Remainders of a class and of those around it, sorted, with their weights."""

    values: Floats
    weights: Floats

    def quantiles(self, *at: float) -> list[float]:
        """Between the middles of neighbours' weights."""
        middles = (np.cumsum(self.weights) - self.weights / 2) / self.weights.sum()
        return [float(q) for q in np.interp(at, middles, self.values)]


def _pool(values: Floats, weights: Floats, around: Pool, pooling: float) -> Pool:
    values = np.concatenate([values, around.values])
    weights = np.concatenate([weights, around.weights * (pooling / around.weights.sum())])
    order = np.argsort(values, kind="stable")
    return Pool(values[order], weights[order])


def ground() -> Pool:
    """Before any run is seen."""
    values, weights = np.array(GROUND).T
    return Pool(values, weights)


def pools(some: Sequence[Case], beyond: Floats, choice: Choice) -> dict[str, Pool]:
    """Of every class that has a run, by name."""
    members: dict[str, list[int]] = {}
    for place, case in enumerate(some):
        for name in case.of.names(choice.levels):
            members.setdefault(name, []).append(place)
    known: dict[str, Pool] = {}
    for name in sorted(members, key=lambda name: (bool(name), name.count(","))):
        around = known[name.rpartition(", ")[0]] if name else ground()
        rows = members[name]
        known[name] = _pool(beyond[rows], _weights([some[row] for row in rows]), around, choice.pooling)
    return known


def _weights(some: Sequence[Case]) -> Floats:
    """A layout once, a family as the square root of its layouts."""
    layouts: dict[str, float] = {}
    for case in some:
        layouts[case.family] = layouts.get(case.family, 0.0) + case.weight
    return np.array([case.weight / layouts[case.family] ** 0.5 for case in some])


def spreads(some: Sequence[Case], choice: Choice) -> dict[str, Spread]:
    """Of every class, from some runs."""
    every = pools(some, Columns(some).beyond(choice.share, choice.unsaid), choice)
    return {
        name: _spread(pool, _layouts(some, name, choice), choice.stretched(name.split(", ")[0]))
        for name, pool in every.items()
    }


def _layouts(some: Sequence[Case], name: str, choice: Choice) -> int:
    return len({case.group for case in some if name in case.of.names(choice.levels)})


def _spread(pool: Pool, groups: int, stretch: float) -> Spread:
    low, high = pool.quantiles(TAIL, 1 - TAIL)
    return Spread(groups, max(0.0, -low) * stretch, max(0.0, high) * stretch)


class Judged(NamedTuple):
    """How intervals did on runs that they were not learned on. inside: of all. families: name -> runs, those inside.
    halves: kind -> median factor from the middle to an end. score: mean width and what misses cost. widths: [run]."""

    inside: float
    families: dict[str, tuple[int, int]]
    halves: dict[str, float]
    score: float

    @property
    def width(self) -> float:
        """Mean over kinds of the logarithm of half an interval."""
        return sum(map(log, self.halves.values())) / len(self.halves)

    @property
    def short(self) -> float:
        """By how much the promise is not kept, in parts of the runs."""
        large = [inside / rows for rows, inside in self.families.values() if rows >= LARGE]
        low, high = PROMISE
        return max(0.0, low - self.inside, self.inside - high) + sum(max(0.0, EACH - share) for share in large)


def judged(some: Sequence[Case], choices: Sequence[Choice]) -> dict[Choice, Judged]:
    """Choices that differ in their stretch alone, each family by what the others teach."""
    reach = _left_out(some, choices[0]._replace(stretch=(1.0, 1.0)))
    return {choice: _judged(some, choice, reach) for choice in choices}


def _left_out(some: Sequence[Case], choice: Choice) -> Floats:
    """[run, side]: how far intervals reach, of each run's family none was learned on."""
    reach = np.zeros((len(some), 2))
    beyond = Columns(some).beyond(choice.share, choice.unsaid)
    for name in {case.family for case in some}:
        others = [place for place, case in enumerate(some) if case.family != name]
        rest = pools([some[place] for place in others], beyond[others], choice) or {EVERYTHING: ground()}
        known = {key: _spread(pool, 0, 1.0) for key, pool in rest.items()}
        table = Learned(choice.levels, choice.share, choice.unsaid, known)
        for place, case in enumerate(some):
            if case.family == name:
                reach[place] = table.nearest(case.of)[1][1:]
    return reach


def _judged(some: Sequence[Case], choice: Choice, reach: Floats) -> Judged:
    columns = Columns(some)
    stretch = np.array([choice.stretched(case.of.kind) for case in some])
    error, wider = columns.of("error"), stretch * choice.unsaid ** columns.of("unsaid")
    below, above = (reach * wider[:, None]).T
    low, high = joined(columns.of("low"), columns.of("high"), choice.share, below, above)
    inside = (low <= error) & (error <= high)
    misses = np.maximum(low - error, 0) + np.maximum(error - high, 0)
    names, kinds = np.array([case.family for case in some]), np.array([case.of.kind for case in some])
    families = {name: (int((names == name).sum()), int(inside[names == name].sum())) for name in sorted(set(names))}
    halves = {kind: float(np.exp(np.median((high - low)[kinds == kind]) / 2)) for kind in sorted(set(kinds))}
    score = np.average(high - low + PENALTY * misses, weights=columns.of("weight"))
    return Judged(float(inside.mean()), families, halves, float(score))


def chosen(some: Sequence[Case]) -> tuple[Choice, Judged]:
    """Of those that keep the promise (or come nearest to it) and score about as well as the best, the sharpest."""
    every: dict[Choice, Judged] = {}
    for first in product(LEVELS, POOLING, SHARES, UNSAID):
        every |= judged(some, [Choice(*first, (dense, mixed)) for dense in STRETCH for mixed in STRETCH])
    least = min(round(how.short, 3) for how in every.values())
    fair = {choice: how for choice, how in every.items() if round(how.short, 3) == least}
    most = min(how.score for how in fair.values()) * (1 + ALIKE)
    best = min((choice for choice in fair if fair[choice].score <= most), key=lambda choice: fair[choice].width)
    return best, every[best]


def table(some: Sequence[Case], about: dict[str, Any]) -> dict[str, Any]:
    """The content of left_out.json. about: what it was learned on, and by which program."""
    choice, how = chosen(some)
    every = pools(some, Columns(some).beyond(choice.share, choice.unsaid), choice)
    classes = {
        name: {
            **spread._asdict(), "runs": sum(name in case.of.names(choice.levels) for case in some),
            "quantiles": dict(zip(map(str, LEVELS_KEPT), every[name].quantiles(*LEVELS_KEPT), strict=True)),
        }
        for name, spread in sorted(spreads(some, choice).items())
    }  # fmt: skip
    return {**about, **choice._asdict(), "judged": how._asdict(), "classes": classes, "apart": apart(some, choice)}


def apart(some: Sequence[Case], choice: Choice) -> dict[str, Any]:
    """What a stack gets that no run had: classes by APART, stretched as little as keeps for stacks what is promised for
    families, each judged by what the others teach (of the kinds that two stacks ran; the largest stretch where none
    does)."""
    own, stacks = choice._replace(levels=APART), sorted({case.of.stack for case in some})
    every = [own._replace(stretch=(stretch, stretch)) for stretch in STRETCH]
    ran = {kind: {case.of.stack for case in some if case.of.kind == kind} for kind in {case.of.kind for case in some}}
    shared = [case._replace(family=case.of.stack) for case in some if len(ran[case.of.kind]) > 1]
    how = judged(shared, every) if shared else {}
    first = next((one for one in every if one in how and _keeps(how[one])), every[-1])
    shares = {name: hits / rows for name, (rows, hits) in how[first].families.items()} if how else {}
    classes = {name: spread._asdict() for name, spread in sorted(spreads(some, first).items())}
    return {"levels": APART, "stacks": stacks, "stretch": first.stretch[0], "inside": shares, "classes": classes}


def _keeps(how: Judged) -> bool:
    """Whether enough runs lie inside, of all and of each group."""
    return how.inside >= PROMISE[0] and min(hits / rows for rows, hits in how.families.values()) >= EACH


# --- a user's own runs ------------------------------------------------------------------------------------------------

ENOUGH = 8
"""Layouts of one kind from which on a file's runs say something of each other: with fewer, one of them decides an
end."""


OWN_POOLING = 3.0
"""Layouts that the class that ships counts for beside them."""


def own(some: Sequence[Case], ships: Learned) -> Iterator[tuple[float, float] | None]:
    """Of each run in order the ends of its interval as logarithms, by the other layouts of its kind in the file pooled
    with the class that ships; None where those are fewer than ENOUGH."""
    beyond = Columns(some).beyond(ships.share, ships.unsaid)
    for case in some:
        others = [n for n, one in enumerate(some) if one.of.kind == case.of.kind and one.group != case.group]
        yield _own(case, [some[n] for n in others], beyond[others], ships)


def _own(case: Case, others: Sequence[Case], beyond: Floats, ships: Learned) -> tuple[float, float] | None:
    if len({one.group for one in others}) < ENOUGH:
        return None
    around = ships.nearest(case.of)[1]
    held = Pool(np.array([-around.below, 0.0, around.above]), np.array([2 * TAIL, 1 - 4 * TAIL, 2 * TAIL]))
    pool = _pool(beyond, np.array([one.weight for one in others]), held, OWN_POOLING)
    return ships.ends(case.low, case.high, _spread(pool, len(others), 1.0), case.unsaid)
