"""From a step of the schedule to phases on streams: what runs where, in which order, after what.

A lone forward, backward or weight step is a chain of parts. An overlapped pair interleaves the forward of one
micro-batch with the backward of another in rounds: a unit of the one beside a unit of the other, their parts in the
order of the places that the model's family gives them. A DeepSeek layer beside another, as the H800 profile shows:

    compute        attn(F)   mlp(B)   mlp(W)   mlp(F)   attn(B)   attn(W)
    communication  combine(B)  dispatch(F)  dispatch(B)        combine(F)

Streams are first in, first out; a phase also waits for the phases it needs. Nothing else decides the overlap.

A tensor group's collectives have a stream of their own (torch's ProcessGroupNCCL has one for each group), so in a pair
they do not queue behind the other half's expert exchanges. The stream of computing waits for them in launch order, so
there they stand on it, those inside a node: they use neither its NICs nor wait for what does.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import groupby, zip_longest
from typing import NamedTuple

from hwmodels.op import Collective
from sim.layout.buckets import Traffic
from sim.models.layer import COMMUNICATION, COMPUTE, Kernel, Launches, Part, PartsOf, Unit
from sim.models.stacks.sharing import TENSOR
from sim.schedules.program import KINDS
from sim.step.moving import moved

RUNS = 4096
"""Parts whose runs are kept."""


class Phase(NamedTuple):
    """Consecutive kernels of one part on one lane. needs: earlier phases (indices) that must be done first.

    name, layer, half (F, B or W), meets: of the part. part: its number (phases of one part follow each other).
    """

    name: str
    layer: int
    half: str
    lane: int
    kernels: Launches
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
    builder = _Builder(paired=bool(f_parts and b_parts))
    f_parts, b_parts = moved(f_parts, "F", moving[0]), moved(b_parts, "B", _of(kind, moving[1]))
    for f, b in zip_longest(f_parts, b_parts, fillvalue=()):
        for part in sorted((*f, *b), key=lambda part: part.place):
            builder.add(part)
    return Composition(tuple(builder.phases), builder.last.get("F", -1), builder.last.get("B", -1))


def _of(kind: str, traffic: Traffic | None) -> Traffic | None:
    """What a backward half moves: weights are read by input gradients, gradients made by weight gradients."""
    if traffic is None:
        return None
    makes = "W" in kind
    return traffic._replace(
        backward=traffic.backward and "B" in kind, reduce=traffic.reduce and makes, sums=traffic.sums and makes
    )


class Run(NamedTuple):
    """Kernels of a part that follow each other on a lane. meets: whom they meet, if not whom the part does. beside:
    whether they run beside earlier ones that they do not wait for. behind: whether they wait for all compute."""

    lane: int
    meets: str
    beside: bool
    kernels: Launches
    behind: bool


@lru_cache(maxsize=RUNS)
def _runs(kernels: tuple[Kernel, ...], paired: bool) -> tuple[Run, ...]:
    """The kernels of a part, cut where another lane or other company begins."""
    runs = []
    own = [_in_line(kernel) for kernel in kernels] if paired else kernels
    for (lane, meets, beside), run in groupby(_beside(own), key=lambda pair: pair[0]):
        some = Launches(kernel for _, kernel in run)
        runs.append(Run(lane, meets, beside, some, any(kernel.behind for kernel in some)))
    return tuple(runs)


def _in_line(kernel: Kernel) -> Kernel:
    """A kernel of a pair: on the stream of computing where it is a collective of a tensor group inside a node that
    nothing of its part runs beside."""
    op = kernel.op
    if kernel.meets != TENSOR or kernel.ahead or not isinstance(op, Collective) or op.nodes > 1:
        return kernel
    return kernel._replace(lane=COMPUTE)


Key = tuple[str, str, int]
"""Name, half and layer of a part."""


class _Builder:
    """Collects phases; knows the last phase of each half's chain, of each part, and of what a part computes."""

    def __init__(self, paired: bool) -> None:
        self.paired = paired
        self.phases: list[Phase] = []
        self.last: dict[str, int] = {}
        self.ends: dict[Key, int] = {}
        self.computed: dict[Key, int] = {}
        self.compute: tuple[int, ...] = ()
        self.count = 0

    def add(self, part: Part) -> None:
        """Append a part; F and B chain on themselves, W follows the B part of its name, whose gradients it uses."""
        if not part.kernels:
            return
        name, half, layer = part.name, part.direction, part.layer
        before = needs = self._needs(part)
        for lane, meets, beside, kernels, behind in _runs(part.kernels, self.paired):
            waits, number = before if beside else needs, len(self.phases)
            if behind:
                waits = tuple(dict.fromkeys([*waits, *self.compute]))
            self.phases.append(Phase(name, layer, half, lane, kernels, waits, meets or part.meets, self.count))
            self.ends[name, half, layer] = number
            if lane != COMMUNICATION:
                self.computed[name, half, layer], self.compute = number, (number,)
            before, needs = (before, (*needs, number)) if beside else (needs, (number,))
        self.count += 1
        if half != "W" and part.chained:
            self.last[half] = len(self.phases) - 1

    def _needs(self, part: Part) -> tuple[int, ...]:
        before = self._before(part) if part.chained else ()
        if not part.after:
            return before
        ends = (self.ends.get((name, direction, layer)) for direction, name, layer in part.after)
        return tuple(dict.fromkeys([*before, *(end for end in ends if end is not None)]))

    def _before(self, part: Part) -> tuple[int, ...]:
        """What goes before it in its chain. A weight gradient needs what its part has computed, not what that sends."""
        if part.direction != "W":
            return (self.last[part.direction],) if part.direction in self.last else ()
        end = self.computed.get((part.name, "B", part.layer))
        return () if end is None else (end,)


def _beside(kernels: Sequence[Kernel]) -> Iterator[tuple[tuple[int, str, bool], Kernel]]:
    """Kernels with their lane, whom they meet, and whether they run beside an earlier one that they do not wait for."""
    ahead = 0
    for kernel in kernels:
        yield (kernel.lane, kernel.meets, ahead > 0), kernel
        ahead = kernel.ahead or max(0, ahead - 1)
