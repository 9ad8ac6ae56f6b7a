"""The clock that a step leaves its card: what its kernels draw on average, beside what the power limit allows.

A rested Hopper runs products at 1,980 MHz. There they draw 937 W, which a power limit of 700 W stops after some ms,
unless other kernels or pauses draw less. `hwmodels.power`'s law of one kernel (time goes by the power above an idle
card to -0.5) says that a kernel that takes `clock` times as long draws as many joules less: so a step's joules over the
clock are what the limit allows in the time that it then takes. All measured kernel by kernel on an H200
(numerics/card/timed/bursts.json and blocks.json, 2026-11-29: `loaded`, each kernel without a pause): products and
attention by how much longer they took under the limit than in a burst, others by the power that they drew. A product's
energy is that of what it multiplies, whatever SMs do it; kernels that memory bounds draw alike (511 to 577 W of eight)
whatever bytes a second they reach, so theirs goes by SMs and time, and so does an exchange's, which copies.
"""

import math
from collections.abc import Callable

from hwmodels import power, unlike
from hwmodels.device import Device, load_once
from hwmodels.op import Attention, Gemm, GroupedGemm
from hwmodels.units import NS_PER_S, TERA
from sim.serving.cached import Block, PerHead

MEASURED = "h200"
"""The card whose kernels were metered; its law holds for its architecture."""
FP8_J, BF16_J, ATTENTION_J = 0.67 / TERA, 1.03 / TERA, 1.45 / TERA
"""Joules of a FLOP at the rested clock: of products scaled by block (medians of 15, 0.61 to 0.79 pJ), of those in BF16
(98, 0.85 to 1.15), and of attention's forward kernel (14, 1.2 to 1.7)."""
MEMORY_W = 558.0
"""Of a kernel that memory bounds and that all SMs run, above an idle card."""
TRAINING = 1.065
"""How many times as long as on a rested card the ladder has attention take: the root of what it takes under load over a
burst (1.13; docs/PRICES.md)."""

CLOSE, ROUNDS = 1e-5, 20
"""How near to the limit a clock comes, and its rounds at most."""


def known(device: Device) -> bool:
    """Whether a card's kernels draw as the measured one's."""
    return device.architecture == load_once(MEASURED).architecture


def attention_rested(device: Device) -> float:
    """How many times as long as the ladder says attention takes on a rested card."""
    return 1 / (TRAINING * power.off(device, MEASURED).ratio) if known(device) else 1.0


def joules(op: object, ns: int, sms: float, peaks_bound: bool = True) -> float:
    """Of an operation that takes so many ns on a part `sms` of the card's SMs. peaks_bound: whether a product takes as
    long as it multiplies, not as it reads."""
    if isinstance(op, Attention):
        return ATTENTION_J * op.flop()
    if isinstance(op, Gemm | GroupedGemm | PerHead | Block) and peaks_bound:
        bf16 = isinstance(op, PerHead) or (isinstance(op, Gemm | GroupedGemm) and op.precision == "bf16")
        return (BF16_J if bf16 else FP8_J) * op.flop()
    return MEMORY_W * sms * ns / NS_PER_S


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
