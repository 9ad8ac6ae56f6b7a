"""Prices of a serving step's operations: by measured kernels of serving, and by the ladder of hwmodels for the rest.

Every kernel has the gap before it that a replayed CUDA graph leaves (`hwmodels.price.Pricer.launch_gap_ns`); no host
launches them one by one.
"""

import math
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import NamedTuple

from hwmodels import tables
from hwmodels.collectives import Wires, collective_seconds
from hwmodels.device import Device
from hwmodels.nccl import library as nccl
from hwmodels.nccl.library import Library
from hwmodels.op import AllToAll, Attention, Collective, Gemm, GroupedGemm, Memory
from hwmodels.price import Pricer
from hwmodels.units import MIB, US_NS, seconds_to_ns
from sim.communication.exchange.direct import WARPS_PER_SM, Decode
from sim.communication.exchange.price import Fidelity
from sim.communication.exchange.roles import COPY
from sim.models.layer import COMPUTE
from sim.serving.cached import Cached
from sim.serving.measured import Card, read_us

LIBRARY, FLASH = "torch", "flash3"
"""Whose memory-bound kernels and attention of whole prompts run: torch's as measured on an H200, FlashAttention-3."""
OWN_REDUCTION = 8 * MIB
"""Largest all-reduce of an engine's own kernel (vLLM's and SGLang's `custom_all_reduce.py`, `max_size`); NCCL's are
taken beyond, and where they are faster."""
NODE = 8
"""Ranks of that kernel at most."""

Op = Gemm | GroupedGemm | Cached | Decode | Collective | Memory | Attention | AllToAll


class Kernel(NamedTuple):
    """A kernel of a step: its name, what it does, and its lane (COMPUTE or COMMUNICATION)."""

    name: str
    op: Op
    lane: int = COMPUTE


@cache
def contention() -> float:
    """How many times as long DeepGEMM's products take beside DeepEP's exchanges, in DeepSeek's profile."""
    return float(tables.load("h800").contention["gemm"]["factor"])


@dataclass(frozen=True)
class Prices:
    """Prices on a device with its links. sms: of exchanges of prompts (DeepSeek's profile: 24 of 132). beside: of what
    runs beside such exchanges, on the SMs that they leave."""

    device: Device
    wires: Wires
    sms: int = 24
    beside: bool = False
    known: dict[Op, int] = field(default_factory=dict, compare=False, repr=False)

    @cached_property
    def _pricer(self) -> Pricer:
        return Pricer(
            self.device, self.wires, self.sms, exchange=Fidelity(), held=False, library=LIBRARY, attention=FLASH
        )

    @cached_property
    def _card(self) -> Card:
        return Card(self.device, self.wires, self.device.sms - (self.sms if self.beside else 0))

    @cached_property
    def _nccl(self) -> Library | None:
        return Library(self.device.architecture) if nccl.known(self.device.architecture) else None

    def kernels_ns(self, kernels: list[Kernel]) -> int:
        """Of kernels one after another."""
        return sum(self.ns(kernel.op) for kernel in kernels)

    def ns(self, op: Op) -> int:
        """One operation, with the gap before each of its kernels."""
        if op not in self.known:
            self.known[op] = self._alone_ns(op) + self._pricer.launch_gap_ns
        return self.known[op]

    def _alone_ns(self, op: Op) -> int:
        if isinstance(op, Collective):
            return self._collective_ns(op)
        if isinstance(op, Memory | Attention | AllToAll):
            price = self._pricer.price(op)
            return price.beside_ns if self.beside else price.ns
        slower = contention() if self.beside and isinstance(op, Gemm | GroupedGemm) else 1.0
        return math.ceil(read_us(op, self._card).us * slower * US_NS)

    def held_ns(self, op: Op) -> int:
        """Of an exchange by low-latency kernels, while they hold the SMs: they pack rows before these leave and unpack
        them when all have come; between, no SM is theirs (DeepEP V1 legacy.md, "receiving hook")."""
        if not isinstance(op, Decode):
            return 0
        row, sms = COPY.seconds(op.combine, op.row_bytes), self.device.sms
        pack, unpack = -(-op.tokens // sms) * row, op.tokens * op.experts * row / (sms * WARPS_PER_SM)
        return min(self.ns(op), seconds_to_ns(pack + max(row, unpack)))

    def _collective_ns(self, op: Collective) -> int:
        if op.ranks <= 1 or not op.size:
            return 0
        seconds = self._nccl.take(op, self.wires).seconds if self._nccl else collective_seconds(op, self.wires)
        theirs = seconds_to_ns(seconds)
        if op.kind != "all_reduce" or op.nodes > 1 or op.ranks > NODE or op.size > OWN_REDUCTION:
            return theirs
        return min(theirs, math.ceil(read_us(op, self._card).us * US_NS))
