"""Which layers go on which stage.

Unless a layout says otherwise, the embedding stays with the first stage, the head and the multi-token-prediction module
with the last; layers between are contiguous. `even` spreads their number; `balanced` makes the most loaded rank as
light as it can be by priced cost, counting all stages a rank holds. Where stages s and P-1-s share a rank (DualPipe),
single layers then move between stages while that shortens the two overlapped pairs of the slowest rank. A list gives
the layers of each stage, a layout all that it holds.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from functools import cache, lru_cache
from itertools import accumulate, groupby, islice, pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from hwmodels.refused import Refused
from hwmodels.units import ROUNDING_SLACK
from sim.models.layer import Unit
from sim.models.recompute import FIRST, Recompute
from sim.scenario.stages import Layout

REACH = 4
"""How far a stage's layer count may be from the mean in the search."""
BOUNDS = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)
"""Loads that are tried, from the mean (0) to that of an even placement (1), which is never too light."""
KEPT = 1 << 12
"""Stages that are kept with their layers counted from the first one, and placements: a model has a few hundred."""
SURE = 9
"""Digits of loads, of the mean, that sums in another order do not change."""

Stage = tuple[Unit, ...]
Numbers = npt.NDArray[np.int64]
Loads = npt.NDArray[np.float64]


def place(
    units: Sequence[Unit], costs: Sequence[float], stages: int, rule: str | Sequence[int] | Layout, mirrored: bool,
    pair_ns: Callable[[Stage, Stage], int] | None, least_ns: Callable[[Unit], int] = lambda unit: 0,
    holds: Sequence[Sequence[int]] = (),
) -> tuple[Stage, ...]:  # fmt: skip
    """Units of each stage. costs: of each unit. mirrored: stages s and stages-1-s share a rank. pair_ns: how long the
    forward of one stage takes overlapped with the backward of another; None where none overlap. least_ns: of a unit's
    forward and backward, no more than they add to such a pair; what is known to be too long by it is not run. holds:
    stages of each rank, where that is not one (or two that mirror each other).

    Raises Refused when there are fewer layers than stages that would otherwise be empty.
    """
    body = [i for i, u in enumerate(units) if u.block and not u.beside]
    first, last = body[0], body[-1] + 1
    if isinstance(rule, Layout):
        return _as_laid_out(units, rule)
    if not isinstance(rule, str):
        return _cut(units, rule, first)
    if len(body) < stages - 2:
        raise Refused(f"{len(body)} layers cannot fill {stages} stages; use at most {len(body) + 2}")
    if rule == "even" or len(body) < stages:
        return _cut(units, _even(len(body), stages), first)
    ends = sum(costs[:first]), sum(costs[last:])
    counts = [*_balanced(tuple([costs[i] for i in body]), *ends, stages, mirrored)]
    if not mirrored and max(map(len, holds), default=1) > 1:
        counts = _levelled([costs[i] for i in body], *ends, counts, holds)
    if not mirrored or pair_ns is None:
        return _cut(units, counts, first)

    return _cut(units, _settled(units, counts, first, pair_ns, least_ns), first)


def _levelled(
    costs: Sequence[float], head: float, tail: float, counts: list[int], holds: Sequence[Sequence[int]]
) -> list[int]:
    """Move single layers between stages while the most loaded rank gets lighter, or stages more alike."""
    sums = list(accumulate(costs, initial=0.0))

    def worth(candidate: list[int]) -> tuple[float, float]:
        """Load of the heaviest rank, and the sum of squares of stages, to what rounding leaves sure."""
        cuts = list(accumulate(candidate, initial=0))
        loads = [sums[b] - sums[a] for a, b in pairwise(cuts)]
        loads[0], loads[-1] = loads[0] + head, loads[-1] + tail
        heaviest = max(sum(loads[stage] for stage in held) for held in holds)
        return round(heaviest / scale, SURE), round(sum(load * load for load in loads) / scale**2, SURE)

    scale = (sums[-1] + head + tail) / len(holds)
    best = worth(counts)
    while option := min(((worth(move), move) for move in _moves(counts)), default=None):
        if option[0] >= best:
            break
        best, counts = option
    return counts


def _settled(
    units: Sequence[Unit], counts: list[int], first: int, pair_ns: Callable[[Stage, Stage], int],
    least_ns: Callable[[Unit], int],
) -> list[int]:  # fmt: skip
    """Move single layers between stages while the slowest rank's two overlapped pairs get shorter."""
    sums = list(accumulate(map(least_ns, units), initial=0))

    @cache
    def rank_ns(a: int, b: int, c: int, d: int) -> int:
        """Of a rank with units [a, b) and [c, d)."""
        one, two = tuple(units[a:b]), tuple(units[c:d])
        return pair_ns(one, two) + pair_ns(two, one)

    def worth(candidate: list[int], limit: int) -> tuple[int, int]:
        """Longest and summed ns of the ranks; any time above `limit` where one of them takes longer than that."""
        cuts = _cuts(candidate, first, len(units))
        stages = [sums[b] - sums[a] for a, b in pairwise(cuts)]
        least = [a + b for a, b in zip(stages, stages[::-1], strict=True)][: (len(stages) + 1) // 2]
        if (heaviest := max(least)) > limit:
            return heaviest, 0
        times = [0]
        for ns, rank in sorted(zip(least, range(len(least)), strict=True), reverse=True):
            if max(ns, times[-1]) > limit:
                return max(ns, times[-1]), 0
            times.append(rank_ns(cuts[rank], cuts[rank + 1], cuts[-2 - rank], cuts[-1 - rank]))
        return max(times), sum(times)

    best = worth(counts, sys.maxsize)
    for split in _splits(counts):
        if (value := worth(split, best[0])) < best:
            best, counts = value, split
    better: tuple[tuple[int, int], list[int]] | None = (best, counts)
    while better:
        best, counts = better
        moves = ((worth(move, best[0]), move) for move in _moves(counts))
        better = next((option for option in moves if option[0] < best), None)
    return counts


def _splits(counts: list[int]) -> Iterator[list[int]]:
    """Starts for the search: one layer more or less on the rank of both ends, every split of them, the rest even."""
    layers, middle = sum(counts), len(counts) - 2
    shared = counts[0] + counts[-1]
    for ends in (shared - 1, shared, shared + 1):
        rest = _even(layers - ends, middle) if middle else []
        if (min(rest) < 1) if middle else (ends != layers):
            continue
        yield from ([a, *rest, ends - a] for a in range(1, ends + 1))


def _moves(counts: list[int]) -> Iterator[list[int]]:
    """One layer from one stage to another; only the last stage, which has the head, may be left without any."""
    last = len(counts) - 1
    for i in range(len(counts)):
        for j in range(len(counts)):
            if i != j and counts[i] > (0 if i == last else 1):
                yield [c - (k == i) + (k == j) for k, c in enumerate(counts)]


def _as_laid_out(units: Sequence[Unit], layout: Layout) -> tuple[Stage, ...]:
    """Units of each stage by its letters, in the order of the model."""
    left = {letter: iter(each) for letter, each in _lettered(units).items()}
    held = [{unit for letter in letters for unit in next(left[letter])} for letters in layout.stages]
    return tuple(tuple(unit for unit in units if unit in own) for own in held)


def _lettered(units: Sequence[Unit]) -> dict[str, list[list[Unit]]]:
    """Letter of a layout -> units of each that there is. Heads of modules beside the model go with its own, as in
    Megatron Core (`post_process` in megatron/core/models/gpt/gpt_model.py)."""
    main, beside = ([unit for unit in units if unit.beside == other] for other in (False, True))
    body = [i for i, unit in enumerate(main) if unit.block]
    modules = [list(module) for _, module in groupby(beside, key=lambda unit: unit.layer)]
    ends = [1 + next(i for i, unit in enumerate(module) if unit.block) for module in modules]
    heads = [unit for module, end in zip(modules, ends, strict=True) for unit in module[end:]]
    return {
        "E": [main[: body[0]]], "t": [[main[i]] for i in body], "L": [main[body[-1] + 1 :] + heads],
        "m": [module[:end] for module, end in zip(modules, ends, strict=True)],
    }  # fmt: skip


@lru_cache(maxsize=KEPT)
def marked(stage: Stage, recompute: Recompute) -> Stage:
    """A stage whose layers know whether backward computes them again whole. Layers of modules beside the model are
    groups of their own, where all layers are."""
    layers = sum(u.block and not u.beside for u in stage)
    groups = iter(recompute.checkpoints(layers))
    beside = FIRST if recompute.everywhere else ""
    return tuple(u._replace(checkpoint=beside if u.beside else next(groups)) if u.block else u for u in stage)


def precise(units: Stage, first: int, last: int, beside: bool = False) -> Stage:
    """All units of a model, those of its first and last layers in BF16; modules beside it are at its end, or by
    themselves in BF16 (beside)."""
    if not first and not last:
        return tuple(unit._replace(precise=unit.beside) for unit in units) if beside else units
    layers = sum(unit.block and not unit.beside for unit in units)
    inner = range(first, layers - last if last else sys.maxsize)
    return tuple(
        unit._replace(precise=(unit.beside and beside) or (unit.layer >= 0 and unit.layer not in inner))
        for unit in units
    )


@lru_cache(maxsize=KEPT)
def alike(stage: Stage) -> Stage:
    """A stage with its layers counted from its first one: stages of the same kinds of units are equal."""
    first = min((u.layer for u in stage if u.layer >= 0), default=0)
    return tuple(u._replace(layer=u.layer - first) if u.layer >= 0 else u for u in stage)


def _cut(units: Sequence[Unit], counts: Sequence[int], first: int) -> tuple[Stage, ...]:
    return tuple(tuple(units[a:b]) for a, b in pairwise(_cuts(counts, first, len(units))))


def _cuts(counts: Sequence[int], first: int, end: int) -> list[int]:
    """First units of stages, and the end."""
    return [0, *islice(accumulate(counts[:-1], initial=first), 1, None), end]


def _even(layers: int, stages: int) -> list[int]:
    """Counts as equal as can be; the last stage, which has the head, gets none of the remainder. Where there are more
    stages than layers, the head has the last to itself, then the embedding the first."""
    if layers < stages:
        return [0] * (layers < stages - 1) + [1] * layers + [0]
    return [layers // stages + (i < layers % stages) for i in range(stages)]


def _heaviest(sums: list[float], head: float, tail: float, counts: list[int], mirrored: bool) -> float:
    """Load of the most loaded rank; the ends also have what stands before and behind the layers."""
    cuts = [sum(counts[:i]) for i in range(len(counts) + 1)]
    loads = [sums[b] - sums[a] for a, b in pairwise(cuts)]
    loads[0], loads[-1] = loads[0] + head, loads[-1] + tail
    heaviest = max(a + b for a, b in zip(loads, loads[::-1], strict=True)) if mirrored else max(loads)
    return heaviest * (1 + ROUNDING_SLACK * len(counts) ** 2)  # the same sums, made in another order


@lru_cache(maxsize=KEPT)
def _balanced(costs: tuple[float, ...], head: float, tail: float, stages: int, mirrored: bool) -> tuple[int, ...]:
    """Layer counts that minimise the largest rank load, then the sum of squared stage loads.

    Works from both ends inward: a state is (layers taken from the left, from the right). Bounds on the load are tried
    from the lightest up: the tighter one is, the fewer states there are.
    """
    sums = list(accumulate(costs, initial=0.0))
    most = _heaviest(sums, head, tail, _even(len(costs), stages), mirrored)
    least = min(most, (sums[-1] + head + tail) / (stages // 2 + stages % 2 if mirrored else stages))
    for part in BOUNDS:
        if counts := _lightest(sums, head, tail, stages, mirrored, least + (most - least) * part):
            return tuple(counts)
    return tuple(_even(len(costs), stages))


class _States(NamedTuple):
    """Ways to fill the outer stages, the best for each number of layers taken [state]. left, right: layers taken.
    heaviest, squares: load of the most loaded rank, and squares of stage loads, summed. before: state of the round
    before; one, two: layers of the two stages that were filled since."""

    left: Numbers
    right: Numbers
    heaviest: Loads
    squares: Loads
    before: Numbers
    one: Numbers
    two: Numbers

    def of(self, which: Any) -> "_States":
        """Some of them."""
        return _States(*(column[which] for column in self))


def _lightest(
    sums: list[float], head: float, tail: float, stages: int, mirrored: bool, bound: float
) -> list[int] | None:  # fmt: skip
    """The best layer counts with which no rank has more than `bound`; None where there are none."""
    total, mean, loads = len(sums) - 1, (len(sums) - 1) / stages, np.array(sums)
    low, high = max(0, int(mean) - REACH), int(mean) + REACH
    rounds, nothing, weightless = stages // 2, np.zeros(1, dtype=np.int64), np.zeros(1)
    states = _States(nothing, nothing, weightless, weightless, nothing, nothing, nothing)
    done = []
    for i in range(rounds):
        states = _extend(states, loads, (head, tail) if i == 0 else (0.0, 0.0), (low, high), mirrored, bound)
        left = bound * ((rounds - i - 1) * (1 if mirrored else 2) + stages % 2)
        states = states.of(loads[total - states.right] - loads[states.left] <= left)
        done.append(states)
    best: tuple[tuple[float, float], list[int]] | None = None
    for i, (left, right) in enumerate(zip(states.left.tolist(), states.right.tolist(), strict=True)):
        rest = total - left - right
        if stages % 2 == 0 and rest:
            continue
        load = sums[total - right] - sums[left]
        worth = (max(float(states.heaviest[i]), load), float(states.squares[i]) + load * load)
        if best is None or worth <= best[0]:
            ahead, behind = _counts(done, i)
            option = worth, [*ahead, *([rest] if stages % 2 else []), *behind]
            best = option if best is None else min(best, option)
    return best[1] if best else None


def _counts(done: Sequence[_States], state: int) -> tuple[list[int], list[int]]:
    """Layers of the outer stages on both sides, by the states of all rounds and one of the last."""
    ahead, behind = list[int](), list[int]()
    for states in reversed(done):
        ahead.append(int(states.one[state]))
        behind.append(int(states.two[state]))
        state = int(states.before[state])
    return ahead[::-1], behind


def _extend(
    states: _States, sums: Loads, extra: tuple[float, float], window: tuple[int, int], mirrored: bool, bound: float
) -> _States:
    """One more stage on each side of every state; what is heavier than `bound` is no candidate. Of equals the first
    counts: states in their order, then fewer layers ahead, then behind."""
    total = len(sums) - 1
    ahead = np.arange(max(window[0], 1), window[1] + 1)[:, None]
    behind = np.arange(max(window[0], 1 - bool(extra[1])), window[1] + 1)
    left, right = states.left[:, None, None], states.right[:, None, None]
    fits = left + right + ahead + behind <= total
    one = sums[np.minimum(left + ahead, total)] - sums[left] + extra[0]
    two = sums[total - right] - sums[np.maximum(total - right - behind, 0)] + extra[1]
    load = one + two if mirrored else np.maximum(one, two)
    before, i, j = np.nonzero(fits & (one <= bound) & (load <= bound))
    one, two, load = one[before, i, 0], two[before, 0, j], load[before, i, j]
    heaviest = np.maximum(states.heaviest[before], load)
    squares = states.squares[before] + one * one + two * two
    one, two = ahead[i, 0], behind[j]
    all_of_them = _States(states.left[before] + one, states.right[before] + two, heaviest, squares, before, one, two)
    goal = all_of_them.left * (total + 1) + all_of_them.right
    order = np.lexsort((squares, heaviest, goal))  # which is stable
    best = order[np.diff(goal[order], prepend=-1) != 0]
    _, first = np.unique(goal, return_index=True)  # goals ascend here as in `best`
    return all_of_them.of(best[np.argsort(first)])
