"""Hosts: slots, copies, and who holds what."""

import numpy as np

from sim.routing.hosts import Hosts, in_order


def test_in_order():
    hosts = in_order(256, 64, 8)
    assert (hosts.nodes, hosts.per_rank) == (8, 4)
    assert (hosts.copies == 1).all()
    assert (hosts.slots() == np.arange(256)[:, None]).all()
    assert in_order(16, 4, 8).nodes == 1


def test_copies_are_taken_in_turn():
    hosts = Hosts(np.array([2, 0, 1, 0, 0, 2]), 3, 2)
    assert hosts.copies.tolist() == [3, 1, 2]
    assert hosts.slots().tolist() == [[1, 3, 4], [2, 2, 2], [0, 5, 0]]
    assert (hosts.nodes, hosts.per_rank) == (2, 2)
