"""What published runs say that the model leaves out: left_out.json, learned class by class and judged family by family.

A run's error is the logarithm of measured over predicted. What of it lies beyond the spread of prices is its remainder:
added to that spread as an independent cause, it reaches the error. A class's remainders are pooled with those of the
class around it, as if that had so many runs more (a Dirichlet prior), so few runs of one kind lean on all the others.
A layout counts once, however many releases ran it; a family counts as the square root of its layouts, since runs of one
publisher are wrong together. Dense models and mixtures are learned apart: they say nothing of each other.

How wide that must be is told by conformal prediction over families. Each run is judged by what the others' families
teach, and has a stretch of that at which its measured step just lies inside; the stretch of a stack is the least at
which nine of ten of its runs do, and of each large family the promised part (a quantile for one run more; Vovk,
Gammerman and Shafer, Algorithmic learning in a random world, 2005, with families in place of runs). So runs of a family
that nobody here has seen lie inside as often, as far as families are alike. What else is chosen (levels, pooling, ...)
is chosen by the same judgement.
"""

import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import log
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from sim.analysis.left_out import Class, Learned, Rule, Spread, joined
from sim.validation.runs.outcome import Outcome

Floats = npt.NDArray[np.float64]
KINDS = ("dense", "mixture")
LEVELS = (
    ("kind", "stack"), ("kind", "stack", "generation"), ("kind", "stack", "generation", "blocks"),
    ("kind", "blocks", "generation"), ("kind", "blocks", "stack", "generation"),
    ("kind", "blocks", "generation", "stack"), ("kind", "blocks", "stack", "generation", "scale"),
)  # fmt: skip
"""Orders in which classes may be told apart."""
POOLING, SHARES, UNSAID = (3.0, 10.0, 30.0), (0.25, 0.5, 1.0), (1.1, 1.3, 1.5, 1.8)
"""What may be chosen: runs that the class around counts for, the share of prices' spread, the factor for each deciding
key that is not said (at least a tenth: an open choice is never as sure as one that is said)."""
GROUND: tuple[tuple[float, float], ...] = ((-0.5, 0.25), (0.0, 0.5), (0.5, 0.25))
"""Remainders and their weights before any run is seen: a factor of 1.65 either way in one of two. A judgement, which
stands under the class of a kind alone."""
FLOOR = 0.02
"""That no class reaches less than, to either side: runs of one dense configuration at several sites differ by so much
(docs/RUNS.md, What no prediction can beat)."""
APART = ("kind", "blocks", "launched")
"""Levels for a stack that no run had: neither software nor GPU, but what of a model and a host is left out on any."""
ALONE = 2.0
"""Its stretch where only one stack ran a kind, so that none is judged by another."""
UNSTRETCHED = 1.0
"""No stack that no run had is surer than what its class leaves out of those that runs had, however few rows say so."""
TAIL = 0.05
"""Beyond either end of the interval."""
INSIDE = 1 - 2 * TAIL
"""Runs that an interval is to hold."""
PROMISE, EACH, LARGE = (0.85, 0.95), 0.80, 20
"""Runs inside of all, and of each family with so many rows, when the family was not learned on."""
ENOUGH = 8
"""Rows of a large family from which on its part of them is asked for; layouts of one kind from which on a file's runs
say something of each other: with fewer, one of them decides an end."""
PENALTY = 2 / (2 * TAIL)
"""Width that a miss costs for its distance: the interval score of a 90 % interval (Gneiting and Raftery, Strictly
proper scoring rules, prediction, and estimation, JASA 102, 2007, eq. 43)."""
ALIKE = 0.05
"""Of scores that a few rows in the tails decide: choices closer than that are told apart by how sharp they are."""
BARELY = 1 + float(np.finfo(float).eps) ** 0.5
"""Times which a run that decides a stretch lies inside, whatever is rounded."""
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
    """See LEVELS to UNSAID; of a kind."""

    levels: tuple[str, ...]
    pooling: float
    share: float
    unsaid: float

    def rule(self, stretch: Mapping[str, float]) -> Rule:
        """With the stretch of each stack."""
        return Rule(self.levels, self.share, self.unsaid, stretch)


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
    """Of every class that has a run, by name. some: of one kind."""
    members: dict[str, list[int]] = {}
    for place, case in enumerate(some):
        for name in case.of.names(choice.levels)[1:]:
            members.setdefault(name, []).append(place)
    known: dict[str, Pool] = {}
    for name in sorted(members, key=lambda name: name.count(",")):
        around = known.get(name.rpartition(", ")[0]) or ground()
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
    """Of every class, from some runs of one kind, before they are stretched."""
    every = pools(some, Columns(some).beyond(choice.share, choice.unsaid), choice)
    return {name: _spread(pool, _layouts(some, name, choice)) for name, pool in every.items()}


def _layouts(some: Sequence[Case], name: str, choice: Choice) -> int:
    return len({case.group for case in some if name in case.of.names(choice.levels)})


def _spread(pool: Pool, groups: int) -> Spread:
    low, high = pool.quantiles(TAIL, 1 - TAIL)
    return Spread(groups, max(FLOOR, -low), max(FLOOR, high))


class Judged(NamedTuple):
    """How intervals did on runs that they were not learned on. inside: of all. families: name -> runs, those inside.
    halves: kind -> median factor from the middle to an end. score: mean width and what misses cost."""

    inside: float
    families: dict[str, tuple[int, int]]
    halves: dict[str, float]
    score: float


@dataclass(frozen=True)
class Conformed:
    """Runs of one kind, each by what the other families teach. reach: how far that goes, before it is stretched
    [run, side]. stretch: of each stack."""

    some: Sequence[Case]
    choice: Choice
    reach: Floats
    stretch: Mapping[str, float]

    def ends(self) -> tuple[Floats, Floats]:
        """Of each run's interval, as logarithms over the predicted step."""
        columns = Columns(self.some)
        rule = self.choice.rule(self.stretch)
        wider = np.array([rule.stretched(case.of.stack) for case in self.some])
        below, above = (self.reach * (wider * self.choice.unsaid ** columns.of("unsaid"))[:, None]).T
        return joined(columns.of("low"), columns.of("high"), self.choice.share, below, above)


def conformed(some: Sequence[Case], choice: Choice, large: Collection[str] = ()) -> Conformed:
    """Of runs of one kind. large: families of which the promised part is to lie inside."""
    reach = _left_out(some, choice)
    needed, stacks = _needed(some, choice, reach), np.array([case.of.stack for case in some])
    families = np.array([case.family for case in some])
    stretch = {
        str(stack): _least(needed[stacks == stack], families[stacks == stack], large) for stack in sorted(set(stacks))
    }
    return Conformed(some, choice, reach, stretch)


def _least(needed: Floats, families: npt.NDArray[np.str_], large: Collection[str]) -> float:
    """The least stretch at which enough runs of a stack lie inside, of all and of each large family."""
    held = [_quantile(needed, INSIDE, 1)]
    held += [_quantile(own, EACH) for name in large if len(own := needed[families == name]) >= ENOUGH]
    return float(max(held) * BARELY)


def _quantile(values: Floats, part: float, more: int = 0) -> float:
    """The least value that so large a part of them, and of so many more that are above all, is not above; the largest
    where they are too few."""
    place = min(len(values), math.ceil(part * (len(values) + more)))
    return float(np.sort(values)[place - 1])


def _needed(some: Sequence[Case], choice: Choice, reach: Floats) -> Floats:
    """The stretch at which each run just lies inside."""
    columns = Columns(some)
    low, high = columns.of("low"), columns.of("high")
    off = columns.of("error") - (low + high) / 2
    left = np.sqrt(np.maximum(off**2 - ((high - low) / 2 * choice.share) ** 2, 0.0))
    side = np.where(off < 0, reach[:, 0], reach[:, 1])
    return np.asarray(left / (side * choice.unsaid ** columns.of("unsaid")))


def _left_out(some: Sequence[Case], choice: Choice) -> Floats:
    """[run, side]: how far intervals reach, of each run's family none was learned on."""
    reach = np.zeros((len(some), 2))
    beyond = Columns(some).beyond(choice.share, choice.unsaid)
    for name in {case.family for case in some}:
        others = [place for place, case in enumerate(some) if case.family != name]
        rest = pools([some[place] for place in others], beyond[others], choice)
        known = {key: _spread(pool, 0) for key, pool in rest.items()} or dict.fromkeys(KINDS, _spread(ground(), 0))
        table = Learned(dict.fromkeys(KINDS, choice.rule({})), known)
        for place, case in enumerate(some):
            if case.family == name:
                reach[place] = table.nearest(case.of)[1][1:]
    return reach


def judged(parts: Sequence[Conformed]) -> Judged:
    """Of all runs, a kind after the other."""
    some = [case for part in parts for case in part.some]
    low, high = (np.concatenate(each) for each in zip(*(part.ends() for part in parts), strict=True))
    columns = Columns(some)
    error, names = columns.of("error"), np.array([case.family for case in some])
    inside = (low <= error) & (error <= high)
    misses = np.maximum(low - error, 0) + np.maximum(error - high, 0)
    kinds = np.array([case.of.kind for case in some])
    families = {
        str(name): (int((names == name).sum()), int(inside[names == name].sum())) for name in sorted(set(names))
    }
    halves = {str(kind): float(np.exp(np.median((high - low)[kinds == kind]) / 2)) for kind in sorted(set(kinds))}
    score = np.average(high - low + PENALTY * misses, weights=columns.of("weight"))
    return Judged(float(inside.mean()), families, halves, float(score))


def chosen(some: Sequence[Case]) -> dict[str, Conformed]:
    """Of each kind that ran: of choices that score about as well as the best, the sharpest."""
    rows = Counter(case.family for case in some)
    large = [name for name, count in rows.items() if count >= LARGE]
    return {kind: _chosen(own, large) for kind in KINDS if (own := [case for case in some if case.of.kind == kind])}


def _chosen(some: Sequence[Case], large: Collection[str]) -> Conformed:
    every = [conformed(some, Choice(*each), large) for each in product(LEVELS, POOLING, SHARES, UNSAID)]
    how = [judged([each]) for each in every]
    most = min(each.score for each in how) * (1 + ALIKE)
    fair = [place for place, each in enumerate(how) if each.score <= most]
    return every[min(fair, key=lambda place: max(how[place].halves.values()))]


FIRST = Choice(LEVELS[0], POOLING[0], SHARES[-1], UNSAID[0])
"""Of a kind that no run was of."""


def table(some: Sequence[Case], about: dict[str, Any]) -> dict[str, Any]:
    """The content of left_out.json. about: what it was learned on, and by which program."""
    kinds = chosen(some)
    rules, classes = dict[str, Any](), dict[str, Any]()
    for kind in KINDS:
        own = kinds[kind].some if kind in kinds else []
        choice = kinds[kind].choice if kind in kinds else FIRST
        rules[kind] = {**choice._asdict(), "stretch": kinds[kind].stretch if kind in kinds else {"": ALONE}}
        classes |= _classes(own, choice) if own else {kind: {**_spread(ground(), 0)._asdict(), "runs": 0}}
    how = judged(list(kinds.values()))._asdict()
    return {**about, "rules": rules, "judged": how, "classes": classes, "apart": apart(some, kinds)}


def _classes(some: Sequence[Case], choice: Choice) -> dict[str, Any]:
    """Of a kind, with quantiles of remainders."""
    every = pools(some, Columns(some).beyond(choice.share, choice.unsaid), choice)
    return {
        name: {
            **spread._asdict(), "runs": sum(name in case.of.names(choice.levels) for case in some),
            "quantiles": dict(zip(map(str, LEVELS_KEPT), every[name].quantiles(*LEVELS_KEPT), strict=True)),
        }
        for name, spread in sorted(spreads(some, choice).items())
    }  # fmt: skip


def apart(some: Sequence[Case], kinds: Mapping[str, Conformed]) -> dict[str, Any]:
    """What a stack gets that no run had: classes by APART, stretched as little as keeps for stacks what is promised for
    families, each judged by what the others teach. A kind that one stack ran has the stretch of the other kind; ALONE
    where nothing is judged."""
    judged_ = {kind: one for kind in KINDS if (one := _by_stack(_apart(some, kind), _choice(kinds, kind)))}
    most = max((one.stretch[""] for one in judged_.values()), default=ALONE)
    rules, classes, inside = dict[str, Any](), dict[str, Any](), dict[str, tuple[int, int]]()
    for kind in KINDS:
        choice, one = _choice(kinds, kind), judged_.get(kind)
        rules[kind] = {**choice._asdict(), "stretch": dict(one.stretch) if one else {"": most}}
        own = [case for case in some if case.of.kind == kind]
        spread = spreads(own, choice) if own else {kind: _spread(ground(), 0)}
        classes |= {name: each._asdict() for name, each in sorted(spread.items())}
        inside |= judged([one]).families if one else {}
    shares = {name: hits / rows for name, (rows, hits) in inside.items()}
    return {"stacks": sorted({case.of.stack for case in some}), "inside": shares, "rules": rules, "classes": classes}


def _choice(kinds: Mapping[str, Conformed], kind: str) -> Choice:
    return (kinds[kind].choice if kind in kinds else FIRST)._replace(levels=APART)


def _apart(some: Sequence[Case], kind: str) -> list[Case]:
    """Runs of a kind with stacks in place of families."""
    return [case._replace(family=case.of.stack) for case in some if case.of.kind == kind]


def _by_stack(some: Sequence[Case], choice: Choice) -> Conformed | None:
    """With one stretch for all, where there are several stacks."""
    stacks = np.array([case.family for case in some])
    if len(set(stacks)) < 2:
        return None
    reach = _left_out(some, choice)
    stretch = _least(_needed(some, choice, reach), stacks, sorted(set(stacks)))
    return Conformed(some, choice, reach, {"": max(UNSTRETCHED, stretch)})


# --- a user's own runs ------------------------------------------------------------------------------------------------

OWN_POOLING = 3.0
"""Layouts that the class that ships counts for beside them."""


def own(some: Sequence[Case], ships: Learned) -> Iterator[tuple[float, float] | None]:
    """Of each run in order the ends of its interval as logarithms, by the other layouts of its kind in the file pooled
    with the class that ships; None where those are fewer than ENOUGH."""
    for case in some:
        rule = ships.rules[case.of.kind]
        others = [one for one in some if one.of.kind == case.of.kind and one.group != case.group]
        yield _own(case, others, Columns(others).beyond(rule.share, rule.unsaid), ships)


def _own(case: Case, others: Sequence[Case], beyond: Floats, ships: Learned) -> tuple[float, float] | None:
    if len({one.group for one in others}) < ENOUGH:
        return None
    around = ships.nearest(case.of)[1]
    held = Pool(np.array([-around.below, 0.0, around.above]), np.array([2 * TAIL, 1 - 4 * TAIL, 2 * TAIL]))
    pool = _pool(beyond, np.array([one.weight for one in others]), held, OWN_POOLING)
    return ships.ends(case.low, case.high, case.of.kind, _spread(pool, len(others)), case.unsaid)
