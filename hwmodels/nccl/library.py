"""The door to NCCL's collectives on a generation of GPUs."""

import math
from dataclasses import dataclass
from typing import NamedTuple

from hwmodels.collectives import Wires, collective_seconds, send_seconds
from hwmodels.nccl import figures, timing, tuner
from hwmodels.nccl.way import DIRECT, LL, LL128, NVLS, NVLS_TREE, RING, SHARP, SIMPLE, Way
from hwmodels.op import Collective, Send
from hwmodels.refused import Refused
from hwmodels.units import GIGA, KIB

THREADS = {LL: 512, LL128: 640, SIMPLE: 512}
"""Of a channel."""
LEAST_BYTES = {LL: 8, LL128: 8, SIMPLE: 64}
"""For a thread, below which fewer channels run (a ring with LL: so many times the ranks); comm.h, v2.29.2."""
FAR_CHANNEL = 14 * GIGA
"""Bytes/s of a channel of messages to another domain (NCCL_P2P_PER_CHANNEL_NET_BW)."""
PART_BYTES = 64 * KIB
"""Of a message that has a channel for itself, at least (an eighth of a step's buffer)."""


class Taken(NamedTuple):
    """A collective as NCCL does it, alone. sms: that it holds, one a channel. spread: relative, of the seconds."""

    seconds: float
    way: Way
    sms: int
    spread: float


@dataclass(frozen=True)
class Library:
    """NCCL on GPUs of an architecture. algorithm, protocol: the only ones that it may take; "": any."""

    architecture: str
    algorithm: str = ""
    protocol: str = ""

    def take(self, op: Collective | Send, links: Wires, supposed: Wires | None = None) -> Taken:
        """A collective or a message over such links. supposed: the links that NCCL believes in, where those are slower
        than it knows. Raises Refused where no way is left."""
        fitted, known = figures.load(self.architecture), tuner.GENERATIONS[self.architecture]
        if isinstance(op, Send):
            way = Way(DIRECT, SIMPLE)
            seconds = timing.send_seconds(op, links, fitted.figures)
            channels = (
                math.ceil(links.nic.bandwidth * links.nics / FAR_CHANNEL) if op.leaves_node else tuner.MOST_CHANNELS
            )
            held = min(channels, _parts(op.size, 1))
            return Taken(seconds, way, held, figures.spread(fitted, way, 1 + op.leaves_node))
        way = self.way(op, supposed or links)
        seconds = timing.seconds(way, op, links, known, fitted.figures)
        held = sms(way, op._replace(slower=1.0), supposed or links, known)
        return Taken(seconds, way, held, figures.spread(fitted, way, op.nodes))

    def way(self, op: Collective, links: Wires) -> Way:
        """Which way a collective goes; NCCL does not know what slows it between switches. Raises Refused where none
        is left."""
        generation, op = tuner.GENERATIONS[self.architecture], op._replace(slower=1.0)
        chosen = tuner.choice(generation, op, links, self.algorithm, self.protocol)
        if links.sharp and op.nodes > 1 and op.kind == "all_reduce" and self.algorithm in ("", SHARP):
            switches = Way(SHARP, SIMPLE)
            if chosen is None or self._seconds(switches, op, links) < self._seconds(chosen, op, links):
                return switches
        if chosen is None:
            said = ", ".join(word for word in (self.algorithm, self.protocol) if word)
            legal = "; ".join(str(way) for way, _ in tuner.estimates(generation, op, links))
            raise Refused(f"no {op.kind} over {op.ranks} ranks goes by {said} here; legal: {legal}")
        return chosen

    def _seconds(self, way: Way, op: Collective, links: Wires) -> float:
        known = tuner.GENERATIONS[self.architecture]
        return timing.seconds(way, op, links, known, figures.load(self.architecture).figures)


def seconds(library: Library | None, op: Collective | Send, links: Wires, supposed: Wires) -> float:
    """Of a collective or a message alone, by NCCL or by the closed forms. supposed: as `Library.take` has it. Raises
    Refused."""
    if library:
        return library.take(op, links, supposed).seconds
    return send_seconds(op, links) if isinstance(op, Send) else collective_seconds(op, links)


def known(architecture: str) -> bool:
    """Whether NCCL runs on an architecture, and was measured there."""
    return architecture in tuner.GENERATIONS


def sms(way: Way, op: Collective, links: Wires, generation: tuner.Generation) -> int:
    """SMs that a collective holds: its channels, fewer where there is too little for each."""
    if op.ranks <= 1 or not op.size:
        return 0
    if way.algorithm in (NVLS, NVLS_TREE):
        return generation.nvls_channels[op.nodes > 1]
    channels = 2 * tuner.graph(generation, op, links).channels
    if way.algorithm == DIRECT:
        return min(_parts(op.size / op.ranks, op.ranks - 1), _power_of_two(channels))
    least = LEAST_BYTES[way.protocol] * (op.ranks if (way.algorithm, way.protocol) == (RING, LL) else 1)
    return max(1, min(channels, int(op.size // (THREADS[way.protocol] * least))))


def _parts(size: float, peers: int) -> int:
    """Channels for messages of `size` bytes to each peer."""
    return min(tuner.MOST_CHANNELS, peers * max(1, -int(-size // PART_BYTES)))


def _power_of_two(number: int) -> int:
    """The next power of two, where it is none."""
    return 1 << (number - 1).bit_length()
