"""What a power limit costs kernels that the clock paces: products and attention.

A training step draws what its card may, so its clock is what the limit leaves. Measured on an H200 (700 W; products of
8,192^3 in BF16 with pauses between pairs of them, 2026-11-30): at 1,980 MHz a product draws 937 W (273, 386, 521 and
576 W on average where it runs 19, 32, 48 and 56 % of the time, with 118 W besides); as the limit binds, time goes by
the power above those 118 W to -0.5 (1,399 us at 1.00 of it, 1,460 at 0.91, 1,499 at 0.84, 1,596 at 0.77, 1,650 at
0.71, where clocks are 1,980 down to 1,479 MHz; exponents 0.43 to 0.55). Voltage falls with the clock, so less power
costs less than its part. Tables hold times under their own card's limit; a card of its kind with another limit is
priced by that law, beyond what was measured (500 W leave 0.47 of the 937), hence the spread.

Kernels that memory bounds are left as they are: what a training step's company adds to them, by kind, over what it adds
to products (fit.clock of a library's tables) would make an eager step under 500 W 0.8 % longer.
"""

import math
from typing import NamedTuple

from hwmodels.device import Device, load_once

IDLE_W, EXPONENT, EXPONENT_SPREAD = 118.0, 0.5, 0.1
"""Watts that are drawn besides; the law's exponent, and what it may be off where it was not measured."""


class Off(NamedTuple):
    """How many times as long as on the tables' card, and the relative spread of that."""

    ratio: float
    spread: float


SAME = Off(1.0, 0.0)


def known(device: Device) -> bool:
    """Whether any of the tables that a device has is of a card of its architecture whose limit is known, so that less
    or more of it is priced."""
    cards = (load_once(name) for name in (device.tables, *device.siblings) if name)
    return any(card.power_w and card.architecture == device.architecture for card in cards)


def off(device: Device, tables: str) -> Off:
    """Of a device over the card of tables, where both limits are known and both are of one architecture."""
    there = load_once(tables)
    if not device.power_w or not there.power_w or device.architecture != there.architecture:
        return SAME
    above, theirs = (max(1.0, watts - IDLE_W) for watts in (device.power_w, there.power_w))
    apart = math.log(theirs / above)
    return Off(math.exp(EXPONENT * apart), abs(apart) * EXPONENT_SPREAD)
