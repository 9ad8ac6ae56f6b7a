"""Fabrics: published counts by closed form, and graphs that have them."""

import networkx as nx
import pytest

from hwmodels import fabric
from hwmodels.document import Document, DocumentError
from hwmodels.figure import KINDS

FABRICS = [fabric.load(name) for name in fabric.available()]


@pytest.mark.parametrize(("name", "endpoints", "switches", "links"), [
    ("mrft", 2048, 96, 2048), ("mpft", 16384, 768, 16384), ("ft3", 65536, 5120, 131072),
])  # fmt: skip
def test_counts_are_the_published_ones(name: str, endpoints: int, switches: int, links: int) -> None:
    """Insights into DeepSeek-V3, arXiv:2505.09343, table 3: FT2, MPFT and FT3."""
    found = fabric.load(name)
    assert (found.endpoints, found.switches, found.links) == (endpoints, switches, links)


@pytest.mark.parametrize("found", FABRICS, ids=fabric.available())
def test_the_graph_of_a_plane_has_the_counts_and_every_switch_its_ports(found: fabric.Fabric) -> None:
    graph = found.graph()
    assert graph.number_of_nodes() * found.planes == found.switches
    assert graph.number_of_edges() * found.planes == found.links
    for name, degree in graph.degree:
        layer = graph.nodes[name]["layer"]
        up, down = (layer < found.layers - 1) * found.down, found.radix if layer == found.layers - 1 else found.down
        assert degree == up + (down if layer else 0)
    assert {speed for _, _, speed in graph.edges(data="bandwidth")} == {50e9}


@pytest.mark.parametrize(("layers", "diameter"), [(2, 4), (3, 6)])
def test_routes_of_a_small_tree(layers: int, diameter: int) -> None:
    small = fabric.build(Document({"base": "mpft", "radix": 4, "layers": layers}))
    graph = small.graph(endpoints=True)
    assert graph.number_of_nodes() * small.planes == small.endpoints + small.switches
    assert nx.is_connected(graph) and nx.diameter(graph) == diameter
    assert nx.shortest_path_length(graph, "nic0", f"nic{small.down - 1}") == 2
    assert nx.shortest_path_length(graph, "nic0", f"nic{small.down}") == 4
    assert all(degree in (1, 4) for _, degree in graph.degree)


def test_half_of_a_cut_crosses_unhindered() -> None:
    """A fat tree is non-blocking: as many links between halves of the leaves as endpoints in one half."""
    small = fabric.build(Document({"base": "mpft", "radix": 8, "layers": 2}))
    graph = small.graph(endpoints=True)
    nx.set_edge_attributes(graph, 1, "capacity")
    half = small.endpoints // small.planes // 2
    for index in range(2 * half):
        graph.add_edge(f"nic{index}", "left" if index < half else "right", capacity=1)
    assert nx.maximum_flow_value(graph, "left", "right") == half


def test_a_group_of_64_stays_under_one_leaf_of_a_plane() -> None:
    assert [fabric.load(name).nodes_per_leaf for name in ("mpft", "mrft", "ft3")] == [32, 32, 4]


@pytest.mark.parametrize("found", FABRICS, ids=fabric.available())
def test_latencies_and_provenance(found: fabric.Fabric) -> None:
    """Table 5: InfiniBand 2.8 us under one leaf, 3.7 us across."""
    assert (found.latency_same_leaf_s, found.latency_cross_leaf_s) == pytest.approx((2.8e-6, 3.7e-6))
    assert len(found.figures) == 8
    assert all(figure.kind in KINDS and len(figure.source) > 10 for figure in found.figures.values())


@pytest.mark.parametrize(("change", "line"), [
    ({"radix": 63}, "fabric.radix: half the ports look down, half up: expected an even number; found 63"),
    ({"layers": 4}, "fabric.layers: a fat tree has 2 or 3 layers here; found 4"),
    ({"kind": "torus"}, "fabric.kind: unknown kind 'torus'; legal: fat-tree"),
    ({"nics_per_leaf": 5}, "fabric.nics_per_leaf: expected a divisor of 32 ports; found 5"),
    ({"link": {"bandwidth": "50 GB"}}, "fabric.link.bandwidth: '50 GB' is data, expected data/time (e.g. \"50 GB/s\")"),
])  # fmt: skip
def test_a_fabric_that_cannot_be(change: dict[str, object], line: str) -> None:
    with pytest.raises(DocumentError) as caught:
        fabric.build(Document({"base": "mpft", **change}), ("fabric",))
    assert str(caught.value) == f"<mapping>: {line}"
