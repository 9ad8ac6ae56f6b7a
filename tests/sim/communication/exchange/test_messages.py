"""Messages through first-in-first-out ports: closed forms, the bound, and agreement with the closed form."""

import numpy as np
import pytest
from hypothesis import given, settings

from hwmodels.units import NS_PER_S
from sim.communication.exchange import closed, messages
from sim.communication.exchange.ports import even_tokens, of_op
from tests.sim.communication.exchange.exchanges import FP8_ROW, LINKS, directions, op, uneven, uneven_ports

NIC, NVL = LINKS.network, LINKS.nvlink.effective
NEAR, FAR = LINKS.nvlink.latency_s, LINKS.latency_s


@pytest.mark.parametrize("direction", ["dispatch", "combine"])
def test_one_message_pays_both_networks_and_both_latencies(direction: str) -> None:
    to_nodes, to_ranks = np.zeros((4, 2)), np.zeros((4, 4))
    to_nodes[0, 1], to_ranks[0, 3] = 10, 10
    done = messages.finish_ns(direction, FP8_ROW, to_nodes, to_ranks, LINKS, pieces=1)
    expected = (10 * FP8_ROW * (1 / NIC + 1 / NVL) + NEAR + FAR) * NS_PER_S
    assert done.max() == done[3 if direction == "dispatch" else 0]
    assert done.max() == pytest.approx(expected, abs=2)


def test_incast_is_serialised_by_the_receiving_port() -> None:
    """Ranks of three nodes send to one rank of the fourth: its NIC takes them one after another."""
    to_nodes, to_ranks = np.zeros((4, 4)), np.zeros((4, 4))
    to_nodes[1:, 0] = to_ranks[1:, 0] = 5
    done = messages.finish_ns("dispatch", FP8_ROW, to_nodes, to_ranks, LINKS, pieces=1)
    assert done.max() == pytest.approx((15 * FP8_ROW / NIC + FAR) * NS_PER_S, abs=4)


@given(directions, uneven)
@settings(max_examples=60, deadline=None)
def test_never_below_the_bound(direction: str, matrices: tuple[np.ndarray, np.ndarray]) -> None:
    done = messages.finish_ns(direction, FP8_ROW, *matrices, LINKS)
    bound = closed.bound_s(uneven_ports(direction, matrices), LINKS)
    assert done.max() >= bound.max() * NS_PER_S - 1
    assert done.dtype == np.int64 and (done >= 0).all()


@given(directions, uneven)
@settings(max_examples=30, deadline=None)
def test_more_rows_never_finish_earlier(direction: str, matrices: tuple[np.ndarray, np.ndarray]) -> None:
    to_nodes, to_ranks = matrices
    once = messages.finish_ns(direction, FP8_ROW, to_nodes, to_ranks, LINKS)
    twice = messages.finish_ns(direction, FP8_ROW, to_nodes * 2, to_ranks * 2, LINKS)
    assert (twice >= once).all()


@pytest.mark.parametrize("group", [8, 16, 64, 320])
@pytest.mark.parametrize("direction", ["dispatch", "combine"])
def test_even_loads_in_fine_pieces_tend_to_the_closed_form(group: int, direction: str) -> None:
    one = op(direction, group)
    expected = closed.seconds(of_op(one), LINKS) * NS_PER_S
    done = messages.finish_ns(direction, one.row_bytes, *even_tokens(one), LINKS, pieces=16)
    assert expected - 1 <= done.max() <= 1.05 * expected


def test_nothing_takes_no_time() -> None:
    assert not messages.finish_ns("combine", FP8_ROW, np.zeros((4, 2)), np.zeros((4, 4)), LINKS).any()
