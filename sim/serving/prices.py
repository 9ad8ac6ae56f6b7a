"""Prices of a serving step's operations: by measured kernels of serving, and by the ladder of hwmodels for the rest.

Every kernel has the gap before it that a replayed CUDA graph leaves: measured with it where rows are of such graphs,
else `hwmodels.price.Pricer.launch_gap_ns`. No host launches them one by one.
"""

import math
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from hashlib import blake2b
from typing import Any, NamedTuple

from hwmodels import tables
from hwmodels.beside import contention_family
from hwmodels.collectives import Wires, collective_seconds
from hwmodels.device import Device
from hwmodels.nccl import library as nccl
from hwmodels.nccl.library import Library
from hwmodels.op import AllToAll, Attention, Collective, Gemm, GroupedGemm, Memory
from hwmodels.price import Pricer
from hwmodels.units import MIB, US_NS, seconds_to_ns
from sim.communication.exchange.direct import WARPS_PER_SM, Decode
from sim.communication.exchange.ports import of_op
from sim.communication.exchange.price import Fidelity
from sim.communication.exchange.roles import COPY
from sim.models.layer import COMPUTE
from sim.routing.keyed import generator
from sim.serving import paced
from sim.serving.cached import Block, Cached, Notify, PerHead
from sim.serving.measured import Card, Reading, class_of, multiplies, read_us
from sim.serving.values import SGLANG

LIBRARY, FLASH = "torch", "flash3"
"""Whose attention of whole prompts runs (FlashAttention-3), and whose of the kernels that engines leave to it: torch's
as measured on an H200."""
TORCHS = ("concatenate", "softmax")
"""Memory-bound kernels that are torch's. Others (norms, casts, rotation, activations) are the engine's own, which take
as long as its casts of as many bytes."""
OWN_REDUCTION = 8 * MIB
"""Largest all-reduce of an engine's own kernel (vLLM's and SGLang's `custom_all_reduce.py`, `max_size`); NCCL's are
taken beyond, and where they are faster."""
NODE = 8
"""Ranks of that kernel at most."""
KEY_BYTES = 8


class Uneven(NamedTuple):
    """An exchange of prompts. even: as if all ranks had as many tokens, and all experts were liked alike. received,
    reached: tokens that come to the busiest rank, and to the busiest node, over those of an even one."""

    even: AllToAll
    received: float = 1.0
    reached: float = 1.0

    def flop(self) -> float:
        """It multiplies nothing."""
        return 0.0

    def bytes(self) -> float:
        """That arrive at the busiest rank."""
        return self.even.bytes() * self.received


Op = Gemm | GroupedGemm | PerHead | Block | Cached | Decode | Notify | Collective | Memory | Attention | Uneven


class Kernel(NamedTuple):
    """A kernel of a step: its name, what it does, and its lane (COMPUTE or COMMUNICATION)."""

    name: str
    op: Op
    lane: int = COMPUTE


def contention(op: Op, us: float) -> float:
    """How many times as long an operation of so many us takes beside DeepEP's exchanges: its class in DeepSeek's
    profile."""
    if isinstance(op, Decode | Cached | Notify | Uneven | Collective):
        return 1.0
    if isinstance(op, PerHead | Block):
        return float(_classes()["gemm" if isinstance(op, Block) else "gemm_bf16"]["factor"])
    return float(_classes()[contention_family(op, us)]["factor"])


@cache
def _classes() -> dict[str, Any]:
    return dict(tables.load("h800").contention)


EXCHANGE_SMS = 24
"""That exchanges of prompts hold (DeepSeek's profile: 24 of 132)."""


@dataclass(frozen=True)
class Prices:
    """Prices on a device with its links. sms: of exchanges of prompts. beside: of what
    runs beside such exchanges, on the SMs that they leave. engine: whose kernels run. clock: how many times as long as
    on a rested card the clock makes products and attention take (`sim.serving.paced`); rested: the same there."""

    device: Device
    wires: Wires
    sms: int = EXCHANGE_SMS
    beside: bool = False
    engine: str = SGLANG
    draw: int = 0
    clock: float = 1.0
    known: dict[Op, int] = field(default_factory=dict, compare=False, repr=False)
    rested: "Prices | None" = field(default=None, compare=False, repr=False)

    @cached_property
    def _pricer(self) -> Pricer:
        return Pricer(
            self.device, self.wires, self.sms, exchange=self._exchange, held=False, library=LIBRARY, attention=FLASH
        )

    @cached_property
    def _exchange(self) -> Fidelity:
        return Fidelity()

    @cached_property
    def _card(self) -> Card:
        return Card(self.device, self.wires, self.device.sms - (self.sms if self.beside else 0), self.engine)

    @cached_property
    def _nccl(self) -> Library | None:
        return Library(self.device.architecture) if nccl.known(self.device.architecture) else None

    def kernels_ns(self, kernels: list[Kernel]) -> int:
        """Of kernels one after another."""
        return sum(self.ns(kernel.op) for kernel in kernels)

    def ns(self, op: Op) -> int:
        """One operation, with the gap before each of its kernels."""
        if op not in self.known:
            if self.rested and not self._paced(op):
                self.known[op] = self.rested.ns(op)
            else:
                priced = self._priced_ns(op)
                self.known[op] = math.ceil(priced * self._off(op)) if self.draw else priced
        return self.known[op]

    def _paced(self, op: Op) -> bool:
        """Whether the clock decides what an operation takes."""
        return isinstance(op, Attention) or multiplies(op, self._card)

    def _off(self, op: Op) -> float:
        """By what factor the draw has the price wrong, the same of all of a class."""
        name, spread = self._class_of(op)
        key = int.from_bytes(blake2b(name.encode(), digest_size=KEY_BYTES).digest(), "big")
        return math.exp(spread * float(generator(self.draw, "prices", key).standard_normal()))

    def _class_of(self, op: Op) -> tuple[str, float]:
        if isinstance(op, Uneven):
            return type(op).__name__, self._pricer.price(op.even).spread
        if isinstance(op, Attention) or (isinstance(op, Memory) and op.kind in TORCHS):
            return type(op).__name__, self._pricer.price(op).spread
        return class_of(op, self._card)

    def _priced_ns(self, op: Op) -> int:
        if isinstance(op, Collective):
            return self._collective_ns(op)
        if isinstance(op, Uneven):
            return math.ceil(self._laddered_ns(op.even) * self._slower(op)) + self._pricer.launch_gap_ns
        if isinstance(op, Attention):
            rested = self._laddered_ns(op) * paced.attention_rested(self.device)
            return math.ceil(rested * self.clock) + self._pricer.launch_gap_ns
        if isinstance(op, Memory) and op.kind in TORCHS:
            return self._laddered_ns(op) + self._pricer.launch_gap_ns
        reading = read_us(op, self._card)
        slower = contention(op, reading.us) if self.beside else 1.0
        slower *= self.clock if multiplies(op, self._card) else 1.0
        return math.ceil(reading.us * slower * US_NS) + self._gap_ns(reading)

    def at(self, clock: float) -> "Prices":
        """The same at another clock than a rested card's."""
        there = replace(self, clock=clock, known={}, rested=self)
        vars(there).update(_pricer=self._pricer, _card=self._card, _nccl=self._nccl)
        return there

    def joules(self, op: Op) -> float:
        """Above an idle card, at the rested clock: an exchange draws on its SMs, all else on those that it leaves."""
        held = self.sms / self.device.sms
        part = held if isinstance(op, Notify | Uneven) else 1 - held * self.beside
        return paced.joules(op, self.ns(op), part, multiplies(op, self._card))

    def _laddered_ns(self, op: Memory | Attention | AllToAll) -> int:
        price = self._pricer.price(op)
        return price.beside_ns if self.beside else price.ns

    def _slower(self, op: Uneven) -> float:
        """How many times as long as an even one an exchange takes, by the model that times those: what comes to a node
        crosses its NICs and is forwarded there, what comes to a rank loads its port and warps."""
        if max(op.received, op.reached) <= 1:
            return 1.0
        ports, own = of_op(op.even), self._exchange
        loaded = ports.raised(op.received, op.reached)
        even, uneven = (own.of_ports(each, self.wires, self.sms) for each in (ports, loaded))
        return max(1.0, uneven / even)

    def _gap_ns(self, reading: Reading) -> int:
        return 0 if reading.whole else self._pricer.launch_gap_ns

    def held_ns(self, op: Op) -> int:
        """Of an exchange by low-latency kernels, while they hold the SMs: they pack rows before these leave and unpack
        them when all have come; between, no SM is theirs (DeepEP V1 legacy.md, "receiving hook")."""
        if not isinstance(op, Decode):
            return 0
        row, sms = COPY.seconds(op.combine, op.row_bytes), self.device.sms
        pack, unpack = -(-op.tokens // sms) * row, op.tokens * op.experts * row / (sms * WARPS_PER_SM)
        return min(self.ns(op), seconds_to_ns(pack + max(row, unpack)))

    def _collective_ns(self, op: Collective) -> int:
        gap = self._pricer.launch_gap_ns
        if op.ranks <= 1 or not op.size:
            return gap
        seconds = self._nccl.take(op, self.wires).seconds if self._nccl else collective_seconds(op, self.wires)
        theirs = seconds_to_ns(seconds) + gap
        if op.kind != "all_reduce" or op.nodes > 1 or op.ranks > NODE or op.size > OWN_REDUCTION:
            return theirs
        reading = read_us(op, self._card)
        return min(theirs, math.ceil(reading.us * US_NS) + self._gap_ns(reading))
