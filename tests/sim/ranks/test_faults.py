"""Faults: whom they touch, how they stretch work inside their window, and what they leave alone."""

from dataclasses import replace
from fractions import Fraction
from functools import cache
from math import ceil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim import plan
from sim.lower import lower
from sim.ranks.faults import Slow, of_group, on_compute, on_links, ranks, stretched
from sim.ranks.uneven import Durations
from sim.scenario import FOREVER, Fault, ScenarioError, from_mapping
from sim.template import STREAMS


def slow(factor, start=0, end=FOREVER):
    return Slow(np.array([float(factor)]), start, end)


def one(start, work, fault):
    return int(stretched(np.array([start]), np.array([work]), [fault])[0])


def integrated(start, work, *windows):
    """Exact duration: work is done at rate 1, divided by the factor of every window the moment lies in."""
    at, left = Fraction(start), Fraction(work)
    cuts = sorted({Fraction(edge) for _, a, b in windows for edge in (a, b)})
    while left:
        rate = Fraction(1)
        for factor, a, b in windows:
            rate /= Fraction(factor) if a <= at < b else 1
        until = next((cut for cut in cuts if cut > at), None)
        if until is None or (until - at) * rate >= left:
            return ceil(at + left / rate - start)
        left -= (until - at) * rate
        at = until
    return 0


def ns_by_ns(start, work, factor, first, last):
    """The same with a whole-numbered factor, a nanosecond at a time: `factor` of them do one ns of work inside."""
    at, left = start, work * factor
    while left > 0:
        left -= 1 if first <= at < last else factor
        at += 1
    return at - start


# --- stretching -------------------------------------------------------------------------------------------------------


@given(st.integers(0, 40), st.integers(0, 40), st.integers(1, 4), st.integers(0, 40), st.integers(1, 40))
def test_brute_force(start, work, factor, first, length):
    assert one(start, work, slow(factor, first, first + length)) == ns_by_ns(start, work, factor, first, first + length)


TIMES = st.integers(0, 10**10)
FACTORS = st.floats(1, 8).map(lambda f: round(f, 3))


@given(TIMES, TIMES, FACTORS, TIMES, st.integers(1, 10**10))
def test_exact_integral(start, work, factor, first, length):
    """To a nanosecond: floats round where fractions do not."""
    exact = integrated(start, work, (factor, first, first + length))
    assert abs(one(start, work, slow(factor, first, first + length)) - exact) <= 1


@given(TIMES, TIMES, FACTORS)
def test_for_ever(start, work, factor):
    assert abs(one(start, work, slow(factor)) - work * Fraction(factor)) <= 1


@given(TIMES, TIMES, TIMES, st.integers(1, 10**10))
def test_a_factor_of_one_changes_nothing(start, work, first, length):
    assert one(start, work, slow(1, first, first + length)) == work


@pytest.mark.parametrize(
    ("start", "work", "expected"),
    [
        (0, 100, 100),  # done when the window opens
        (200, 50, 50),  # begun when it has closed
        (100, 40, 80),  # all inside
        (100, 50, 100),  # just inside
        (100, 51, 101),  # a nanosecond of it after
        (90, 20, 30),  # 10 before, 10 inside
        (50, 200, 250),  # 50 before, 50 inside in 100, 100 after
        (199, 10, 11),  # half a nanosecond's work inside
        (99, 1, 1),
        (150, 0, 0),
    ],
)
def test_a_window_of_100_ns_at_half_speed(start, work, expected):
    assert one(start, work, slow(2, 100, 200)) == expected


@given(st.integers(0, 1000), st.integers(0, 1000), st.integers(0, 1000), st.tuples(FACTORS, FACTORS).map(sorted),
       st.integers(0, 1000), st.integers(1, 1000))  # fmt: skip
def test_later_stays_later_and_slower_stays_slower(start, wait, work, factors, first, length):
    less, more = (slow(f, first, first + length) for f in factors)
    assert start + one(start, work, less) <= start + wait + one(start + wait, work, less) + 1
    assert work <= one(start, work, less) <= one(start, work, more) + 1
    assert one(start, work, more) <= ceil(work * factors[1]) + 1


def test_replicas_have_starts_work_and_factors_of_their_own() -> None:
    fault = Slow(np.array([1.0, 2.0, 2.0, 4.0]), 100, 200)
    found = stretched(np.array([100, 100, 0, 100]), np.array([50, 50, 100, 75]), [fault])
    assert found.tolist() == [50, 100, 100, 150]
    assert found.dtype == np.int64


# --- whom -------------------------------------------------------------------------------------------------------------


def test_ranks_of_a_fault() -> None:
    assert list(ranks(Fault("gpu", 5, 2.0), 8)) == [5]
    assert list(ranks(Fault("link", 5, 2.0), 8)) == [5]
    assert list(ranks(Fault("node", 2, 2.0), 8)) == list(range(16, 24))


def test_faults_fall_on_the_position_that_holds_their_ranks() -> None:
    """4 positions of 8 replicas, nodes of 8: rank 19 is replica 3 of position 2; node 1 is position 1."""
    faults = [Fault("gpu", 19, 1.5, 10, 20), Fault("node", 1, 1.2), Fault("link", 8, 3.0)]
    on = [on_compute(faults, p, 8, 8) for p in range(4)]
    assert [len(found) for found in on] == [0, 1, 1, 0]
    assert on[1][0].factor.tolist() == [1.2] * 8
    assert (on[2][0].factor.tolist(), on[2][0].start_ns, on[2][0].end_ns) == ([1, 1, 1, 1.5, 1, 1, 1, 1], 10, 20)
    assert [len(on_links(faults, p, 8, 8)) for p in range(4)] == [0, 1, 0, 0]
    assert on_links(faults, 1, 8, 8)[0].factor.tolist() == [3.0] + [1.0] * 7


def test_a_node_may_hold_two_positions() -> None:
    """8 GPUs, 4 replicas a position: node 0 is positions 0 and 1; with 12 replicas node 1 is parts of both."""
    assert [len(on_compute([Fault("node", 0, 2.0)], p, 4, 8)) for p in range(3)] == [1, 1, 0]
    first, second = (on_compute([Fault("node", 1, 2.0)], p, 12, 8)[0].factor.tolist() for p in (0, 1))
    assert first == [1.0] * 8 + [2.0] * 4 and second == [2.0] * 4 + [1.0] * 8


def test_a_group_feels_its_slowest_member() -> None:
    felt = of_group(Slow(np.array([1.0, 3.0, 1.0, 1.0]), 5, 9), 2)
    assert (felt.factor.tolist(), felt.start_ns, felt.end_ns) == ([3.0, 3.0, 1.0, 1.0], 5, 9)


# --- in a run ---------------------------------------------------------------------------------------------------------

TINY = {
    "cluster": {"node": "h800x8", "nodes": 2},
    "model": {"base": "deepseek_v2_lite", "layers": 4, "mtp_depth": 0, "q_rank": 128, "vocabulary": 1024},
    "parallel": {"pipeline": 2, "expert": 8},
    "schedule": "1f1b",
    "batch": {"micro_batches": 4, "sequence_length": 512},
    "placement": "even",
}


@cache
def lowered(*overrides):
    laid = plan.lay_out(from_mapping(TINY, overrides))
    machine = plan.machine(laid)
    return laid, machine, lower(laid, machine)


def durations(*faults, overrides=()):
    laid, machine, low = lowered(*overrides)
    return low, Durations(laid, machine, low.kits, low.first_layer, None, faults, 0.0)


def lengths(*faults, lane, position=0, at=0, overrides=()):
    """Durations of the first step's first segment on a lane, all replicas beginning at `at`."""
    low, found = durations(*faults, overrides=overrides)
    number = low.jobs[position][0].template.order[lane][0]
    return np.broadcast_to(found(position, 0, number, np.full(8, at)), (8,)).tolist()


COMPUTE, COMMUNICATION = STREAMS[:2]


def test_a_slow_gpu_computes_slower_and_talks_as_fast() -> None:
    (plain, *_), talk = lengths(lane=COMPUTE), lengths(lane=COMMUNICATION)
    fault = Fault("gpu", 3, 2.0)
    assert lengths(fault, lane=COMPUTE) == [plain] * 3 + [2 * plain] + [plain] * 4
    assert lengths(fault, lane=COMMUNICATION) == talk
    assert lengths(fault, lane=COMPUTE, position=1) == lengths(lane=COMPUTE, position=1)


def test_two_faults_on_one_rank_multiply() -> None:
    plain = lengths(lane=COMPUTE)[0]
    assert lengths(Fault("gpu", 3, 2.0), Fault("node", 0, 3.0), lane=COMPUTE)[3] == 6 * plain


def test_a_fault_counts_only_in_its_window() -> None:
    plain = lengths(lane=COMPUTE)[0]
    assert lengths(Fault("gpu", 3, 2.0, 1000, 2000), lane=COMPUTE, at=2000) == [plain] * 8
    assert lengths(Fault("gpu", 3, 2.0, 1000, 2000), lane=COMPUTE)[3] == plain + 500


ACROSS = ("parallel.pipeline=1", "parallel.expert=16")


def test_a_slow_link_delays_its_whole_group() -> None:
    low, plain = durations(overrides=ACROSS)
    number = low.jobs[0][0].template.order[COMMUNICATION][0]
    at = np.zeros(16, dtype=np.int64)
    base = np.broadcast_to(plain(0, 0, number, at), (16,))
    assert (durations(Fault("link", 3, 2.0), overrides=ACROSS)[1](0, 0, number, at) == 2 * base).all()


# --- what is known to be wrong ----------------------------------------------------------------------------------------


def test_two_slow_links_in_a_group_are_as_slow_as_the_slowest():
    """Eight NICs of a node at half speed make an exchange 256 times as long; V3's step goes from 22 s to 2,475 s."""
    low, plain = durations(overrides=ACROSS)
    number = low.jobs[0][0].template.order[COMMUNICATION][0]
    at = np.zeros(16, dtype=np.int64)
    base = np.broadcast_to(plain(0, 0, number, at), (16,))
    faults = [Fault("link", r, 2.0) for r in (3, 4)]
    assert (durations(*faults, overrides=ACROSS)[1](0, 0, number, at) == 2 * base).all()


def composed(start, work, *windows):
    """The duration under all windows at once."""
    slow = [Slow(np.array([float(factor)]), begin, end) for factor, begin, end in windows]
    return int(stretched(np.array([start]), np.array([work]), slow)[0])


@settings(derandomize=True)
@given(st.permutations([(2, 0, 10), (2, 20, 30), (3, 40, 50)]), st.integers(0, 20), st.integers(1, 40))
def test_windows_apart_stretch_in_any_order(windows, start, work):
    """A flapping link: 20 ns of work from 0 with [0, 10) and [20, 30) at half speed take 30 ns, not 25."""
    assert composed(start, work, *windows) == integrated(start, work, *windows)


def test_windows_that_overlap_multiply_while_both_last():
    """2.5 ns of work by 5, 1.25 by 10, 2.5 by 15, then the rest: 18.75."""
    assert composed(0, 10, (2, 0, 10), (2, 5, 15)) == integrated(0, 10, (2, 0, 10), (2, 5, 15)) == 19


def test_a_slow_nic_leaves_nvlink_alone():
    """Expert group of 8 on one node of 8 GPUs: nothing of its exchange passes a NIC."""
    laid, machine, _ = lowered()
    assert machine.site.group_nodes == 1 and laid.data == 8
    assert lengths(Fault("link", 3, 2.0), lane=COMMUNICATION) == lengths(lane=COMMUNICATION)


def test_a_slow_nic_leaves_messages_inside_a_node_alone():
    """4 replicas a position: positions 0 and 1 share a node, and the price of a message says NVLink."""
    laid, machine, low = lowered("cluster.nodes=1", "parallel.expert=4")
    found = Durations(laid, machine, low.kits, low.first_layer, None, (Fault("link", 1, 2.0),), 0.0)
    assert found.wire(0, np.zeros(4, dtype=np.int64), 1000).tolist() == [1000] * 4


@pytest.mark.xfail(strict=True, reason="only the sender's NIC counts")
def test_a_slow_nic_is_slow_to_receive():
    """Rank 9 of position 1 has a bad NIC: what it gets from rank 1 takes twice as long as well."""
    _, found = durations(Fault("link", 9, 2.0))
    assert found.wire(0, np.zeros(8, dtype=np.int64), 1000)[1] == 2000


@pytest.mark.xfail(strict=True, reason="gradient and parameter traffic do not know of link faults")
def test_a_slow_nic_slows_the_gradients_of_its_ring():
    from sim.ranks import differing

    def tail(*faults):
        laid, machine, low = lowered("parallel.pipeline=1", "parallel.expert=8")
        chosen = replace(laid, scenario=replace(laid.scenario, faults=faults))
        found = differing.run(chosen, machine, low).everyone
        return [int(ends.max() - starts.max()) for _, kind, starts, ends in found.messages[0] if kind in (3, 4)]

    assert sum(tail(Fault("link", 3, 4.0))) > sum(tail())


BAD = {**TINY, "cluster": {"node": "h800x8", "nodes": 2}}


def complaint(**keys):
    with pytest.raises(ScenarioError) as caught:
        from_mapping({**BAD, **keys})
    return str(caught.value)


def test_a_factor_below_one_is_not_told_to_be_whole():
    assert "a number, 1 or more" in complaint(faults=[{"kind": "gpu", "at": 1, "slower": 0.9}])


def test_a_factor_is_finite():
    assert "slower" in complaint(faults=[{"kind": "gpu", "at": 1, "slower": float("inf")}])


def test_a_fault_that_is_no_list():
    assert "expected a list" in complaint(faults={"kind": "gpu", "at": 1, "slower": 2})


def test_a_rank_that_is_not_there_is_named_as_elsewhere():
    assert complaint(faults=[{"kind": "gpu", "at": 99, "slower": 2}]).startswith("<mapping>: faults[0].at: 99 is not")


def test_jitter_without_a_cluster_is_blamed_on_jitter():
    times = {"forward": "1 ms", "backward_input": "1 ms", "weight": "1 ms"}
    with pytest.raises(ScenarioError, match=r"<mapping>: jitter: "):
        from_mapping({"schedule": "zb1p", "parallel": {"pipeline": 2}, "batch": {"micro_batches": 4},
                      "chunk_times": times, "jitter": 0.1})  # fmt: skip
