"""HybridEP's dispatch and combine inside an NVLink domain, by what was measured of its kernels.

Bytes that a rank receives (a token once, its own rank's included) over the time of the kernel alone, by ranks: GB200s,
4,096 tokens of 7,168 in BF16, 8 of random experts; docs/README_Hybrid-EP.md of github.com/deepseek-ai/DeepEP (branch
hybrid-ep, 94a9f8f, MIT). A B200 has 735 and 674 GB/s with 8 ranks and 16 SMs. What the call does besides (metadata, a
permute) is not in it. Between SMs it is straight, with fewer than 16 in proportion; beyond 36 ranks the last figure
holds; slower links make it slower.
"""

import numpy as np

from hwmodels.collectives import Wires
from hwmodels.op import AllToAll
from hwmodels.units import GIGA

RANKS = (8, 16, 24, 32, 36)
RATES = {
    "dispatch": {16: (750.15, 661.93, 637.80, 629.79, 612.85), 32: (764.03, 706.95, 665.97, 642.23, 632.31)},
    "combine": {16: (684.27, 600.75, 565.53, 547.25, 543.27), 32: (737.13, 666.26, 639.80, 605.15, 596.99)},
}
"""Direction -> SMs -> GB/s by ranks."""
FEW, MANY = 16, 32
LINK = 900.0
"""GB/s of the NVLink that they were measured on, in one direction."""


def seconds(op: AllToAll, links: Wires, sms: int) -> float:
    """One exchange of a group on one node, `sms` SMs driving it."""
    few, many = (float(np.interp(op.group, RANKS, RATES[op.direction][held])) for held in (FEW, MANY))
    rate = few * sms / FEW if sms < FEW else few + (many - few) * (min(sms, MANY) - FEW) / (MANY - FEW)
    return op.bytes() / (rate * GIGA * links.nvlink.bandwidth / (LINK * GIGA))
