"""Exchanges as events: the authority that the recurrence is held equal to, and closed forms that both must meet."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hwmodels.op import AllToAll
from hwmodels.refused import Refused
from sim.communication.exchange import closed, kernel
from sim.communication.exchange.events import cargo, combine, group, servers
from sim.communication.exchange.events.bells import Bell, Course
from sim.communication.exchange.events.group import run
from sim.communication.exchange.events.record import Watch, idle, union
from sim.communication.exchange.events.servers import Beside, Buffer, Port, Warps
from sim.communication.exchange.events.setting import Setting
from sim.communication.exchange.events.sheets import Bay, Progress
from sim.communication.exchange.ports import even_tokens, of_op
from sim.communication.exchange.roles import FIXED, FOLLOW, Buffers, buffers
from sim.engine.clock import Clock
from tests.examples import examples
from tests.sim.communication.exchange.exchanges import (
    BF16_ROW,
    FP8_ROW,
    LINKS,
    cargo_of_tokens,
    directions,
    of_tokens,
    op,
)

WITHIN, ROUNDS_S = 0.02, 30e-6
"""The recurrence is so near to the events, or within so long: a few rows by one warp, for warps go in whole rounds."""
FULL = 6
"""Full chunks that a channel sends to each place, at least: fewer are not told by their average."""
kinds = st.sampled_from([FOLLOW, FIXED])
sizes = st.builds(
    lambda send, more, nvlink: Buffers(send, send * 4 + more, nvlink),
    st.integers(6, 32), st.integers(0, 128), st.integers(160, 720),
)  # fmt: skip


def exchange(direction: str, nodes: int, chosen: int, tokens: int) -> AllToAll:
    """Eight GPUs a node, and tokens that choose so many ranks on their own."""
    ranks = 8 * nodes
    reached = [places * (1 - (1 - 1 / places) ** chosen) for places in (nodes, ranks)]
    row = FP8_ROW if direction == "dispatch" else BF16_ROW
    return AllToAll(direction, "", tokens, row, *reached, ranks, nodes)


def off(one: AllToAll, sms: int, kind: str, room: Buffers | None = None) -> float:
    """By how much more than it may the recurrence differs; 1 is the limit."""
    events_s = run([cargo.even(one)], Setting(LINKS, sms, kind, sizes=room))[0].ns / 1e9
    recurrence_s = kernel.run(of_op(one), LINKS, sms, roles=kind, sizes=room).seconds
    return abs(recurrence_s - events_s) / max(WITHIN * events_s, ROUNDS_S)


@given(
    directions, st.sampled_from([1, 2, 3, 4, 6, 8]), st.sampled_from([4, 6, 8]), st.integers(2048, 12288),
    st.integers(1, 12), kinds, st.one_of(st.none(), sizes),
)  # fmt: skip
@examples(20, derandomize=True)
def test_the_recurrence_equals_the_events(
    direction: str, nodes: int, chosen: int, tokens: int, channels: int, kind: str, room: Buffers | None
) -> None:
    one = exchange(direction, nodes, chosen, tokens)
    send = (room or buffers(8 * nodes, nodes, direction == "combine")).send
    assume(tokens // channels * one.nodes_reached / nodes >= FULL * send)
    assert off(one, 2 * channels, kind, room) <= 1


@given(
    directions, st.integers(0, 2**32), st.sampled_from([1, 2]), st.integers(2048, 4096), st.integers(2, 8), kinds,
    st.sampled_from([0.05, 0.15, 0.3]),
)  # fmt: skip
@examples(8, derandomize=True)
def test_also_where_loads_are_uneven(
    direction: str, seed: int, nodes: int, tokens: int, channels: int, kind: str, spread: float
) -> None:
    """All ranks of a group run, and wait for each other's buffers; the recurrence takes each rank by itself."""
    ranks = nodes * 4
    popular = np.clip(1 + spread * np.random.default_rng(seed).standard_normal(ranks), 0.3, None)
    chance = np.minimum(3 / ranks * popular / popular.mean(), 0.9)
    reach = 1 - np.prod(1 - chance.reshape(nodes, 4), axis=1)
    matrices = np.tile(tokens * reach, (ranks, 1)), np.tile(tokens * chance, (ranks, 1))
    row = FP8_ROW if direction == "dispatch" else BF16_ROW
    one = cargo_of_tokens(direction, row, tokens, *matrices)
    events_s = run([one], Setting(LINKS, 2 * channels, kind))[0].ns / 1e9
    ports = of_tokens(direction, row, float(tokens), *matrices)
    recurrence_s = kernel.run(ports, LINKS, 2 * channels, roles=kind).seconds
    assert recurrence_s == pytest.approx(events_s, rel=2 * WITHIN, abs=ROUNDS_S)


STARVED = Buffers(20, 80, 288)
"""So little room that credits decide: four chunks for each node."""
SLOW = replace(LINKS, latency_s=500e-6)


def starved(direction: str) -> float:
    one = exchange(direction, 4, 8, 6144)
    events_s = run([cargo.even(one)], Setting(SLOW, 16, sizes=STARVED))[0].ns / 1e9
    return kernel.run(of_op(one), SLOW, 16, sizes=STARVED).seconds / events_s - 1


@pytest.mark.parametrize("direction", ["dispatch", "combine"])
def test_they_agree_where_credits_bind(direction: str) -> None:
    free = run([cargo.even(exchange(direction, 4, 8, 6144))], Setting(SLOW, 16))[0].ns
    bound = run([cargo.even(exchange(direction, 4, 8, 6144))], Setting(SLOW, 16, sizes=STARVED))[0].ns
    assert bound > 1.1 * free and abs(starved(direction)) < 0.05


@pytest.mark.parametrize("direction", ["dispatch", "combine"])
def test_a_defect_of_credits_in_the_events_is_seen(direction: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Credits that are there as soon as they are given, as if they had no way to go."""
    give, credit = Buffer.give, Bay._credit
    monkeypatch.setattr(Buffer, "give", lambda self, end, rows: give(self, end - self.back, rows))
    monkeypatch.setattr(Bay, "_credit", lambda self: setattr(self, "back", 0) or credit(self))
    assert abs(starved(direction)) > 0.08


@pytest.mark.parametrize("direction", ["dispatch", "combine"])
def test_a_defect_of_credits_in_the_recurrence_is_seen(direction: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Credits that come back late, or with no latency."""
    finish = kernel.finish_s
    for wrong_s in (0.0, 4 * SLOW.latency_s):
        monkeypatch.setattr(
            kernel, "finish_s",
            lambda stages, chunks, late=wrong_s: finish([s._replace(credit_s=late) for s in stages], chunks),
        )  # fmt: skip
        assert abs(starved(direction)) > 0.08


@pytest.mark.parametrize(
    ("direction", "group_size"), [("dispatch", 8), ("combine", 8), ("dispatch", 16), ("combine", 16)]
)
def test_one_rank_stands_for_all_where_loads_are_even(direction: str, group_size: int) -> None:
    one = op(direction, group_size, 512)
    folded = run([cargo.even(one)], Setting(LINKS, 12))[0].ns
    whole = run([cargo_of_tokens(direction, one.row_bytes, one.tokens, *even_tokens(one))], Setting(LINKS, 12))[0]
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
    """What comes out of turn waits for what is there, and for nothing once that is through."""
    clock, begun = Clock(), []
    sender, target = Port(clock), Port(clock)
    for time, ns in ((5, 10), (6, 10), (6, 3), (15, 1), (40, 1)):
        clock.at(time, sender.book, ns, lambda: begun.append(clock.now))
    clock.work_off()
    assert begun == [5, 15, 25, 28, 40]
    assert (target.receive(5, 10, 15), target.receive(5, 10, 15)) == (15, 25)


def test_a_buffer_learns_of_room_when_its_credits_come() -> None:
    buffer = Buffer(8, Bell(Clock()), 2)
    assert buffer.has(20, 0)  # more than it holds: all of it
    buffer.take(8, 0)
    buffer.give(7, 8)
    assert not buffer.has(1, 8) and buffer.next == 9 and buffer.has(8, 9)


@given(
    st.lists(st.tuples(st.integers(1, 30), st.integers(1, 12)), min_size=1, max_size=8),
    st.lists(st.integers(1, 300), max_size=12, unique=True), st.integers(0, 9),
)  # fmt: skip
def test_room_comes_back_as_tokens_are_reduced(spans: list[tuple[int, int]], through: list[int], back: int) -> None:
    """Row by row: each of a chunk's rows is free once its share of the chunk's tokens is reduced."""
    plan, at = [], 0
    for tokens, rows in spans:
        at += tokens
        plan.append(cargo.Chunk(at, 1, rows, (rows,)))
    progress = Progress()
    bay = Bay(sum(chunk.rows for chunk in plan), back, plan, progress)
    bay.free = 0
    steps = [done for done in sorted(through) if done < at] + [at]
    rows_at = [
        chunk.at - tokens + -(-tokens * row // chunk.rows)
        for chunk, (tokens, _) in zip(plan, spans, strict=True) for row in range(1, chunk.rows + 1)
    ]  # fmt: skip
    for done in steps:
        progress.add(done, 10 * done)
        free = sum(row <= done for row in rows_at)
        assert (bay.has(free, 10 * done + back) and not bay.has(free + 1, 10 * done + back)) or free == len(rows_at)
    assert bay.free == len(rows_at) and bay.next(Bell(Clock())) is None and len(progress.bells) == 1


# --- groups -----------------------------------------------------------------------------------------------------------


def test_exchanges_come_in_order_and_wait_for_the_last_rank() -> None:
    """Two micro-batches' exchanges; a rank that is late to the first makes the group wait."""
    one = op("dispatch", 16, 256)
    whole = cargo_of_tokens("dispatch", one.row_bytes, one.tokens, *even_tokens(one))
    alone = run([whole], Setting(LINKS, 12))[0]
    late = [[0] * 15 + [1_000_000]]
    first, second = run([whole, replace(whole, combine=True)], Setting(LINKS, 12), late)
    assert alone.came == 0 and first.came == 1_000_000 and first.barrier == alone.barrier == 2800 + 3330
    assert first.ns == alone.ns and second.came == max(first.ends) and second.ns > 0


def test_compute_beside_takes_time_of_sms_and_memory() -> None:
    """Half of the SMs' time makes warps half as fast; memory binds once compute leaves less than rows need."""
    one = cargo.even(op("dispatch", 16, 2048))
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
    monkeypatch.setattr(servers.Buffer, "give", lambda self, end, rows: None)
    with pytest.raises(group.DeadlockError, match="1 of 1 ranks wait for ever"):
        run([cargo.even(op("dispatch", 64, 2048))], Setting(LINKS, 4))


def test_no_sm_is_refused() -> None:
    with pytest.raises(Refused, match="at least 1 SM; found 0"):
        Setting(LINKS, 0)


@pytest.mark.parametrize("seed", [0, 1])
def test_a_forwarder_knows_the_first_chunks_that_miss_nobody(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """Kept in the order of tokens as chunks become whole and leave: what a look at all queues finds."""
    seen, look = [], combine.Combine.next_sheet

    def checked(self: combine.Combine) -> Course[combine.Sheet]:
        queues = enumerate(self.sheets)
        seen.append(sorted((queue[0].chunk.at, turn) for turn, queue in queues if queue and not queue[0].missing))
        assert self.heads == seen[-1]
        return look(self)

    monkeypatch.setattr(combine.Combine, "next_sheet", checked)
    one = exchange("combine", 4, 8, 1024)
    to_nodes, to_ranks = even_tokens(one)
    liked = np.random.default_rng(seed).uniform(0.2, 1.8, 4)
    tokens = to_nodes * liked, to_ranks * liked.repeat(8)
    run([cargo_of_tokens("combine", one.row_bytes, one.tokens, *tokens)], Setting(LINKS, 4, sizes=Buffers(6, 24, 160)))
    assert max(map(len, seen)) > 1
