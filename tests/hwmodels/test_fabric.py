"""Fabrics: published counts and costs by closed form, and graphs that have them."""

import networkx as nx
import pytest

from hwmodels import fabric
from hwmodels.document import Document, DocumentError
from hwmodels.figure import KINDS
from hwmodels.refused import Refused
from hwmodels.units import KILO, MEGA, PERCENT

FABRICS = [fabric.load(name) for name in fabric.available()]
TREES = [found for found in FABRICS if found.kind == "fat-tree"]

PUBLISHED = [
    ("mrft", 2048, 96, 2048, 9, 4.39), ("mpft", 16384, 768, 16384, 72, 4.39), ("ft3", 65536, 5120, 131072, 491, 7.5),
    ("slimfly", 32928, 1568, 32928, 146, 4.4), ("dragonfly", 261632, 16352, 384272, 1522, 5.8),
]  # fmt: skip
"""Insights into DeepSeek-V3, arXiv:2505.09343, table 3: endpoints, switches, links, cost in M$, k$ an endpoint."""


def small(**change: object) -> fabric.Fabric:
    base = "dragonfly" if "groups" in change else "slimfly" if "order" in change else "mpft"
    return fabric.build(Document({"base": base, **change}))


def test_every_published_fabric_ships() -> None:
    assert {row[0] for row in PUBLISHED} <= set(fabric.available())


@pytest.mark.parametrize(("name", "endpoints", "switches", "links"), [row[:4] for row in PUBLISHED])
def test_counts_are_the_published_ones(name: str, endpoints: int, switches: int, links: int) -> None:
    found = fabric.load(name)
    assert (found.endpoints, found.switches, found.links) == (endpoints, switches, links)


@pytest.mark.parametrize(("name", "millions", "thousands"), [(row[0], *row[4:]) for row in PUBLISHED])
def test_costs_are_within_half_a_percent_of_the_published_ones(name: str, millions: float, thousands: float) -> None:
    """The published figures are rounded themselves: 5.8 k$ an endpoint stands for 5.75 to 5.85."""
    found = fabric.load(name)
    assert found.cost_usd == pytest.approx(millions * MEGA, rel=0.5 * PERCENT)
    rounding = {4.39: 0.005}.get(thousands, 0.05)
    off = abs(found.cost_per_endpoint_usd - thousands * KILO)
    assert off <= 0.5 * PERCENT * thousands * KILO + rounding * KILO


@pytest.mark.parametrize("found", TREES, ids=lambda found: found.name)
def test_the_graph_of_a_plane_has_the_counts_and_every_switch_its_ports(found: fabric.Fabric) -> None:
    graph = found.graph()
    assert graph.number_of_nodes() * found.planes == found.switches
    assert graph.number_of_edges() * found.planes == found.links
    for name, degree in graph.degree:
        layer = graph.nodes[name]["layer"]
        up, down = (layer < found.layers - 1) * found.down, found.radix if layer == found.layers - 1 else found.down
        assert degree == up + (down if layer else 0)
    assert {speed for _, _, speed in graph.edges(data="bandwidth")} == {found.link.bandwidth}


@pytest.mark.parametrize("found", [
    small(radix=4), small(radix=6, layers=3), small(radix=8, oversubscription=3),
    small(order=4, hosts_per_switch=3), small(order=5, hosts_per_switch=4),
    small(order=7, hosts_per_switch=6), small(order=8, hosts_per_switch=6), small(order=9, hosts_per_switch=7),
    small(groups=9, switches_per_group=4, global_ports=2, hosts_per_switch=2),
    small(groups=7, switches_per_group=4, global_ports=2, hosts_per_switch=2),
    small(groups=6, switches_per_group=4, global_ports=2, hosts_per_switch=2),
], ids=lambda found: f"{found.kind}-{found.switches}")  # fmt: skip
def test_small_graphs_have_the_counts_of_the_closed_forms(found: fabric.Fabric) -> None:
    graph = found.graph(endpoints=True)
    switches = [name for name, layer in graph.nodes(data="layer") if layer >= 0]
    cables = dict.fromkeys(graph, 0)
    for a, b, links in graph.edges(data="links"):
        cables[a] += links
        cables[b] += links
    assert len(switches) * found.planes == found.switches
    assert (len(graph) - len(switches)) * found.planes == found.endpoints
    between = sum(links for *_, links in graph.subgraph(switches).edges(data="links"))
    assert between * found.planes == found.links
    assert {cables[name] for name in switches} == {found.topology.ports}


@pytest.mark.parametrize(("layers", "diameter"), [(2, 4), (3, 6)])
def test_routes_of_a_small_tree(layers: int, diameter: int) -> None:
    found = small(radix=4, layers=layers)
    graph = found.graph(endpoints=True)
    assert graph.number_of_nodes() * found.planes == found.endpoints + found.switches
    assert nx.is_connected(graph) and nx.diameter(graph) == diameter
    assert nx.shortest_path_length(graph, "nic0", f"nic{found.down - 1}") == 2
    assert nx.shortest_path_length(graph, "nic0", f"nic{found.down}") == 4
    assert all(degree in (1, 4) for _, degree in graph.degree)


def test_half_of_a_cut_crosses_unhindered() -> None:
    """A fat tree is non-blocking: as many links between halves of the leaves as endpoints in one half."""
    found = small(radix=8, layers=2)
    graph = found.graph(endpoints=True)
    nx.set_edge_attributes(graph, 1, "capacity")
    half = found.endpoints // found.planes // 2
    for index in range(2 * half):
        graph.add_edge(f"nic{index}", "left" if index < half else "right", capacity=1)
    assert nx.maximum_flow_value(graph, "left", "right") == half


@pytest.mark.parametrize(("ratio", "down", "up"), [(1, 32, 32), (3, 48, 16), (1.67, 40, 24), ("700 %", 56, 8)])
@pytest.mark.parametrize("layers", [2, 3])
def test_an_oversubscribed_leaf_gives_ports_to_endpoints(layers: int, ratio: float, down: int, up: int) -> None:
    """Counts by hand: 64 leaves with `up` spines; or 64 pods of 32 leaves and `up` middle switches, 32 cores each."""
    found = small(layers=layers, oversubscription=ratio)
    leaves = 64 if layers == 2 else 64 * 32
    assert (found.down, found.blocking, found.endpoints) == (down, down > up, 8 * leaves * down)
    assert found.links == 8 * leaves * up * (layers - 1)
    assert found.switches == 8 * (leaves + (up if layers == 2 else 64 * up + 32 * up))


def test_only_as_much_of_a_cut_crosses_as_leaves_look_up() -> None:
    """Three endpoints share a link up, so a third of what half of them send reaches the other half."""
    found = small(radix=8, layers=2, oversubscription=3)
    graph = found.graph(endpoints=True)
    nx.set_edge_attributes(graph, 1, "capacity")
    half = found.endpoints // found.planes // 2
    for index in range(2 * half):
        graph.add_edge(f"nic{index}", "left" if index < half else "right", capacity=1)
    assert nx.maximum_flow_value(graph, "left", "right") == half / 3


def test_rail_optimised_fabrics_join_what_their_data_sheets_say() -> None:
    """XDR: two layers of 144 ports, 10,368 NICs; 64 ports in three layers: 65,536. Racks of 72 NICs have 72 rails."""
    assert [fabric.load(name).endpoints for name in ("xdr", "ndr", "eth800")] == [10368, 65536, 65536]
    assert [fabric.load(name).most_nodes(72) for name in ("xdr", "ndr")] == [144, 28 * 32]
    assert fabric.load("ndr_sharp").sharp == 0.49 and fabric.load("ndr").sharp == 0


def test_a_group_of_64_stays_under_one_leaf_of_a_plane() -> None:
    leaves = [fabric.load(name).nodes_per_leaf for name in ("mpft", "mrft", "ft3", "slimfly", "dragonfly")]
    assert leaves == [32, 32, 4, 21, 16]


def test_rails_and_nodes_that_a_fabric_joins() -> None:
    """Nodes of 8 NICs; in the multi-rail tree each pod has a leaf a NIC, in the multi-plane one a leaf a plane."""
    found = {name: fabric.load(name) for name in fabric.available()}
    assert {name: f.rails(8) for name, f in found.items()} == {
        "mpft": 1, "mrft": 8, "ft3": 1, "slimfly": 8, "dragonfly": 8, "ndr": 8, "ndr_sharp": 8, "xdr": 8, "eth800": 8,
    }  # fmt: skip
    assert {name: f.most_nodes(8) for name, f in found.items()} == {name: f.endpoints // 8 for name, f in found.items()}


@pytest.mark.parametrize("found", FABRICS, ids=fabric.available())
def test_latencies_and_provenance(found: fabric.Fabric) -> None:
    """Table 5: InfiniBand 2.8 us under one leaf, 3.7 us across; RoCE 3.6 and 5.6."""
    latencies = (3.6e-6, 5.6e-6) if "Ethernet" in found.name else (2.8e-6, 3.7e-6)
    assert (found.latency_same_leaf_s, found.latency_cross_leaf_s) == pytest.approx(latencies)
    expected = {*fabric.SHARED, *fabric.SHAPES[found.kind]} - {"name", "kind", "link", "cost", "sharp"}
    expected |= {"link.bandwidth", "link.efficiency", *(f"cost.{part}" for part in fabric.COSTS if found.cost)}
    assert set(found.figures) == expected | ({"sharp"} if found.sharp else set())
    assert all(figure.kind in KINDS and len(figure.source) > 10 for figure in found.figures.values())


def test_money_is_optional_but_asked_for() -> None:
    found = small(radix=8)
    whole = {key: value for key, value in _plain(found).items() if key != "cost"}
    bare = fabric.build(Document(whole))
    assert bare.cost is None and bare.endpoints == found.endpoints
    with pytest.raises(Refused, match=r"8-plane two-layer fat tree \(fabric\) has no cost; write cost: "):
        _ = bare.cost_usd


def _plain(found: fabric.Fabric) -> dict[str, object]:
    def leaf(key: str) -> dict[str, object]:
        figure = found.figures[key]
        text = figure.text
        value = int(text) if text.isdigit() else float(text) if text.replace(".", "").isdigit() else text
        return {"value": value, "kind": figure.kind, "source": figure.source}

    plain: dict[str, object] = {"name": found.name, "kind": found.kind}
    for key in found.figures:
        head, _, tail = key.partition(".")
        if tail:
            plain.setdefault(head, {})[tail] = leaf(key)  # type: ignore[index]
        else:
            plain[head] = leaf(key)
    return plain


def test_the_published_slim_fly_can_be_counted_but_not_wired() -> None:
    """28 = 4 * 7 is no power of a prime, so there is no field to wire it with."""
    with pytest.raises(Refused) as caught:
        fabric.load("slimfly").graph()
    assert str(caught.value) == (
        "a slim fly of order 28 can be counted but not wired: 28 is not a power of a prime; nearest that can: 27 or 29"
    )


@pytest.mark.parametrize(("change", "line"), [
    ({"radix": 63}, "fabric.radix: half the ports look down, half up: expected an even number; found 63"),
    ({"layers": 4}, "fabric.layers: a fat tree has 2 or 3 layers here; found 4"),
    ({"kind": "dragonfly-2"}, "fabric.kind: unknown kind 'dragonfly-2', did you mean 'dragonfly'? legal: dragonfly,"
                              " fat-tree, slim-fly"),
    ({"order": 27}, "fabric.order: unknown key 'order'; legal: cost, kind, latency_cross_leaf, latency_same_leaf, "
                    "layers, link, name, nics_per_leaf, oversubscription, planes, radix, sharp"),
    ({"oversubscription": 1.6}, "fabric.oversubscription: expected a ratio that 64 ports can be split in, e.g. 1.56 "
                                "(39 down, 25 up); found 1.6"),
    ({"oversubscription": 500}, "fabric.oversubscription: expected a ratio that 64 ports can be split in, e.g. 63 "
                                "(63 down, 1 up); found 500"),
    ({"oversubscription": 0}, "fabric.oversubscription: expected more than 0, e.g. \"80 %\"; found '0'"),
    ({"base": "slimfly", "oversubscription": 2}, "fabric.oversubscription: unknown key 'oversubscription'; legal: "
     "cost, hosts_per_switch, kind, latency_cross_leaf, latency_same_leaf, link, name, nics_per_leaf, order, planes, "
     "radix, sharp"),
    ({"sharp": 1.5}, "fabric.sharp: expected a ratio from 0 to 1; found 1.5"),
    ({"nics_per_leaf": 5}, "fabric.nics_per_leaf: expected a divisor of 32 ports; found 5"),
    ({"link": {"bandwidth": "50 GB"}}, "fabric.link.bandwidth: '50 GB' is data, expected data/time (e.g. \"50 GB/s\")"),
    ({"cost": {"switch": "10 kB"}}, "fabric.cost.switch: '10 kB' is data, expected money (e.g. \"2 USD\")"),
    ({"base": "slimfly", "order": 29, "radix": 63}, "fabric.radix: a switch uses 64 ports, more than its 63"),
    ({"base": "slimfly", "order": 26}, "fabric.order: expected 4w - 1, 4w or 4w + 1 (e.g. 25 or 27); found 26"),
    ({"base": "dragonfly", "groups": 514},
     "fabric.groups: expected 2 to 513 groups (32 switches x 16 global ports reach 512 others); found 514"),
    ({"base": "dragonfly", "groups": 5, "switches_per_group": 3, "global_ports": 3},
     "fabric.groups: 9 global ports x 5 groups is odd: one has no mate"),
    ({"base": "dragonfly", "global_ports": 18, "radix": 64}, "fabric.radix: a switch uses 65 ports, more than its 64"),
])  # fmt: skip
def test_a_fabric_that_cannot_be(change: dict[str, object], line: str) -> None:
    with pytest.raises(DocumentError) as caught:
        fabric.build(Document({"base": "mpft", **change}), ("fabric",))
    assert str(caught.value) == f"<mapping>: {line}"
