"""The door for prices: one function, called like the closed form it replaces."""

import inspect
import pickle

import pytest

from hwmodels.collectives import exchange_bound_seconds, exchange_seconds
from hwmodels.refused import Refused
from sim.communication.exchange import offload
from sim.communication.exchange.ports import of_op
from sim.communication.exchange.price import Fidelity
from sim.communication.exchange.roles import STORED
from tests.sim.communication.exchange.exchanges import LINKS, op

seconds = Fidelity()


def test_it_is_called_like_the_closed_form() -> None:
    assert list(inspect.signature(seconds).parameters) == list(inspect.signature(exchange_seconds).parameters)


def test_it_is_a_value() -> None:
    """Prices go to other processes, and are kept for equal questions."""
    assert pickle.loads(pickle.dumps(Fidelity(warps="fixed"))) == Fidelity(warps="fixed") != seconds
    back = op("combine")
    assert Fidelity(warps="fixed")(back, LINKS, 4) > 1.3 * seconds(back, LINKS, 4)


@pytest.mark.parametrize("sms", [1, 7, 20, 24, 132])
def test_prices_stay_above_the_bound_and_near_the_closed_form_where_that_holds(sms: int) -> None:
    for one in (op(), op("combine"), op(group=8)):
        found = seconds(one, LINKS, sms)
        assert found > exchange_bound_seconds(one, LINKS)
        if sms >= 20:
            full = LINKS.nvlink.efficiency / STORED[0] if one.group == 8 else 1.0  # NVLink binds, by what warps store
            assert found == pytest.approx(exchange_seconds(one, LINKS, sms) * full, rel=0.09)


def test_no_sms_means_copy_engines() -> None:
    assert seconds(op(), LINKS, 0) == offload.copy_engine_s(of_op(op()), LINKS)
    with pytest.raises(Refused, match="found -2"):
        seconds(op(), LINKS, -2)
