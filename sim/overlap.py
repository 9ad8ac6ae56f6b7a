"""From a step of the schedule to phases on streams: what runs where, in which order, after what.

A lone forward, backward or weight step is a chain of parts. An overlapped pair interleaves the forward of one
micro-batch with the backward of another, layer by layer, as the H800 profile shows:

    compute        attn(F)   mlp(B)   mlp(W)   mlp(F)   attn(B)   attn(W)
    communication  combine(B)  dispatch(F)  dispatch(B)        combine(F)

Streams are first in, first out; a phase also waits for the phases it needs. Nothing else decides the overlap.
"""

from collections.abc import Callable, Sequence
from itertools import groupby, zip_longest
from typing import NamedTuple

from sim.models.layer import Kernel, Part, Unit
from sim.program import KINDS

PartsOf = Callable[[Unit, str], tuple[Part, ...]]
"""The parts of a unit for direction F, B or W (a family's `parts`, with its site filled in)."""


class Phase(NamedTuple):
    """Consecutive kernels of one part on one lane. needs: earlier phases (indices) that must be done first.

    part: number of the part it belongs to (phases of one part follow each other). half: F, B or W.
    """

    name: str
    layer: int
    half: str
    lane: int
    kernels: tuple[Kernel, ...]
    needs: tuple[int, ...]
    exchange: bool
    part: int


class Composition(NamedTuple):
    """Phases in launch order; indices of those after which the forward and the backward output can be sent (or -1)."""

    phases: tuple[Phase, ...]
    forward_out: int
    backward_out: int


class _Slot(NamedTuple):
    """The parts of one unit that one half contributes to one round of the interleave."""

    parts: dict[str, Part]

    def take(self, *names: str) -> list[Part]:
        return [self.parts[n] for n in names if n in self.parts]


ROUND = (
    ("F", ("attn(F)", "embedding(F)", "projection(F)", "head(F)")),
    ("B", ("combine(B)",)),
    ("B", ("head(B)", "projection(B)", "mlp(B)")),
    ("F", ("dispatch(F)",)),
    ("W", ("head(W)", "projection(W)", "mlp(W)")),
    ("B", ("dispatch(B)",)),
    ("F", ("mlp(F)",)),
    ("F", ("combine(F)",)),
    ("B", ("attn(B)", "embedding(B)")),
    ("W", ("attn(W)",)),
)
"""Launch order of one round: half, and the parts of that half (those the two units have). Per stream it gives the
order in this module's docstring."""


def compose(kind: str, forward: Sequence[Unit], backward: Sequence[Unit], parts: PartsOf) -> Composition:
    """Phases of one step. kind: F, B, W, BW, F+B or F+BW; forward, backward: units of the two stages, in model order.

    A stage's backward runs its units in reverse. Raises ValueError for an unknown kind.
    """
    if kind not in KINDS:
        raise ValueError(f"unknown kind of step {kind!r}; legal: {', '.join(KINDS)}")
    f_slots = [_slot(u, "F", parts) for u in forward] if "F" in kind else []
    reverse = list(reversed(backward))
    b_kind = kind.partition("+")[2] or kind.removeprefix("F")
    b_slots = [_slot(u, b_kind, parts) for u in reverse] if b_kind else []
    if not f_slots and not b_slots:
        raise ValueError(f"a step of kind {kind!r} with no units")
    builder = _Builder()
    for f, b in zip_longest(f_slots, b_slots, fillvalue=_Slot({})):
        for half, names in ROUND:
            for part in (f if half == "F" else b).take(*names):
                builder.add(part, half)
    return Composition(tuple(builder.phases), builder.last.get("F", -1), builder.last.get("B", -1))


def _slot(unit: Unit, directions: str, parts: PartsOf) -> _Slot:
    """The parts of a unit by name. Raises ValueError for a part that no place in ROUND would run."""
    known = {name for _, names in ROUND for name in names}
    strange = [p.name for d in directions for p in parts(unit, d) if p.name not in known]
    if strange:
        raise ValueError(f"part {strange[0]!r} of {unit.kind} has no place in a round (sim.overlap.ROUND)")
    return _Slot({part.name: part for direction in directions for part in parts(unit, direction)})


class _Builder:
    """Collects phases; knows the last phase of each half's chain and of each part."""

    def __init__(self) -> None:
        self.phases: list[Phase] = []
        self.last: dict[str, int] = {}
        self.count = 0

    def add(self, part: Part, half: str) -> None:
        """Append a part; F and B chain on themselves, W follows the B part whose gradients it uses."""
        if not part.kernels:
            return
        needs = self._needs(part, half)
        for lane, kernels in groupby(part.kernels, key=lambda kernel: kernel.lane):
            self.phases.append(
                Phase(part.name, part.layer, half, lane, tuple(kernels), needs, part.exchange, self.count)
            )
            needs = (len(self.phases) - 1,)
        self.count += 1
        if half != "W":
            self.last[half] = len(self.phases) - 1

    def _needs(self, part: Part, half: str) -> tuple[int, ...]:
        if half != "W":
            return (self.last[half],) if half in self.last else ()
        wanted = part.name.replace("(W)", "(B)")
        found = [i for i, p in enumerate(self.phases) if p.name == wanted and p.layer == part.layer]
        return (found[-1],) if found else ()


def lanes(composition: Composition) -> dict[int, list[int]]:
    """Lane -> indices of its phases, in launch order."""
    out: dict[int, list[int]] = {}
    for i, phase in enumerate(composition.phases):
        out.setdefault(phase.lane, []).append(i)
    return out
