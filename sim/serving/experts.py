"""Who receives how many rows in each layer of a step: drawn by seed from popularity, busiest rank by busiest rank."""

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from hwmodels.units import ROUNDING_SLACK
from sim.models.mixture import Mixture
from sim.routing import eplb
from sim.routing.gate import gate_of
from sim.routing.hosts import Hosts
from sim.routing.keyed import generator
from sim.routing.loads import reach
from sim.routing.popularity import popularity
from sim.scenario.values import Routing
from sim.serving.rank import Load

STEPS = 50
"""Steps of 1 in which the busiest rank's rows over the mean are told, rounded up: layers then share prices."""
BALANCED = "balanced"
"""The kind of routing whose experts are liked alike."""

Counts = npt.NDArray[np.float64]


class Gating(NamedTuple):
    """How tokens of an expert group choose. mixture: the gate; ranks of the group; routing: how popular experts are,
    and how many have copies (placed by EPLB for that popularity); seed. routed: layers with experts. drift: standard
    deviation of the logarithm by which tokens of a step like an expert more, or less, than copies were placed for."""

    mixture: Mixture
    ranks: int
    gpus_per_node: int
    routing: Routing
    seed: int
    routed: int
    drift: float = 0.0


def loads(gating: Gating, tokens: int, once: bool = False) -> tuple[Load, ...]:
    """Of the busiest rank of each routed layer, for so many tokens over the whole group. once: whether a token comes to
    a rank once for all its experts there.

    Choices fall on experts by their popularity, one by one (that a token's are distinct is left out: 1.5 % fewer
    experts are hit than by 4 tokens of V3); copies share their expert's rows. Of tokens that come, each once, the
    expected number counts: thousands do.
    """
    m, liked, places = gating.mixture, _drifted(gating), _placed(gating)[1]
    out, come = [], _arrivals(gating) if once else (Arrivals(),) * gating.routed
    for layer in range(gating.routed):
        random = generator(gating.seed, "tokens", layer, tokens)
        counts = random.multinomial(tokens * m.chosen, liked[layer] / liked[layer].sum()).astype(np.float64)
        busiest = _busiest(_shares(places[layer], counts), gating.ranks)
        out.append(busiest._replace(**come[layer]._asdict()))
    return tuple(out)


class Arrivals(NamedTuple):
    """Of a layer: as in `sim.serving.rank.Load`."""

    received: float = 1.0
    reached: float = 1.0


@lru_cache(maxsize=8)
def _arrivals(gating: Gating) -> tuple[Arrivals, ...]:
    """Of each routed layer."""
    if gating.ranks == 1 or (gating.routing.kind == BALANCED and not gating.drift):
        return (Arrivals(),) * gating.routed
    gate, popular, places = gate_of(gating.mixture), _drifted(gating), _placed(gating)[1]
    ranks = [where for where in places if where]
    nodes = [Hosts(where.expert, where.nodes, 1) for where in ranks]
    busiest = (reach(gate, popular, each).max(axis=1).tolist() for each in (ranks, nodes))
    return tuple(Arrivals(_stepped(received), _stepped(reached)) for received, reached in zip(*busiest, strict=True))


def _stepped(ratio: float) -> float:
    """Rounded up to STEPS."""
    return math.ceil(ratio * STEPS - ROUNDING_SLACK) / STEPS


def _shares(where: Hosts | None, counts: Counts) -> Counts:
    """Rows of each slot [slots]; neighbouring slots share a rank."""
    if where is None:
        return counts
    return (counts / where.copies)[where.expert]


@lru_cache(maxsize=8)
def _placed(gating: Gating) -> tuple[Counts, tuple[Hosts | None, ...]]:
    """Popularity of each layer's experts, and where they are."""
    m, ranks = gating.mixture, gating.ranks
    liked = popularity(gating.routing, gating.seed, gating.routed, m.experts)
    if ranks == 1:
        return liked, (None,) * gating.routed
    redundant, per_node = gating.routing.redundant_experts, min(gating.gpus_per_node, ranks)
    return liked, tuple(eplb.hosts(each, redundant, m.groups, ranks, per_node) for each in liked)


@lru_cache(maxsize=8)
def _drifted(gating: Gating) -> Counts:
    """Popularity of each layer's experts in a step."""
    liked = _placed(gating)[0]
    if not gating.drift:
        return liked
    drawn = np.stack(
        [generator(gating.seed, "drift", layer).standard_normal(liked.shape[1]) for layer in range(gating.routed)]
    )
    popular: Counts = liked * np.exp(gating.drift * drawn)
    popular /= popular.mean(axis=1, keepdims=True)
    return popular


def _busiest(shares: Counts, ranks: int) -> Load:
    """Of the rank with most rows; the experts hit are those of the rank that reads most weights."""
    by_rank = shares.reshape(ranks, -1)
    rows, hits = by_rank.sum(axis=1), np.minimum(1.0, by_rank).sum(axis=1)
    mean, most = float(rows.mean()), float(rows.max())
    above = _stepped(most / mean) if mean else 1.0
    return Load(math.ceil(above * mean), max(1, round(float(hits.max()))), above)
