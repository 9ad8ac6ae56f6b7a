"""Dragonflies: every two groups joined, every global port with its mate."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwmodels.topologies.dragonfly import Dragonfly


@st.composite
def dragonflies(draw: st.DrawFn) -> Dragonfly:
    a, h = draw(st.integers(1, 5)), draw(st.integers(1, 4))
    groups = draw(st.integers(2, max(2, a * h + 1)).filter(lambda g: g * a * h % 2 == 0))
    return Dragonfly(groups, a, h, draw(st.integers(1, 3)))


@given(dragonflies())
def test_ports_pair_up_and_reach_every_group(plane: Dragonfly) -> None:
    assert len(plane.offsets) == len(plane.mates) == plane.outward
    for port, (offset, mate) in enumerate(zip(plane.offsets, plane.mates, strict=True)):
        assert 0 < offset < plane.groups
        assert plane.mates[mate] == port and plane.offsets[mate] == plane.groups - offset
    times = Counter(plane.offsets)
    assert set(times) == set(range(1, plane.groups)) and max(times.values()) - min(times.values()) <= 1


@given(dragonflies())
def test_cables_are_as_many_as_counted_and_fill_the_ports(plane: Dragonfly) -> None:
    ends = Counter(end for cable in plane.cables() for end in cable)
    assert sum(ends.values()) == 2 * plane.links
    assert set(ends.values()) == {plane.ports - plane.hosts_per_switch}
    assert all(a != b for a, b in plane.cables())


@pytest.mark.parametrize("plane", [Dragonfly(9, 4, 2, 2), Dragonfly(33, 8, 4, 4)])
def test_the_largest_has_one_cable_between_any_two_groups(plane: Dragonfly) -> None:
    a = plane.switches_per_group
    pairs = Counter(tuple(sorted((x // a, y // a))) for x, y in plane.cables() if x // a != y // a)
    assert len(pairs) == plane.groups * (plane.groups - 1) // 2 and set(pairs.values()) == {1}


def test_names() -> None:
    assert Dragonfly(9, 4, 2, 2).switch_name(35) == "switch8.3"
