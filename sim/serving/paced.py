"""The clock that a step leaves its card: what its kernels draw on average, beside what the power limit allows.

A rested Hopper runs products at 1,980 MHz. There they draw 937 W, which a power limit of 700 W stops after some ms,
unless other kernels or pauses draw less. How much longer what the clock paces then takes follows `hwmodels.power`'s
law: the mean power above an idle card over the limit's, to 0.5. All measured kernel by kernel on an H200
(numerics/card/timed/bursts.json and blocks.json, 2026-11-29: `loaded`, each kernel without a pause): products and
attention by how much longer they took under the limit than in a burst, others by the power that they drew. A product's
energy is that of what it multiplies, whatever SMs do it; kernels that memory bounds draw alike (511 to 577 W of eight)
whatever bytes a second they reach, so theirs goes by SMs and time, and so does an exchange's, which copies.
"""

from hwmodels import power, unlike
from hwmodels.device import Device, load_once
from hwmodels.op import Attention, Gemm, GroupedGemm
from hwmodels.units import MICRO, NS_PER_S, PERCENT, TERA
from sim.serving.cached import PerHead

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

Paced = Gemm | GroupedGemm | PerHead | Attention


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
    if isinstance(op, Gemm | GroupedGemm | PerHead) and peaks_bound:
        bf16 = isinstance(op, PerHead) or op.precision == "bf16"
        return (BF16_J if bf16 else FP8_J) * op.flop()
    return MEMORY_W * sms * ns / NS_PER_S


def slower(device: Device, drawn: float, ns: int, cards: int) -> float:
    """How many times as long as on a rested card the clock makes a step's products take, in whole per cent. drawn:
    joules above an idle card; ns: what the step takes at the rested clock. Where the limit binds, cards that wait for
    each other go at the pace of the slowest (`hwmodels.unlike`)."""
    if not known(device) or not ns:
        return 1.0
    limit = device.power_w or load_once(MEASURED).power_w or 0.0
    over = drawn / (ns / NS_PER_S) / max(limit - power.IDLE_W, MICRO)
    if over <= 1:
        return 1.0
    return round(over**power.EXPONENT * unlike.off(device, cards).ratio / PERCENT) * PERCENT
