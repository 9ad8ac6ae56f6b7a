"""What-ifs without SMs: bounds that the kernels do not beat."""

import pytest

from sim.exchange import closed, kernel, offload
from sim.exchange.ports import of_op
from tests.sim.exchange.exchanges import LINKS, SPREAD, op


@pytest.mark.parametrize("group", sorted(SPREAD))
@pytest.mark.parametrize("direction", ["dispatch", "combine"])
def test_engines_are_between_the_bound_and_the_kernel(group: int, direction: str) -> None:
    ports = of_op(op(direction, group))
    timing = kernel.run(ports, LINKS, 24)
    assert closed.seconds(ports, LINKS) < offload.copy_engine_s(ports, LINKS) < timing.seconds + timing.barrier_s


def test_copying_in_switches_relieves_the_sender_alone() -> None:
    """An even exchange receives what it did, so it gains nothing; one where senders bind gains."""
    from dataclasses import replace

    even = of_op(op())
    assert offload.in_network_s(even, LINKS) == offload.copy_engine_s(even, LINKS)
    sender = replace(even, nic_in=even.nic_in / 4)
    assert offload.in_network_s(sender, LINKS) < 0.5 * offload.copy_engine_s(sender, LINKS)
