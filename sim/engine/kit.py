"""A kit: one kind of step on given stages, priced, with the SimPy run of its inside, and the coarse forms made from it.

Everything that arrays, the engine of steps and drawings know of the inside of a step comes from the one run of the fine
template, in which compute and communication contend: parts last as long as they took there, and outputs leave when they
did.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import count
from typing import Any

import numpy as np

from hwmodels.op import AllToAll, Collective, Send
from hwmodels.units import NS_PER_S
from sim.engine.alone import alone
from sim.engine.nic import Window
from sim.layout.traffic import BACKWARD, FORWARD
from sim.step import template
from sim.step.inside import Inside
from sim.step.overlap import Composition
from sim.step.template import Template, Timing


@dataclass(frozen=True, eq=False)
class Kit:
    """Everything known of one kind of step: its kernels, and their times when it runs alone.

    composition: phases of the step; None where the scenario gave chunk times.
    fine: template with one segment a phase, kernel by kernel.  timing: run of `fine` alone.
    pieces: phases of each segment of `parts`.  windows: exchanges, messages and collectives over the NICs, in time.
    dearer: the kit at other prices, filled by `sim.analysis.uncertainty`.  sums: of it, filled by
    `sim.analysis.metrics`.  number: identity, which copies keep.
    """

    composition: Composition | None
    fine: Template
    timing: Timing
    pieces: Sequence[Sequence[int]] = ()
    windows: tuple[Window, ...] = ()
    number: int = field(default_factory=count().__next__)
    dearer: dict[Any, "Kit"] = field(default_factory=dict, repr=False)
    sums: dict[str, Any] = field(default_factory=dict, repr=False)

    @cached_property
    def parts(self) -> Template:
        """One segment a part of a layer (or a piece of one that meets somebody), as long as it took in the run."""
        if self.composition is None:
            return self.fine
        return template.by_layer(self.fine, self.timing, self.composition.phases, self.pieces)

    @cached_property
    def part_times(self) -> tuple[tuple[int, int], ...]:
        """Start and end of each segment of `parts` in the run, ns from its start."""
        if self.composition is None:
            return self.timing.segments
        times = self.timing.segments
        return tuple((times[piece[0]][0], times[piece[-1]][1]) for piece in self.pieces)

    @cached_property
    def inside(self) -> Inside:
        """The inside of the step where all members start at once, one column for all."""
        starts, ends = np.array(self.part_times, dtype=np.int64).reshape(-1, 2).T[..., None]
        return Inside(starts, ends, starts[list(self.parts.meetings)])

    @cached_property
    def chunk(self) -> Template:
        """The whole step on the compute lane, cut where an output can be sent: what the engine of steps runs."""
        return self.fine if self.composition is None else template.by_chunk(self.fine, self.timing)

    @cached_property
    def outputs(self) -> tuple[int, int, int]:
        """Nanoseconds from its start to its end, its forward output and its backward output (0: none)."""
        ready = [self.timing.total, 0, 0]
        for segment, (_, end) in zip(self.fine.segments, self.timing.segments, strict=True):
            for kind in (FORWARD, BACKWARD):
                if segment.sends & kind:
                    ready[kind] = end
        return ready[0], ready[1], ready[2]


def kit_of(composition: Composition, fine: Template, rate: float) -> Kit:
    """The kit of a composition, its fine template run. rate: of a rank's NICs, bytes/s each way."""
    timing, pieces = alone(fine), template.pieces(composition.phases)
    return Kit(composition, fine, timing, pieces, windows(composition, fine, timing, rate))


def windows(composition: Composition, fine: Template, timing: Timing, rate: float) -> tuple[Window, ...]:
    """Exchanges and collectives of a step that need the NICs, in time. rate: of a rank's NICs, bytes/s each way."""
    windows = []
    for segment, phase in zip(fine.segments, composition.phases, strict=True):
        for i, kernel in enumerate(phase.kernels, segment.first):
            if isinstance(kernel.op, AllToAll | Collective | Send) and (size := kernel.op.wire_bytes()):
                start, end = timing.kernels[segment.lane][i]
                windows.append(Window(start, end, min(1.0, size / rate * NS_PER_S / (end - start))))
    return tuple(sorted(windows))
