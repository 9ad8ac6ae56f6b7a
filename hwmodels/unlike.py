"""Cards of a kind are not alike: chips differ, and under its power limit each has the clock that its own leave it.

Ranks of a training step wait for each other, in layers, in pipelines and at the latest before the update, so that all
go at the pace of the slowest card. Measured at a product of 8,192 x 7,168 x 4,096 in BF16, in a loop of one second and
the next one on four H200s of one host at once (700 W, 2026-11-30): 713, 734, 726 and 726 us (707, 729, 722 and 721 in
the second before), a relative standard deviation of 1.2 %; clocks 1,875 down to 1,830 MHz. Kernels bound by memory took
58.0 us on each. Where such products alternate with collectives all took 738 to 760 us each in stretches of three, 749
to 751 in stretches of six, on two cards and on four: no less than the slowest alone. Larger fleets vary as much: 8 % on
average over hundreds of V100s and MI60s (from end to end, some six deviations; Sinha et al., arXiv:2208.11035, SC 22).
Of n cards the slowest is as far off as the largest of n normal numbers (Blom, 1958): 1.0 deviations of 4, 2.4 of 64 and
3.8 of 8,192. Single prices of tables are of one card each, taken for the mean.
"""

from statistics import NormalDist

from hwmodels.device import Device
from hwmodels.power import SAME, Off

UNSURE = 0.4
"""Relative spread of a standard deviation that four cards showed."""


def off(device: Device, cards: int) -> Off:
    """How many times as long as on a mean card products and attention take on the slowest of so many."""
    longer = device.spread * largest(cards)
    return Off(1 + longer, UNSURE * longer) if longer else SAME


def largest(count: int) -> float:
    """The largest of so many normal numbers, expected, in standard deviations."""
    return NormalDist().inv_cdf((count - 0.375) / (count + 0.25)) if count > 1 else 0.0
