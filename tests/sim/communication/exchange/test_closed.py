"""The bound is the largest port load over bandwidth, as hwmodels.collectives has it for even loads."""

import numpy as np
import pytest
from hypothesis import given

from hwmodels.collectives import ENOUGH_SMS, exchange_bound_seconds, exchange_seconds
from sim.communication.exchange import closed
from sim.communication.exchange.ports import of_op
from tests.sim.communication.exchange.exchanges import LINKS, op, uneven, uneven_ports


@pytest.mark.parametrize("group", [8, 16, 32, 64, 128, 320])
@pytest.mark.parametrize("direction", ["dispatch", "combine"])
def test_even_loads_agree_with_the_older_closed_form(group: int, direction: str) -> None:
    one = op(direction, group)
    assert closed.bound_s(of_op(one), LINKS)[0] == pytest.approx(exchange_bound_seconds(one, LINKS))
    assert closed.seconds(of_op(one), LINKS) == pytest.approx(exchange_seconds(one, LINKS, ENOUGH_SMS))


@given(uneven)
def test_a_combine_is_bound_as_its_dispatch(matrices: tuple[np.ndarray, np.ndarray]) -> None:
    there, back = (closed.bound_s(uneven_ports(d, matrices), LINKS) for d in ("dispatch", "combine"))
    assert there.tolist() == back.tolist()


@given(uneven)
def test_the_group_is_as_slow_as_its_busiest_port(matrices: tuple[np.ndarray, np.ndarray]) -> None:
    ports = uneven_ports("dispatch", matrices)
    loads = [ports.nvlink_out.max() / LINKS.nvlink.effective, ports.nvlink_in.max() / LINKS.nvlink.effective]
    loads += [ports.nic_out.max() / LINKS.network, ports.nic_in.max() / LINKS.network]
    assert closed.bound_s(ports, LINKS).max() == pytest.approx(max(loads) * ports.row_bytes)
