"""Whether a scenario's schedule, pipeline and micro-batches go together."""

from collections.abc import Iterator

from hwmodels.document import unknown
from sim.scenario.values import Scenario
from sim.schedules import program
from sim.schedules.program import Misfit, Shape

Finding = tuple[tuple[str, ...], str]
"""The keys involved, the one to change first, and one line on what is wrong and what is legal."""


def micro_batches(scenario: Scenario) -> int:
    """Micro-batches of a pipeline; 0 where they are too few or unknown, which is told elsewhere."""
    batch = scenario.batch
    return batch.micro_batches or (batch.sequences or 0) // max(1, scenario.data_parallel * batch.micro_batch)


def schedule(scenario: Scenario) -> Iterator[Finding]:
    name, pipeline = scenario.schedule.name, scenario.parallel.pipeline
    if not name:
        yield ("schedule",), f"missing; expected a schedule, e.g. dualpipe (parallel.pipeline {pipeline} needs one)"
    elif name not in program.names():
        yield ("schedule.name", "schedule"), unknown(name, "schedule", program.names())
    elif scenario.schedule.chunks != type(scenario.schedule).chunks and not program.chunked(name, pipeline):
        having = ", ".join(other for other in program.names() if program.chunked(other, pipeline))
        yield ("schedule.chunks",), f"{name} runs without chunks; they go with: {having}"
    elif scenario.schedule.waiting is not None and not program.postponing(name):
        having = ", ".join(other for other in program.names() if program.postponing(other))
        yield ("schedule.waiting",), f"{name} has no limit of weight gradients that wait; it goes with: {having}"
    elif scenario.schedule.group is not None and not program.grouped(name):
        having = ", ".join(other for other in program.names() if program.grouped(other))
        yield ("schedule.group",), f"{name} has no groups of micro-batches; they go with: {having}"
    elif scenario.cluster or scenario.chunk_times:
        yield from _misfits(scenario, scenario.schedule.shape(pipeline, max(1, micro_batches(scenario))))
    if name in program.names() and scenario.overlap.expert is not None:
        yield from _overlap(name, scenario.overlap.expert)


def _overlap(name: str, asked: bool) -> Iterator[Finding]:
    """Whether the schedule can have a forward beside a backward, or leave it."""
    keys = ("overlap.expert", "schedule.name", "schedule")
    always, chosen = program.pairing(name)
    if asked and not chosen:
        having = ", ".join(other for other in program.names() if program.pairing(other)[1])
        yield keys, f"{name} runs no forward beside a backward; those that can: {having}"
    if not asked and always:
        yield keys, f"{name} always runs forwards beside backwards; leave it out, or take another schedule"


def _misfits(scenario: Scenario, shape: Shape) -> Iterator[Finding]:
    """What the schedule cannot run of pipeline and micro-batches; a layout that gives none is told elsewhere."""
    name, parallel, cluster = scenario.schedule.name, scenario.parallel, scenario.cluster
    whole = cluster is None or not cluster.gpus % parallel.model
    for misfit in program.misfits(name, shape):
        if misfit.field == "micro_batches":
            yield from _count(scenario, misfit) if whole and micro_batches(scenario) else ()
        else:
            key = {"pipeline": "parallel.pipeline"}.get(misfit.field, f"schedule.{misfit.field}")
            value = getattr(shape, misfit.field)
            yield (key, "schedule.name", "schedule"), (
                f"{name} cannot run {value}; legal: {misfit.legal}, nearest {misfit.nearest}"
            )  # fmt: skip


def _count(scenario: Scenario, misfit: Misfit) -> Iterator[Finding]:
    """A number of micro-batches that the schedule cannot run, told of the key that makes it."""
    batch, each = scenario.batch, scenario.data_parallel * scenario.batch.micro_batch
    of = f"{scenario.schedule.name} with parallel.pipeline {scenario.parallel.pipeline}"
    if scenario.schedule.group is not None:
        of += f" and groups of {scenario.schedule.group}"
    legal = f"legal: {misfit.legal}, nearest {misfit.nearest}"
    rest = (
        "batch.micro_batch", "parallel.pipeline", "cluster.nodes", "schedule.group", "schedule.name", "schedule"
    )  # fmt: skip
    if batch.micro_batches:
        yield ("batch.micro_batches", *rest), f"{of} cannot run {batch.micro_batches}; {legal}"
    elif not (batch.sequences or 0) % each:
        what = f"batch.sequences {batch.sequences} make {micro_batches(scenario)} micro-batches a pipeline"
        more = f" (batch.sequences={misfit.nearest * each})"
        yield ("batch.sequences", *rest), f"{what}, which {of} cannot run; {legal}{more}"


def sequences(scenario: Scenario, copies: int) -> Iterator[Finding]:
    batch = scenario.batch
    each = copies * batch.micro_batch
    if not batch.sequences:
        return
    keys = ("batch.sequences", "batch.micro_batch", "parallel.pipeline", "cluster.nodes")
    if batch.sequences % each:
        yield (
            keys,
            (
                f"batch.sequences {batch.sequences} is not a multiple of data parallel {copies} x batch.micro_batch"
                f" {batch.micro_batch} = {each}; nearest legal: {nearest(batch.sequences, each)}"
            ),
        )
    elif batch.micro_batches not in (None, batch.sequences // each):
        yield (
            ("batch.micro_batches", *keys),
            (
                f"batch.sequences {batch.sequences} make {batch.sequences // each} micro-batches a pipeline, not"
                f" {batch.micro_batches}; leave one of the two out"
            ),
        )


def nearest(value: int, step: int) -> int:
    """The multiple of `step` next to `value`, at least one."""
    return max(step, (value + step // 2) // step * step)
