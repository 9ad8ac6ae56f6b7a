"""Slim flies: any two switches two hops apart, as many cables each as the formula says."""

import pytest

from hwmodels.topologies.slim_fly import SlimFly


@pytest.mark.parametrize("q", [4, 5, 7, 8, 9, 11, 13, 16, 27])
def test_diameter_two_and_regular(q: int) -> None:
    plane = SlimFly(q, 1)
    near: list[set[int]] = [set() for _ in range(plane.switches)]
    count = 0
    for a, b in plane.cables():
        near[a].add(b)
        near[b].add(a)
        count += 1
    assert count == plane.links and {len(n) for n in near} == {plane.degree}
    for switch in range(0, plane.switches, 1 if q < 12 else 101):
        within_two = near[switch].union(*(near[n] for n in near[switch]))
        assert len(within_two | {switch}) == plane.switches


@pytest.mark.parametrize("q", [4, 5, 7, 8, 9, 11])
def test_generators_are_symmetric_and_cover(q: int) -> None:
    plane = SlimFly(q, 1)
    first, second = plane.generators()
    assert len(first) == len(second) == plane.degree - q
    assert first | second == frozenset(range(1, q))
    for differences in (first, second):
        negated = {next(b for b in range(q) if plane.field.add(a, b) == 0) for a in differences}
        assert negated == differences


def test_the_known_case_is_the_hoffman_singleton_graph() -> None:
    """q = 5: 50 switches of degree 7 and girth 5, the Moore graph."""
    plane = SlimFly(5, 4)
    assert (plane.switches, plane.degree, plane.endpoints, plane.ports) == (50, 7, 200, 11)
    near = {s: set() for s in range(50)}
    for a, b in plane.cables():
        near[a].add(b)
        near[b].add(a)
    for a in near:
        for b in near:
            if a != b:
                assert len(near[a] & near[b]) == (0 if b in near[a] else 1)


def test_names_are_distinct() -> None:
    plane = SlimFly(4, 1)
    names = [plane.switch_name(s) for s in range(plane.switches)]
    assert len(set(names)) == 32 and names[0] == "switch0.0.0" and names[-1] == "switch1.3.3"
