"""What exchanges leave of NICs to messages: against a walk through every nanosecond, and closed forms."""

from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwmodels.collectives import UNHINDERED, Hindrance
from sim.engine.actor import Record
from sim.engine.nic import FAIR, Nic, Passage, Window
from sim.engine.wire import REDUCE, SLICE, Load, Wire


class Counted:
    """A clock that a test advances."""

    def __init__(self) -> None:
        self.now, self.calls, self.numbers = 0, [], count()

    def at(self, time, call, *words):
        self.calls.append((time, 1, next(self.numbers), call, words))

    def late(self, call):
        self.calls.append((self.now, 2, next(self.numbers), call, (None,)))

    def run(self, until=10**9):
        while self.calls and min(self.calls)[0] <= until:
            first = min(self.calls)
            self.calls.remove(first)
            self.now = first[0]
            first[-2](*first[-1])
        self.now = max(self.now, until if until < 10**9 else 0)


@st.composite
def steps(draw):
    """Starts of a rank's steps and their exchanges: (start, windows), one after the other."""
    found, at = [], 0
    for _ in range(draw(st.integers(0, 4))):
        at += draw(st.integers(0, 9))
        windows, inside = [], 0
        for _ in range(draw(st.integers(0, 3))):
            start = inside + draw(st.integers(0, 6))
            inside = start + draw(st.integers(1, 9))
            windows.append(Window(start, inside, draw(st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]))))
        found.append((at, tuple(windows)))
        at += inside
    return found


def walked(ends, hindrance, ns, start):
    """Ns until work is done, one nanosecond after the other."""

    def taken(at):
        return max((w.part for rank in ends for begun, windows in rank for w in windows
                    if begun + w.start <= at < begun + w.end), default=0.0)  # fmt: skip

    left, at = float(ns), start
    while left > 1e-9:
        part = taken(at)
        pace = min(1.0, max(1 - part, FAIR) * hindrance.slower, max(1 - part * hindrance.exchanges, FAIR))
        left, at = left - pace, at + 1
    return at


@given(st.lists(steps(), min_size=1, max_size=3), st.integers(0, 40), st.integers(0, 30),
       st.sampled_from([UNHINDERED, Hindrance(2.0, 0.0), Hindrance(1.0, 1.0), Hindrance(4.0, 0.5)]))  # fmt: skip
@settings(max_examples=300, deadline=None)
def test_a_passage_takes_what_a_walk_takes(ends, ns, start, hindrance):
    """Whatever steps start while it is on its way."""
    clock, nics = Counted(), [Nic() for _ in ends]
    wire, arrived = Wire(clock, Record()), []
    for nic, rank in zip(nics, ends, strict=True):
        for begun, windows in rank:
            clock.at(begun, lambda nic=nic, windows=windows: nic.begin(clock.now, windows))
    load = Load(1, 0, ns, nics, hindrance, lambda: arrived.append(clock.now))
    clock.at(start, lambda: wire.leave(load))
    clock.run()
    assert arrived == [walked(ends, hindrance, ns, start)]
    assert list(wire.record.network) == [start, arrived[0], 0, 1] and all(not nic.users for nic in nics)


def test_an_exchange_leaves_its_rest_and_no_less_than_a_fair_part():
    nic = Nic()
    nic.begin(100, (Window(0, 50, 0.2), Window(60, 160, 0.9)))
    assert Passage([nic], UNHINDERED, 40, 100).end() == 150  # 40 at 0.8
    assert Passage([nic], UNHINDERED, 60, 100).end() == 100 + 60 + 20  # 40 in 50, 10 in 10, 10 at a half
    assert Passage([nic], UNHINDERED, 1000, 300).end() == 1300
    assert Passage([], UNHINDERED, 40, 100).end() == 140


def test_the_slower_of_nics_and_switches_counts():
    """A fabric that gives a message a quarter of a NIC leaves it none the slower for exchanges that leave a half."""
    nic = Nic()
    nic.begin(0, (Window(0, 100, 0.5),))
    assert Passage([nic], Hindrance(4.0), 80, 0).end() == 80
    assert Passage([nic], Hindrance(4.0, 1.0), 80, 0).end() == 130  # exchanges need half of its links, too


def test_a_step_that_starts_meanwhile_delays_what_is_left():
    nic = Nic()
    passage = Passage([nic], UNHINDERED, 100, 0)
    assert passage.end() == 100
    passage.advance(40)
    nic.begin(40, (Window(10, 1000, 1.0),))
    assert passage.end() == 50 + 2 * 50


def test_a_step_without_exchanges_changes_nothing():
    nic = Nic()
    nic.begin(0, (Window(0, 10, 1.0),))
    nic.begin(5, ())
    assert Passage([nic], UNHINDERED, 10, 7).end() == 19  # 3 ns at half the rate, then 8.5


def test_messages_go_before_reductions_that_wait_and_ties_by_kind():
    clock = Counted()
    wire, order = Wire(clock, Record()), []

    def load(kind, step, ns):
        return Load(kind, step, ns, (), UNHINDERED, lambda: order.append((kind, step, clock.now)))

    for each in (load(REDUCE, 1, 5), load(2, 7, 3), load(REDUCE, 0, 2), load(1, 7, 4)):
        wire.leave(each)
    clock.run(6)
    wire.leave(load(1, 8, 1))
    clock.run()
    assert order == [(1, 7, 4), (2, 7, 7), (1, 8, 8), (REDUCE, 0, 10), (REDUCE, 1, 15)]
    assert list(wire.record.network) == [0, 4, 7, 1, 4, 7, 7, 2, 7, 8, 8, 1, 8, 10, -1, 3, 10, 15, -2, 3]


def test_a_reduction_lets_messages_pass_between_slices_and_goes_on_before_others():
    """Two and a half slices alone; beside an exchange that takes a quarter of its NIC meanwhile."""
    clock, nic = Counted(), Nic()
    wire, order = Wire(clock, Record()), []

    def load(kind, step, ns):
        return Load(kind, step, ns, [nic], UNHINDERED, lambda: order.append((kind, step, clock.now)))

    nic.begin(0, (Window(0, 2 * SLICE, 0.25),))
    for each in (load(REDUCE, 0, 5 * SLICE // 2), load(REDUCE, 1, SLICE)):
        wire.leave(each)
    clock.run(SLICE // 2)
    for step in (3, 4):
        wire.leave(load(1, step, 3 * SLICE // 8))  # half a slice beside the exchange
    clock.run(SLICE * 9 // 4)
    wire.leave(load(2, 5, 10))
    clock.run()
    first, last = 2 * SLICE + SLICE, 2 * SLICE + SLICE + 10 + 3 * SLICE // 4
    assert list(wire.record.network) == [
        0, SLICE, -1, 3, SLICE, 3 * SLICE // 2, 3, 1, 3 * SLICE // 2, 2 * SLICE, 4, 1, 2 * SLICE, first, -1, 3,
        first, first + 10, 5, 2, first + 10, last, -1, 3, last, last + SLICE, -2, 3,
    ]  # fmt: skip
    assert order == [(1, 3, 3 * SLICE // 2), (1, 4, 2 * SLICE), (2, 5, first + 10), (3, 0, last), (3, 1, last + SLICE)]


@pytest.mark.parametrize("part", [0.0, 0.3, 1.0])
def test_bytes_are_conserved(part):
    """Beside an exchange that lasts, a message takes its work over what is free."""
    nic = Nic()
    nic.begin(0, (Window(0, 10**9, part),))
    assert Passage([nic], UNHINDERED, 1000, 0).end() == pytest.approx(1000 / max(1 - part, FAIR), abs=1)
