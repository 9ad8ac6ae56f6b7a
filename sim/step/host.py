"""The host that launches kernel by kernel: none starts before it has been launched.

One thread launches everything a rank runs, in launch order, and runs ahead of the GPU unless its work takes longer: a
kernel starts at the later of its lane's turn and its launch. What a kernel waits for its launch is a gap before it, as
long as when the step runs alone; beside other traffic kernels end later, so none starts too soon. The host begins each
step when the GPU does: how far ahead it was before is not carried on (at most the first launches of a step).
"""

from collections.abc import Sequence

from hwmodels.node import Launch
from hwmodels.units import seconds_to_ns
from sim.step.overlap import Phase


def waits(
    phases: Sequence[Phase], holds: Sequence[Sequence[int]], gaps: Sequence[Sequence[int]], host: Launch
) -> list[list[int]]:
    """Nanoseconds that each kernel of each phase waits for its launch. holds: of kernels, the gaps before them
    included, by phase; gaps: those."""
    free: dict[int, int] = {}
    ends: list[int] = []
    launched, out = 0, []
    for phase, hold, gap in zip(phases, holds, gaps, strict=True):
        at = max([free.get(phase.lane, 0), *(ends[j] for j in phase.needs)])
        each = seconds_to_ns(host.forward_s if phase.half == "F" else host.backward_s)
        row = []
        for kernel, ns, before in zip(phase.kernels, hold, gap, strict=True):
            launched += round(kernel.host * each)
            row.append(max(0, launched - at - before))
            at += row[-1] + ns
            launched = max(launched, at) if kernel.waits else launched
        free[phase.lane] = at
        ends.append(at)
        out.append(row)
    return out
