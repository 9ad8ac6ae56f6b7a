"""Slim flies: switches two hops apart at most (Besta and Hoefler, SC 2014, arXiv:1912.08968).

The wiring is the graph of McKay, Miller and Siran for q = 4w + d, d in {-1, 0, 1}, a power of a prime: switches
(0, x, y) and (1, m, c) with x, y, m, c in the field of q elements. Two of the first kind with the same x are joined
when their y differ by an element of one generator set, two of the second likewise with the other set, and (0, x, y)
with (1, m, c) when y = m x + c. The counts are formulas in q and hold for any q; cables() needs a field.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from hwmodels.refused import Refused
from hwmodels.topologies.galois import Field, field


@dataclass(frozen=True)
class SlimFly:
    """A Slim Fly. order: q. hosts_per_switch: endpoints on each switch; half the network ports, rounded up, fill it."""

    order: int
    hosts_per_switch: int

    @property
    def residue(self) -> int:
        """d of q = 4w + d; 2 where there is none."""
        return (self.order + 1) % 4 - 1

    @property
    def degree(self) -> int:
        """Cables of a switch to others: (3q - d) / 2."""
        return (3 * self.order - self.residue) // 2

    @property
    def hosting(self) -> int:
        """All switches."""
        return self.switches

    @property
    def switches(self) -> int:
        """2 q^2."""
        return 2 * self.order**2

    @property
    def endpoints(self) -> int:
        """Endpoints: as many on each switch."""
        return self.switches * self.hosts_per_switch

    @property
    def links(self) -> int:
        """q^2 (3q - d) / 2."""
        return self.order**2 * self.degree

    @property
    def ports(self) -> int:
        """Network ports and endpoints of a switch."""
        return self.degree + self.hosts_per_switch

    @property
    def layers(self) -> int:
        """All switches are alike."""
        return 1

    @cached_property
    def field(self) -> Field:
        """The field of q elements. Raises Refused (one line) when there is none."""
        try:
            return field(self.order)
        except Refused as error:
            near = self.buildable()
            raise Refused(
                f"a slim fly of order {self.order} can be counted but not wired: {error}; nearest that can: {near}"
            ) from None

    def buildable(self) -> str:
        """The nearest orders below and above that are a power of a prime, as text."""

        def wired(q: int) -> bool:
            try:
                field(q)
            except Refused:
                return False
            return q % 4 != 2

        below = next((q for q in range(self.order - 1, 2, -1) if wired(q)), None)
        above = next(q for q in range(self.order + 1, 2 * self.order + 4) if wired(q))
        return f"{below} or {above}" if below else str(above)

    def generators(self) -> tuple[frozenset[int], frozenset[int]]:
        """The two sets of differences, each closed under negation; together they hold every element but 0."""
        q, powers = self.order, self.field.powers
        if self.residue != -1:
            return frozenset(powers[0::2]), frozenset(powers[i % (q - 1)] for i in range(1, q, 2))
        w = (q + 1) // 4
        first = [*range(0, 2 * w - 1, 2), *range(2 * w - 1, 4 * w - 2, 2)]
        return frozenset(powers[i] for i in first), frozenset(powers[(i + 1) % (q - 1)] for i in first)

    def cables(self) -> Iterator[tuple[int, int]]:
        """Pairs of switches; (0, x, y) is number x q + y, (1, m, c) number q^2 + m q + c."""
        q, add, products = self.order, self.field.add, self.field.products()
        for side, differences in enumerate(self.generators()):
            inside = {(y, add(y, step)) for y in range(q) for step in differences}
            pairs = sorted({(min(pair), max(pair)) for pair in inside})
            for first in range(side * q * q, (side + 1) * q * q, q):
                yield from ((first + a, first + b) for a, b in pairs)
        for x in range(q):
            for m in range(q):
                yield from ((x * q + add(products[m][x], c), q * q + m * q + c) for c in range(q))

    def layer(self, switch: int) -> int:
        """0: all switches have endpoints."""
        return 0

    def switch_name(self, switch: int) -> str:
        """The three coordinates, e.g. 0.3.5."""
        place, last = divmod(switch, self.order)
        return f"switch{place // self.order}.{place % self.order}.{last}"
