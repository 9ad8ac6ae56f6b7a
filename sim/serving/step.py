"""A step of an instance: what its busiest rank takes from the embedding to the next tokens, in ns.

One micro-batch does a layer's parts in turn. Two halves of a batch share the lanes, compute and communication
(`sim.serving.overlap`); dense layers, which exchange nothing, see the whole batch.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from hwmodels import pace
from hwmodels.op import Gemm, norm
from sim.models.blocks.made import Made
from sim.models.blocks.mla import Latent
from sim.models.family import family, main_units
from sim.serving import networks
from sim.serving.attention import CORE, attention
from sim.serving.experts import Gating, loads
from sim.serving.overlap import Parts, overlapped_ns
from sim.serving.prices import Kernel, Prices
from sim.serving.rank import Batch, Load, Rank


@dataclass(frozen=True)
class Stepper:
    """What prices steps of an instance. gating: of its expert group; None: a model without experts. halves: whether a
    batch is split in two that overlap, which `prices` are then beside. drafts: tokens that a prediction module drafts
    one after another before each step."""

    rank: Rank
    prices: Prices
    gating: Gating | None = None
    halves: bool = False
    drafts: int = 0
    known: dict[Any, Any] = field(default_factory=dict, compare=False, repr=False)
    drawn: dict[tuple[int, bool], tuple[Load, ...]] = field(default_factory=dict, compare=False, repr=False)
    built: dict[Any, Any] = field(default_factory=dict, compare=False, repr=False)

    @cached_property
    def units(self) -> tuple[Made, ...]:
        """The model in order."""
        own = family(self.rank.part.family)
        return tuple(own.made(self.rank.part, unit) for unit in main_units(own.units(self.rank.part)))

    @cached_property
    def blocks(self) -> tuple[Made, ...]:
        """Layers that differ."""
        return tuple(dict.fromkeys(made for made in self.units if not made.end))

    @cached_property
    def order(self) -> tuple[int, ...]:
        """Of each layer, which of `blocks` it is."""
        return tuple(self.blocks.index(made) for made in self.units if not made.end)

    def ns(self, batch: Batch) -> int:
        """A step of a batch."""
        return self.at(batch).ns_here(batch)

    def at(self, batch: Batch) -> "Stepper":
        """The same at the clock that a step of a batch leaves its card. A rank is the busiest in few layers only, so
        its card draws what the mean rank's does in the time of the busiest. Steps of answers, whose kernels wait for
        memory, stay at the rested clock."""
        if not batch.prefill:
            return self
        key = "clock", batch
        if key not in self.known:
            cards = max(self.rank.expert, self.rank.tensor)
            least = pace.least_ns(self.prices.device, self.joules(batch), cards)
            there = dict[float, Stepper]()

            def taken(clock: float) -> int:
                there[clock] = self._there(clock)
                return there[clock].ns_here(batch)

            self.known[key] = there[pace.clock(least, taken)]
        own: Stepper = self.known[key]
        return own

    def _there(self, clock: float) -> "Stepper":
        """The same at a clock."""
        if clock == 1:
            return self
        there = replace(self, prices=self.prices.at(clock), known={})
        vars(there).update(units=self.units, blocks=self.blocks, order=self.order)
        return there

    def joules(self, batch: Batch) -> float:
        """Of a step of the mean rank, above an idle card, at the rested clock."""
        return sum(self._joules(each) for each in ((self.halves and batch.halves) or (batch,)))

    def _joules(self, batch: Batch) -> float:
        """Of one micro-batch: every layer of a kind as the first."""
        load = next((each.mean for each in self.loads(batch)), None)
        total = sum(self._drawn(networks.end(self.rank, made, batch)) for made in self.units if made.end)
        for kind, made in enumerate(self.blocks):
            key = "joules", kind, batch.tokens, batch.mean, load
            if key not in self.known:
                self.known[key] = sum(map(self._drawn, self._lists(made, batch, load if made.routed else None)))
            total += self.order.count(kind) * (self.known[key] + self._drawn(self._attention(made, batch)))
        return total

    def _drawn(self, kernels: list[Kernel]) -> float:
        """Joules of kernels."""
        return sum(self.prices.joules(kernel.op) for kernel in kernels)

    def ns_here(self, batch: Batch) -> int:
        """A step of a batch at the clock that there is."""
        whole = self.ends_ns(batch) + (self.drafts * self.draft_ns(batch) if self.drafts else 0)
        two = batch.halves if self.halves else ()
        if not two:
            return whole + sum(part.total for part in self.layers(batch))
        alone = sum(part.total for part in self.layers(batch) if not part.exchanges)
        first, second = ([part for part in self.layers(half) if part.exchanges] for half in two)
        return whole + alone + overlapped_ns(first, second, batch.prefill)

    def ends_ns(self, batch: Batch) -> int:
        """Embedding, head and sampling."""
        ends = (networks.end(self.rank, made, batch) for made in self.units if made.end)
        return sum(self.prices.kernels_ns(kernels) for kernels in ends)

    def draft_ns(self, batch: Batch) -> int:
        """A token of each sequence by a multi-token-prediction module: its projection, a layer as the last, the head
        (arXiv:2412.19437 sec 2.2)."""
        one, h = batch._replace(queries=1), self.rank.part.hidden
        first = [
            Kernel("norms", norm(2 * one.tokens, h)),
            Kernel("projection", Gemm(one.tokens, h, 2 * h, precision=self.rank.precision)),
        ]
        return self.prices.kernels_ns(first) + self.layers(one)[-1].total + self.ends_ns(one)

    def layers(self, batch: Batch) -> tuple[Parts, ...]:
        """Parts of each layer of a micro-batch."""
        if batch not in self.known:
            drawn = iter(self.loads(batch))
            mixed = [self._mixing(made, batch) for made in self.blocks]
            self.known[batch] = tuple(
                self._layer(kind, batch, next(drawn) if self.blocks[kind].routed else None, mixed[kind])
                for kind in self.order
            )
        parts: tuple[Parts, ...] = self.known[batch]
        return parts

    def loads(self, batch: Batch) -> tuple[Load, ...]:
        """Of each routed layer: tokens of all that share the experts."""
        if self.gating is None:
            return ()
        groups = max(1, self.rank.expert // self.rank.tensor)
        key = max(1, round(batch.tokens * groups * batch.mean)), batch.prefill
        if key not in self.drawn:
            self.drawn[key] = loads(self.gating, *key)
        return self.drawn[key]

    def _layer(self, kind: int, batch: Batch, load: Load | None, mixed: tuple[int, int]) -> Parts:
        """mixed: ns of its attention before the core, and of the core."""
        key = kind, batch.tokens, batch.prefill, batch.mean, load
        if key not in self.known:
            self.known[key] = self._network(self.blocks[kind], batch, load)
        rest: Parts = self.known[key]
        return Parts(mixed[0], mixed[1] + rest.core, *rest[2:])

    def _network(self, made: Made, batch: Batch, load: Load | None) -> Parts:
        """What follows attention, which does not depend on keys."""
        parts = self._lists(made, batch, load)
        first, last = (sum(self.prices.held_ns(each.op) for each in part) for part in (parts.dispatch, parts.combine))
        gate, sent, whole, inner, back = (self.prices.kernels_ns(part) for part in parts)
        return Parts(0, gate, sent, whole, inner, back, (first, last))

    def _lists(self, made: Made, batch: Batch, load: Load | None) -> networks.Lists:
        """Kernels that follow attention, at any clock."""
        key = made, batch.tokens, batch.prefill, batch.mean, load
        if key not in self.built:
            self.built[key] = networks.parts(self.rank, made, batch, load)
        lists: networks.Lists = self.built[key]
        return lists

    def _mixing(self, made: Made, batch: Batch) -> tuple[int, int]:
        """Attention: what is before its core, and the core with what follows."""
        key = made.mixer, batch._replace(mean=1.0)
        if key not in self.known:
            kernels = self._attention(made, batch)
            core = next((i for i, kernel in enumerate(kernels) if kernel.name == CORE), 0)
            self.known[key] = tuple(self.prices.kernels_ns(part) for part in (kernels[:core], kernels[core:]))
        taken: tuple[int, int] = self.known[key]
        return taken

    def _attention(self, made: Made, batch: Batch) -> list[Kernel]:
        """Attention's kernels, in the form that is cheaper."""
        key = "attention", made, batch._replace(mean=1.0)
        if key not in self.built:
            forms = (True, False) if isinstance(made.mixer, Latent) else (True,)
            self.built[key] = tuple(attention(self.rank, made, batch, form) for form in forms)
        return min(self.built[key], key=self.prices.kernels_ns)

    def kernels(self, batch: Batch) -> Iterator[tuple[str, Kernel]]:
        """All kernels of a step in one micro-batch, without drafts, each with the part that it is of."""
        drawn = iter(self.loads(batch))
        for made in self.units:
            if made.end:
                yield from ((made.end, kernel) for kernel in networks.end(self.rank, made, batch))
                continue
            yield from (("attention", kernel) for kernel in self._attention(made, batch))
            parts = networks.parts(self.rank, made, batch, next(drawn) if made.routed else None)
            for name, kernels in zip(parts._fields, parts, strict=True):
                yield from ((name, kernel) for kernel in kernels)
