"""What the passes of a program come to, once for all scenarios that run it: counts, kinds of steps, activations."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from sim.layout.batches import Batch, batches
from sim.layout.traffic import BACKWARD, Messages
from sim.schedules.program import Program, Step

Numbers = npt.NDArray[np.int64]
Sort = tuple[Step, bool, bool]
"""A step, and whether steps like it have the first forward of their stage, and the last weight gradient."""


class Change(NamedTuple):
    """Activations of one micro-batch of a stage come or go. at_end: of the step, else at its start. forward, weight,
    again: how often what waits for backward, what waits for a split weight gradient, and what backward computes again
    is added."""

    step: int
    at_end: bool
    stage: int
    micro_batch: int
    forward: int
    weight: int
    again: int = 0

    @property
    def amounts(self) -> tuple[int, int, int]:
        """In the order in which memory adds them up."""
        return self.forward, self.weight, self.again


def changes(steps: Sequence[Step], again: Collection[int] = ()) -> Iterator[Change]:
    """What the steps of one rank do to its activations, in the order of time. again: stages whose backward computes
    some again, which it holds from its start to its end."""
    for i, step in enumerate(steps):
        ends = []
        kind = step.kind
        for letter, stage, micro_batch in step.passes():
            if letter == "F":
                yield Change(i, False, stage, micro_batch, 1, 0)
            elif letter == "B":
                more = int(stage in again)
                if more:
                    yield Change(i, False, stage, micro_batch, 0, 0, more)
                ends.append(Change(i, True, stage, micro_batch, -1, 0 if kind[-1] == "W" else 1, -more))
            elif kind == "W":
                ends.append(Change(i, True, stage, micro_batch, 0, -1))
        yield from ends


class Changes(NamedTuple):
    """Changes of a position as columns [change]. amounts: as `Change` has them [3, change]."""

    step: Numbers
    at_end: npt.NDArray[np.bool_]
    stage: Numbers
    amounts: Numbers

    def where(self, again: Collection[int]) -> "Changes":
        """Where backward computes some again of these stages alone."""
        repeats = np.isin(self.stage, list(again))
        amounts = self.amounts * np.array([np.ones_like(repeats), np.ones_like(repeats), repeats])
        kept = (self.amounts[:2] != 0).any(axis=0) | repeats
        return Changes(self.step[kept], self.at_end[kept], self.stage[kept], amounts[:, kept])


@dataclass(frozen=True, eq=False)
class Passes:
    """The passes of a program, and its messages. known: changes of positions, by what is computed again."""

    program: Program
    messages: Messages
    known: dict[tuple[int, frozenset[int]], Changes] = field(default_factory=dict, init=False, repr=False)

    @cached_property
    def batches(self) -> Sequence[Sequence[Batch]]:
        """Messages that each position waits for before each of its steps and after the last, its own among them, where
        they are waited for. Raises Refused where positions would wait for each other for good."""
        return batches(self.program, self.messages)

    @cached_property
    def waits(self) -> Sequence[Sequence[tuple[tuple[int, int, int], ...]]]:
        """The same as (position, step, output) of each."""
        return [[tuple([message[:3] for message in batch]) for batch in row] for row in self.batches]

    @cached_property
    def counts(self) -> Sequence[Mapping[tuple[str, int], int]]:
        """By position, how often it runs each pass of each stage, in the order in which they come first."""
        return [Counter((letter, stage) for done in row for letter, stage, _ in done) for row in self.program.passes]

    @cached_property
    def forwards(self) -> Sequence[Sequence[int]]:
        """By position, the stages whose forwards it runs, one by one."""
        rows = self.program.passes
        return [[stage for done in row for letter, stage, _ in done if letter == "F"] for row in rows]

    @cached_property
    def last(self) -> Sequence[Mapping[int, int]]:
        """By position and stage, the step that has its last weight gradient there."""
        return [self._steps(row, "W") for row in range(self.program.positions)]

    def _steps(self, position: int, letter: str) -> dict[int, int]:
        """By stage, the last step of a position that runs a pass of it."""
        rows = enumerate(self.program.passes[position])
        return {stage: number for number, done in rows for which, stage, _ in done if which == letter}

    @cached_property
    def sorts(self) -> tuple[Sequence[Sort], Sequence[Sequence[int]]]:
        """One of each sort of steps, those of equal kinds of equal stages; and by position the sort of each step."""
        known: dict[tuple[str, int, int, bool, bool], int] = {}
        sorts, rows = list[Sort](), []
        for position, steps in enumerate(self.program.steps):
            passes, row = self.program.passes[position], list[int]()
            first = {
                stage: n for n, done in reversed([*enumerate(passes)]) for letter, stage, _ in done if letter == "F"
            }
            firsts, lasts = set(first.values()), set(self.last[position].values())
            for number, step in enumerate(steps):
                begins, ends = number in firsts, number in lasts
                key = (step.kind, step.stage, step.stage_b, begins, ends)
                if key not in known:
                    known[key] = len(sorts)
                    sorts.append((step, begins, ends))
                row.append(known[key])
            rows.append(row)
        return sorts, rows

    @cached_property
    def fullest(self) -> Numbers:
        """Micro-batches of each stage that wait for backward, and for a split weight gradient, on all positions at the
        moments at which each holds most [2, stage]."""
        total = np.zeros((2, self.program.stages), dtype=np.int64)
        for moves in self.moves:
            end = int(moves.amounts[0].cumsum().argmax()) + 1
            for row, amounts in zip(total, moves.amounts[:2, :end], strict=True):
                np.add.at(row, moves.stage[:end], amounts)
        return total

    @cached_property
    def ways(self) -> Sequence[tuple[int, int, int]]:
        """Positions that messages go from and to, and over the end of which stage."""
        return list(dict.fromkeys((m.position, m.target, m.end) for row in self.messages.sent for m in row))

    @cached_property
    def order(self) -> Sequence[tuple[int, int, Sequence[tuple[int, int, int, int]]]]:
        """Steps of all positions in an order in which each comes after all that it waits for: the number in it, from 1,
        of the step before it on its position (0: none), its sort, and of each message that it waits for the number of
        the step that sends it, from 0, its sort, its output (0 forward, 1 backward) and its way."""
        rows, awaited, ways = self.sorts[1], self.messages.awaited, {way: n for n, way in enumerate(self.ways)}
        numbers, left, out = dict[tuple[int, int], int](), [(p, 0) for p in range(len(rows))], list[Any]()
        while left:
            later = []
            for position, step in left:
                while step < len(rows[position]):
                    waits = awaited.get((position, step), ())
                    if not all((m.position, m.step) in numbers for m in waits):
                        later.append((position, step))
                        break
                    sent = [(numbers[m.position, m.step], rows[m.position][m.step], int(m.output == BACKWARD),
                             ways[m.position, m.target, m.end]) for m in waits]  # fmt: skip
                    numbers[position, step] = len(out)
                    out.append((numbers.get((position, step - 1), -1) + 1, rows[position][step], sent))
                    step += 1
            left = later
        return out

    @cached_property
    def moves(self) -> Sequence[Changes]:
        """By position, changes of activations where backward computes some of every stage again."""
        every = range(self.program.stages)
        return [_columns([*changes(steps, every)]) for steps in self.program.steps]

    def moved(self, position: int, again: frozenset[int]) -> Changes:
        """Changes of a position's activations where backward computes some again of these stages alone."""
        key = position, again
        if key not in self.known:
            self.known[key] = self.moves[position].where(again)
        return self.known[key]

    @cached_property
    def kinds(self) -> tuple[Sequence[str], Sequence[Numbers]]:
        """Kinds of steps as they first come; and by position the number of each step's."""
        known: dict[str, int] = {}
        rows = [[known.setdefault(step.kind, len(known)) for step in steps] for steps in self.program.steps]
        return list(known), [np.array(row, dtype=np.int64) for row in rows]

    @cached_property
    def halves(self) -> Sequence[Numbers]:
        """By position, stage and micro-batch of both halves of each step [step, 4]."""
        return [np.array([step[1:] for step in steps], dtype=np.int64).reshape(-1, 4) for steps in self.program.steps]


def _columns(rows: Sequence[Change]) -> Changes:
    flat = np.fromiter(chain.from_iterable(rows), np.int64, len(rows) * len(Change._fields))
    step, at_end, stage, _, *amounts = flat.reshape(-1, len(Change._fields)).T
    return Changes(step, at_end.astype(bool), stage, np.array(amounts))
