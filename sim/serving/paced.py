"""What kernels of steps of prompts draw, and attention on a rested card; the clock that leaves is `hwmodels.pace`'s."""

from hwmodels import pace, power
from hwmodels.device import Device
from hwmodels.op import Attention, Gemm, GroupedGemm
from hwmodels.units import NS_PER_S
from sim.serving.cached import Block, PerHead

TRAINING = 1.065
"""How many times as long as on a rested card the ladder has attention take: the root of what it takes under load over a
burst (1.13; docs/PRICES.md)."""


def attention_rested(device: Device) -> float:
    """How many times as long as the ladder says attention takes on a rested card."""
    return 1 / (TRAINING * power.off(device, pace.MEASURED).ratio) if pace.known(device) else 1.0


def joules(op: object, ns: int, sms: float, peaks_bound: bool = True) -> float:
    """Of an operation that takes so many ns on a part `sms` of the card's SMs. peaks_bound: whether a product takes as
    long as it multiplies, not as it reads."""
    if isinstance(op, Attention):
        return pace.ATTENTION_J * op.flop()
    if isinstance(op, Gemm | GroupedGemm | PerHead | Block) and peaks_bound:
        bf16 = isinstance(op, PerHead) or (isinstance(op, Gemm | GroupedGemm) and op.precision == "bf16")
        return (pace.BF16_J if bf16 else pace.BLOCKS_J) * op.flop()
    return pace.MEMORY_W * sms * ns / NS_PER_S
