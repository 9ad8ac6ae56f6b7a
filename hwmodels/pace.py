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

Blackwell's products draw what their own `clock` says: how many times as long a card's metered ones take under its limit
as rested (`hwmodels.kernels`), so by the same law its square times the limit, above an idle card. Attention was
published kernel by kernel with the watts of B200s and GB200s (`BLACKWELL`); others draw as on the H200.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

from hwmodels import power, unlike
from hwmodels.attention import CUDNN
from hwmodels.device import Device, load_once
from hwmodels.kernels import Kernels
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


class Blackwell(NamedTuple):
    """Watts of an idle Blackwell card at its clock; what attention draws above them, forward and backward, as parts of
    what the card's products in BF16 do."""

    idle: float
    forward: float
    backward: float


BLACKWELL = Blackwell(220.0, 0.75, 0.69)
"""NVML's watts of single kernels that ran for a second and more (ai-dynamo/aiconfigurator @095f58a51c4c, Apache-2.0:
TensorRT-LLM 1.3.0rc15 on a B200, limit 1,000 W; rc17 on a GB200, 1,200 W; operands random). Idle: the least of 55,657
and 127,655 products is 244 and 206 W, less 8 as of an H200's there (126) over a rested one (118). Attention: of 677 and
641 kernels in BF16 at the limit (0.3 to 10 ms, from 16 heads of 128 over 4,096 tokens on) times over bursts are 1.04 on
both in the median, which is 833 and 1,027 W rested; BF16 products 1,024 and 1,475. Backward: the H200's over its
forward. Kernels that memory bounds draw as an H200's: products of up to 16 rows, which read their weights, have 450 to
490 and 440 to 480 W above idle in the medians of vLLM 0.22.0's rows there (weights unset), 447 to 480 on an H200."""
ARCHITECTURE = "blackwell"

CLOSE, ROUNDS = 1e-5, 20
"""How near to the limit a clock comes, and its rounds at most."""


def known(device: Device) -> bool:
    """Whether a card's kernels draw as the measured one's."""
    return device.architecture == load_once(MEASURED).architecture


def metered(own: Kernels | None) -> bool:
    """Whether kernels that were published of a card say what they draw: on Blackwell, by their clocks."""
    return bool(own and load_once(own.device).architecture == ARCHITECTURE and load_once(own.device).power_w)


def above(device: Device, own: Kernels | None) -> float:
    """Watts that a power limit leaves above an idle card. own: kernels that were published of it."""
    if own:
        return max(1.0, device.power_w - BLACKWELL.idle)
    return max(1.0, (device.power_w or load_once(MEASURED).power_w) - power.IDLE_W)


def joules(op: object, ns: float, sms: float = 1.0, attention: str = CUDNN, own: Kernels | None = None) -> float:
    """Above an idle card, of an operation that takes so many ns at the rested clock on a part `sms` of the card's SMs.
    attention: whose kernel of it runs, of `hwmodels.attention`. own: kernels that were published of the card."""
    if own:
        return _blackwell(op, own) * sms * ns / NS_PER_S
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


def _blackwell(op: object, own: Kernels) -> float:
    if not isinstance(op, Attention | Gemm | GroupedGemm):
        return _watts(op, CUDNN)
    alone = own.products["bf16" if isinstance(op, Attention) else op.precision].clock
    watts = above(load_once(own.device), own) * math.pow(alone, 1 / power.EXPONENT)
    if isinstance(op, Attention):
        watts *= BLACKWELL.forward if op.direction == "forward" else BLACKWELL.backward
    return watts


def slowed(device: Device, own: Kernels | None) -> float:
    """How many times as much a card's products and attention draw as those of the card that was published, whose clock
    it may not have."""
    return math.pow(device.clock_hz / load_once(own.device).clock_hz, 1 / power.EXPONENT) if own else 1.0


def least_ns(device: Device, drawn: float, cards: int, own: Kernels | None = None) -> float:
    """Within how many ns the limit allows so many joules above an idle card, of the slowest of so many cards, which
    wait for each other (`hwmodels.unlike`); 0 where nobody knows. own: kernels that were published of the card."""
    if not ((metered(own) and device.power_w) or known(device)):
        return 0.0
    slowest = math.pow(unlike.off(device, cards).ratio, 1 / power.EXPONENT)
    return drawn * slowest / above(device, own) * NS_PER_S


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
