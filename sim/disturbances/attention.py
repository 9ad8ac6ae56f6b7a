"""How long parts take whose attention stays inside documents, by how long the documents are.

A packed micro-batch is one launch of a kernel for sequences of different lengths (block-diagonal causal masks). Its
price is a mean over its tokens: each counts what it costs in a micro-batch all of whose documents are as long as its
own, of which as many as fit are priced. So a document counts by its tokens and by those they meet, the sum of squares
of lengths where attention is over whole documents; what is fixed counts once; and equal documents cost what the same
kernel costs for a batch of them. Lengths between those that are priced are interpolated. Nothing else in a micro-batch
goes by its documents: Mamba-2's scan and all products take tokens as they come.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from hwmodels.op import Attention
from hwmodels.price import Pricer
from sim.disturbances.documents import Documents
from sim.layout.machine import Machine
from sim.models.layer import Part, Unit

Array = npt.NDArray[np.float64]
Label = tuple[str, str]
"""Kind of a unit, and label of one of its parts."""

PER_OCTAVE = 5
"""Lengths that are priced from each to twice as long."""


@dataclass(frozen=True)
class Prices:
    """What a micro-batch costs all of whose documents are equally long. lengths [length]: in tokens. parts: time of
    each part with attention [length], over what it takes for the documents of the site. attention [length]: ns of
    attention of all units, forward and backward; rest: ns of all other compute."""

    lengths: Array
    parts: Mapping[Label, Array]
    attention: Array
    rest: float


def prices(machine: Machine) -> Prices:
    """Prices on a machine, over times for the documents of its site."""
    site = machine.site
    count = 1 + PER_OCTAVE * max(1, site.length.bit_length())
    spread = np.rint(np.geomspace(1, site.length, count)).astype(int)
    lengths = sorted({*spread.tolist(), min(site.attending[1], site.length)})
    parts: dict[Label, Array] = {}
    attention, rest = np.zeros(len(lengths)), 0.0
    kinds = Counter(unit.kind for unit in machine.units)
    for unit in {unit.kind: unit for unit in machine.units}.values():
        own, whole = np.zeros(len(lengths)), float(machine.unit_ns(unit))
        for part, others in _attending(machine, unit, lengths):
            here = _attention_ns(machine.pricer, part)
            own, whole = own + others, whole - here
            total = machine.part_ns(part)
            parts[unit.kind, part.label] = (total - here + others) / total
        attention, rest = attention + kinds[unit.kind] * own, rest + kinds[unit.kind] * whole
    return Prices(np.array(lengths, float), parts, attention, rest)


def share(machine: Machine) -> float:
    """The part of compute that is attention, for the documents of the site."""
    parts = [part for unit in machine.units for part, _ in _attending(machine, unit, ())]
    whole = sum(machine.unit_ns(unit) for unit in machine.units)
    return sum(_attention_ns(machine.pricer, part) for part in parts) / whole


def _attending(machine: Machine, unit: Unit, lengths: Sequence[int]) -> Iterator[tuple[Part, Array]]:
    """Parts of a unit that have attention, for the documents of the site, and ns of that attention [length]."""
    site, own = machine.site, machine.lowering.parts
    tokens = site.sequences * site.length
    for direction in "FB":
        sites = [site._replace(documents=(max(1, tokens // n), n)) for n in lengths]
        scales = np.array([tokens / math.prod(each.attending) for each in sites])
        rows = [own(each, unit, direction) for each in sites]
        for part, *others in zip(own(site, unit, direction), *rows, strict=True):
            if any(isinstance(kernel.op, Attention) for kernel in part.kernels):
                yield part, scales * [_attention_ns(machine.pricer, other) for other in others]


def _attention_ns(pricer: Pricer, part: Part) -> int:
    """ns of the attention kernels of a part alone."""
    return sum(pricer.price(kernel.op).ns for kernel in part.kernels if isinstance(kernel.op, Attention))


@dataclass(frozen=True)
class Attending:
    """How many times as long parts with attention take, of documents that were drawn.

    rows: of `factors`, by kind of unit and label of part. factors [row, micro-batch, replica]. attention [micro-batch,
    replica]: ns of attention in all units; rest: ns of all other compute."""

    rows: Mapping[Label, int]
    factors: Array
    attention: Array
    rest: float

    @property
    def evened(self) -> "Attending":
        """The same work in each micro-batch of each rank: one replica for all."""
        mean = self.factors.mean(axis=(1, 2), keepdims=True)
        factors = np.broadcast_to(mean, (*self.factors.shape[:2], 1))
        return replace(self, factors=factors, attention=np.full_like(self.attention, self.attention.mean()))


def attending(machine: Machine, documents: Documents) -> Attending:
    """Of all micro-batches of a step."""
    by = prices(machine)

    def drawn(values: Array) -> Array:
        return documents.mean(np.interp(documents.tokens, by.lengths, values))

    shape = (0, documents.micro_batches, documents.replicas)
    factors = np.stack([drawn(times) for times in by.parts.values()]) if by.parts else np.zeros(shape)
    return Attending({label: row for row, label in enumerate(by.parts)}, factors, drawn(by.attention), by.rest)
