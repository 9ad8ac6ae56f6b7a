"""The door: what a collective takes, on how many SMs, how sure, and refusals in a line."""

import pytest

from hwmodels import device, node
from hwmodels.collectives import collective_seconds, send_seconds, wires
from hwmodels.nccl import figures, library, tuner
from hwmodels.nccl.library import Library
from hwmodels.nccl.way import DIRECT, LL, NVLS, RING, SIMPLE, TREE, Way
from hwmodels.op import Collective, Send
from hwmodels.price import Pricer
from hwmodels.refused import Refused
from hwmodels.units import GIB, KIB, MIB, NS_PER_S, ns_to_seconds

H100 = node.load("h100x8")
LINKS = wires(H100, None)
NCCL = Library("hopper")


@pytest.mark.parametrize(
    ("op", "sms"),
    [
        (Collective("all_reduce", GIB, 8, 1), 16), (Collective("all_reduce", GIB, 8, 1, form="int8"), 24),
        (Collective("all_gather", GIB, 8, 1), 24), (Collective("all_gather", GIB, 64, 8), 16),
        (Collective("all_gather", 64 * KIB, 8, 1), 2), (Collective("all_gather", 4 * KIB, 8, 1), 1),
        (Collective("all_to_all", GIB, 8, 1), 32), (Collective("all_to_all", 64 * KIB, 8, 1), 7),
        (Collective("all_gather", GIB, 1, 1), 0), (Send(GIB, False, False), 32), (Send(GIB, True, False), 4),
        (Send(64 * KIB, False, False), 1), (Collective("all_gather", GIB, 4, 4), 4),
    ],
)  # fmt: skip
def test_a_channel_is_an_sm(op: Collective | Send, sms: int) -> None:
    """24 channels of rings in a domain, 16 of NVLS, 16 of rings over 8 NICs; fewer where threads have too little."""
    assert NCCL.take(op, LINKS).sms == sms


def test_blackwell_takes_more_for_switches() -> None:
    links = wires(node.load("b200x8"), None)
    assert Library("blackwell").take(Collective("all_reduce", GIB, 8, 1), links).sms == 24
    assert Library("blackwell").take(Collective("all_reduce", GIB, 16, 2), links).sms == 32


def test_a_way_may_be_forced_and_what_is_not_there_is_refused() -> None:
    op = Collective("all_reduce", GIB, 8, 1)
    free, tree, ring = NCCL.take(op, LINKS), Library("hopper", TREE).take(op, LINKS), Library("hopper", RING, LL)
    assert (free.way, tree.way, ring.take(op, LINKS).way) == (Way(NVLS, SIMPLE), Way(TREE, SIMPLE), Way(RING, LL))
    assert free.seconds < tree.seconds < ring.take(op, LINKS).seconds
    with pytest.raises(Refused, match="no all_gather over 8 ranks goes by NVLS here; legal: ring, LL; ring, LL128"):
        Library("hopper", NVLS).take(op._replace(kind="all_gather"), LINKS)


def test_spreads_are_those_of_rows_left_out() -> None:
    fitted = figures.load("hopper")
    assert NCCL.take(Collective("all_gather", GIB, 8, 1), LINKS).spread == fitted.spreads["ring, Simple"]
    assert NCCL.take(Collective("all_gather", GIB, 64, 8), LINKS).spread == figures.FAR_SPREAD
    assert NCCL.take(Send(GIB, True, False), LINKS).spread == figures.FAR_SPREAD
    assert Library("hopper", TREE).take(Collective("all_reduce", GIB, 8, 1), LINKS).spread == max(
        fitted.spreads.values()
    )


def test_every_generation_has_all_its_figures() -> None:
    assert set(figures.stored()["generations"]) == set(tuner.GENERATIONS)
    for name in device.available():
        architecture = device.load(name).architecture
        assert library.known(architecture) == (not name.startswith(("mi", "ascend")))
    for architecture, generation in tuner.GENERATIONS.items():
        held = figures.load(architecture)
        assert ("NVLS.part" in held.figures) == bool(generation.nvls)
        parts = [value for name, value in held.figures.items() if name.endswith(".part")]
        assert all(0 < value < 1 for value in (*parts, *held.spreads.values()))


def test_closed_forms_where_no_library_is_asked() -> None:
    op, message = Collective("all_gather", GIB, 8, 1), Send(GIB, True, True)
    ring, nccl = (library.seconds(asked, op, LINKS, LINKS) for asked in (None, NCCL))
    assert ring == collective_seconds(op, LINKS) != nccl
    assert library.seconds(None, message, LINKS, LINKS) == send_seconds(message, LINKS)


def test_nccl_keeps_its_way_when_links_get_slow_behind_its_back() -> None:
    """A NIC that fails to a tenth, or flows that collide: it goes on as it chose on links that are well."""
    op = Collective("all_reduce", 4 * MIB, 64, 8)
    slow = LINKS.slowed(10.0)
    assert NCCL.way(op, slow) != NCCL.way(op, LINKS) == NCCL.way(op._replace(slower=10.0), LINKS)
    stuck, crowded = NCCL.take(op, slow, LINKS), NCCL.take(op._replace(slower=10.0), LINKS)
    assert stuck.way == crowded.way == NCCL.way(op, LINKS)
    assert stuck.seconds == pytest.approx(crowded.seconds) and stuck.seconds > NCCL.take(op, LINKS).seconds


def test_a_pricer_goes_by_the_library_where_it_has_one() -> None:
    op, ring, nccl = (
        Collective("all_reduce", MIB, 8, 1),
        *(Pricer(H100.device, LINKS, 0, nccl=x) for x in (None, NCCL)),
    )
    price, taken = nccl.price(op), NCCL.take(op, LINKS)
    assert ns_to_seconds(price.ns) == pytest.approx(taken.seconds, rel=1e-3) and price.spread == taken.spread
    assert price.source == "NCCL on hopper (hwmodels/nccl): ring, LL, 24 SMs" and price.rung == "interpolated"
    assert ring.price(op).rung == "roofline" and "ring over" in ring.price(op).source
    assert nccl.price(op._replace(ranks=64, nodes=8)).rung == "held"
    sent = nccl.price(Send(GIB, False, False))
    assert f"{DIRECT}, {SIMPLE}, 32 SMs" in sent.source and sent.ns > GIB / 450e9 * NS_PER_S
