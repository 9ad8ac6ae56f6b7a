"""The warp-level kernel: bounds, monotony, published bandwidths (compared, never fitted), the profile's exchanges."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwmodels.refused import Refused
from sim.communication.exchange import closed, kernel, messages
from sim.communication.exchange.line import finish_s
from sim.communication.exchange.ports import even_tokens, of_op
from sim.communication.exchange.roles import COPY, FIXED, FOLLOW, STORED, dispatching
from tests.sim.communication.exchange.exchanges import (
    BF16_ROW,
    FP8_ROW,
    LINKS,
    SPREAD,
    directions,
    of_tokens,
    op,
    uneven,
    uneven_ports,
)

kinds = st.sampled_from([FOLLOW, FIXED])
groups = st.sampled_from(sorted(SPREAD))
few_and_many = st.one_of(st.integers(1, 64), st.integers(1, 4096))


@given(directions, uneven, st.integers(1, 132), kinds)
@settings(max_examples=80, deadline=None)
def test_no_rank_beats_its_bound(direction: str, matrices: tuple[np.ndarray, np.ndarray], sms: int, kind: str) -> None:
    timing = kernel.run(uneven_ports(direction, matrices), LINKS, sms, COPY, kind)
    assert (timing.rank_s >= timing.bound_s).all()
    assert timing.seconds >= timing.bound_s.max() and timing.barrier_s >= 0


@given(directions, groups, few_and_many, st.integers(1, 60), st.integers(1, 8), kinds)
@settings(max_examples=150, deadline=None)
def test_more_sms_are_never_slower(direction: str, group: int, tokens: int, sms: int, further: int, kind: str) -> None:
    """But for 0.5 %: with fewer channels the last ones may hold a token less than the fullest, and a port is through
    with their last chunk so much sooner."""
    ports = of_op(op(direction, group, tokens))
    fewer, more = (kernel.run(ports, LINKS, n, COPY, kind) for n in (sms, sms + further))
    assert more.seconds <= fewer.seconds * 1.005


@given(directions, groups, few_and_many, st.sampled_from([1, 1, 7]), st.integers(1, 66), kinds)
@settings(max_examples=300, deadline=None)
def test_more_tokens_never_take_less(
    direction: str, group: int, tokens: int, further: int, sms: int, kind: str
) -> None:
    fewer, more = (
        kernel.run(of_op(op(direction, group, n)), LINKS, sms, COPY, kind) for n in (tokens, tokens + further)
    )
    assert more.seconds >= fewer.seconds * (1 - 1e-12)


@pytest.mark.parametrize("kind", [FOLLOW, FIXED])
@pytest.mark.parametrize("direction", ["dispatch", "combine"])
@pytest.mark.parametrize("group", [8, 16, 64])
def test_no_number_of_tokens_takes_less_than_one_less(direction: str, group: int, kind: str) -> None:
    found = [kernel.run(of_op(op(direction, group, n)), LINKS, 20, COPY, kind).seconds for n in range(1, 200)]
    assert (np.diff(found) >= -1e-12 * np.array(found[1:])).all()


@given(directions, groups, few_and_many, st.integers(1, 66), kinds)
@settings(max_examples=150, deadline=None)
def test_never_below_the_closed_form(direction: str, group: int, tokens: int, sms: int, kind: str) -> None:
    """Its latencies included."""
    ports = of_op(op(direction, group, tokens))
    assert kernel.run(ports, LINKS, sms, COPY, kind).seconds > closed.seconds(ports, LINKS)


@given(directions, groups, st.integers(1, 512), st.integers(1, 66), kinds)
@settings(max_examples=60, deadline=None)
def test_small_exchanges_take_longer_than_their_messages(
    direction: str, group: int, tokens: int, sms: int, kind: str
) -> None:
    """Warps, posting and whole rows cost more than pieces of messages that wait for each other."""
    one = op(direction, group, tokens)
    coarse = messages.finish_ns(direction, one.row_bytes, *even_tokens(one), LINKS).max() / 1e9
    assert kernel.run(of_op(one), LINKS, sms, COPY, kind).seconds > coarse


def test_sms_help_as_long_as_channels_have_several_tokens() -> None:
    """Eight tokens: one for each of eight channels at 16 SMs, from where on more of them do nothing."""
    for direction in ("dispatch", "combine"):
        ports = of_op(op(direction, tokens=8))
        four, sixteen, many = (kernel.run(ports, LINKS, sms) for sms in (4, 16, 64))
        assert (four.channels, sixteen.channels, many.channels) == (2, 8, 8)
        assert four.seconds > 1.05 * sixteen.seconds and sixteen.seconds == many.seconds


@pytest.mark.parametrize("direction", ["dispatch", "combine"])
def test_few_tokens_take_longer_where_they_reach_more_nodes(direction: str) -> None:
    two, eight = (kernel.run(of_op(op(direction, group, 8)), LINKS, 20).seconds for group in (16, 64))
    assert two < eight


@pytest.mark.parametrize("name", ["dispatch", "combine"])
def test_the_fit_inside_a_node_is_that_of_the_kernel(name: str) -> None:
    """Links idle, time a row grows as one over channels by what a warp needs (tests of roles: the measurements)."""
    free = replace(LINKS, nvlink=replace(LINKS.nvlink, bandwidth=LINKS.nvlink.bandwidth * 1000))
    ports = of_op(op(name, 8))
    few, many = (kernel.run(ports, free, sms).seconds for sms in (16, 28))
    slope = (few - many) / (2 / 16 - 2 / 28) / ports.forwarded[0]
    assert slope * 24 == pytest.approx(COPY.seconds(ports.combine, ports.row_bytes), rel=0.02)


@given(directions, st.sampled_from(sorted(SPREAD)), st.integers(1, 4096))
@settings(max_examples=40, deadline=None)
def test_faster_links_are_never_slower(direction: str, group: int, tokens: int) -> None:
    ports = of_op(op(direction, group, tokens))
    quick = replace(LINKS, nic=replace(LINKS.nic, bandwidth=LINKS.nic.bandwidth * 2))
    assert kernel.run(ports, quick, 20).seconds <= kernel.run(ports, LINKS, 20).seconds


@pytest.mark.parametrize(("group", "slack"), [(8, 0.05), (32, 0.07), (64, 0.08), (128, 0.08), (320, 0.11)])
@pytest.mark.parametrize("direction", ["dispatch", "combine"])
def test_with_enough_sms_kernel_messages_and_bound_agree(group: int, slack: float, direction: str) -> None:
    """But for what only a kernel has: chunks for all nodes are full together, so the first ones are late; and inside a
    node, where NVLink binds, rows that warps store reach less of it than copies do."""
    one = op(direction, group)
    stored = STORED[direction == "combine"] / LINKS.nvlink.efficiency if group == 8 else 1.0
    fine = kernel.run(of_op(one), LINKS, 40).seconds * stored
    coarse = messages.finish_ns(direction, one.row_bytes, *even_tokens(one), LINKS, 16).max() / 1e9
    assert 0.95 < fine / coarse < 1 + slack
    assert 1 < fine / closed.seconds(of_op(one), LINKS) < 1 + slack


def test_with_few_sms_time_goes_as_one_over_channels() -> None:
    """Eight forwarding warps, each as fast as alone: they do not fill their SM."""
    two, eight = (kernel.run(of_op(op(group=16)), LINKS, sms, COPY, FIXED) for sms in (2, 8))
    assert two.limited_by == eight.limited_by == "forward"
    assert two.seconds / eight.seconds == pytest.approx(4, rel=0.04)
    rows = 4096 * SPREAD[16][1]
    assert two.busy_s["forward"] == pytest.approx(rows * COPY.alone(False, FP8_ROW) / 8)


@pytest.mark.parametrize("kind", [FIXED, FOLLOW])
@pytest.mark.parametrize("direction", ["dispatch", "combine"])
def test_roles_of_a_block_share_what_its_sm_can_do(direction: str, kind: str) -> None:
    """Where warps alone are quick, the one that comes last is through when the SM has served the rows of both."""
    quick = COPY._replace(alone_s=0.0, reduced_alone_s=0.0)
    ports = of_op(op(direction, 32))
    last = kernel.run(ports, LINKS, 4, quick, kind).busy_s["receive"]
    assert last >= (ports.sent + ports.received)[0] / 2 * COPY.sm(direction == "combine", ports.row_bytes) * (1 - 1e-9)


@given(directions, uneven, st.integers(1, 132), kinds, st.floats(0.1, 10))
@settings(max_examples=60, deadline=None)
def test_no_stage_is_quicker_than_its_warps_alone_or_its_sm(
    direction: str, matrices: tuple[np.ndarray, np.ndarray], sms: int, kind: str, factor: float
) -> None:
    copy = COPY._replace(alone_s=COPY.alone_s * factor, reduced_alone_s=COPY.reduced_alone_s * factor)
    ports = uneven_ports(direction, matrices)
    work = kernel._cut(ports, LINKS, sms, copy, kind)
    row, rows, warps = (ports.combine, ports.row_bytes), ports.received, np.array([8])
    working, row_s = work.working(rows, warps, rows + ports.sent)
    service = rows * row_s / working
    assert (service >= rows * copy.alone(*row) / warps * (1 - 1e-9)).all()
    some = rows > 0
    assert (service >= (rows + ports.sent) * copy.sm(*row) * (1 - 1e-9))[some].all()
    assert ((working >= 1) & (working <= warps)).all()


@pytest.mark.parametrize(("direction", "kind", "sms", "binds"), [
    ("dispatch", FIXED, 8, "post"), ("dispatch", FOLLOW, 8, "post"),
    ("combine", FIXED, 8, "send"), ("combine", FOLLOW, 4, "receive"),
])  # fmt: skip
def test_twenty_sms_saturate_the_network_and_few_do_not(direction: str, kind: str, sms: int, binds: str) -> None:
    """DeepSeek-V3 report sec 3.2.2: 20 SMs are enough for both networks; the kernel says from where on."""
    ports = of_op(op(direction))
    assert kernel.run(ports, LINKS, 20, COPY, kind).limited_by == "network"
    assert kernel.run(ports, LINKS, sms, COPY, kind).limited_by == binds


@pytest.mark.parametrize("group", [16, 32, 64])
@pytest.mark.parametrize("direction", ["dispatch", "combine"])
def test_roles_that_follow_make_a_channel_faster_where_warps_bind(group: int, direction: str) -> None:
    """A combine, whose eight senders do not fill their SM when fixed; in a dispatch they do, or a forwarder's or the
    warp that posts binds. Once links bind the two are within 3 %."""
    few, many = (
        [kernel.run(of_op(op(direction, group)), LINKS, sms, COPY, kind).seconds for kind in (FOLLOW, FIXED)]
        for sms in (4, 40)
    )
    least, most = (0.55, 0.75) if direction == "combine" else (0.97, 1.01)
    assert least < few[0] / few[1] < most and 0.97 < many[0] / many[1] < 1.03


@given(directions, uneven, st.integers(1, 132))
@settings(max_examples=80, deadline=None)
def test_the_busiest_stage_of_a_rank_is_never_busier_when_roles_follow(
    direction: str, matrices: tuple[np.ndarray, np.ndarray], sms: int
) -> None:
    """True by construction of a block's slowest role; what fills and drains around it may take longer."""
    ports = uneven_ports(direction, matrices)
    follow, fixed = (
        np.array([s.service_s for s in kernel._stages(kernel._cut(ports, LINKS, sms, COPY, kind)) if s.servers > 1])
        for kind in (FOLLOW, FIXED)
    )
    assert not follow.size or (follow.max(axis=0) <= fixed.max(axis=0) * (1 + 1e-12)).all()


@given(directions, uneven, st.integers(1, 132))
@settings(max_examples=80, deadline=None)
def test_an_exchange_whose_roles_follow_is_late_by_its_fill_at_most(
    direction: str, matrices: tuple[np.ndarray, np.ndarray], sms: int
) -> None:
    """Two warps instead of seven pack a first chunk more slowly: by less than each stage's time on one chunk."""
    ports = uneven_ports(direction, matrices)
    follow, fixed = (kernel.run(ports, LINKS, sms, COPY, kind) for kind in (FOLLOW, FIXED))
    chunk_s = sum(s.service_s for s in kernel._stages(kernel._cut(ports, LINKS, sms, COPY, FOLLOW))).max()
    assert follow.seconds <= fixed.seconds + chunk_s


@pytest.mark.parametrize("direction", ["dispatch", "combine"])
def test_a_small_exchange_costs_a_hundred_microseconds(direction: str) -> None:
    """Of a token: four posts one after another and a few rows (dispatch), or a token reduced by one warp (combine)."""
    timing = kernel.run(of_op(op(direction, tokens=1)), LINKS, 20)
    assert 80e-6 < timing.seconds + timing.barrier_s < 120e-6
    assert timing.seconds > 10 * timing.bound_s.max()


def test_a_loaded_rank_is_late_and_the_group_with_it() -> None:
    to_nodes, to_ranks = even_tokens(op(tokens=1024))
    crowded = to_ranks.copy()
    crowded[:, 5] *= 3
    even, skewed = (
        kernel.run(uneven_ports("dispatch", (to_nodes, ranks), BF16_ROW), LINKS, 8) for ranks in (to_ranks, crowded)
    )
    assert skewed.rank_s.argmax() == 5 and skewed.seconds > 1.1 * even.seconds


def test_a_single_sm_is_half_a_channel_and_none_is_refused() -> None:
    one, two = (kernel.run(of_op(op()), LINKS, sms).seconds for sms in (1, 2))
    assert one == pytest.approx(2 * two, rel=0.02)
    with pytest.raises(Refused, match="at least 1 SM; found 0"):
        kernel.run(of_op(op()), LINKS, 0)


@pytest.mark.parametrize(("direction", "busy", "idle"), [
    ("dispatch", "receive", "send"), ("combine", "send", "receive"),
])  # fmt: skip
def test_inside_a_node_a_combine_goes_the_way_of_its_dispatch_backwards(direction: str, busy: str, idle: str) -> None:
    """All tokens of eight ranks are rank 0's: it takes in eight times what each hands out, and sends that back."""
    to_ranks = np.zeros((8, 8), np.int64)
    to_ranks[:, 0] = 512
    timing = kernel.run(of_tokens(direction, FP8_ROW, 512.0, np.full((8, 1), 512), to_ranks), LINKS, 20)
    assert timing.rank_s.argmax() == 0
    assert timing.busy_s[busy] == pytest.approx(8 * timing.busy_s[idle], rel=1e-9)


def test_a_full_buffer_behind_the_network_runs_at_its_round_trip() -> None:
    """A slow network leaves a dispatch nothing to do but to wait for credits: each is a bare latency on its way, and
    what it frees is packed, posted, goes over the network and through the forwarders' whole rounds of rows."""
    slow = replace(LINKS, latency_s=1.0)
    work = kernel._cut(of_op(op("dispatch", 64)), slow, 2, COPY, FIXED)
    stages = {stage.name: stage for stage in kernel._stages(work)}
    room, ports = stages["forward"].room, work.ports
    warps, row_s = work.working(ports.forwarded, dispatching(FIXED, ports.tokens, ports.received)[1], ports.forwarded)
    rounds = np.ceil(work.share(ports.forwarded) / warps)
    packed = stages["pack"].service_s + stages["post"].latency_s + stages["post"].service_s
    trip = 2 * slow.latency_s + packed + stages["network"].service_s + rounds * row_s
    few, many = (finish_s(list(stages.values()), 7 + turns * room) for turns in (1, 4))
    assert many - few == pytest.approx(3 * trip, rel=1e-9)
