"""Curves of links: bytes over time are the bytes of the step, and closed forms for spans that are simple."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwmodels import fabric
from hwmodels.document import Document
from hwmodels.units import NS_PER_S
from sim.analysis.utilisation import activity, utilisation
from sim.communication.fabric.bursts import Burst
from sim.communication.fabric.cabling import Cabling, Rates
from sim.communication.fabric.flows import EXPERT, GRADIENTS, KINDS, PARAMETERS, PIPELINE, between
from sim.communication.fabric.paths import paths
from sim.result.trace import LANES, Trace

NETWORK = LANES.index("network")
PLANES = Cabling(
    fabric.build(Document({"base": "mpft", "radix": 8, "planes": 4})), 4, 1, tuple(range(8)), Rates(1.0, 1.0)
)
"""Two leaves of four nodes of four GPUs in each plane; every link carries 1 byte/s."""


def trace(*rows: tuple[int, int, int, int], labels: tuple[str, ...] = ("send", "other", "double")) -> Trace:
    """rows: (position, label, start in s, end in s)."""
    columns = {name: np.full(len(rows), -1) for name in Trace.COLUMNS}
    columns["lane"] = np.full(len(rows), NETWORK)
    table = np.array(rows, dtype=np.int64).reshape(-1, 4).T
    columns["position"], columns["label"] = table[0], table[1]
    columns["start"], columns["end"] = table[2] * NS_PER_S, table[3] * NS_PER_S
    return Trace(**columns, labels=labels)


def burst(size: float, position: int = 0, stage: int = -1) -> Burst:
    """From node 0 to node 4, under another leaf, on NIC 0."""
    flows = between(PLANES, np.array([0]), np.array([16]), size, PIPELINE)
    return Burst(position, NETWORK, {"send": 1.0, "double": 2.0}, stage, flows)


def use(found: Trace, *bursts: Burst, bins: int = 10):  # type: ignore[no-untyped-def]
    return utilisation(found, bursts, [paths(b.flows, PLANES, "static") for b in bursts], PLANES, bins)


def test_one_span_fills_its_links_while_it_lasts() -> None:
    """4 bytes from second 2 to 6 of 10 keep four links busy all of that time."""
    found = use(trace((0, 0, 2, 6), (1, 0, 0, 10)), burst(4.0))
    expected = [0, 0, 1, 1, 1, 1, 0, 0, 0, 0]
    for row in (*found.mean[:, PIPELINE], *found.busiest):
        assert row == pytest.approx(expected)
    assert not found.mean[:, [EXPERT, GRADIENTS, PARAMETERS]].any() and found.even == ()
    assert found.classes == ("NIC out", "NIC in", "leaf up", "spine down")
    assert found.size.tolist() == [[0.0, 4.0, *[0.0] * 4]] * 4
    assert found.peak == pytest.approx(1.0) and found.average == pytest.approx(0.4)


def test_shares_of_labels_and_bins_cut_through_spans() -> None:
    """A label worth two gets two thirds; bins of 2.5 s each see what falls in them."""
    moved = activity(trace((0, 0, 0, 3), (0, 2, 6, 9), (0, 1, 9, 10)), burst(9.0), np.arange(5) * 5 * NS_PER_S // 2)
    assert moved == pytest.approx([2.5 / 9, 0.5 / 9, 3 / 9, 3 / 9])


def test_a_burst_without_spans_is_spread_evenly() -> None:
    assert activity(trace((1, 0, 0, 10)), burst(1.0), np.arange(6) * 2 * NS_PER_S) == pytest.approx(0.2)


def test_spans_of_another_stage_do_not_count() -> None:
    found = trace((0, 0, 0, 1), (0, 0, 5, 6))
    found.stage[:] = [3, 4]
    moved = activity(found, burst(1.0, stage=4), np.arange(11) * NS_PER_S)
    assert moved.argmax() == 5 and moved.sum() == pytest.approx(1.0) and moved[5] == pytest.approx(1.0)


@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 50), st.integers(0, 20)), max_size=20),
    st.lists(st.tuples(st.integers(1, 9), st.integers(0, 2)), min_size=1, max_size=4), st.integers(1, 13),
)  # fmt: skip
@settings(max_examples=100, deadline=None)
def test_bytes_over_time_are_the_bytes_of_the_step(
    rows: list[tuple[int, int, int, int]], sizes: list[tuple[int, int]], bins: int
) -> None:
    spans = trace((0, 1, 0, 80), *((p, label, start, start + length) for p, label, start, length in rows))
    bursts = [burst(float(size), position) for size, position in sizes]
    found = use(spans, *bursts, bins=bins)
    room = np.diff(found.edges) / NS_PER_S
    count = np.bincount(found.of, minlength=len(found.classes))
    total = sum(size for size, _ in sizes)
    mean = found.mean.sum(axis=1)
    assert (mean @ room) * count == pytest.approx(np.full(4, float(total)))
    assert (found.busiest >= mean - 1e-12).all() and (found.peak >= found.average - 1e-12).all()
    assert found.peak == pytest.approx(found.busiest.max(axis=1)[found.of])


def test_no_traffic_no_links() -> None:
    found = use(trace((0, 0, 0, 10)))
    assert found.ends == () and len(found.of) == 0 and not found.mean.any() and not found.busiest.any()


def test_kinds_share_a_link_and_are_told_apart() -> None:
    """Two kinds at once ask a link for twice what it has; each keeps its own bytes and its own curve."""
    sends, ring = burst(4.0), burst(6.0)
    ring = replace(ring, shares={"other": 1.0}, flows=replace(ring.flows, kind=np.array([GRADIENTS])))
    found = use(trace((0, 0, 2, 6), (0, 1, 2, 8), (1, 0, 0, 10)), sends, ring)
    assert found.size.tolist() == [[0.0, 4.0, 6.0, *[0.0] * 3]] * 4 and found.kinds == KINDS
    for mean in found.mean:
        assert mean[PIPELINE] == pytest.approx([0, 0, 1, 1, 1, 1, 0, 0, 0, 0])
        assert mean[GRADIENTS] == pytest.approx([0, 0, 1, 1, 1, 1, 1, 1, 0, 0])
    assert found.peak == pytest.approx(2.0) and found.average == pytest.approx(1.0)


def test_bytes_without_spans_are_told() -> None:
    found = use(trace((1, 0, 0, 10)), burst(5.0))
    assert found.even == ("pipeline",) and found.busiest == pytest.approx(0.5)


def test_links_have_names_at_both_ends_and_come_by_class() -> None:
    found = use(trace((0, 0, 2, 6), (1, 0, 0, 10)), burst(4.0))
    assert [found.classes[number] for number in found.of] == ["NIC out", "NIC in", "leaf up", "spine down"]
    out, into, up, down = found.ends
    assert out == ("node0.nic0", "plane0.leaf0") and into == ("plane0.leaf1", "node4.nic0")
    assert up[0] == "plane0.leaf0" and up[1] == down[0] and down[1] == "plane0.leaf1"


def test_a_span_of_a_nanosecond_leaves_no_rounding() -> None:
    """Its rate, half of the bytes in a nanosecond, is not carried through bins of seconds."""
    start, end = np.array([12, 9]) * NS_PER_S, np.array([12 * NS_PER_S + 1, 14 * NS_PER_S])
    found = trace((0, 0, 0, 80), (0, 0, 0, 80))
    found.start[:], found.end[:] = start, end
    moved = activity(found, burst(1.0), np.linspace(0, 80 * NS_PER_S, 8).round().astype(np.int64))
    assert moved.sum() == pytest.approx(1.0, abs=1e-12)
