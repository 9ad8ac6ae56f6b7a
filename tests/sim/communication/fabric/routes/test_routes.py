"""Routes go along cables that exist, from the leaf they start at to the one they are for, and are shortest."""

import networkx as nx
import numpy as np
import pytest

from hwmodels.topologies import Topology
from hwmodels.topologies.dragonfly import Dragonfly
from hwmodels.topologies.fat_tree import FatTree
from hwmodels.topologies.slim_fly import SlimFly
from sim.communication.fabric.routes import NONE, Numbers, Routes, detour, links, routes

PLANES: list[Topology] = [
    FatTree(8, 2, 2), FatTree(8, 3, 2), FatTree(6, 3, 4),
    FatTree(4, 2), FatTree(8, 2), FatTree(4, 3), FatTree(6, 3), SlimFly(4, 1), SlimFly(5, 1), SlimFly(7, 1),
    Dragonfly(9, 4, 2, 2), Dragonfly(7, 4, 2, 2), Dragonfly(4, 3, 2, 1), Dragonfly(3, 1, 2, 1),
]  # fmt: skip


def pairs(plane: Topology) -> tuple[Numbers, Numbers]:
    grid = np.indices((plane.hosting, plane.hosting)).reshape(2, -1)
    return grid[0], grid[1]


def walked(found: Routes, source: Numbers, path: Numbers) -> Numbers:
    """Where the paths lead; every link must begin where the one before ended."""
    at = source.copy()
    for hop in path.T:
        used = hop != NONE
        start, end = found.ends(hop[used])
        assert (start == at[used]).all()
        at[used] = end
    return at


@pytest.mark.parametrize("plane", PLANES, ids=str)
def test_links_are_the_cables_in_both_directions(plane: Topology) -> None:
    found = routes(plane)
    assert links(found) == 2 * plane.links
    ends = np.stack(found.ends(np.arange(links(found)))).T
    cables = np.array(sorted(plane.cables()))
    both = np.concatenate([cables, cables[:, ::-1]])
    assert (ends[np.lexsort(ends.T)] == both[np.lexsort(both.T)]).all()


@pytest.mark.parametrize("plane", PLANES, ids=str)
def test_every_choice_leads_there(plane: Topology) -> None:
    found = routes(plane)
    source, target = pairs(plane)
    count = found.choices(source, target)
    seen = [set() for _ in source]
    for choice in range(int(count.max())):
        path = found.paths(source, target, np.minimum(choice, count - 1))
        assert (walked(found, source, path) == target).all()
        assert path.max() < links(found)
        for row, way in zip(path.tolist(), seen, strict=True):
            way.add(tuple(row))
    assert [len(way) for way in seen] == count.tolist()


@pytest.mark.parametrize("plane", PLANES[:10], ids=str)
def test_paths_are_the_shortest_and_all_of_them(plane: Topology) -> None:
    """Fat trees and slim flies; the shortest way through a dragonfly may be another than its routing takes."""
    found = routes(plane)
    graph = nx.Graph(list(plane.cables()))
    source, target = pairs(plane)
    hops = (found.paths(source, target, np.zeros_like(source)) != NONE).sum(axis=1)
    count = found.choices(source, target)
    for s, t, hop, choices in list(zip(source.tolist(), target.tolist(), hops, count, strict=True))[::7]:
        assert nx.shortest_path_length(graph, s, t) == hop
        assert len(list(nx.all_shortest_paths(graph, s, t))) == choices


@pytest.mark.parametrize("plane", PLANES[7:], ids=str)
def test_detours_lead_there_and_use_no_link_twice(plane: Topology) -> None:
    found = routes(plane)
    source, target = pairs(plane)
    key = np.arange(len(source))
    for middle in range(0, plane.switches, 3):
        path = detour(found, source, np.full_like(source, middle), target, key)
        assert (walked(found, source, path) == target).all()
        for row in path:
            used = row[row != NONE]
            assert len(set(used.tolist())) == len(used)


def test_a_leaf_to_itself_is_no_path() -> None:
    for plane in PLANES:
        leaf = np.arange(plane.hosting)
        assert (routes(plane).paths(leaf, leaf, np.zeros_like(leaf)) == NONE).all()
