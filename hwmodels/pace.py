"""The clock that a step leaves its card: what its kernels draw on average, beside what the power limit allows.

A rested Hopper runs products at 1,980 MHz. There they draw 937 W, which a power limit of 700 W stops after some ms,
unless other kernels or pauses draw less. `hwmodels.power`'s law of one kernel (time goes by the power above an idle
card to -0.5) says that a kernel that takes `clock` times as long draws as many joules less: so a step's joules over the
clock are what the limit allows in the time that it then takes. All measured kernel by kernel on an H200
(numerics/card/timed, 2026-11-29: `loaded`, each kernel without a pause): products and attention by how much longer they
took under the limit than in a burst, others by the power that they drew. A product's energy is that of what it
multiplies, whatever SMs do it; kernels that memory bounds draw alike (511 to 577 W of eight) whatever bytes a second
they reach, so theirs goes by SMs and time, and so does an exchange's, which copies. Operands were random normal
numbers.
"""

import math
from collections.abc import Callable

from hwmodels import power, unlike
from hwmodels.attention import CUDNN
from hwmodels.device import Device, load_once
from hwmodels.op import BY_BLOCK, Attention, Gemm, GroupedGemm, Memory
from hwmodels.units import NS_PER_S, TERA

MEASURED = "h200"
"""The card whose kernels were metered; its law holds for its architecture."""
BF16_J, BLOCKS_J, ATTENTION_J = 1.03 / TERA, 0.67 / TERA, 1.45 / TERA
"""Joules of a FLOP at the rested clock: of products in BF16 (medians of 98, 0.85 to 1.15 pJ), of those scaled by block
(15, 0.61 to 0.79), and of cuDNN's attention forward (14, 1.2 to 1.7)."""
FP8_W, FORWARD_W, BACKWARD_W, FLASH2_W = 851.0, 751.0, 693.0, 591.0
"""Watts above an idle card at the rested clock, of kernels whose watts are more alike than their joules of a FLOP: of
FP8 products with a scale a tensor (20, 798 to 920), of cuDNN's attention forward and backward (28, 628 to 807; 17, 612
to 752), and of FlashAttention-2 both ways (16, 577 to 667)."""
MEMORY_W, UPDATE_W = 558.0, 356.0
"""The same of a kernel that memory bounds and that all SMs run, and of the fused update (four of AdamW, 354 to 436)."""
UPDATE = "adam"

CLOSE, ROUNDS = 1e-5, 20
"""How near to the limit a clock comes, and its rounds at most."""


def known(device: Device) -> bool:
    """Whether a card's kernels draw as the measured one's."""
    return device.architecture == load_once(MEASURED).architecture


def joules(op: object, ns: float, sms: float = 1.0, attention: str = CUDNN) -> float:
    """Above an idle card, of an operation that takes so many ns at the rested clock on a part `sms` of the card's SMs.
    attention: whose kernel of it runs, of `hwmodels.attention`."""
    if isinstance(op, Gemm | GroupedGemm) and (op.precision == "bf16" or op.role.endswith(BY_BLOCK)):
        return (BF16_J if op.precision == "bf16" else BLOCKS_J) * op.flop()
    return _watts(op, attention) * sms * ns / NS_PER_S


def _watts(op: object, attention: str) -> float:
    if isinstance(op, Gemm | GroupedGemm):
        return FP8_W
    if isinstance(op, Attention):
        own = FORWARD_W if op.direction == "forward" else BACKWARD_W
        return own if attention == CUDNN else FLASH2_W
    return UPDATE_W if isinstance(op, Memory) and op.kind == UPDATE else MEMORY_W


def least_ns(device: Device, drawn: float, cards: int) -> float:
    """Within how many ns the limit allows so many joules above an idle card, of the slowest of so many cards, which
    wait for each other (`hwmodels.unlike`); 0 where nobody knows."""
    limit = device.power_w or load_once(MEASURED).power_w
    if not known(device) or not limit:
        return 0.0
    slowest = math.pow(unlike.off(device, cards).ratio, 1 / power.EXPONENT)
    return drawn * slowest / max(limit - power.IDLE_W, 1.0) * NS_PER_S


def clock(least: float, ns: Callable[[float], int]) -> float:
    """How many times as long as on a rested card the clock makes products take: where it times what a step then takes
    (`ns` of a clock, which never falls with it) is `least` ns; 1 where the step is longer anyway. So what shortens a
    step at every clock shortens it, though its clock falls."""
    one = 1.0, ns(1.0)
    if one[1] >= least:
        return 1.0
    at = math.sqrt(least / one[1])
    for _ in range(ROUNDS):
        other = at, ns(at)
        if abs(at * other[1] - least) <= CLOSE * least:
            break
        at, one = _straight(one, other, least), other
    return at


def _straight(one: tuple[float, int], other: tuple[float, int], least: float) -> float:
    """The clock that times what a step takes is `least`, if that is straight through both (clock, ns)."""
    slope = (other[1] - one[1]) / (other[0] - one[0]) if other[0] != one[0] else 0.0
    base = other[1] - slope * other[0]
    return 2 * least / (base + math.sqrt(base * base + 4 * slope * least))
