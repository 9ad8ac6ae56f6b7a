"""Mamba-2's scan and convolution: kernels of their own (mamba_ssm's in Triton, causal-conv1d's in CUDA), no library's.

NVIDIA/aiconfigurator timed both at the shapes of Nemotron-3 (@095f58a51c4c, Apache-2.0: systems/data/*,
linear_attention/trtllm; TensorRT-LLM's copies of these kernels, forward, in CUDA graphs):

* the scan on a B200 (1.3.0rc15, mamba_chunk_scan_combined, 76 shapes of 8,192 tokens and more): without the bytes of
  states and decays its products reach 0.53 TFLOP/s an SM, within 12 % at nine of ten. Tuned in full on an H200 they
  reach 0.58 (tile-ai/TileOPs pull request 1675, five sizes; 1.24 times what products take there). So it is no tensor
  core that binds, and a generation gains by its SMs alone. Of backward no card has timed all configurations: its
  kernels are taken at forward's rate (those of numerics/card/timed/mamba.json with four configurations: 0.6 to 0.8).
* the convolution (1.3.0rc20, causal_conv1d_fn, sequences of 4,096 and more): a part of HBM's bandwidth. Backward, which
  nobody timed, at the same.
"""

from typing import NamedTuple

from hwmodels.device import Device
from hwmodels.op import SCAN, GroupedGemm, Memory, Op
from hwmodels.tables import Tables
from hwmodels.units import MICRO, TERA

CONVOLUTION = "conv1d"
"""How kinds of memory-bound kernels of the convolution begin."""


class Reached(NamedTuple):
    """Of an architecture. rate: TFLOP/s of the scan's products on an SM, and its spread; part: of HBM's bandwidth that
    the convolution's bytes have, and its spread."""

    rate: float
    rate_spread: float
    part: float
    part_spread: float


REACHED = {"hopper": Reached(0.579, 0.15, 0.69, 0.08), "blackwell": Reached(0.529, 0.12, 0.49, 0.05)}
"""Architecture -> what its cards reach. Convolution: 0.74 on an H100, 0.65 on an H200; 0.47 to 0.52 on a B200, B300,
GB200 and GB300."""
BACKWARD = 0.25
"""Spread of what was timed forward alone."""
TIMED = ("B200 SXM",)
"""Cards on which the scan itself was timed, all configurations tried."""


class Reading(NamedTuple):
    """A price on the device: microseconds, rung, where from, relative spread."""

    us: float
    rung: str
    source: str
    spread: float


def quote(device: Device, tables: Tables | None, op: Op, sms: int) -> Reading | None:
    """What an operation of Mamba takes on a card; None where it is none of these, where no library's tables price (or
    a job's own do), or of no architecture that was timed. sms: that products may use."""
    library = tables is not None and tables.library is not None and not tables.sparse
    own = REACHED.get(device.architecture) if library else None
    if own and isinstance(op, GroupedGemm) and op.role.startswith(SCAN):
        spread = max(own.rate_spread, BACKWARD * (op.role != SCAN))
        rung = "interpolated" if device.name in TIMED and op.role == SCAN else "transferred"
        return Reading(op.flop() / (own.rate * TERA * sms) / MICRO, rung, f"{device.architecture}: scan", spread)
    if own and isinstance(op, Memory) and op.kind.startswith(CONVOLUTION):
        us = op.bytes() / (own.part * device.hbm.bandwidth_bytes_per_s) / MICRO
        forward = op.kind == CONVOLUTION
        spread = max(own.part_spread, BACKWARD * (not forward))
        rung = "interpolated" if forward else "transferred"
        return Reading(us, rung, f"{device.architecture}: convolution", spread)
    return None
