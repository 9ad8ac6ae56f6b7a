"""Whether the order of a pipeline's steps is one that there is, and can be as a scenario asks."""

from collections.abc import Iterator

from hwmodels.document import unknown
from sim.scenario.values import Scenario
from sim.schedules import program


def mistakes(scenario: Scenario) -> Iterator[tuple[tuple[str, ...], str]]:
    """The keys involved, the one to change first, and one line on what is wrong with the schedule."""
    name, pipeline = scenario.schedule.name, scenario.parallel.pipeline
    if not name:
        yield ("schedule",), f"missing; expected a schedule, e.g. dualpipe (parallel.pipeline {pipeline} needs one)"
    elif name not in program.names():
        yield ("schedule.name", "schedule"), unknown(name, "schedule", program.names())
    elif scenario.schedule.chunks != type(scenario.schedule).chunks and not program.chunked(name, pipeline):
        having = ", ".join(other for other in program.names() if program.chunked(other, pipeline))
        yield ("schedule.chunks",), f"{name} runs without chunks; they go with: {having}"
    if name in program.names() and scenario.overlap.expert is not None:
        yield from _overlap(name, scenario.overlap.expert)


def _overlap(name: str, asked: bool) -> Iterator[tuple[tuple[str, ...], str]]:
    """Whether the schedule can have a forward beside a backward, or leave it."""
    keys = ("overlap.expert", "schedule.name", "schedule")
    always, chosen = program.pairing(name)
    if asked and not chosen:
        having = ", ".join(other for other in program.names() if program.pairing(other)[1])
        yield keys, f"{name} runs no forward beside a backward; those that can: {having}"
    if not asked and always:
        yield keys, f"{name} always runs forwards beside backwards; leave it out, or take another schedule"
