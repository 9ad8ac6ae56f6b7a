"""Exchanges as events: whole rows, queues against literal ones, groups, compute beside, what a record holds."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwmodels.refused import Refused
from sim.communication.exchange import closed
from sim.communication.exchange.events import cargo, group, servers
from sim.communication.exchange.events.clock import Bell, Clock
from sim.communication.exchange.events.group import run
from sim.communication.exchange.events.record import Watch, idle, union
from sim.communication.exchange.events.servers import Beside, Buffer, Port, Warps
from sim.communication.exchange.events.setting import Setting
from sim.communication.exchange.ports import even_tokens, of_op
from sim.communication.exchange.roles import FIXED, FOLLOW
from tests.sim.communication.exchange.exchanges import LINKS, directions, op

kinds = st.sampled_from([FOLLOW, FIXED])


@pytest.mark.parametrize(
    ("direction", "group_size"), [("dispatch", 8), ("combine", 8), ("dispatch", 16), ("combine", 16)]
)
def test_one_rank_stands_for_all_where_loads_are_even(direction: str, group_size: int) -> None:
    one = op(direction, group_size, 512)
    folded = run([cargo.even(one)], Setting(LINKS, 12))[0].ns
    whole = run([cargo.of_tokens(direction, one.row_bytes, one.tokens, *even_tokens(one))], Setting(LINKS, 12))[0]
    assert max(whole.ends) - min(whole.ends) < 0.02 * whole.ns
    assert folded == pytest.approx(whole.ns, rel=0.01)


@given(directions, st.sampled_from([8, 16, 32, 64]), st.integers(1, 2048), st.integers(1, 40), kinds)
@settings(max_examples=40, deadline=None)
def test_events_are_above_the_bound(direction: str, group_size: int, tokens: int, sms: int, kind: str) -> None:
    one = op(direction, group_size, tokens)
    assert run([cargo.even(one)], Setting(LINKS, sms, kind))[0].ns / 1e9 > 0.98 * closed.seconds(of_op(one), LINKS)


@given(st.integers(1, 4), st.integers(1, 4), st.integers(0, 60), st.integers(1, 300), st.integers(1, 40))
@settings(deadline=None)
def test_rows_are_whole_and_all_of_them(nodes: int, gpus: int, seed: int, tokens: int, most: int) -> None:
    """Every chunk is full but the last for a node, and no node gets more rows than there are tokens."""
    random = np.random.default_rng(seed)
    to_nodes = random.uniform(0.1, 1, (1, nodes)) * tokens
    to_ranks = to_nodes[:, :, None] * random.uniform(1 / gpus, 1, (1, nodes, gpus))
    one = cargo.Cargo(False, 1.0, tokens, to_nodes, to_ranks)
    plan = cargo.chunks(one, 0, tokens, 3, most)
    for turn in range(nodes):
        mine = [chunk for chunk in plan if chunk.turn == turn]
        assert all(chunk.rows == most for chunk in mine[:-1]) and sum(chunk.rows for chunk in mine) <= tokens
        assert not mine or mine[-1].at == tokens
        spread = 3 * np.sqrt(to_nodes[0, turn] * (1 - to_nodes[0, turn] / tokens)) + 1
        assert abs(sum(chunk.rows for chunk in mine) - to_nodes[0, turn]) <= spread
    assert all(any(chunk.split) and max(chunk.split) <= chunk.rows + 1 for chunk in plan)
    assert [chunk.at for chunk in plan] == sorted(chunk.at for chunk in plan)


@given(st.integers(1, 6), st.lists(st.tuples(st.integers(0, 30), st.integers(0, 12)), max_size=12))
def test_warps_are_those_of_a_literal_queue(count: int, loads: list[tuple[int, int]]) -> None:
    """Each task goes to the warp that is free first."""
    warps, free, at = Warps(count, 7), [0] * count, 0
    for wait, tasks in loads:
        at += wait
        last = at
        for _ in range(tasks):
            first = min(range(count), key=free.__getitem__)
            free[first] = last_of = max(at, free[first]) + 7
            last = max(last, last_of)
        assert warps.take(tasks, at) == last and warps.next == min(free)


def test_both_ways_of_a_port_serve_whenever_there_is_something() -> None:
    sender, other, target = Port(), Port(), Port()
    assert (sender.book(5, 10), sender.book(6, 10)) == (5, 15)
    assert (target.receive(5, 10, 15), target.receive(5, 10, 15)) == (15, 25)
    assert other.book(7, 1) == 7


def test_a_buffer_learns_of_room_when_its_credits_come() -> None:
    buffer = Buffer(8, Bell(Clock()))
    assert buffer.has(20, 0)  # more than it holds: all of it
    buffer.take(8, 0)
    buffer.give(9, 8)
    assert not buffer.has(1, 8) and buffer.next == 9 and buffer.has(8, 9)


# --- groups -----------------------------------------------------------------------------------------------------------


def test_exchanges_come_in_order_and_wait_for_the_last_rank() -> None:
    """Two micro-batches' exchanges; a rank that is late to the first makes the group wait."""
    one = op("dispatch", 16, 256)
    whole = cargo.of_tokens("dispatch", one.row_bytes, one.tokens, *even_tokens(one))
    alone = run([whole], Setting(LINKS, 12))[0]
    late = [[0] * 15 + [1_000_000]]
    first, second = run([whole, replace(whole, combine=True)], Setting(LINKS, 12), late)
    assert alone.came == 0 and first.came == 1_000_000 and first.barrier == alone.barrier == 2800 + 3330
    assert first.ns == alone.ns and second.came == max(first.ends) and second.ns > 0


def test_compute_beside_takes_time_of_sms_and_memory() -> None:
    """Half of the SMs' time makes warps half as fast; memory binds once compute leaves less than rows need."""
    one = cargo.even(op("dispatch", 64, 2048))
    alone, warps, little, much = (
        run([one], Setting(LINKS, 4, beside=windows, memory=3.35e12))[0]
        for windows in (
            (), (Beside(0, 2**62, 0.5, 0.0),), (Beside(0, 2**62, 0.0, 0.5),), (Beside(0, 2**62, 0.0, 0.98),),
        )
    )  # fmt: skip
    assert warps.ns == pytest.approx(2 * alone.ns, rel=0.05)
    assert little.ns == pytest.approx(alone.ns, rel=0.01) and much.ns > 1.5 * alone.ns
    assert much.ns >= much.memory / (0.02 * 3.35e12) * 1e9
    half = run([one], Setting(LINKS, 4, beside=(Beside(0, alone.ns, 0.5, 0.0),)))[0].ns
    assert alone.ns < half < warps.ns


def test_a_record_changes_nothing_and_adds_up() -> None:
    for direction in ("dispatch", "combine"):
        one, watch = cargo.even(op(direction, 64, 1024)), Watch()
        seen = run([one], Setting(LINKS, 8), record=watch)[0]
        assert seen == run([one], Setting(LINKS, 8))[0]
        lanes = watch.lanes()
        assert [lane.role for lane in lanes.lanes] == ["send", "forward", "receive"]
        for lane in lanes.lanes:
            spans = sorted([*lane.worked, *((a, b) for a, b, _ in lane.waited)])
            assert all(a[1] <= b[0] for a, b in pairwise(spans))
            assert seen.start <= spans[0][0] and spans[-1][1] <= max(seen.ends)
        for link, most in (("network", 8 * 128), ("NVLink", 8 * 8 * 288)):
            rows = [count for _, count in lanes.flying[link]]
            assert min(rows) >= 0 and rows[-1] == 0 and 0 < max(rows) <= most


def test_spans_without_overlap() -> None:
    assert union([(5, 7), (0, 2), (2, 3), (6, 6)]) == ((0, 3), (5, 7))
    assert list(idle([(0, 10, "rows")], [(2, 3), (5, 12)])) == [(0, 2, "rows"), (3, 5, "rows")]


def test_a_group_that_cannot_go_on_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers.Buffer, "give", lambda self, time, rows: None)
    with pytest.raises(group.DeadlockError, match="1 of 1 ranks wait for ever"):
        run([cargo.even(op("dispatch", 64, 2048))], Setting(LINKS, 4))


def test_no_sm_is_refused() -> None:
    with pytest.raises(Refused, match="at least 1 SM; found 0"):
        Setting(LINKS, 0)
