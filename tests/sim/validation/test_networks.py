"""Networks: counts by the fat tree's closed form, bandwidths as their counters count."""

import pytest

from sim.communication.exchange import roles
from sim.validation import networks
from sim.validation.reference import Reference


@pytest.fixture(scope="module")
def machine():
    return Reference("v3_2048gpu").machine


@pytest.mark.parametrize(
    ("name", "endpoints", "switches", "links"),
    [("mrft", 2048, 96, 2048), ("mpft", 16384, 768, 16384), ("ft3", 65536, 5120, 131072)],
)
def test_fabrics_have_the_published_parts(name, endpoints, switches, links):
    """arXiv:2505.09343, table 3; a closed form of radix, layers and planes."""
    found = networks.fabric(name)
    assert [found[part].value for part in ("endpoints", "switches", "links")] == [endpoints, switches, links]


@pytest.mark.parametrize("name", ["mrft", "slimfly"])
def test_costs_are_of_the_endpoints(name):
    found = networks.fabric(name)
    whole = found["cost of an endpoint"].value * found["endpoints"].value
    assert whole / 1e3 == pytest.approx(found["cost"].value)


def test_bandwidth_between_nodes_counts_the_own_node(machine):
    """Logical = wire / (1 - 1/nodes); the kernel's pipeline takes a few per cent of it."""
    wire = machine.pricer.wires.network / 1e9
    for direction in ("dispatch", "combine"):
        assert 0.93 < networks.exchange(machine, direction, 64).value / (wire / (1 - 1 / 8)) <= 1


def test_bandwidth_inside_a_node_counts_the_own_rank(machine):
    wire = roles.STORED[0] * machine.pricer.wires.nvlink.bandwidth / 1e9  # what rows reach which warps store
    assert 0.93 < networks.exchange(machine, "dispatch", 8).value / (wire / (1 - 1 / 8)) <= 1


def test_free_experts_are_the_ratio_of_rates_where_both_groups_are_eight(machine):
    """Eight nodes of eight: the shares that stay inside cancel."""
    assert networks.free_experts(machine).value == pytest.approx(networks.nvlink_ratio(machine.pricer.wires).value)


def test_slots_count_agreement():
    loads, placed = [[3, 1]], [[0, 1]]
    assert networks.balanced_slots(loads, placed, 2, 1, 1, 2).value == 2
    assert networks.balanced_slots(loads, [[1, 1]], 2, 1, 1, 2).value == 1
    with pytest.raises(ValueError):
        networks.balanced_slots(loads, [[0]], 2, 1, 1, 2)
