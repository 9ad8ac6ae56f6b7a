"""Traffic between ranks, in one list: outputs of steps that another position waits for, and rings around copies of a
stage's parameters. Lowering, the fabric, the optimizer, slow NICs and the table of communication all read it.

What goes in an expert exchange is in the kernels of its part (`hwmodels.op.AllToAll`), for it is inside a step.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from sim.layout.mesh import Mesh, Numbers
from sim.schedules.program import Program

FORWARD, BACKWARD = 1, 2
"""Outputs of a step: activations for the next stage, gradients for the stage before. Flags: a segment may send both."""
MADE_BY = {"F": (FORWARD, 1), "B": (BACKWARD, -1)}
"""Pass -> the output that it makes, and how many stages further that goes."""


SPANS = {"reduce_scatter": "reduce-scatter", "all_reduce": "all-reduce", "all_gather": "all-gather"}
"""What collectives behind steps are called on a trace."""


class Message(NamedTuple):
    """An output of a step that goes to another position. position, step: that make it. output: FORWARD or BACKWARD.
    target, receiver: position and its step that wait for it. stage, micro_batch: that it is of."""

    position: int
    step: int
    output: int
    target: int
    receiver: int
    stage: int
    micro_batch: int

    @property
    def end(self) -> int:
        """The stage over whose end it goes: its own forward, the one before backward."""
        return self.stage - (self.output == BACKWARD)


class Ring(NamedTuple):
    """Ranks that hold the same parameters of a stage, which reduce gradients and gather parameters among them.

    experts: whether of routed experts (a ring for each set of them), or of all else (one ring). parameters: that go
    round it. ranks, nodes: of one ring. between: whether its ranks have the same shard, of copies of what is sharded.
    precise: of `parameters`, those that no linear layer multiplies by (embedding, head, norms), which stay in BF16.
    """

    stage: int
    experts: bool
    parameters: float
    ranks: int
    nodes: int
    between: bool = False
    precise: float = 0.0

    @property
    def which(self) -> str:
        """Parameters that go round, in words."""
        return "experts" if self.experts else "dense"


@dataclass(frozen=True)
class Messages:
    """Messages of a step of training. sent: by position, in the order of its steps and passes."""

    sent: tuple[tuple[Message, ...], ...]

    @cached_property
    def awaited(self) -> Mapping[tuple[int, int], Sequence[Message]]:
        """(position, step) -> messages that it waits for, forward outputs first."""
        inboxes: dict[tuple[int, int], list[Message]] = {}
        for output in (FORWARD, BACKWARD):
            for message in (m for row in self.sent for m in row if m.output == output):
                inboxes.setdefault((message.target, message.receiver), []).append(message)
        return inboxes

    @cached_property
    def waits(self) -> Mapping[tuple[int, int], tuple[tuple[int, int, int], ...]]:
        """The same as (position, step, output) of each."""
        return {place: tuple([message[:3] for message in row]) for place, row in self.awaited.items()}

    @cached_property
    def leaving(self) -> tuple[Mapping[int, tuple[tuple[int, int, int], ...]], ...]:
        """By position: step -> output, target, and end over which it goes, of each that it sends."""
        rows: list[dict[int, tuple[tuple[int, int, int], ...]]] = []
        for row in self.sent:
            rows.append({})
            for m in row:
                rows[-1][m.step] = (*rows[-1].get(m.step, ()), (m.output, m.target, m.end))
        return tuple(rows)

    @cached_property
    def targets(self) -> tuple[Mapping[tuple[int, int], int], ...]:
        """Targets of each position: (step, output) -> where it goes."""
        return tuple({(m.step, m.output): m.target for m in row} for row in self.sent)

    @cached_property
    def over(self) -> Sequence[Mapping[tuple[int, int], int]]:
        """By position, how many messages it sends to each target over each end."""
        return [Counter((m.target, m.end) for m in row) for row in self.sent]

    def flows(self, position: int) -> Mapping[tuple[int, int, int], int]:
        """(output, stage, target) -> how many messages a position sends of it."""
        return Counter((m.output, m.stage, m.target) for m in self.sent[position])

    @cached_property
    def ends(self) -> Sequence[tuple[int, int, int]]:
        """Positions that activations go from and to, and over the end of which stage, in order; gradients go the other
        way."""
        return sorted({(m.position, m.target, m.end) for row in self.sent for m in row if m.output == FORWARD})


def messages(program: Program) -> Messages:
    """All messages of a program: of outputs whose next stage is on another position."""
    places = program.places

    def sent(position: int) -> Iterator[Message]:
        for number, passes in enumerate(program.passes[position]):
            for letter, stage, micro_batch in passes:
                if letter == "W":
                    continue
                output, ahead = MADE_BY[letter]
                goes = places.get((letter, stage + ahead, micro_batch))
                if goes and goes[0] != position:
                    yield Message(position, number, output, *goes, stage, micro_batch)

    return Messages(tuple(tuple(sent(position)) for position in range(program.positions)))


SHARD, REPLICA = ("shard", "expert_shard"), ("replica", "expert_replica")
"""Kinds of groups around parameters that are no routed experts', and that are: of ranks that share a copy of what is
sharded, and of those that have the same shard of copies."""


def members(mesh: Mesh, holders: Sequence[int], ring: Ring) -> Numbers:
    """Ranks of each ring of a stage like that, where these positions hold it [ring, rank]: of all positions, or of one
    of them."""
    kind = (REPLICA if ring.between else SHARD)[ring.experts]
    if ring.ranks > mesh.groups(kind).shape[1]:
        return mesh.across(holders, kind)
    return np.concatenate([mesh.across([position], kind) for position in holders])
