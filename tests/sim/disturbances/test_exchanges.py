"""Exchanges of unequal loads: the rule for a whole run beside the warp-level kernel on tokens through the gate."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest

from sim import assembly
from sim.communication.exchange import closed, kernel
from sim.disturbances.exchanges import RATIOS, LoadedExchange, loaded_exchanges
from sim.layout import plan
from sim.routing import loads, popularity
from sim.routing.gate import gate_of
from sim.routing.hosts import in_order
from sim.routing.traffic import traffic
from sim.scenario import load
from tests.sim.communication.exchange.exchanges import of_tokens

V3 = Path(__file__).parents[3] / "scenarios" / "v3_2048gpu.yaml"
TOKENS = 1024
"""Of a rank, drawn through the gate; loads are taken for those of four times as many."""
POPULAR = {"even": popularity.even(1, 256), "profile": popularity.sampled(0, 2, 256, 0.15)[1:],
           "skewed": popularity.skewed(0, 1, 256, 2.0)}  # fmt: skip


@cache
def machine(*changes):
    return assembly.machine(plan.lay_out(load(str(V3), ["outputs=[result]", *changes])))


@cache
def drawn(kind):
    return traffic(gate_of(machine().mixture), POPULAR[kind][0], in_order(256, 64, 8), TOKENS, 0, 1, 0)


def by_kernel(kind, direction, row_bytes):
    """Slowest rank's seconds, and the port bound of the slowest."""
    found = drawn(kind)
    ports = of_tokens(direction, row_bytes, 4 * TOKENS, found.to_nodes * 4, found.to_ranks * 4)
    pricer = machine().pricer
    links = pricer.wires.alone
    return kernel.run(ports, links, pricer.comm_sms).seconds, float(closed.bound_s(ports, links).max())


def at(exchange, received, reached):
    """Its slow-down at ratios of what ranks receive, and of what reaches their nodes."""
    return np.maximum(exchange.by_received(received), exchange.by_reached(reached))


def by_rule(kind, name):
    """Factor of the slowest rank."""
    site = machine().site
    reached = loads._reached(gate_of(machine().mixture), POPULAR[kind][0], in_order(256, 64, 8))
    exchange = loaded_exchanges(machine())[name]
    return at(exchange, drawn(kind).received / (TOKENS * site.ranks_reached), reached[np.arange(64) // 8]).max()


@pytest.mark.parametrize(("kind", "above"), [("profile", 1.05), ("skewed", 1.10)])
@pytest.mark.parametrize(("name", "direction", "row_bytes"), [("dispatch(F)", "dispatch", 7392.0),
                                                              ("combine(F)", "combine", 14336.0)])  # fmt: skip
def test_the_rule_is_the_kernels_on_tokens(kind, above, name, direction, row_bytes):
    """Not below it nor below the port bound."""
    even, _ = by_kernel("even", direction, row_bytes)
    real, bound = by_kernel(kind, direction, row_bytes)
    assert max(real, bound) / even - 0.01 < by_rule(kind, name) < above * real / even


def test_what_reaches_a_node_is_what_the_gate_sends_there():
    site, kind = machine().site, "skewed"
    told = loads._reached(gate_of(machine().mixture), POPULAR[kind][0], in_order(256, 64, 8))
    sent = drawn(kind).to_nodes.sum(0) / (64 * TOKENS) / (site.nodes_reached / 8)
    assert told == pytest.approx(sent, abs=0.02) and np.ptp(told) > 0.05


def test_received_rows_have_slack_behind_the_nic_and_reached_rows_have_none():
    """20 SMs of an H800: NVLink ports bind from 2 times the expected rows on, warps later, however they are given."""
    dispatch, combine = (loaded_exchanges(machine())[name] for name in ("dispatch(F)", "combine(F)"))
    ones = np.ones(3)
    for each in (dispatch, combine):
        assert at(each, np.array([0.5, 1.0, 1.2]), ones) == pytest.approx(1.0, abs=0.005)
        assert at(each, ones, np.array([0.5, 1.5, 2.0])) == pytest.approx([1.0, 1.5, 2.0], rel=0.04)
        assert (np.diff(each.received) >= 0).all() and (np.diff(each.reached) > 0).all()
        assert at(each, np.array([1.5]), np.ones(1)) < 1.02 < 1.3 < at(each, np.array([3.0]), np.ones(1))
    fixed = loaded_exchanges(machine("comm.warps=fixed"))["dispatch(F)"]
    assert fixed.received == pytest.approx(dispatch.received, rel=0.03)


def test_beyond_the_ratios_time_goes_in_proportion():
    rising = np.array(RATIOS)
    each = LoadedExchange(rising, rising)
    assert at(each, np.array([8.0, 0.1]), np.array([1.0, 6.0])).tolist() == [8.0, 6.0]
