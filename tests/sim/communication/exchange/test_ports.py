"""Rows at every port: hand-counted, conserved, and the same from expectations as from matrices."""

import numpy as np
import pytest
from hypothesis import given

from sim.communication.exchange.ports import even_tokens, of_op
from tests.sim.communication.exchange.exchanges import of_tokens, op, random_tokens, uneven, uneven_ports

COLUMNS = ("tokens", "sent", "forwarded", "received", "nic_out", "nic_in", "nvlink_out", "nvlink_in")


def test_two_nodes_of_two_by_hand() -> None:
    """Rank 0 sends 3 tokens to rank 3: over its NIC to rank 2, from there over NVLink."""
    to_nodes, to_ranks = np.zeros((4, 2)), np.zeros((4, 4))
    to_nodes[0, 1], to_ranks[0, 3] = 3, 3
    found = of_tokens("dispatch", 1.0, 3, to_nodes, to_ranks)
    assert found.nic_out.tolist() == [3, 0, 0, 0] and found.nic_in.tolist() == [0, 0, 3, 0]
    assert found.nvlink_out.tolist() == [0, 0, 3, 0] and found.nvlink_in.tolist() == [0, 0, 0, 3]
    assert found.forwarded.tolist() == [0, 0, 3, 0] and found.received.tolist() == [0, 0, 0, 3]


def test_the_partner_itself_needs_no_nvlink() -> None:
    to_nodes, to_ranks = np.zeros((4, 2)), np.zeros((4, 4))
    to_nodes[0, 1], to_ranks[0, 2] = 3, 3
    found = of_tokens("dispatch", 1.0, 3, to_nodes, to_ranks)
    assert found.nic_in.tolist() == [0, 0, 3, 0] and not found.nvlink_out.any() and not found.nvlink_in.any()


@given(uneven)
def test_what_leaves_arrives(matrices: tuple[np.ndarray, np.ndarray]) -> None:
    found = uneven_ports("dispatch", matrices)
    assert found.nic_out.sum() == found.nic_in.sum()
    assert found.nvlink_out.sum() == found.nvlink_in.sum()
    assert found.forwarded.sum() == found.received.sum() == matrices[1].sum()
    assert (found.nvlink_out <= found.forwarded).all() and (found.nic_out <= found.sent).all()


@pytest.mark.parametrize("group", [8, 16, 64])
def test_expectations_equal_even_matrices(group: int) -> None:
    one = of_op(op(group=group))
    all_ranks = of_tokens("dispatch", one.row_bytes, 4096, *even_tokens(op(group=group)))
    for name in COLUMNS:
        assert getattr(all_ranks, name) == pytest.approx(np.full(group, getattr(one, name)[0])), name


def test_ranks_renamed_within_their_index_keep_their_loads() -> None:
    """Swapping two nodes swaps their loads and changes nothing else."""
    to_nodes, to_ranks = random_tokens(3, 3, 2, 30)
    swap = np.array([2, 3, 0, 1, 4, 5])
    a = of_tokens("dispatch", 1.0, 30, to_nodes, to_ranks)
    b = of_tokens("dispatch", 1.0, 30, to_nodes[swap][:, [1, 0, 2]], to_ranks[np.ix_(swap, swap)])
    for name in COLUMNS:
        assert getattr(b, name).tolist() == getattr(a, name)[swap].tolist(), name
