"""Whether what a layer is made of divides among the ranks that share it: heads, columns, tokens, experts."""

from collections.abc import Iterator
from math import lcm

from hwmodels.document import indivisible
from sim.models.family import family
from sim.models.stacks.stack import KINDS
from sim.scenario.fits import Finding
from sim.scenario.values import Parallel, Scenario


def findings(scenario: Scenario) -> Iterator[Finding]:
    """Groups that the stack or the model cannot have."""
    parallel = scenario.parallel
    yield from stack(scenario)
    yield from columns(scenario)
    yield from _tokens(scenario)
    yield from _heads(scenario)
    yield from experts(scenario)
    yield from _between(scenario)
    yield from _shards(scenario)
    if parallel.sequence and parallel.tensor == 1:
        yield ("parallel.sequence", "parallel.tensor"), "found true; a rank by itself shares no tokens; legal: false"


def columns(scenario: Scenario) -> Iterator[Finding]:
    """Heads, columns and words that do not divide over the ranks that share a layer."""
    parallel, model = scenario.parallel, scenario.model
    assert model is not None
    for key, value, ranks in model.splits(parallel.tensor, parallel.expert_tensor):
        axis = "parallel.expert_tensor" if ranks == parallel.expert_tensor != parallel.tensor else "parallel.tensor"
        yield (axis, f"model.{key}", "model"), indivisible(f"model.{key} {value}", value, axis, ranks)


def _heads(scenario: Scenario) -> Iterator[Finding]:
    """Whether heads that a rank of a tensor group has divide once more, where ranks of a context group swap tokens for
    them."""
    parallel, model = scenario.parallel, scenario.model
    assert model is not None
    if parallel.context == 1 or parallel.context_kind != "all_to_all":
        return
    part = model.part(parallel.tensor)
    for key in ("heads", "kv_heads"):
        own = getattr(part, key, 0)
        if own % parallel.context:
            what, keys = f"{own} heads of a rank (model.{key})", ("parallel.context", "parallel.context_kind")
            yield keys, indivisible(what, own, "parallel.context (all_to_all)", parallel.context)


def _between(scenario: Scenario) -> Iterator[Finding]:
    """What a stack asks of what lies between the products of a tensor group."""
    parallel, stack = scenario.parallel, scenario.stack
    mixed = (
        any(unit.routed for unit in family(scenario.model.family).units(scenario.model)) if scenario.model else False
    )
    if parallel.tensor > 1 and mixed and not parallel.sequence:
        what = "mixtures of experts beside parallel.tensor are trained with it (Megatron Core refuses them without)"
        yield ("parallel.sequence", "parallel.tensor"), f"found false; {what}; legal: true"
    domain = scenario.cluster.node.gpus if scenario.cluster else parallel.tensor
    if scenario.overlap.tensor and stack.name == "megatron" and parallel.tensor > domain:
        legal = f"legal: false, or parallel.tensor up to {domain}"
        what = f"TransformerEngine's user buffers lie in one NVLink domain; {legal}"
        yield ("overlap.tensor", "parallel.tensor"), f"found true; {what}"
    if scenario.overlap.tensor and parallel.tensor > 1 and stack.name == "torch" and not stack.compiled:
        what = "asynchronous tensor parallelism is a pattern of torch.compile"
        yield ("overlap.tensor", "stack"), f"found true; {what}; legal: false, or stack {{name: torch, compiled: true}}"


def stack(scenario: Scenario) -> Iterator[Finding]:
    """Axes that a stack has kernels for."""
    known, name = KINDS[scenario.stack.name].axes, scenario.stack.name
    for axis in ("tensor", "context", "expert_tensor"):
        if (ranks := getattr(scenario.parallel, axis)) > 1 and axis not in known:
            having = ", ".join(other for other, kind in KINDS.items() if axis in kind.axes) or "none yet"
            yield (f"parallel.{axis}", "stack"), f"found {ranks}; legal: 1 (the {name} stack), or a stack of: {having}"


def _tokens(scenario: Scenario) -> Iterator[Finding]:
    """Whether sequences divide. Of a causal sequence each rank of a context group has two blocks, an early and a late
    one, so that all have as much attention to do (arXiv:2407.21783 sec 3.3.2)."""
    parallel, length = scenario.parallel, scenario.batch.sequence_length
    if parallel.context > 1 and length % (2 * parallel.context):
        yield ("parallel.context", "batch.sequence_length"), indivisible(
            f"batch.sequence_length {length}", length, "2 x parallel.context", 2 * parallel.context)  # fmt: skip
    elif parallel.sequence and length % (parallel.context * parallel.tensor):
        yield ("parallel.tensor", "batch.sequence_length"), indivisible(
            f"batch.sequence_length {length}", length, "parallel.context x parallel.tensor (sequence parallelism)",
            parallel.context * parallel.tensor)  # fmt: skip


def experts(scenario: Scenario) -> Iterator[Finding]:
    """Whether the replicas of a position divide into expert groups, and stand so that those are of one position."""
    parallel, cluster = scenario.parallel, scenario.cluster
    assert cluster is not None
    ranks, each = cluster.gpus // parallel.pipeline, parallel.expert * parallel.expert_tensor
    of = f"{ranks} ranks of a position ({cluster.gpus} GPUs / parallel.pipeline {parallel.pipeline})"
    keys = ("parallel.expert", "parallel.expert_tensor", "parallel.pipeline", "cluster.nodes")
    if ranks % each:
        name = "parallel.expert" + (" x parallel.expert_tensor" if parallel.expert_tensor > 1 else "")
        yield keys, indivisible(of, ranks, name, each)
    elif (inner := inside(parallel)) and ranks % lcm(inner, each):
        what = f"{inner} ranks are neighbours before the next position begins (parallel.order {parallel.order})"
        yield ("parallel.order", *keys), f"{what}, and expert groups of {each} straddle positions; legal: pp last"


def _shards(scenario: Scenario) -> Iterator[Finding]:
    """Whether shards divide data parallelism, hold whole expert groups, and move in a way that is built."""
    parallel, data, keys = scenario.parallel, scenario.data_parallel, ("parallel.shard", "parallel.zero")
    if parallel.shard and not parallel.zero:
        yield keys, f"found {parallel.shard}; with parallel.zero 0 nothing is sharded; legal: leave it out"
    elif parallel.shard and data % parallel.shard:
        of = f"data parallelism {data} (cluster.nodes x GPUs / {parallel.model} ranks of a model)"
        yield keys, indivisible(of, data, "parallel.shard", parallel.shard)
    elif (shard := parallel.shard) and shard * parallel.context * parallel.tensor % _expert_ranks(parallel):
        what = f"expert groups of {_expert_ranks(parallel)} ranks straddle shards of {shard}"
        yield keys, f"{what}; legal: shards of whole expert groups"
    if parallel.no_sync and not (KINDS[scenario.stack.name].units and parallel.zero > 1 and not scenario.stack.flat):
        what = "is of torch's fully_shard, with parallel.zero 2 or 3 and stack.flat false"
        yield ("parallel.no_sync", "parallel.zero", "stack"), f"{what}; legal: false, or such a layout"
    if scenario.overlap.gradients and scenario.optimizer.reduce == "after":
        yield (
            ("overlap.gradients", "optimizer.reduce"),
            "found true; with optimizer.reduce after nothing is reduced before",
        )


def _expert_ranks(parallel: Parallel) -> int:
    return parallel.expert * parallel.expert_tensor


def inside(parallel: Parallel) -> int:
    """Ranks of a position that are neighbours before the next one begins; 0: all of them."""
    words = parallel.order.split("-")
    before = words[: words.index("pp")]
    if "dp" in before:
        return 0
    return (parallel.tensor if "tp" in before else 1) * (parallel.context if "cp" in before else 1)
