"""From a step of the schedule to phases on streams: what runs where, in which order, after what.

A lone forward, backward or weight step is a chain of parts. An overlapped pair interleaves the forward of one
micro-batch with the backward of another in rounds: a unit of the one beside a unit of the other, their parts in the
order of the places that the model's family gives them. A DeepSeek layer beside another, as the H800 profile shows:

    compute        attn(F)   mlp(B)   mlp(W)   mlp(F)   attn(B)   attn(W)
    communication  combine(B)  dispatch(F)  dispatch(B)        combine(F)

Streams are first in, first out; a phase also waits for the phases it needs. Nothing else decides the overlap.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby, zip_longest
from typing import NamedTuple

from sim.layout.buckets import Traffic
from sim.models.layer import COMMUNICATION, Kernel, Part, PartsOf, Unit
from sim.schedules.program import KINDS
from sim.step.moving import moved


class Phase(NamedTuple):
    """Consecutive kernels of one part on one lane. needs: earlier phases (indices) that must be done first.

    name, layer, half (F, B or W), meets: of the part. part: its number (phases of one part follow each other).
    """

    name: str
    layer: int
    half: str
    lane: int
    kernels: tuple[Kernel, ...]
    needs: tuple[int, ...]
    meets: str
    part: int

    @property
    def label(self) -> str:
        """What is drawn, e.g. attn(F)."""
        return f"{self.name}({self.half})"


class Composition(NamedTuple):
    """Phases in launch order; indices of those after which the forward and the backward output can be sent (or -1)."""

    phases: tuple[Phase, ...]
    forward_out: int
    backward_out: int


Moving = tuple[Traffic | None, Traffic | None]
"""What the forward and the backward half of a step move of parameters and gradients."""
STILL: Moving = (None, None)


def compose(
    kind: str, forward: Sequence[Unit], backward: Sequence[Unit], parts: PartsOf, moving: Moving = STILL
) -> Composition:
    """Phases of one step. kind: F, B, W, BW, F+B or F+BW; forward, backward: units of the two stages, in model order.

    A stage's backward runs its units in reverse. Raises ValueError for an unknown kind.
    """
    if kind not in KINDS:
        raise ValueError(f"unknown kind of step {kind!r}; legal: {', '.join(KINDS)}")
    f_parts = [parts(u, "F") for u in forward] if "F" in kind else []
    gradients = [letter for letter in kind if letter in "BW"]
    b_parts = [tuple(p for d in gradients for p in parts(u, d)) for u in reversed(backward)] if gradients else []
    if not f_parts and not b_parts:
        raise ValueError(f"a step of kind {kind!r} with no units")
    builder = _Builder()
    f_parts, b_parts = moved(f_parts, "F", moving[0]), moved(b_parts, "B", _of(kind, moving[1]))
    for f, b in zip_longest(f_parts, b_parts, fillvalue=()):
        for part in sorted((*f, *b), key=lambda part: part.place):
            builder.add(part)
    return Composition(tuple(builder.phases), builder.last.get("F", -1), builder.last.get("B", -1))


def _of(kind: str, traffic: Traffic | None) -> Traffic | None:
    """What a backward half moves: weights are read by input gradients, gradients made by weight gradients."""
    if traffic is None:
        return None
    return traffic._replace(backward=traffic.backward and "B" in kind, reduce=traffic.reduce and "W" in kind)


class _Builder:
    """Collects phases; knows the last phase of each half's chain and of each part."""

    def __init__(self) -> None:
        self.phases: list[Phase] = []
        self.last: dict[str, int] = {}
        self.count = 0

    def add(self, part: Part) -> None:
        """Append a part; F and B chain on themselves, W follows the B part of its name, whose gradients it uses."""
        if not part.kernels:
            return
        half, needs = part.direction, self._needs(part)
        before = needs
        for (lane, meets, beside), run in groupby(_beside(part.kernels), key=lambda pair: pair[0]):
            kernels = tuple(kernel for _, kernel in run)
            waits, whom, number = before if beside else needs, meets or part.meets, len(self.phases)
            if any(kernel.behind for kernel in kernels):
                waits = tuple(dict.fromkeys([*waits, *self._computed()]))
            self.phases.append(Phase(part.name, part.layer, half, lane, kernels, waits, whom, self.count))
            before, needs = (before, (*needs, number)) if beside else (needs, (number,))
        self.count += 1
        if half != "W" and part.chained:
            self.last[half] = len(self.phases) - 1

    def _needs(self, part: Part) -> tuple[int, ...]:
        before = self._before(part) if part.chained else ()
        ends = (self._end(direction, name, layer) for direction, name, layer in part.after)
        return tuple(dict.fromkeys([*before, *(end for end in ends if end is not None)]))

    def _before(self, part: Part) -> tuple[int, ...]:
        """What goes before it in its chain. A weight gradient needs what its part has computed, not what that sends."""
        if part.direction != "W":
            return (self.last[part.direction],) if part.direction in self.last else ()
        end = self._end("B", part.name, part.layer, computed=True)
        return () if end is None else (end,)

    def _computed(self) -> tuple[int, ...]:
        """The last phase of compute so far."""
        return tuple([n for n, phase in enumerate(self.phases) if phase.lane != COMMUNICATION][-1:])

    def _end(self, direction: str, name: str, layer: int, computed: bool = False) -> int | None:
        """The last phase of an earlier part; computed: the last that is no communication."""
        wanted = (name, direction, layer)
        for number in reversed(range(len(self.phases))):
            phase = self.phases[number]
            if (phase.name, phase.half, phase.layer) == wanted and not (computed and phase.lane == COMMUNICATION):
                return number
        return None


def _beside(kernels: Sequence[Kernel]) -> Iterator[tuple[tuple[int, str, bool], Kernel]]:
    """Kernels with their lane, whom they meet, and whether they run beside an earlier one that they do not wait for."""
    ahead = 0
    for kernel in kernels:
        yield (kernel.lane, kernel.meets, ahead > 0), kernel
        ahead = kernel.ahead or max(0, ahead - 1)


def lanes(composition: Composition) -> dict[int, list[int]]:
    """Lane -> indices of its phases, in launch order."""
    out: dict[int, list[int]] = {}
    for i, phase in enumerate(composition.phases):
        out.setdefault(phase.lane, []).append(i)
    return out
