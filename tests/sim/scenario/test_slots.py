"""Slots of nodes: in order, drawn, or listed; and lists that cannot be."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwmodels.refused import Refused
from sim.scenario.slots import allocate


def test_packed_is_in_order() -> None:
    assert allocate("packed", 4, 9) == (0, 1, 2, 3)


@given(st.integers(1, 300), st.integers(0, 2**40))
def test_scattered_is_a_permutation_that_the_seed_decides(nodes: int, seed: int) -> None:
    found = allocate("scattered", nodes, nodes, seed)
    assert sorted(found) == list(range(nodes)) and found == allocate("scattered", nodes, 10 * nodes, seed)


def test_seeds_scatter_differently() -> None:
    assert len({allocate("scattered", 64, 64, seed) for seed in range(20)}) == 20


def test_a_list_may_leave_slots_free() -> None:
    assert allocate([5, 0, 31], 3, 32) == (5, 0, 31)


@pytest.mark.parametrize(("placement", "line"), [
    ("paked", "found 'paked', did you mean 'packed'? legal: packed, scattered, or a list of slots"),
    ([0, 1], "expected 3 slots, one a node; found 2"),
    ([0, 1, 8], "the fabric has slots 0 to 7; found 8"),
    ([4, 1, 4], "a slot holds one node; more than once: 4"),
])  # fmt: skip
def test_placements_that_cannot_be(placement: str | list[int], line: str) -> None:
    with pytest.raises(Refused) as caught:
        allocate(placement, 3, 8)
    assert str(caught.value) == line


def test_many_wrong_slots_are_cut_short() -> None:
    with pytest.raises(Refused, match=r"found 8, 9, 10, \.\.\.$"):
        allocate(list(range(8, 20)), 12, 8)
