"""What published runs say that the model leaves out: left_out.json, learned and judged family by family.

A run's error is the logarithm of measured over predicted. What of it lies beyond the spread of prices is its remainder:
added to that spread as an independent cause, it reaches the error. How large remainders are goes by what is known of a
run before it is measured (`left_out.FEATURES`): their median size is the exponential of a sum, fitted with few slopes,
none below zero and each held near it (ridge). A layout counts once, however many releases ran it; a family counts as
the square root of its layouts, since runs of one publisher are wrong together.

How many such sizes an interval reaches is told by conformal prediction over families: each run has a size by what the
other families teach, and nineteen of twenty of a kind, and one more that is above all, may not lie further to a side
(Vovk, Gammerman and Shafer, Algorithmic learning in a random world, 2005, with families in place of runs; one
score a side as in Lei and others, Distribution-free predictive inference for regression, JASA 113, 2018, section 5.2).
A stack is stretched until of each large family that ran it the promised part lies inside. Nothing is chosen among
choices; what stands here as a number is a judgement and said to be one.
"""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import exp, log
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from sim.analysis.left_out import ANY, FEATURES, FLOOR, Class, Learned, Spread, joined
from sim.validation.runs.outcome import Outcome

Floats = npt.NDArray[np.float64]
KINDS = ("dense", "mixture")
SHARE = 0.5
"""Of the spread of prices: what stands beside it says the rest. A judgement; a quarter and all do about as well."""
LEAST = {"unsaid": log(1.1)}
"""Slopes that are held above zero: an open choice is never as sure as one that is said."""
RIDGE = 0.02
"""Of squares of slopes, beside the mean loss of a run: one publisher's runs decide no slope alone."""
SMOOTH = 0.25
"""Of the median's loss, in logarithms of sizes: within it the loss is round."""
SMALL = 0.01
"""Of remainders; what is less counts as so much. Two runs of one configuration differ by half of it and more."""
STEPS, FAR = 200, 0.3
NEAR = float(np.finfo(float).eps) ** 0.5
"""Of Newton's method: at most so many steps, in none of which a slope moves by more, until none moves by as much."""
GROUND = 0.5
"""How far the one run more is off, at least: a factor of 1.65, before any run is seen. A judgement."""
ASKEW = 0.25
"""Of a side's reach the other has at least so much: that some publishers were all too slow says less of others. A
judgement."""
TAIL = 0.05
"""Beyond either end of the interval."""
INSIDE = 1 - 2 * TAIL
"""Runs that an interval is to hold."""
PROMISE, EACH, LARGE = (0.85, 0.95), 0.80, 20
"""Runs inside of all, and of each family with so many rows, when the family was not learned on."""
ENOUGH = 8
"""Rows of a large family on one stack from which on its part of them is asked for; layouts of one kind from which on a
file's runs say something of each other: with fewer, one of them decides an end."""
PENALTY = 2 / (2 * TAIL)
"""Width that a miss costs for its distance: the interval score of a 90 % interval (Gneiting and Raftery, Strictly
proper scoring rules, prediction, and estimation, JASA 102, 2007, eq. 43)."""
BARELY = 1 + float(np.finfo(float).eps) ** 0.5
"""Times which a run that decides a stretch lies inside, whatever is rounded."""


class Case(NamedTuple):
    """A run that was predicted. error, low, high: logarithms over the predicted step, of the measured one and of the
    ends that prices give. unsaid: deciding keys that it does not say. weight: one over the runs of its layout. mfu: of
    the predicted step."""

    family: str
    group: str
    of: Class
    error: float
    low: float
    high: float
    unsaid: int
    weight: float = 1.0
    mfu: float = 1.0


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
    return Case(each.run.family, group, Class(**parts["class"]), error, low, high, unsaid, weight, parts["mfu"])


# --- what is learned --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Columns:
    """Cases as arrays."""

    cases: Sequence[Case]

    def of(self, name: str) -> Floats:
        """A field of all cases."""
        return np.array([getattr(case, name) for case in self.cases], float)

    def remainders(self) -> Floats:
        """Below zero where the run was faster than the middle of what prices give."""
        low, high = self.of("low"), self.of("high")
        off = self.of("error") - (low + high) / 2
        left = np.sqrt(np.maximum(off**2 - ((high - low) / 2 * SHARE) ** 2, 0.0))
        return np.asarray(np.sign(off) * left)

    def features(self) -> Floats:
        """[run, feature], that of every run first."""
        rows = [(1.0, *case.of.features(case.unsaid, case.mfu)) for case in self.cases]
        return np.array(rows).reshape(-1, 1 + len(FEATURES))

    def sizes(self, scale: Mapping[str, float]) -> Floats:
        """How large remainders are by a scale."""
        return np.asarray(np.exp(self.features() @ np.array([scale[name] for name in (ANY, *FEATURES)])))


def _weights(some: Sequence[Case]) -> Floats:
    """A layout once, a family as the square root of its layouts of a kind."""
    layouts: dict[tuple[str, str], float] = {}
    for case in some:
        layouts[case.family, case.of.kind] = layouts.get((case.family, case.of.kind), 0.0) + case.weight
    return np.array([case.weight / layouts[case.family, case.of.kind] ** 0.5 for case in some])


def scale(some: Sequence[Case]) -> dict[str, float]:
    """Of the size of remainders: the logarithm of their median, in sum over features."""
    least = np.array([-math.inf, *(LEAST.get(name, 0.0) for name in FEATURES)])
    if not some:
        return dict(zip((ANY, *FEATURES), [log(GROUND), *map(float, least[1:])], strict=True))
    columns, weights = Columns(some), _weights(some)
    known, sizes = columns.features(), np.log(np.maximum(np.abs(columns.remainders()), SMALL))
    held = np.zeros(len(least), bool)
    while True:
        slopes = _median(known, sizes, weights / weights.sum(), np.where(held, least, math.nan))
        if not (below := ~held & (slopes < least)).any():
            return dict(zip((ANY, *FEATURES), map(float, slopes), strict=True))
        held |= below


def _median(known: Floats, sizes: Floats, weights: Floats, held: Floats) -> Floats:
    """Slopes of the weighted median by Newton's method, those that are held as they are. known: [run, feature], the
    first of every run, which no ridge holds."""
    free = np.isnan(held)
    slopes = np.where(free, 0.0, held)
    slopes[0] = np.average(sizes - known[:, 1:] @ slopes[1:], weights=weights)
    ridge = np.array([0.0, *[2 * RIDGE] * (len(held) - 1)])
    for _ in range(STEPS):
        above = np.tanh((sizes - known @ slopes) / (2 * SMOOTH)) / 2
        curve = np.maximum(0.25 - above**2, SMALL) / SMOOTH  # far from all runs a Newton step would be none
        gradient = known.T @ (weights * above) - ridge * slopes
        hessian = known.T @ (known * (weights * curve)[:, None]) + np.diag(ridge)
        move = np.clip(np.linalg.solve(hessian[np.ix_(free, free)], gradient[free]), -FAR, FAR)
        slopes[free] += move
        if np.abs(move).max() < NEAR:
            break
    return slopes


def _by_others(some: Sequence[Case]) -> Floats:
    """Sizes of all runs, each by the other families."""
    of = [case.family for case in some]
    sizes, names = np.zeros(len(some)), np.array(of)
    for name in sorted(set(of)):
        own, rest = (
            [case for case, its in zip(some, of, strict=True) if (its == name) == mine] for mine in (True, False)
        )
        sizes[names == name] = Columns(own).sizes(scale(rest))
    return sizes


def _sides(some: Sequence[Case], scores: Floats, kind: str, known: Mapping[str, float]) -> Spread:
    """Of a kind, from the scores (remainders over sizes) of all runs."""
    own = np.array([case.of.kind == kind for case in some], bool)
    weights = Columns(some).of("weight")[own]
    ground = GROUND / exp(known[ANY] + known["mixture"] * (kind == "mixture"))
    below, above = (_side(sign * scores[own], weights, ground) for sign in (-1, 1))
    least = ASKEW * max(below, above)
    return Spread(len({case.group for case in some if case.of.kind == kind}), max(below, least), max(above, least))


def _side(scores: Floats, weights: Floats, ground: float) -> float:
    """The score that 1 - TAIL of runs and of one more, which is above all, are not above, between neighbours; a run
    counts as its layout has it, the one more as they do in the mean."""
    order = np.argsort(scores, kind="stable")
    most = max(ground, float(scores.max(initial=0.0)))
    heavy = np.cumsum(np.append(weights[order], weights.mean() if len(weights) else 1.0))
    return float(np.interp(1 - TAIL, heavy / heavy[-1], np.append(scores[order], most)))


def _needed(some: Sequence[Case], sizes: Floats, sides: Mapping[str, Spread]) -> Floats:
    """The stretch at which each run just lies inside."""
    left = Columns(some).remainders()
    reach = np.array([sides[case.of.kind][1:] for case in some]).reshape(-1, 2)
    side = np.where(left < 0, reach[:, 0], reach[:, 1])
    return np.where(np.abs(left) <= FLOOR, 0.0, np.abs(left) / (sizes * side) * BARELY)


def _quantile(values: Floats, part: float, more: int = 0) -> float:
    """The least value that so large a part of them, and of so many more that are above all, is not above; the largest
    where they are too few."""
    place = min(len(values), math.ceil(part * (len(values) + more)))
    return float(np.sort(values)[place - 1])


def _stretch(some: Sequence[Case], needed: Floats, large: Collection[str]) -> dict[str, float]:
    """Of each stack: at least 1, and what the promised part of each large family that ran it needs."""
    out = dict[str, float]()
    for stack in sorted({case.of.stack for case in some}):
        own = [np.array([case.of.stack == stack and case.family == name for case in some]) for name in sorted(large)]
        out[stack] = max([1.0, *(_quantile(needed[rows], EACH) for rows in own if rows.sum() >= ENOUGH)])
    return out


def _apart(some: Sequence[Case], large: Collection[str]) -> tuple[float, dict[str, float]]:
    """What a stack is stretched by that no run had, and the part inside of each that runs had: the least, and at least
    1, at which nine of ten runs, and of each stack the promised part, lie inside by what the other stacks' teach. Of
    kinds that another stack ran; where there is none, twice."""
    needed, of = [np.zeros(0)], list[str]()
    for stack in sorted({case.of.stack for case in some}):
        rest = [case for case in some if case.of.stack != stack]
        kinds = {case.of.kind for case in rest}
        own = [case for case in some if case.of.stack == stack and case.of.kind in kinds]
        taught = learned(rest, large, alone=True) if own else None
        if taught:
            needed.append(_needed(own, Columns(own).sizes(taught.scale), taught.sides))
            of += [stack] * len(own)
    every, names = np.concatenate(needed), np.array(of)
    if not of:
        return ALONE, {}
    most = max([1.0, _quantile(every, INSIDE, 1), *(_quantile(every[names == name], EACH) for name in sorted(set(of)))])
    return most, {name: float((every[names == name] <= most).mean()) for name in sorted(set(of))}


ALONE = 2.0
"""What a stack is stretched by that no run had, where none is judged by another. A judgement."""


def learned(some: Sequence[Case], large: Collection[str], alone: bool = False) -> Learned:
    """From some runs. large: families of which the promised part is to lie inside. alone: nothing but these stacks is
    asked for."""
    known = scale(some)
    sizes = _by_others(some)
    sides = {kind: _sides(some, Columns(some).remainders() / sizes, kind, known) for kind in KINDS}
    stretch = _stretch(some, _needed(some, sizes, sides), large)
    return Learned(SHARE, known, sides, stretch | {ANY: ALONE if alone else _apart(some, large)[0]})


# --- how it does ------------------------------------------------------------------------------------------------------


class Judged(NamedTuple):
    """How intervals did on runs. inside: of all. families: name -> runs, those inside. halves: kind -> median factor
    from the middle to an end. score: mean width and what misses cost."""

    inside: float
    families: dict[str, tuple[int, int]]
    halves: dict[str, float]
    score: float


def large(some: Sequence[Case]) -> list[str]:
    """Families with so many rows that the promise speaks of each."""
    rows = [case.family for case in some]
    return sorted(name for name in set(rows) if rows.count(name) >= LARGE)


def ends(some: Sequence[Case], by: Learned, sizes: Floats | None = None) -> tuple[Floats, Floats]:
    """Of each run's interval, as logarithms over the predicted step. sizes: of remainders, where others than by's own
    scale are meant."""
    columns = Columns(some)
    wide = (columns.sizes(by.scale) if sizes is None else sizes) * [
        by.stretch.get(case.of.stack, by.stretch[ANY]) for case in some
    ]
    below, above = np.maximum(np.array([by.sides[case.of.kind][1:] for case in some]).T * wide, FLOOR)
    return joined(columns.of("low"), columns.of("high"), by.share, below, above)


def judged(some: Sequence[Case], low: Floats, high: Floats) -> Judged:
    """Intervals of all runs."""
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


def left_out(some: Sequence[Case], by: Learned) -> Judged:
    """Each run's size by the other families, the rest as by has it of all."""
    return judged(some, *ends(some, by, _by_others(some)))


def unseen(some: Sequence[Case]) -> Judged:
    """Each family by the others alone: sizes, sides and stretches."""
    low, high, names = np.zeros(len(some)), np.zeros(len(some)), np.array([case.family for case in some])
    for name in sorted(set(names)):
        own, rest = ([case for case in some if (case.family == name) == mine] for mine in (True, False))
        low[names == name], high[names == name] = ends(own, learned(rest, large(rest), alone=True))
    return judged(some, low, high)


def table(some: Sequence[Case], about: dict[str, Any]) -> dict[str, Any]:
    """The content of left_out.json. about: what it was learned on, and by which program."""
    known = learned(some, large(some))
    rows = [case.of.kind for case in some]
    sides = {kind: {**side._asdict(), "runs": rows.count(kind)} for kind, side in known.sides.items()}
    return {
        **about, "share": known.share, "scale": dict(known.scale), "sides": sides, "stretch": dict(known.stretch),
        "judged": left_out(some, known)._asdict(), "unseen": unseen(some)._asdict(),
        "ships": judged(some, *ends(some, known))._asdict(), "stacks": _apart(some, large(some))[1],
    }  # fmt: skip


# --- a user's own runs ------------------------------------------------------------------------------------------------

OWN_POOLING = 3.0
"""Layouts that what ships counts for beside them."""


def own(some: Sequence[Case], ships: Learned) -> Iterator[tuple[float, float] | None]:
    """Of each run in order the ends of its interval as logarithms, by the other layouts of its kind in the file pooled
    with what ships; None where those are fewer than ENOUGH."""
    for case in some:
        others = [one for one in some if one.of.kind == case.of.kind and one.group != case.group]
        yield _own(case, others, ships) if len({one.group for one in others}) >= ENOUGH else None


def _own(case: Case, others: Sequence[Case], ships: Learned) -> tuple[float, float]:
    columns, mine = Columns(others), ships.spread(case.of, case.unsaid, case.mfu)
    size = float(Columns([case]).sizes(ships.scale)[0])
    scores = np.array([*columns.remainders() / columns.sizes(ships.scale), -mine.below / size, 0.0, mine.above / size])
    weights = np.array([*columns.of("weight"), *(OWN_POOLING * each for each in (2 * TAIL, 1 - 4 * TAIL, 2 * TAIL))])
    order = np.argsort(scores, kind="stable")
    middles = (np.cumsum(weights[order]) - weights[order] / 2) / weights.sum()
    below, above = np.interp((TAIL, 1 - TAIL), middles, scores[order]) * size
    return ships.ends(case.low, case.high, Spread(len(others), max(FLOOR, -float(below)), max(FLOOR, float(above))))
