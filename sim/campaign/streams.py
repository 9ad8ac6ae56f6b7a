"""What goes wrong in a seed, and when, whatever the job does meanwhile: each node and switch is up for a time that is
drawn, then away for its repair. Numbers belong to seed, purpose, part and round, so campaigns that differ elsewhere
meet the same failures, and a longer horizon only adds later ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import gamma

import numpy as np
import numpy.typing as npt

from hwmodels.units import NANO
from sim.campaign.values import Campaign, Nodes
from sim.scenario.hashes import hashes

NODE, SWITCH, SOFTWARE, SILENT, SILENT_FOUND, SLOW, SLOW_FOUND = range(7)
"""Kinds of events; also the purposes that random numbers belong to."""
LEMON, HANG = 7, 8
AT_ONCE, MOST_AHEAD = 4096, 64
"""Numbers that are drawn at once, and rounds of one part: how many decides no number."""
PURPOSES = 16
"""More than there are."""

Floats = npt.NDArray[np.float64]
Whole = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Events:
    """Events of some seeds [seed, event] in order of time, with infinite times behind the last. who: node or switch.
    hang: a uniform number, below the part that hangs where it does."""

    time: Floats
    kind: Whole
    who: Whole
    hang: Floats


def events(campaign: Campaign, seeds: Sequence[int], horizon_s: float) -> Events:
    """Events of each seed before a horizon."""
    each = [_of_seed(campaign, seed, horizon_s) for seed in seeds]
    most = max((len(time) for time, *_ in each), default=0)
    shape = len(each), most
    whole = Events(  # one event of all seeds is handled at a time: they lie side by side
        np.full(shape, np.inf, order="F"), np.zeros(shape, np.int64, "F"), np.zeros(shape, np.int64, "F"),
        np.ones(shape, order="F"),
    )  # fmt: skip
    for row, columns in enumerate(each):
        for target, column in zip((whole.time, whole.kind, whole.who, whole.hang), columns, strict=True):
            target[row, : len(column)] = column
    return whole


def _of_seed(campaign: Campaign, seed: int, horizon_s: float) -> tuple[Floats, Whole, Whole, Floats]:
    failures, pool = campaign.failures, campaign.nodes + campaign.spares
    rows = list[tuple[int, Floats, Whole, Floats]]()

    def add(
        kind: int, mean_s: Floats, gap_s: float = 0.0, shape: float = 1.0, later: tuple[int, float] = (0, 0.0)
    ) -> None:
        time, who, turn = renewals(seed, kind, mean_s, gap_s, shape, horizon_s)
        rows.append((kind, time, who, uniform(seed, HANG, who, turn * len(_KINDS) + kind)))
        if later[0]:
            rows.append((later[0], time + later[1], who, np.ones(len(time))))

    if failures.nodes:
        shape = failures.nodes.shape if failures.nodes.law == "weibull" else 1.0
        add(NODE, means(failures.nodes, pool, seed), failures.nodes.repair_s, shape)
    if failures.switches:
        count = -(-pool // failures.switches.nodes)
        add(SWITCH, np.full(count, failures.switches.mtbf_s), failures.switches.repair_s)
    if failures.software_mtbf_s:
        add(SOFTWARE, np.full(1, failures.software_mtbf_s))
    for of, kind, seen in ((failures.silent, SILENT, SILENT_FOUND), (failures.stragglers, SLOW, SLOW_FOUND)):
        if of:
            add(kind, np.full(pool, of.mtbf_s), later=(seen, of.detect_s))
    return _sorted(rows)


_KINDS = range(SLOW_FOUND + 1)


def _sorted(rows: list[tuple[int, Floats, Whole, Floats]]) -> tuple[Floats, Whole, Whole, Floats]:
    if not rows:
        return np.zeros(0), np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)
    time = np.concatenate([time for _, time, _, _ in rows])
    kind = np.concatenate([np.full(len(time), kind) for kind, time, _, _ in rows])
    who, hang = (np.concatenate([row[i] for row in rows]) for i in (2, 3))
    order = np.argsort(time, kind="stable")
    return time[order], kind[order], who[order], hang[order]


def renewals(
    seed: int, purpose: int, mean_s: Floats, gap_s: float, shape: float, horizon_s: float
) -> tuple[Floats, Whole, Whole]:
    """Times before a horizon at which parts fail, with their numbers and rounds. Each is up for a Weibull time of its
    own mean (shape 1: exponential), then away for a gap."""
    who, start = np.arange(len(mean_s)), np.zeros(len(mean_s))
    pieces, turn = list[tuple[Floats, Whole, Whole]](), 0
    while len(who):
        ahead = max(1, min(MOST_AHEAD, AT_ONCE // len(who)))
        parts, turns = (np.repeat(who, ahead), np.tile(np.arange(turn, turn + ahead), len(who))) if ahead > 1 else (
            who, np.full(len(who), turn))  # fmt: skip
        life = -np.log(uniform(seed, purpose, parts, turns))
        up = mean_s[parts] * (life if shape == 1 else life ** (1 / shape) / gamma(1 + 1 / shape))
        after = np.cumsum(up.reshape(-1, ahead), axis=1) if ahead > 1 else up[:, None]
        times = start[:, None] + after + gap_s * np.arange(ahead)
        near = (times < horizon_s).ravel()
        pieces.append((times.ravel()[near], parts[near], turns[near]))
        left = times[:, -1] < horizon_s
        who, start, turn = who[left], times[left, -1] + gap_s, turn + ahead
    columns = (np.concatenate(column) for column in zip(*pieces, strict=True))
    return next(columns), next(columns), next(columns)


def uniform(seed: int, purpose: int, who: Whole, turn: Whole) -> Floats:
    """Numbers between 0 and 1, neither included."""
    bits = hashes(seed * PURPOSES + purpose, who, turn)
    return ((bits >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53


def means(nodes: Nodes, pool: int, seed: int) -> Floats:
    """Mean seconds from repair to failure of each node of the pool in a seed: nodes have rates of their own."""
    rate = np.ones(pool)
    if nodes.spread:
        drawn = np.random.Generator(np.random.PCG64((seed, LEMON)))
        rate *= drawn.gamma(nodes.spread**-2, nodes.spread**2, pool)
    if nodes.lemons:
        lemon = uniform(seed, LEMON, np.arange(pool), np.zeros(pool, np.int64)) < nodes.lemons
        rate *= np.where(lemon, nodes.worse, 1.0) / (1 + nodes.lemons * (nodes.worse - 1))
    mean_s = nodes.mtbf_s / np.maximum(rate, NANO)  # a rate of next to nothing: never in a campaign
    if nodes.bad_mtbf_s is not None:
        mean_s[0] = nodes.bad_mtbf_s
    return mean_s
