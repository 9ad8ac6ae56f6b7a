"""Finite fields obey their laws, and exist for powers of primes alone."""

import pytest

from hwmodels.refused import Refused
from hwmodels.topologies.galois import field, prime_power


@pytest.mark.parametrize("q", [2, 3, 4, 5, 8, 9, 16, 25, 27])
def test_laws_of_a_field(q: int) -> None:
    found = field(q)
    times, every = found.products(), range(q)
    assert sorted(found.powers) == list(range(1, q))
    for a in every:
        assert sorted(found.add(a, b) for b in every) == list(every)
        assert found.add(a, 0) == a == times[a][1] and times[a][0] == 0
        assert a == 0 or sorted(times[a]) == list(every)
    for a in every:
        for b in every:
            assert found.add(a, b) == found.add(b, a) and times[a][b] == times[b][a]
            c = (a * 7 + b * 3 + 1) % q
            assert times[a][found.add(b, c)] == found.add(times[a][b], times[a][c])
            assert times[a][times[b][c]] == times[times[a][b]][c]


@pytest.mark.parametrize("q", [0, 1, 6, 12, 28, 36, 100])
def test_no_field_of_any_other_size(q: int) -> None:
    with pytest.raises(Refused, match=f"{q} is not a power of a prime"):
        field(q)


def test_prime_powers_up_to_32() -> None:
    found = []
    for q in range(2, 33):
        try:
            p, n = prime_power(q)
        except Refused:
            continue
        assert p**n == q
        found.append(q)
    assert found == [2, 3, 4, 5, 7, 8, 9, 11, 13, 16, 17, 19, 23, 25, 27, 29, 31, 32]
