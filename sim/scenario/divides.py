"""Whether GPUs, experts, layers and sequences divide as a parallel layout asks, and which keys decide each of that.

A search goes through a space of scenarios key by key (`sim.experiments.space`): as soon as all keys of a rule are
settled, it knows whether anything that follows is worth building.
"""

from collections.abc import Callable, Iterable, Iterator
from math import gcd
from typing import NamedTuple

from hwmodels.document import indivisible
from sim.models.family import family
from sim.models.mixture import Mixture
from sim.scenario import groups
from sim.scenario.fits import Finding, micro_batches, schedule, sequences
from sim.scenario.values import Cluster, Scenario
from sim.schedules import program


class Rule(NamedTuple):
    """What a layout must keep. what: in a few words. keys: dotted, all that it reads of a scenario, or what they lie
    in. findings: nothing where it is kept; asked only where the rules before it are."""

    what: str
    keys: tuple[str, ...]
    findings: Callable[[Scenario], Iterable[Finding]]


def findings(scenario: Scenario) -> Iterator[Finding]:
    """All that a scenario of a model on a cluster breaks of those rules which are of its layout."""
    cluster, parallel = cluster_of(scenario), scenario.parallel
    if broken := list(_gpus(scenario)):
        yield from (*_experts(scenario), *broken)
        return
    shared = list(_experts(scenario, cluster.gpus // parallel.pipeline // parallel.expert_tensor))
    yield from shared
    yield from (each for each in groups.findings(scenario) if not (shared and each[0][0] == "parallel.expert"))
    if not shared:
        yield from _domains(parallel.expert * parallel.expert_tensor, cluster.node.gpus)
    yield from sequences(scenario, scenario.data_parallel)


def mixture(scenario: Scenario) -> Mixture | None:
    """How tokens of the scenario's model choose experts; None for a model without."""
    assert scenario.model is not None
    return family(scenario.model.family).mixture(scenario.model)


def cluster_of(scenario: Scenario) -> Cluster:
    """Its machine, which a scenario with a model has."""
    assert scenario.cluster is not None
    return scenario.cluster


def _experts(scenario: Scenario, ranks: int = 0) -> Iterator[Finding]:
    """ranks: of a position that groups of experts share, where known: what is legal divides them too."""
    known, parallel = mixture(scenario), scenario.parallel
    if known and known.experts % parallel.expert:
        of, legal = f"model.experts {known.experts}", gcd(known.experts, ranks)
        yield ("parallel.expert", "model.experts"), indivisible(of, legal, "parallel.expert", parallel.expert)


def _gpus(scenario: Scenario) -> Iterator[Finding]:
    """Told of the axis that fits no more beside the others, where it is one; else of all that are used. What is legal
    of tensor parallelism divides, too, what of the model this one does not."""
    cluster, parallel = cluster_of(scenario), scenario.parallel
    if cluster.gpus % parallel.model == 0:
        return
    what = f"{cluster.gpus} GPUs (cluster.nodes {cluster.nodes} x {cluster.node.gpus})"
    sizes = {f"parallel.{axis}": getattr(parallel, axis) for axis in ("pipeline", "tensor", "context")}
    used = {key: ranks for key, ranks in sizes.items() if ranks > 1}
    odd = [key for key, ranks in used.items() if cluster.gpus % (parallel.model // ranks) == 0]
    for key in odd:
        others = [other for other in used if other != key]
        left = cluster.gpus // (parallel.model // used[key])
        of = f"{left} of {what} over {' x '.join(others)} {parallel.model // used[key]}" if others else what
        legal = gcd(left, *_uneven(scenario)) if key == "parallel.tensor" else left
        yield (key, *others, "cluster.nodes"), indivisible(of, legal, key, used[key])
    if not odd:
        yield (*sizes, "cluster.nodes"), indivisible(what, cluster.gpus, " x ".join(used), parallel.model)


def _uneven(scenario: Scenario) -> Iterator[int]:
    """Heads and columns that do not divide over the ranks of a tensor group."""
    assert scenario.model is not None
    parallel = scenario.parallel
    return (value for _, value, _ in scenario.model.splits(parallel.tensor, parallel.expert_tensor))


def _domains(expert: int, gpus: int) -> Iterator[Finding]:
    """Whether expert groups, which are neighbours, fill NVLink domains or parts of one evenly."""
    if expert % gpus and gpus % expert:
        fit = gpus // expert * expert
        use = f", or use {fit} of its GPUs: cluster.node.gpus={fit}" if fit else ""
        yield (
            ("parallel.expert", "cluster.node.gpus", "cluster.node"),
            (
                f"groups of {expert} ranks straddle nodes of {gpus} GPUs (an NVLink domain); "
                f"legal: divisors and multiples of {gpus}{use}"
            ),
        )


def _filled(scenario: Scenario) -> Iterator[Finding]:
    parallel = scenario.parallel
    return _domains(parallel.expert * parallel.expert_tensor, cluster_of(scenario).node.gpus)


def _batch(scenario: Scenario) -> Iterator[Finding]:
    return sequences(scenario, scenario.data_parallel)


def stages(scenario: Scenario) -> Iterator[Finding]:
    """Whether a placement by rule has enough layers for the stages of its schedule."""
    model, name, pipeline = scenario.model, scenario.schedule.name, scenario.parallel.pipeline
    assert model is not None
    if name not in program.names() or not isinstance(scenario.placement, str):
        return
    count = program.stages(name, scenario.schedule.shape(pipeline, max(1, micro_batches(scenario))))
    if count > model.layers + 2:
        of = f"{name} with parallel.pipeline {pipeline} has {count} stages"
        most = (model.layers + 2) * pipeline // count
        legal = f"; legal: up to {most}" if most else ""
        yield ("parallel.pipeline", "model"), f"{of}, more than the model's {model.layers} layers and ends{legal}"


_RANKS = ("cluster.node", "cluster.nodes", "parallel.pipeline", "parallel.tensor", "parallel.context")
_EXPERT = ("parallel.expert", "parallel.expert_tensor")
RULES = (
    Rule("experts divide over parallel.expert", ("model", "parallel.expert"), _experts),
    Rule("expert groups fill nodes, or parts of one", ("cluster.node", *_EXPERT), _filled),
    Rule("the stack has such groups", ("stack", "parallel.tensor", "parallel.context", *_EXPERT[1:]), groups.stack),
    Rule("heads and columns divide over parallel.tensor", ("model", "parallel.tensor", *_EXPERT[1:]), groups.columns),
    Rule("GPUs divide over the ranks of a model", _RANKS, _gpus),
    Rule("ranks of a position divide into expert groups", (*_RANKS, *_EXPERT, "parallel.order"), groups.experts),
    Rule("sequences divide over pipelines and micro-batches", (*_RANKS, "batch"), _batch),
    Rule("the model has layers for each stage", (*_RANKS, "model", "batch", "schedule", "placement"), stages),
    Rule("the schedule runs so many micro-batches", (*_RANKS, "batch", "schedule", "overlap.expert"), schedule),
)
"""In the order in which they are asked."""
