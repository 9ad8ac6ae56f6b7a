"""Finite fields of q = p^n elements, as small tables: what slim flies are built on."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from hwmodels.refused import Refused


def prime_power(q: int) -> tuple[int, int]:
    """(p, n) with q = p^n and p prime. Raises Refused with one line when there are none."""
    p = next((d for d in range(2, q + 1) if q % d == 0), 0)
    n, rest = 0, q
    while p and rest % p == 0:
        n, rest = n + 1, rest // p
    if rest != 1 or not p:
        raise Refused(f"{q} is not a power of a prime")
    return p, n


@dataclass(frozen=True)
class Field:
    """Elements are numbers 0 .. q-1, whose digits in base p are the coefficients of a polynomial.

    powers: of a primitive element, from its 0th to its (q-2)th.
    """

    q: int
    p: int
    powers: tuple[int, ...]

    def add(self, a: int, b: int) -> int:
        """a + b: digit by digit."""
        total, place = 0, 1
        while a or b:
            total += (a % self.p + b % self.p) % self.p * place
            a, b, place = a // self.p, b // self.p, place * self.p
        return total

    def products(self) -> list[list[int]]:
        """The multiplication table [q][q]."""
        logarithm = {element: i for i, element in enumerate(self.powers)}
        order = self.q - 1
        return [
            [self.powers[(logarithm[a] + logarithm[b]) % order] if a and b else 0 for b in range(self.q)]
            for a in range(self.q)
        ]


def field(q: int) -> Field:
    """The field of q elements. Raises Refused when q is not a power of a prime."""
    p, n = prime_power(q)
    for low in product(range(p), repeat=n):
        powers = _powers(p, low)
        if len(powers) == q - 1:
            return Field(q, p, powers)
    raise AssertionError("every finite field has a primitive element")


def _powers(p: int, low: Sequence[int]) -> tuple[int, ...]:
    """Powers of x where x^n = sum of low[i] x^i, from 1 until they come round to 1 or fall to 0 (then not all)."""
    n = len(low)
    one = (1,) + (0,) * (n - 1)
    powers, value = [], one
    for _ in range(p**n - 1):
        powers.append(sum(digit * p**i for i, digit in enumerate(value)))
        carry = value[-1]
        shifted = (0, *value[:-1])
        value = tuple((digit + carry * c) % p for digit, c in zip(shifted, low, strict=True))
        if value == one or not any(value):
            break
    return tuple(powers) if value == one else ()
