"""docs/TORCH_STEPS.md: measured training steps of plain torch on one GPU beside simulated ones."""

from collections.abc import Sequence
from pathlib import Path
from statistics import median

from hwmodels.units import GIGA, PERCENT
from sim.validation.torch_steps import Compared

PAGE = Path("docs/TORCH_STEPS.md")
HEAD = """\
# Steps of plain torch on one H200

Written by `python -m sim steps --write`. Fourteen training steps that were measured for this project on one NVIDIA H200
(`scenarios/measured/h200_torch_steps.yaml`: torch 2.11, BF16 parameters, gradients and moments, fused AdamW), each as a
scenario on the torch stack. No time or memory of them, nor of the traces below, is an input (which kernels run is):
kernels are priced by tables, the host by chains of single operations. Times are reported, not tuned. Phases were
measured by CUDA events, the step by the wall clock, memory as torch allocated it.
"""
FIELDS = {
    "forward_ms": "forward, ms", "backward_ms": "backward, ms", "optimizer_ms": "optimizer, ms", "step_ms": "step, ms",
}  # fmt: skip
"""Figures in the first table, and their headings."""
LAUNCHES = """\
## Launches

Kernels and memory operations of a step. In four profiled steps (dense, mixture, compiled, small; the counts are in
`tests/fixtures/torch_launches.json`) launches are equal class by class: products, attention, norms, soft-max and loss,
copies, indices and sorts, elementwise, fused, optimizer, memsets. One difference is known: in the compiled trace (2
layers, 1 x 4,096 tokens) Inductor made one of five norm gradients in two kernels; here each has three, as in the
compiled runs.

Two rules are cuBLAS's: a counter is cleared before a product of more than two waves of 128 x 256 tiles, and the depth
of one with few tiles is split, whose parts another kernel adds: from 16,384 columns on, and from 4,096 on where tiles
are so few that 128 of depth is there for each. They tell 800 of 801 products that were timed one by one. No trace has
latent attention or compiled attention with as many key heads as query heads, so their kernels come from the numbers and
names of the measured runs themselves: one copy in the backward of latent attention, one kernel for both ropes. For
these runs (`v2l_8L_4k2`, `sm_24L_1k8_compiled`), and for the router's gradient in `mx_2L_4k2`, that numbers are equal
tells nothing new.
"""
NOTES = """\
## What it shows

* Kernels are priced by torch's own tables of an H200 (`hwmodels/tables/h200/torch`), measured one by one with a cold L2
  cache. Where tensors stay in it from one kernel to the next (16 MB each in `sm_24L_1k8`), they are faster than that.
* Products and attention have the clock that a step's own kernels leave under the power limit, by what each kernel drew
  when it was timed alone (DECISIONS.md, 98). The runs' own clocks (one sample each, 1,515 to 1,980 MHz) would make
  products take 1.00 to 1.17 times as long as on a rested card; simulated 1.00 to 1.15. Midway between a rested card and
  the hungriest company, as prices were before, one card's steps came out 1.8 % too short on average, four cards' 5 %.
* This is no blind test: which chains tell the host's time backward was settled after these steps had been seen
  (backward of `sm_24L_1k1` 37 % too slow by the first chains). No figure was fitted to them.
* Each run repeats one batch of random tokens, so most rows of its embedding have no gradient and no moments. The fused
  optimizer takes twice as long for them (divisions and roots of zeros), measured by itself: 193 us a launch on a rested
  card and 222 us after products, where others take 108 and 113. Each scenario says its part (`optimizer.unseen`); a run
  that has seen its vocabulary has none of it.
* `sm_24L_1k1` is bound by its host: {gpu:.0f} ms of kernels in {wall:.0f} ms. A kernel starts no sooner than it is
  launched; an operation takes the host 14.9 us forward and 20.6 us backward (`cluster.node.launch`), more or less by
  kind (`sim/models/stacks/torch/kernels.py`). Hosts differ by a tenth and more, and
  its own steps took 40.0 to 56.8 ms.
* Memory is what autograd keeps, operation by operation; gradients are there from the backward to the update. Compiled,
  what Inductor computes again is known for feed-forward layers alone.
"""


def page(rows: Sequence[Compared], gpu_ms: float) -> str:
    """The page. gpu_ms: kernel time measured of the run that its host binds."""
    lines = [HEAD, "| run | " + " | ".join(FIELDS.values()) + " |", "|---|" + "--:|" * len(FIELDS)]
    lines += [f"| {row.name} | " + " | ".join(_cell(row, field) for field in FIELDS) + " |" for row in rows]
    lines += ["| median error, absolute | " + " | ".join(_median(rows, field) for field in FIELDS) + " |", ""]
    lines += ["Simulated / measured, error.", "", "## Memory", "", "| run | peak, GB | launches |", "|---|--:|--:|"]
    for row in rows:
        ours, theirs = row.simulated, row.measured
        peak = f"{ours.peak_bytes / GIGA:.2f} / {theirs.peak_bytes / GIGA:.2f}, {row.error('peak_bytes'):+.1%}"
        lines.append(f"| {row.name} | {peak} | {ours.launches} / {theirs.launches} |")
    bound = next(row for row in rows if row.name == "sm_24L_1k1")
    return "\n".join([*lines, "", LAUNCHES, NOTES.format(gpu=gpu_ms, wall=bound.measured.step_ms)])


def _cell(row: Compared, field: str) -> str:
    return f"{getattr(row.simulated, field):.2f} / {getattr(row.measured, field):.2f}, {row.error(field):+.1%}"


def _median(rows: Sequence[Compared], field: str) -> str:
    return f"{median(abs(row.error(field)) for row in rows) / PERCENT:.1f} %"
