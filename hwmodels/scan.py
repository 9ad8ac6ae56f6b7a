"""Kernels that wait for SMs, and a convolution, on cards that they were not timed on here: their own, of no library.

Mamba-2's scan (mamba_ssm's in Triton) is kinds by their bytes, timed on an H200 (numerics/card/timed/mamba.json), and
so are casts and scaled gradients of torchao's float8 by rows (float8.json there), whose scales Inductor works out anew
for each element, in FP64: such kernels take an H200 5.4 ps an element, and a B300, with a thirtieth of its FP64, longer
by far, which is not counted. Those of them that reach less than `STREAMING` of HBM's bandwidth there wait for their
SMs, and go by the number of those. On a B200 NVIDIA/aiconfigurator timed the whole of forward at the shapes of
Nemotron-3 (@095f58a51c4c, Apache-2.0: systems/data/b200_sxm/linear_attention/trtllm/1.3.0rc15,
mamba_chunk_scan_combined, TensorRT-LLM's copy of the kernels, in CUDA graphs; 74 shapes of 8,192 tokens and more):
without what streams, 1.06 times as long as on the H200, 0.94 to 1.20 at nine of ten. That scan has no gate, which is
taken to cost a kernel nothing that waits for no bytes. Backward nobody timed there.

The convolution (causal-conv1d's in CUDA; 1.3.0rc20 there, causal_conv1d_fn, sequences of 4,096 and more) takes its
bytes at a part of HBM's bandwidth; backward, which nobody timed, at the same.
"""

from typing import NamedTuple

from hwmodels import library
from hwmodels.device import Device, load_once
from hwmodels.memory import streaming
from hwmodels.op import Memory, Op
from hwmodels.tables import Tables
from hwmodels.units import MICRO

BY_SMS, CONVOLUTION, BACKWARD = ("scan_", "scaled_", "cast_both", "gated_"), "conv1d", "backward"
"""How kinds begin of kernels of the scan and of torchao's casts, and of the convolution; how one of the latter ends."""
STREAMING = 0.6
"""Part of HBM's bandwidth from which a kernel waits for memory: of these kernels on the H200 some reach 0.65 to 0.87,
the others 0.6 and less."""
MOST = 0.9
"""Part of HBM's bandwidth that such a kernel's bytes have at most (0.87 on the H200)."""


class Reached(NamedTuple):
    """Of an architecture. slower: how many times as long an SM takes as one of an H200; part: of HBM's bandwidth that
    the convolution's bytes have; and the spreads of both."""

    slower: float
    slower_spread: float
    part: float
    part_spread: float


REACHED = {
    "hopper": Reached(1.0, 0.05, 0.69, 0.08),
    "blackwell": Reached(1.06 * 148 / 132, 0.08, 0.49, 0.05),
}
"""Convolution: 0.74 on an H100, 0.65 on an H200; 0.47 to 0.52 on a B200, B300, GB200 and GB300."""
ALIKE = 0.25
"""Spread of what was timed forward alone."""
FORWARD = ("scan_chunk_state", "scan_chunk_scan")
"""Kinds of the scan's that wait for SMs and run forward."""


class Reading(NamedTuple):
    """A price on the device: microseconds, rung, where from, relative spread."""

    us: float
    rung: str
    source: str
    spread: float


def quote(device: Device, tables: Tables | None, op: Op) -> Reading | None:
    """What such an operation takes on a card; None where it is none of these, where it goes by what its tables say
    (its own card's, a job's, or by bandwidth), or where no card of the architecture was timed."""
    own = REACHED.get(device.architecture)
    if own is None or not isinstance(op, Memory) or tables is None or tables.library is None or tables.sparse:
        return None
    if op.kind.startswith(CONVOLUTION):
        backward = op.kind.endswith(BACKWARD)
        us = op.bytes() / (own.part * device.hbm.bandwidth_bytes_per_s) / MICRO
        spread = ALIKE if backward else own.part_spread
        return Reading(us, "transferred" if backward else "interpolated", f"{device.architecture}: conv1d", spread)
    if (
        op.kind.startswith(BY_SMS)
        and library.knows(tables.library, op)
        and device.name != load_once(tables.device).name
    ):
        return _by_sms(device, own, tables, op)
    return None


def _by_sms(device: Device, own: Reached, tables: Tables, op: Memory) -> Reading | None:
    """A kernel that waits for its SMs; None for one that waits for its bytes."""
    there = load_once(tables.device)
    assert tables.library is not None
    timed = library.quote(tables.library, op, True, there.sms)
    if op.bytes() / (timed.us * MICRO) > STREAMING * there.hbm.bandwidth_bytes_per_s:
        return None
    us = max(timed.us * own.slower * there.sms / device.sms, op.bytes() / (MOST * streaming(device)) / MICRO)
    spread = own.slower_spread if op.kind in FORWARD or device.architecture == there.architecture else ALIKE
    return Reading(us, "transferred", f"{timed.source}, by SMs", spread)
