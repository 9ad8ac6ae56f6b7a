"""Mamba-2 (arXiv:2405.21060): its dimensions, what it weighs, and the FLOPs of its scan."""

from typing import NamedTuple

from hwmodels.formats import PLAIN_BF16, PLAIN_FP32
from sim.models.weights import Parameters

SCAN_FLOP = 7
"""Operations of the scan a token, channel and element of state, forward, as NVIDIA counts them
(github.com/NVIDIA/Megatron-LM, megatron/training/training.py, mamba_layer_flops)."""


class Mamba(NamedTuple):
    """heads of `width` channels each, `groups` of which share B and C; `state` elements of state a channel; `conv`
    tokens under the convolution; `chunk` tokens that the scan takes at once."""

    heads: int
    width: int
    groups: int
    state: int
    conv: int
    chunk: int

    @property
    def inner(self) -> int:
        """Channels."""
        return self.heads * self.width

    @property
    def convolved(self) -> int:
        """Columns under the convolution: x, B and C."""
        return self.inner + 2 * self.groups * self.state

    @property
    def columns(self) -> int:
        """Columns of the first product: the gate z, those convolved, and a time step a head."""
        return self.inner + self.convolved + self.heads

    def parameters(self, hidden: int) -> Parameters:
        """Both products; the convolution with its bias; decay, skip and time-step bias of a head; the gated norm."""
        other = self.convolved * (self.conv + 1) + 3 * self.heads + self.inner
        return Parameters(linear=hidden * self.columns + self.inner * hidden, other=other)

    def flop(self) -> float:
        """FLOPs of a token's scan forward, as publishers count them."""
        return float(SCAN_FLOP * self.inner * self.state)

    def state_bytes(self) -> float:
        """Bytes of a sequence's state: FP32 for the scan, BF16 under the convolution."""
        return PLAIN_FP32.row_bytes(self.inner * self.state) + PLAIN_BF16.row_bytes(self.convolved * self.conv)
