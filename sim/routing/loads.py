"""Loads of every rank in every layer and micro-batch without drawing tokens: right in mean and covariance, and cheap.

A group's tokens are many (262,144 for V3), so tokens per expert are drawn as a normal vector with the gate's mean and
covariance, and tokens per rank by regression on them:

- An expert's mean is popularity / experts of all choices. Deviations have the covariance of the gate with all experts
  alike, scaled by the root of popularity: experts of a group rise and fall together (the group was let in), and the sum
  over all experts is fixed. Two eigenvalues hold it, one within groups and one between them.
- A token misses a rank when it misses each of its experts: one that is chosen with the chance a once its group is in
  use is missed with (1 - a)^kappa. kappa, near 1, and a factor for ranks that hold several groups make the mean over
  ranks what the gate gives with all experts alike.

Against tokens drawn through the gate (V3, 64 ranks, 16 micro-batches of 4,096 tokens a rank; smaller in
tests/sim/routing/test_loads.py): error of a rank's mean, rms over ranks, 0.2 % of received and 0.1 % of rows at a
spread of 0.15; 0.5 % and 0.2 % at a MaxVio of 2, where the worst rank is off by 1.5 %; standard deviations over
micro-batches within 3 %. Not held: tokens that two ranks receive vary together only through their rows.
"""

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sim.routing.balanced import PADDING
from sim.routing.gate import BLOCK, Gate, choose, draw
from sim.routing.hosts import Hosts
from sim.routing.keyed import generator
from sim.routing.popularity import MOMENT_TOKENS, Popularity, response
from sim.routing.traffic import Lookup

Array = npt.NDArray[np.float64]
HALVINGS = 60
"""Halvings of the interval in which kappa is searched."""
LARGEST_KAPPA = 2.0
"""Past it a part of a group is as good as the whole: what is still missing is laid to ranks with several groups."""
NEGLIGIBLE = 2.0**-30
"""Variance of choices a token on a rank below which they are fixed: the rank holds all experts."""


class Loads(NamedTuple):
    """received, rows int32 [layers, micro-batches, ranks]: tokens that come, and expert rows padded to PADDING.
    reached [layers, nodes of a group]: tokens that reach a node, expected, over what they are where experts are alike.
    experts int64 [layers, experts]: tokens that chose each expert, of all micro-batches and ranks, its copies together.
    """

    received: npt.NDArray[np.int32]
    rows: npt.NDArray[np.int32]
    reached: Array = np.ones((1, 1))
    experts: npt.NDArray[np.int64] = np.ones((1, 1), np.int64)


def loads(
    gate: Gate, popularity: Popularity, hosts: Sequence[Hosts], tokens: int, seed: int, micro_batches: int, ranks: int,
    capacity: float = 0.0,
) -> Loads:  # fmt: skip
    """Loads of all ranks. popularity [layers, experts]; hosts of each layer; tokens: of one rank's micro-batch.
    capacity: tokens that an expert takes at most, over the mean of all; what is more is dropped, and tokens received
    fall with the choices of their rank. 0: nothing is dropped.

    ranks: whole groups, which all have the same hosts. Kappa and its like are measured on the hosts of the first layer:
    those of other layers place other experts, in the same manner.
    Draws are keyed by (seed, layer, group); micro-batches follow in the stream, so more of them change none before.
    """
    shape = (len(popularity), micro_batches, ranks)
    received, rows = np.empty(shape, np.int32), np.empty(shape, np.int32)
    experts = np.zeros(popularity.shape, np.int64)
    reached = np.array([_reached(gate, row, where) for row, where in zip(popularity, hosts, strict=True)])
    moments = _moments(gate, hosts[0].expert.tobytes(), hosts[0].ranks)
    for layer, (row, where) in enumerate(zip(popularity, hosts, strict=True)):
        law = _law(gate, row, where, moments, tokens * where.ranks, capacity)
        for first in range(0, ranks, where.ranks):
            random = generator(seed, "loads", layer, 0, first)
            at = (layer, slice(None), slice(first, first + where.ranks))
            received[at], rows[at], chosen = _drawn(law, gate, where, random, micro_batches)
            experts[layer] += chosen
    return Loads(received, rows, reached, experts)


class _Law(NamedTuple):
    """Law of the loads of one layer. mean, deviation [experts] of tokens an expert. most: that one can get, all of the
    group. limit: that one takes.

    within, between: roots of the covariance's eigenvalues. reach [ranks]: expected tokens received. slope, rest
    [ranks]: of tokens received on a rank's choices, and the standard deviation that this leaves.
    """

    mean: npt.NDArray[np.float32]
    deviation: npt.NDArray[np.float32]
    most: int
    within: float
    between: float
    reach: npt.NDArray[np.float32]
    slope: npt.NDArray[np.float32]
    rest: npt.NDArray[np.float32]
    limit: float


def _law(
    gate: Gate, popularity: Popularity, hosts: Hosts, moment: "_Moments", tokens: int, capacity: float
) -> _Law:  # fmt: skip
    chance = popularity * gate.chosen / gate.experts
    within, between = _eigenvalues(gate)
    share = (chance / hosts.copies)[hosts.expert].reshape(hosts.ranks, -1).sum(axis=1)
    reach = 1 - moment.factor * _missed(gate, popularity, hosts, moment.kappa)
    variance = moment.variance * share / share.mean()
    slope = np.divide(share * (1 - reach), variance, out=np.zeros_like(share), where=variance > NEGLIGIBLE)
    rest = np.maximum(reach * (1 - reach) - slope**2 * variance, 0)
    columns = (tokens * chance, np.sqrt(tokens * popularity), tokens * reach, slope, np.sqrt(tokens * rest))
    mean, deviation, expected, slope, rest = (column.astype(np.float32) for column in columns)
    limit = np.ceil(capacity * tokens * gate.chosen / gate.experts) if capacity else np.inf
    return _Law(mean, deviation, tokens, within**0.5, between**0.5, expected, slope, rest, float(limit))


def _drawn(
    law: _Law, gate: Gate, hosts: Hosts, random: np.random.Generator, micro_batches: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Received tokens and padded rows [micro-batches, ranks] of one group, and tokens of each expert [experts]."""
    normal = random.standard_normal((micro_batches, gate.experts + hosts.ranks), dtype=np.float32)
    grouped = normal[:, : gate.experts].reshape(micro_batches, gate.groups, -1)
    groups = grouped.mean(axis=2, keepdims=True)
    spread = np.float32(law.within) * (grouped - groups)
    spread += np.float32(law.between) * (groups - groups.mean(axis=1, keepdims=True))
    off = spread.reshape(micro_batches, -1) * law.deviation
    if len(hosts.expert) > gate.experts:  # copies take the tokens of an expert in turn
        slot_mean, off = ((x / hosts.copies)[..., hosts.expert].astype(np.float32) for x in (law.mean, off))
    else:
        slot_mean, off = law.mean[hosts.expert], off if _ordered(hosts) else off[:, hosts.expert]
    per_rank = off.reshape(micro_batches, hosts.ranks, -1).sum(axis=2)
    received = law.reach + law.slope * per_rank + law.rest * normal[:, gate.experts :]
    off += slot_mean
    slots = np.clip(np.rint(off, out=off), 0, law.most, out=off)
    if law.limit < law.most:
        kept = np.minimum(slots, np.floor(law.limit / hosts.copies)[hosts.expert], dtype=np.float32)
        chosen_there, kept_there = (x.reshape(micro_batches, hosts.ranks, -1).sum(axis=2) for x in (slots, kept))
        received, slots = received * kept_there / np.maximum(chosen_there, 1), kept
    rows = np.ceil(slots / PADDING).reshape(micro_batches, hosts.ranks, -1).sum(axis=2) * PADDING
    chosen = np.bincount(hosts.expert, slots.sum(axis=0, dtype=np.float64), gate.experts).astype(np.int64)
    return np.rint(np.maximum(received, 0)), rows, chosen


def _ordered(hosts: Hosts) -> bool:
    return bool((hosts.expert == np.arange(len(hosts.expert))).all())


def _eigenvalues(gate: Gate) -> tuple[float, float]:
    """Eigenvalues of the covariance of a token's choices, experts alike: of contrasts within a group, and between
    groups."""
    chance = gate.chosen / gate.experts
    variance, size = chance * (1 - chance), gate.experts // gate.groups
    if not gate.limited:  # without replacement: every contrast alike
        alike = variance * gate.experts / (gate.experts - 1) if gate.experts > 1 else 0.0
        return alike, alike
    between = response(gate).variance / (size * (1 - 1 / gate.groups))
    if size == 1:
        return 0.0, between
    return (variance - between / size * (1 - 1 / gate.groups)) / (1 - 1 / size), between


class _Moments(NamedTuple):
    """Moments of the ranks of a group, experts alike: kappa and factor (see above), variance of a token's choices on a
    rank."""

    kappa: float
    factor: float
    variance: float


@cache
def _moments(gate: Gate, expert: bytes, ranks: int) -> _Moments:
    """Measured on MOMENT_TOKENS tokens. expert: int64 of Hosts.expert, as bytes that can be remembered."""
    hosts = Hosts(np.frombuffer(expert, np.int64), ranks, ranks)
    alike = np.ones(gate.experts)
    missed, squares = _measured(gate, hosts)
    low, high = 0.0, LARGEST_KAPPA
    for _ in range(HALVINGS):
        kappa = (low + high) / 2
        more = _missed(gate, alike, hosts, kappa).mean() > missed
        low, high = (kappa, high) if more else (low, kappa)
    factor = missed / float(_missed(gate, alike, hosts, high).mean())
    return _Moments(high, factor, squares - (gate.chosen / ranks) ** 2)


def _measured(gate: Gate, hosts: Hosts) -> tuple[float, float]:
    """Chance that a token misses a rank, and mean square of its choices there, experts alike, mean over ranks."""
    random, where, alike = generator(0, "gate", 1), Lookup(hosts), np.ones(gate.experts)
    used, squares, cells = 0, 0, MOMENT_TOKENS * hosts.ranks
    for first in range(0, MOMENT_TOKENS, BLOCK):
        rank = where.slot_of(choose(gate, draw(random, gate, BLOCK, alike)), first) // hosts.per_rank
        flat = (np.arange(BLOCK)[:, None] * hosts.ranks + rank).ravel()
        choices = np.bincount(flat, minlength=BLOCK * hosts.ranks)
        used, squares = used + int(np.count_nonzero(choices)), squares + int((choices**2).sum())
    return 1 - used / cells, squares / cells


def reach(gate: Gate, popularity: Popularity, hosts: Sequence[Hosts]) -> Array:
    """Tokens that come to each rank, expected, over the mean with experts alike [layers, ranks]; of nodes where hosts
    say those for ranks. None gets more than every token. Measured on the hosts of the first layer, as `loads` is."""
    moments = _moments(gate, hosts[0].expert.tobytes(), hosts[0].ranks)

    def come(liked: Popularity, where: Hosts) -> Array:
        return np.asarray(1 - moments.factor * _missed(gate, liked, where, moments.kappa))

    mean = come(np.ones(gate.experts), hosts[0]).mean()
    return np.array([come(row, where) / mean for row, where in zip(popularity, hosts, strict=True)])


def _missed(gate: Gate, popularity: Popularity, hosts: Hosts, kappa: float) -> Array:
    """Chance that a token misses each rank [ranks], groups taken for independent."""
    used, size = _used(gate, popularity), gate.experts // gate.groups
    chance = popularity * (gate.chosen / gate.experts) / np.repeat(used, size) / hosts.copies
    logs = np.log1p(-np.minimum(chance, 1 - np.finfo(float).eps))
    rank = np.arange(len(hosts.expert)) // hosts.per_rank
    part = rank * gate.groups + hosts.expert // size
    held = np.bincount(part, logs[hosts.expert], hosts.ranks * gate.groups).reshape(hosts.ranks, -1)
    missed: Array = (1 - used + used * np.exp(kappa * held)).prod(axis=1)
    return missed


def _reached(gate: Gate, popularity: Popularity, hosts: Hosts) -> Array:
    """Tokens that reach each node, over the mean with experts alike [nodes]. Their noise is left out: a NIC carries
    thousands. Nodes of which the group fills a part count as alike."""
    if hosts.ranks % hosts.gpus_per_node:
        return np.ones(hosts.nodes)
    nodes = Hosts(hosts.expert, hosts.nodes, 1)
    liked, alike = (1 - _missed(gate, each, nodes, 1.0) for each in (popularity, np.ones(gate.experts)))
    return np.asarray(liked / alike.mean())


def _used(gate: Gate, popularity: Popularity) -> Array:
    """Chance that a token's choices are limited to groups with each group among them [groups]."""
    if not gate.limited:
        return np.ones(gate.groups)
    loads = popularity.reshape(gate.groups, -1).mean(axis=1)
    used: Array = loads ** response(gate).reach * (gate.chosen_groups / gate.groups)
    return np.minimum(used, 1.0)
