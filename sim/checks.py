"""What a scenario must satisfy as a whole: layouts that divide, formats the device has, kernels that leave SMs over."""

from collections.abc import Iterator

from hwmodels.document import Document, Problem, unknown
from sim.models.shape import ModelShape
from sim.scenario import Cluster, Scenario, families, schedules

Finding = tuple[tuple[str, ...], str]
"""The keys involved, the one to change first, and one line on what is wrong and what is legal."""

SHOWN = 12


def check(scenario: Scenario, document: Document) -> list[Problem]:
    """Everything wrong with the scenario as a whole, each at the key to blame: one overridden, else the first."""
    rules = [_whole, _schedule, *([_model, _placement] if scenario.model else [])]
    rules += [_machine, _layout] if scenario.cluster and scenario.model else []
    return [_placed(keys, message, document) for rule in rules for keys, message in rule(scenario)]


def _placed(keys: tuple[str, ...], message: str, document: Document) -> Problem:
    places = {key: document.place(tuple(key.split("."))) for key in keys}
    ours = next((key for key in keys if str(places[key]).startswith("<command line>")), keys[0])
    return Problem(places[ours], keys[0], message)


def _whole(scenario: Scenario) -> Iterator[Finding]:
    given = [key for key in ("model", "cluster", "chunk_times") if getattr(scenario, key) is not None]
    if given not in (["model", "cluster"], ["chunk_times"]):
        found = f"found {' and '.join(given)}" if given else "found none of them"
        yield (given[0] if given else "schedule",), f"a scenario gives model and cluster, or chunk_times alone; {found}"
        return
    batch = scenario.batch
    if scenario.chunk_times and not batch.micro_batches:
        yield ("batch.micro_batches",), "missing; chunk_times need the number of micro-batches of a pipeline"
    elif not batch.micro_batches and not batch.sequences:
        yield ("batch.sequences",), "missing; expected the sequences of a step over all data-parallel ranks"


def _schedule(scenario: Scenario) -> Iterator[Finding]:
    name = scenario.schedule.name
    if name not in schedules():
        yield ("schedule.name", "schedule"), unknown(name, "schedule", schedules())
    elif name != "interleaved" and scenario.schedule.chunks != type(scenario.schedule).chunks:
        yield ("schedule.chunks",), f"only interleaved has chunks; {name} runs without"


def _model(scenario: Scenario) -> Iterator[Finding]:
    model = scenario.model
    assert model is not None
    if model.family not in families():
        yield ("model.family", "model"), unknown(model.family, "model family", families())
    if model.dense_layers > model.layers:
        yield ("model.dense_layers", "model"), f"{model.dense_layers} dense layers of {model.layers} (model.layers)"
    if model.experts % model.groups:
        yield ("model.groups", "model"), _indivisible(
            f"model.experts {model.experts}", model.experts, "model.groups", model.groups)  # fmt: skip
    for few, many in (("groups_per_token", "groups"), ("experts_per_token", "experts")):
        if getattr(model, few) > getattr(model, many):
            legal = f"legal: 1 to {getattr(model, many)} (model.{many})"
            yield (f"model.{few}", "model"), f"{getattr(model, few)} is too many; {legal}"
    yield from _reachable(model)


def _reachable(model: ModelShape) -> Iterator[Finding]:
    within = model.experts // model.groups * min(model.groups_per_token, model.groups)
    if within < model.experts_per_token <= model.experts:
        yield ("model.groups_per_token", "model"), (
            f"{model.groups_per_token} groups hold {within} experts, fewer than model.experts_per_token"
            f" {model.experts_per_token}"
        )


def _placement(scenario: Scenario) -> Iterator[Finding]:
    model, name, pipeline = scenario.model, scenario.schedule.name, scenario.parallel.pipeline
    assert model is not None
    stages = pipeline * {"dualpipev": 2, "interleaved": scenario.schedule.chunks}.get(name, 1)
    of = f"{name} with parallel.pipeline {pipeline} has {stages} stages"
    if isinstance(scenario.placement, str):
        if stages > model.layers:
            yield ("parallel.pipeline", "model"), f"{of}, more than the model's {model.layers} layers"
        return
    if len(scenario.placement) != stages:
        yield ("placement", "parallel.pipeline", "schedule"), f"{of}; found {len(scenario.placement)} numbers of layers"
    if sum(scenario.placement) != model.layers:
        yield ("placement", "model"), f"the stages hold {sum(scenario.placement)} layers; the model has {model.layers}"


def _machine(scenario: Scenario) -> Iterator[Finding]:
    cluster = _cluster_of(scenario)
    device, sms = cluster.node.device, scenario.comm.sms
    if scenario.precision not in device.peak_flops:
        have = ", ".join(name for name in ("fp8", "bf16") if name in device.peak_flops)
        what = f"{device.name} (cluster.node) has no {scenario.precision} peak"
        yield ("precision", "cluster.node.device", "cluster.node"), f"{what}; legal: {have}"
    if sms % 2 or not 2 <= sms < device.sms:
        legal = f"even numbers from 2 to {(device.sms - 1) // 2 * 2} ({device.name} has {device.sms} SMs)"
        yield ("comm.sms", "cluster.node.device"), f"found {sms}; legal: {legal}"
    if cluster.fabric:
        most = cluster.fabric.endpoints // (cluster.node.gpus * cluster.node.nics_per_gpu)
        if cluster.nodes > most:
            what = f"{cluster.fabric.name} (cluster.fabric) joins at most {most} nodes"
            yield ("cluster.nodes", "cluster.fabric"), f"{what}; found {cluster.nodes}"


def _layout(scenario: Scenario) -> Iterator[Finding]:
    """Whether GPUs, experts and sequences divide as the parallel layout asks."""
    cluster, parallel, model = _cluster_of(scenario), scenario.parallel, scenario.model
    assert model is not None
    if model.experts % parallel.expert:
        yield ("parallel.expert", "model.experts"), _indivisible(
            f"model.experts {model.experts}", model.experts, "parallel.expert", parallel.expert)  # fmt: skip
    if cluster.gpus % (parallel.pipeline * parallel.tensor):
        yield ("parallel.pipeline", "cluster.nodes"), _indivisible(
            f"{cluster.gpus} GPUs (cluster.nodes {cluster.nodes} x {cluster.node.gpus})", cluster.gpus,
            "parallel.pipeline", parallel.pipeline)  # fmt: skip
        return
    copies = scenario.data_parallel
    if copies % parallel.expert:
        yield ("parallel.expert", "parallel.pipeline", "cluster.nodes"), _indivisible(
            f"data parallel {copies} ({cluster.gpus} GPUs / parallel.pipeline {parallel.pipeline})", copies,
            "parallel.expert", parallel.expert)  # fmt: skip
    yield from _sequences(scenario, copies)


def _sequences(scenario: Scenario, copies: int) -> Iterator[Finding]:
    batch = scenario.batch
    each = copies * batch.micro_batch
    if not batch.sequences:
        return
    keys = ("batch.sequences", "batch.micro_batch", "parallel.pipeline", "cluster.nodes")
    if batch.sequences % each:
        yield keys, (
            f"batch.sequences {batch.sequences} is not a multiple of data parallel {copies} x batch.micro_batch"
            f" {batch.micro_batch} = {each}; nearest legal: {_nearest(batch.sequences, each)}"
        )
    elif batch.micro_batches not in (None, batch.sequences // each):
        yield ("batch.micro_batches", *keys), (
            f"batch.sequences {batch.sequences} make {batch.sequences // each} micro-batches a pipeline, not"
            f" {batch.micro_batches}; leave one of the two out"
        )


def _nearest(value: int, step: int) -> int:
    return max(step, (value + step // 2) // step * step)


def _indivisible(of: str, value: int, by: str, divisor: int) -> str:
    legal = [n for n in range(1, value + 1) if value % n == 0]
    near = sorted(sorted(legal, key=lambda n: abs(n - divisor))[:SHOWN])
    more = ", ..." if len(legal) > SHOWN else ""
    return f"{of} cannot be divided by {by} {divisor}; legal: {', '.join(map(str, near))}{more}"


def _cluster_of(scenario: Scenario) -> Cluster:
    assert scenario.cluster is not None
    return scenario.cluster
