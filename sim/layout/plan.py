"""A scenario laid out: the program of its schedule, who holds which stages, and what travels between positions."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any

from sim.layout import placement
from sim.layout.batches import Batch
from sim.layout.mesh import MEETING, SHARING, Mesh
from sim.layout.passes import Passes
from sim.layout.shards import NEVER, moves
from sim.layout.traffic import Messages, messages
from sim.models.layer import Unit
from sim.scenario.values import Scenario
from sim.schedules.program import Program, Shape, build, check, home, pairing

KEPT = 16
"""Programs that are kept: configurations of a sweep often run the same."""


@dataclass(frozen=True)
class Plan:
    """Everything decided before prices are known. homes: (stage, micro-batch) -> position that computes it. holds:
    stages of each position. passes: of the program. data: pipelines side by side, each with sequences of its own. kept:
    what is asked of its stages again and again (`sim.layout.optimizer`)."""

    scenario: Scenario
    program: Program
    homes: dict[tuple[int, int], int]
    holds: tuple[tuple[int, ...], ...]
    messages: Messages
    passes: Passes
    data: int
    micro_batches: int
    kept: dict[Hashable, Any] = field(default_factory=dict, init=False, compare=False, repr=False)

    @cached_property
    def mesh(self) -> Mesh:
        """Mesh of the ranks."""
        return mesh_of(self.scenario, self.program.positions)

    @property
    def meeting(self) -> tuple[str, ...]:
        """Kinds of groups whose members meet inside steps."""
        own = moves(self.scenario)
        return MEETING + SHARING * (own.gathers != NEVER or own.reduces != NEVER)

    @property
    def key(self) -> tuple[Hashable, ...]:
        """All of it that decides when steps run, but for prices."""
        scenario, positions = self.scenario, self.program.positions
        schedule, messages, tail = scenario.schedule, scenario.comm.messages, scenario.optimizer
        shards = scenario.parallel.zero, scenario.parallel.reshard, scenario.parallel.no_sync, scenario.overlap
        return schedule, self.paired, positions, self.micro_batches, self.mesh, messages, tail, shards

    @property
    def batches(self) -> Sequence[Sequence[Batch]] | None:
        """Messages that each position waits for before each of its steps and after the last, its own among them; None
        where messages are hidden. Raises Refused where positions would wait for each other for good."""
        return self.passes.batches if self.scenario.comm.messages == "waited" else None

    @property
    def mirrored(self) -> bool:
        """Whether every rank holds two stages, s and stages-1-s."""
        return all(len(held) == 2 and sum(held) == self.program.stages - 1 for held in self.holds)

    @property
    def paired(self) -> bool:
        """Whether steps overlap because the scenario asks for it, in a schedule that does not by itself."""
        return _paired(self.scenario)

    @property
    def overlapped(self) -> bool:
        """Whether any step overlaps a forward with a backward."""
        return any("+" in kind for kind in self.passes.kinds[0])

    def holders(self, stage: int) -> tuple[int, ...]:
        """Positions that hold a stage."""
        return tuple(position for position, held in enumerate(self.holds) if stage in held)


def mesh_of(scenario: Scenario, positions: int) -> Mesh:
    """Mesh of a scenario's ranks."""
    parallel, gpus = scenario.parallel, scenario.cluster.node.gpus if scenario.cluster else 1
    replicas = scenario.data_parallel * parallel.tensor * parallel.context
    return Mesh(
        positions, replicas, parallel.expert, parallel.context, parallel.tensor, gpus, parallel.expert_tensor,
        parallel.order, parallel.shard or 0,
    )  # fmt: skip


def lay_out(scenario: Scenario) -> Plan:
    """The program of a scenario and who holds what. Raises Refused when the schedule cannot run."""
    batch, data = scenario.batch, scenario.data_parallel
    micro_batches = batch.micro_batches or (batch.sequences or 0) // (data * batch.micro_batch)
    schedule = scenario.schedule
    shape = schedule.shape(scenario.parallel.pipeline, micro_batches, _paired(scenario))
    return Plan(scenario, *_checked(schedule.name, shape), data, micro_batches)


def _paired(scenario: Scenario) -> bool:
    return scenario.overlap.expert is True and not pairing(scenario.schedule.name)[0]


@lru_cache(maxsize=KEPT)
def _checked(
    schedule: str, shape: Shape
) -> tuple[Program, dict[tuple[int, int], int], tuple[tuple[int, ...], ...], Messages, Passes]:
    """A program that runs, with homes, stages held, messages, and what its passes come to."""
    program = build(schedule, shape)
    check(program)
    homes = home(program)
    held: list[set[int]] = [set() for _ in range(program.positions)]
    for (stage, _), position in homes.items():
        held[position].add(stage)
    sent = messages(program)
    return program, homes, tuple(tuple(sorted(h)) for h in held), sent, Passes(program, sent)


def relative(stage: Sequence[Unit]) -> tuple[tuple[Unit, ...], int]:
    """A stage's units with layers counted from its first one, so that equal stages are equal values; and that first."""
    return placement.alike(tuple(stage)), min((u.layer for u in stage if u.layer >= 0), default=0)
