"""ZB1P against the closed forms of arXiv:2412.19437, table 2, and arXiv:2401.10241, section 2.1."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.schedules.program import Shape, build, check, in_flight, names, postponing


@pytest.mark.parametrize("ranks", [2, 4, 8, 16])
@pytest.mark.parametrize("per_rank", [1, 2, 5])
def test_bubble(clock, ranks, per_rank):
    """A third of 1F1B's: F + B - 2W = 1 where F + B = 3."""
    times = clock(build("zb1p", Shape(ranks, per_rank * ranks)), f=1, b=1, w=1)
    assert times.idle == [ranks - 1] * ranks


@given(data=st.data(), ranks=st.integers(1, 6), w=st.integers(1, 6))
def test_bubble_holds_for_short_weight_gradients(clock, data, ranks, w):
    f, b = (data.draw(st.integers(w, 9), name) for name in "fb")
    micro_batches = data.draw(st.integers(ranks, 3 * ranks), "micro-batches")
    idle = clock(build("zb1p", Shape(ranks, micro_batches)), f, b, w).idle
    assert idle == [(ranks - 1) * (f + (b + w) - 2 * w)] * ranks


@given(ranks=st.integers(2, 8), data=st.data())
def test_never_slower_than_1f1b(clock, ranks, data):
    micro_batches = data.draw(st.integers(1, 3 * ranks))
    split, full = (clock(build(name, Shape(ranks, micro_batches))).makespan for name in ("zb1p", "1f1b"))
    assert split < full


@given(ranks=st.integers(1, 10), micro_batches=st.integers(1, 30))
def test_activations_are_level(ranks, micro_batches):
    """Published: PP. Late weight gradients hold on every rank what 1F1B holds on the first."""
    assert in_flight(build("zb1p", Shape(ranks, micro_batches))) == [min(ranks, micro_batches)] * ranks


def test_weight_gradients_lag_by_the_rank():
    rank_2 = " ".join(map(str, build("zb1p", Shape(3, 4)).steps[2]))
    assert rank_2 == "F2.0 B2.0 F2.1 B2.1 F2.2 B2.2 W2.0 F2.3 B2.3 W2.1 W2.2 W2.3"


@given(ranks=st.integers(1, 8), micro_batches=st.integers(1, 20), waiting=st.integers(0, 9))
def test_a_limit_of_what_waits(ranks, micro_batches, waiting):
    """Never more weight gradients wait than the limit; one that is no limit changes nothing; all runs either way."""
    shape = Shape(ranks, micro_batches)
    limited = build("zb1p", Shape(ranks, micro_batches, waiting=waiting))
    check(limited)
    if waiting >= ranks - 1:
        assert limited.steps == build("zb1p", shape).steps
    for row in limited.steps:
        late, most = 0, 0
        for step in row:
            late += {"B": 1, "W": -1}.get(step.kind, 0)
            most = max(most, late)
        assert most <= waiting + 1, "one has just come"


@pytest.mark.parametrize("waiting", range(5))
def test_each_that_does_not_wait_leaves_a_bubble(clock, waiting):
    """(PP - 1)(F + B) - 2W for each of the ranks' weight gradients that fill it."""
    idle = max(clock(build("zb1p", Shape(5, 20, waiting=waiting)), f=1, b=1, w=1).idle)
    assert idle >= max(clock(build("zb1p", Shape(5, 20)), f=1, b=1, w=1).idle)
    fewer = max(clock(build("zb1p", Shape(5, 20, waiting=max(0, waiting - 1))), f=1, b=1, w=1).idle)
    assert fewer >= idle


def test_only_schedules_that_put_off_heed_it():
    assert [name for name in names() if postponing(name)] == ["zb1p"]
