"""What-ifs without SMs: bounds that the kernels do not beat."""

import pytest

from sim import simulation
from sim.communication.exchange import closed, kernel, offload
from sim.communication.exchange.ports import of_op
from sim.scenario import from_mapping
from tests.sim.communication.exchange.exchanges import LINKS, SPREAD, op


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


def test_a_step_without_communication_kernels_has_all_sms_for_compute() -> None:
    """And takes no exchange below its bound; uneven loads and slow NICs go the same way."""
    base = {"cluster": {"node": "h800x8", "nodes": 2}, "model": {"base": "deepseek_v2_lite", "layers": 8},
            "parallel": {"pipeline": 2, "expert": 8}, "schedule": "dualpipe", "batch": {"micro_batches": 8},
            "outputs": ["result"]}  # fmt: skip
    with_sms, without = (simulation.run(from_mapping(base, (f"comm.sms={sms}",)), False).summary for sms in (20, 0))
    assert 0.8 < without["step_time_s"] / with_sms["step_time_s"] < 1.0
    for more in ("routing=sampled", "faults=[{kind: link, at: 3, slower: 2}]"):
        found = simulation.run(from_mapping(base, ("comm.sms=0", more)), False).summary
        assert found["step_time_s"] > without["step_time_s"], more
