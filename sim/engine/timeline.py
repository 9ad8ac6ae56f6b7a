"""The timeline: what every rank did and when, from which metrics, memory, the critical path and drawings are read.

Ranks are columns (`sim.layout.mesh.Columns`); times are whole nanoseconds. What lies inside a step is kept from the
step's own start, so steps that go alike share it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sim.layout.mesh import Columns, Times
from sim.step.inside import Inside

Causes = npt.NDArray[np.int8]


class Steps(NamedTuple):
    """The steps of one pipeline position. starts, ends: ns [step, column]. blame: output whose message came last and
    was waited for, 0 none, 1 forward, 2 backward, 3 and 4 own ones [step, column]. insides: of each step."""

    starts: Times
    ends: Times
    blame: Causes
    insides: Sequence[Inside]


class Transfer(NamedTuple):
    """What a network lane carried; of a reduction that let messages pass a stretch. step: of a position (a reduction:
    -1 - its number; all-gather: -1). kind: 1 forward, 2 backward output, 3 reduction, 4 all-gather. starts, ends: ns
    [column]; stretches that a column has not are of no length."""

    step: int
    kind: int
    starts: Times
    ends: Times


@dataclass(frozen=True, eq=False)
class Timeline:
    """Times of everything that ran. positions: steps of each pipeline position. network: transfers of each, in the
    order they were carried. reduced: when the gradients of each position are [position, column]. update: ns from the
    norm that all wait for (or from the end of all steps, where gradients are reduced after them) to the end of what
    follows [position, column]. end: ns when all is done. events: that SimPy processed for it."""

    columns: Columns
    positions: Sequence[Steps]
    network: Sequence[Sequence[Transfer]]
    reduced: Sequence[Times]
    update: Sequence[tuple[int, Times]]
    end: int
    events: int = 0

    @property
    def norm(self) -> int:
        """When the gradient norm begins, which waits for everybody."""
        return max(int(done.max()) for done in self.reduced)

    def last(self) -> Times:
        """When each column is through with its last step, at any position [column]."""
        return np.asarray(np.max([steps.ends[-1] for steps in self.positions], axis=0))
