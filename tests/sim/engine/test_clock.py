"""The clock: what happens in one nanosecond, in which order, and what a failed event raises."""

import pytest

from sim.engine.clock import Clock


def test_what_is_late_happens_after_all_else_of_its_nanosecond():
    """Also after what is asked for later in it, and before the next."""
    clock, told = Clock(), []
    clock.at(5, lambda: (clock.late(lambda _: told.append("late")), clock.at(5, told.append, "again")))
    clock.at(5, told.append, "second")
    clock.at(6, told.append, "next")
    clock.work_off()
    assert told == ["second", "again", "late", "next"] and clock.now == 6


def test_calls_keep_their_order_and_are_never_before_now():
    clock, told = Clock(), []
    event = clock.after(3, lambda happened: told.append(happened))
    clock.at(3, lambda: (clock.at(1, told.append, "past"), told.append("now")))
    clock.work_off()
    assert told == [event, "now", "past"] and clock.now == 3


def test_a_process_sleeps_and_what_fails_is_raised_as_it_is():
    clock, told = Clock(), []

    def life():
        yield clock.until(4)
        told.append(clock.now)
        yield clock.until(2)
        told.append(clock.now)
        raise LookupError("two", "arguments")

    clock.process(life())
    with pytest.raises(LookupError) as caught:
        clock.work_off()
    assert told == [4, 4] and caught.value.args == ("two", "arguments")
