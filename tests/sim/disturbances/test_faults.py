"""Faults: whom they touch, how they stretch work inside their window, and what they leave alone."""

from dataclasses import replace
from fractions import Fraction
from functools import cache
from math import ceil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwmodels.document import DocumentError
from sim import assembly
from sim.disturbances.durations import Durations, contents
from sim.disturbances.faults import Pace, Slowed, course, missed, of_ranks, plainly, ranks
from sim.engine.lowering import lower
from sim.layout import plan
from sim.layout.mesh import Mesh
from sim.scenario import FOREVER, Fault, from_mapping
from sim.step.template import STREAMS
from tests.oracles.timelines import run, took


def slow(factor, start=0, end=FOREVER, **times):
    return Fault("gpu", 0, float(factor), start, end, **times)


def one(start, work, *faults, worst=False):
    return int(Pace(faults, plainly, worst).durations(np.array([start]), np.array([work]))[0])


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


@given(TIMES, TIMES, TIMES, st.integers(1, 8), FACTORS, TIMES, st.integers(1, 10**10), st.sampled_from([0, 7 * 10**9]))
def test_moved_work_meets_the_windows_where_they_are(begun, start, work, times, factor, first, length, every):
    """What took so long in a run takes what it would take begun elsewhere, with `times` as much work; the nanosecond to
    which durations in a run are whole grows with both. Where nothing moves it is as long as it was, exactly."""
    fault = flapping(factor, first, every, min(length, every)) if every else slow(factor, first, first + length)
    pace = Pace([fault], plainly, worst=False)
    took = one(begun, work, fault)
    moved = pace.moved(begun, np.array([begun, start], dtype=float), took, np.array([1.0, times]))
    assert moved[0] == took
    assert moved[1] == pytest.approx(one(start, times * work, fault), abs=2 + times * factor)


@given(st.integers(0, 1000), st.integers(0, 1000), st.integers(0, 1000), st.tuples(FACTORS, FACTORS).map(sorted),
       st.integers(0, 1000), st.integers(1, 1000))  # fmt: skip
def test_later_stays_later_and_slower_stays_slower(start, wait, work, factors, first, length):
    less, more = (slow(f, first, first + length) for f in factors)
    assert start + one(start, work, less) <= start + wait + one(start + wait, work, less) + 1
    assert work <= one(start, work, less) <= one(start, work, more) + 1
    assert one(start, work, more) <= ceil(work * factors[1]) + 1


def test_replicas_have_starts_work_and_faults_of_their_own() -> None:
    two, four = slow(2, 100, 200), slow(4, 100, 200)
    found = Slowed([(), (two,), (two,), (four,)]).durations(np.array([100, 100, 0, 100]), np.array([50, 50, 100, 75]))
    assert found.tolist() == [50, 100, 100, 150]
    assert found.dtype == np.int64


# --- again and again --------------------------------------------------------------------------------------------------


def flapping(factor, start, every, lasts, end=FOREVER):
    return slow(factor, start, end, every_ns=every, lasts_ns=lasts)


def windows(factor, start, every, lasts, end, until):
    return [(factor, at, min(at + lasts, end)) for at in range(start, min(until, end), every)]


ENDS = st.one_of(st.just(FOREVER), st.integers(60, 300))
FLAPS = st.tuples(FACTORS, st.integers(0, 50), st.integers(2, 40), st.integers(1, 39), ENDS)
FLAPS = FLAPS.filter(lambda flap: flap[3] < flap[2])


@settings(deadline=None)
@given(st.integers(0, 300), st.integers(0, 300), FLAPS)
def test_a_flapping_fault_is_its_windows_one_by_one(start, work, flap):
    exact = integrated(start, work, *windows(*flap, until=start + 9 * work))
    assert abs(one(start, work, flapping(*flap)) - exact) <= 1


@settings(deadline=None)
@given(st.integers(0, 300), st.integers(1, 40), FLAPS, FLAPS, st.booleans())
def test_two_flapping_faults_compose_by_moment(start, work, one_flap, other, worst):
    """Factors multiply, or the largest counts."""
    found = one(start, work, flapping(*one_flap), flapping(*other), worst=worst)
    at, left, until = start, float(work), start + 65 * work
    both = (*windows(*one_flap, until), *windows(*other, until))
    for _ in range(until + 1):
        here = [f for f, a, b in both if a <= at < b]
        factor = max(here, default=1.0) if worst else float(np.prod(here))
        if left <= 1 / factor:
            break
        left, at = left - 1 / factor, at + 1
    assert abs(found - ceil(at + left * factor - start - 1e-6)) <= 1


@settings(deadline=None)
@given(st.integers(0, 10**11), st.integers(1, 10**9))
def test_windows_far_out_are_found_when_time_gets_there(start, work):
    """A fifth of the time at half speed: 10 % of the work is lost, whenever it is."""
    found = one(start, work, flapping(2, 0, 10**6, 2 * 10**5))
    assert found == pytest.approx(work / 0.9, abs=2 * 10**5)


# --- heat -------------------------------------------------------------------------------------------------------------


def hot(slower, start=0, constant=1000):
    return Fault("thermal", 0, slower, start, time_constant_ns=constant)


def test_a_clock_falls_in_steps_to_its_end() -> None:
    """A quarter of the clock is 32 steps of 1/128; half-way after ln 2 time constants."""
    at, factors = course(hot(4 / 3, 500, 10**6), FOREVER)
    assert len(at) == 32 and factors[-1] == pytest.approx(4 / 3) and (np.diff(factors) > 0).all()
    assert np.allclose(np.diff(1 / factors), -1 / 128)
    assert (at > 500).all() and at[15] < 500 + 10**6 * np.log(2) < at[16]


@given(st.floats(1.01, 3), st.integers(1, 100))
def test_work_done_while_a_clock_falls_is_near_the_exponential(slower, constants):
    """Work up to a moment is that under the smooth curve, to a step of the clock for a time constant."""
    until, constant = constants * 10**5, 10**6
    drop = 1 - 1 / slower
    smooth = until - drop * (until - constant * (1 - np.exp(-until / constant)))
    assert one(0, round(smooth), hot(slower, 0, constant)) == pytest.approx(until, abs=slower * constant / 64)


@given(TIMES, st.integers(1, 10**9), st.floats(1, 4), st.integers(1, 10**9))
def test_heat_never_makes_faster_than_cold_nor_slower_than_the_end(start, work, slower, constant):
    taken = one(start, work, hot(slower, 10**9, constant))
    assert work <= taken <= ceil(work * slower) + 1
    assert taken <= one(start + 10**8, work, hot(slower, 10**9, constant)) + 1


# --- whom -------------------------------------------------------------------------------------------------------------


MESH = Mesh(1, 64, gpus_per_node=8)


def test_ranks_of_a_fault() -> None:
    assert list(ranks(Fault("gpu", 5, 2.0), MESH)) == [5]
    assert list(ranks(Fault("link", 5, 2.0), MESH)) == [5]
    assert list(ranks(Fault("node", 2, 2.0), MESH)) == list(range(16, 24))


def test_faults_by_rank_and_kind() -> None:
    faults = (Fault("gpu", 9, 1.5, 10, 20), Fault("node", 1, 1.2), Fault("link", 8, 3.0))
    assert of_ranks(faults, ("link",), MESH) == {8: faults[2:]}
    found = of_ranks(faults, ("gpu", "node"), MESH)
    assert sorted(found) == list(range(8, 16)) and found[9] == faults[:2] and found[8] == faults[1:2]


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
    machine = assembly.machine(laid)
    return laid, machine, lower(laid, machine)


def durations(*faults, overrides=()):
    laid, machine, low = lowered(*overrides)
    return low, Durations(laid, machine, low.kits, low.first_layer, None, faults, 0.0)


def lengths(*faults, lane, position=0, at=0, overrides=()):
    """Durations of the first step's first segment on a lane, all replicas beginning at `at`."""
    low, found = durations(*faults, overrides=overrides)
    number = low.kits[position][0].parts.order[lane][0]
    return took(found, position, 0, number, np.full(8, at)).tolist()


COMPUTE, COMMUNICATION = STREAMS[:2]


def test_a_slow_gpu_computes_slower_and_talks_as_fast() -> None:
    (plain, *_), talk = lengths(lane=COMPUTE), lengths(lane=COMMUNICATION)
    fault = Fault("gpu", 3, 2.0)
    assert lengths(fault, lane=COMPUTE) == [plain] * 3 + [2 * plain] + [plain] * 4
    assert lengths(fault, lane=COMMUNICATION) == talk
    assert lengths(fault, lane=COMPUTE, position=1) == lengths(lane=COMPUTE, position=1)


def test_a_hot_gpu_slows_products_and_not_what_memory_binds() -> None:
    """Long after its clock has fallen: a part of attention's forward is products, nothing of the embedding is."""
    hot_ranks = [Fault("thermal", rank, 2.0, time_constant_ns=10**6) for rank in (3, 11)]
    (plain, *_), late = lengths(lane=COMPUTE, position=1), 10**12
    found = lengths(*hot_ranks, lane=COMPUTE, position=1, at=late)
    assert found[:3] + found[4:] == [plain] * 7 and 1.05 * plain < found[3] < 1.95 * plain
    low, _ = durations()
    share = contents(low.kits[1][0])[low.kits[1][0].parts.order[COMPUTE][0]].clocked
    assert found[3] == pytest.approx(plain * (1 + share), abs=1)
    assert lengths(*hot_ranks, lane=COMPUTE, at=late) == lengths(lane=COMPUTE)


def test_two_faults_on_one_rank_multiply() -> None:
    plain = lengths(lane=COMPUTE)[0]
    assert lengths(Fault("gpu", 3, 2.0), Fault("node", 0, 3.0), lane=COMPUTE)[3] == 6 * plain


def test_a_fault_counts_only_in_its_window() -> None:
    plain = lengths(lane=COMPUTE)[0]
    assert lengths(Fault("gpu", 3, 2.0, 1000, 2000), lane=COMPUTE, at=2000) == [plain] * 8
    assert lengths(Fault("gpu", 3, 2.0, 1000, 2000), lane=COMPUTE)[3] == plain + 500


# --- slow NICs --------------------------------------------------------------------------------------------------------

ACROSS = ("parallel.pipeline=1", "parallel.expert=16")
START = np.zeros(16, dtype=np.int64)


def exchanges(*faults, overrides=ACROSS, starts=START):
    """Durations of all exchanges of the first step that is a forward, by name."""
    low, found = durations(*faults, overrides=overrides)
    template = low.kits[0][0].parts
    return {template.tasks[COMMUNICATION][template.segments[i].first].label: took(found, 0, 0, i, starts)
            for i in template.order[COMMUNICATION]}  # fmt: skip


def port_bound_ns(label, factor):
    """What the largest port load takes with a slow NIC, nothing but bytes and latency
    (`sim.communication.exchange.closed`)."""
    from sim.communication.exchange import closed
    from sim.communication.exchange.ports import of_op

    _, machine, low = lowered(*ACROSS)
    links = machine.pricer.wires
    slower = replace(links, nic=replace(links.nic, bandwidth=links.nic.bandwidth / factor))
    kit = low.kits[0][0]
    op = next(op for c in contents(kit) for op in c.sent if op.beside == label)
    return closed.seconds(of_op(op), slower) * 1e9


@pytest.mark.parametrize("factor", [1.5, 2.0, 4.0])
def test_a_slow_link_delays_its_whole_group_by_what_the_nic_binds(factor) -> None:
    """On two nodes NVLink and warps bind first: less than the factor; never less than the port's bytes take."""
    for (label, base), slow_ns in zip(exchanges().items(), exchanges(Fault("link", 3, factor)).values(), strict=True):
        assert len(set(slow_ns.tolist())) == 1
        assert base[0] <= slow_ns[0] < factor * base[0]
        assert slow_ns[0] >= port_bound_ns(label, factor)


def test_a_much_slower_link_binds_by_its_bytes() -> None:
    once, twice = (exchanges(Fault("link", 3, f)) for f in (500.0, 1000.0))
    for label in once:
        assert twice[label][0] == pytest.approx(2 * once[label][0], rel=0.02)


def test_two_slow_links_in_a_group_are_as_slow_as_the_slowest():
    """Eight NICs of a node at half speed are no slower than one."""
    one_link = exchanges(Fault("link", 3, 4.0))
    many = exchanges(*(Fault("link", r, 4.0) for r in range(8)), Fault("link", 9, 2.0))
    for label in one_link:
        assert (many[label] == one_link[label]).all()


def test_links_slow_one_after_the_other_do_not_add_up():
    """Each port has its own bytes: windows of two NICs that do not meet cost what the worse one does."""
    end = int(exchanges()["dispatch(F)"][0]) // 2
    first, second = Fault("link", 3, 4.0, 0, end), Fault("link", 9, 4.0, end, 2 * end)
    both = exchanges(first, second)["dispatch(F)"]
    assert (both == np.maximum(exchanges(first)["dispatch(F)"], exchanges(second)["dispatch(F)"])).all()


def test_more_tokens_than_expected_delay_only_their_rank():
    """Rank 5 receives twice as much, rank 3 has the slow NIC: rank 5 is later by its rows, the others by the NIC."""
    from sim.routing.loads import Loads

    laid, machine, low = lowered(*ACROSS)
    shape = (8, 8, 16)
    received = np.full(shape, machine.site.received, dtype=np.int32)
    received[..., 5] *= 2
    loads = Loads(received, np.full(shape, machine.site.rows, dtype=np.int32))
    number = low.kits[0][0].parts.order[COMMUNICATION][0]
    times = [took(Durations(laid, machine, low.kits, low.first_layer, loads, faults, 0.0), 0, 0, number, START)
             for faults in ((), (Fault("link", 3, 3.0),), (Fault("link", 5, 3.0),))]  # fmt: skip
    base, elsewhere, there = times
    assert base[0] < base[5] <= 2 * base[0] and len(set(elsewhere[np.arange(16) != 5].tolist())) == 1
    assert elsewhere[0] > base[0] and elsewhere[5] == max(base[5], elsewhere[0])
    assert there[0] == elsewhere[0] and there[5] > there[0]


def composed(start, work, *windows):
    """The duration under all windows at once."""
    return one(start, work, *(slow(*window) for window in windows))


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


def message(*faults, position=0, kind=1, overrides=()):
    """Durations of the first message of that kind from a position."""
    low, found = durations(*faults, overrides=overrides)
    step, ns = next((k, ns) for k, job in enumerate(low.jobs[position]) for sent, ns in job.sends if sent == kind)
    data = lowered(*overrides)[0].data
    return ns, found.wire(position, step, kind, np.zeros(data, dtype=np.int64), ns).tolist()


INSIDE = ("cluster.nodes=2", "parallel.expert=4", "parallel.pipeline=4")


APART = ("cluster.nodes=4", "parallel.expert=4")
"""Replicas of a position on two nodes."""


@pytest.mark.parametrize("longer", [1.0, 1.7])
def test_rings_that_exchanges_delay_are_stretched_as_a_whole(longer):
    """What a reduction takes beside exchanges is shared out to its rings; a slow NIC stretches each."""
    low, slow = durations(Fault("link", 3, 2.0), overrides=APART)
    _, plain = durations(overrides=APART)
    starts = np.zeros(16, dtype=np.int64)
    ((_, stage, ns),) = low.syncs[0].reduces
    assert plain.wire(0, stage, 3, starts, round(ns * longer)).tolist() == [round(ns * longer)] * 16
    alone = slow.wire(0, stage, 3, starts, ns)
    assert slow.wire(0, stage, 3, starts, round(ns * longer)) == pytest.approx(alone * longer, abs=4)
    # NVLink binds the dense ring of all; every fourth rank has the slow one's experts
    assert (alone[3::4] > 1.5 * ns).all() and set(np.delete(alone, np.s_[3::4]).tolist()) == {ns}
    elsewhere = durations(Fault("link", 3, 2.0, 10**12, 10**13), overrides=APART)[1]
    assert elsewhere.wire(0, stage, 3, starts, round(ns * longer)).tolist() == [round(ns * longer)] * 16


def test_a_slow_nic_leaves_messages_inside_a_node_alone():
    """4 replicas a position: positions 0 and 1 share a node, and the price of a message says NVLink; 1 and 2 do not."""
    ns, found = message(Fault("link", 1, 2.0), Fault("link", 5, 2.0), overrides=INSIDE)
    assert found == [ns] * 4
    ns, found = message(Fault("link", 1, 2.0), Fault("link", 5, 2.0), position=1, overrides=INSIDE)
    assert found[0] == ns and 1.5 * ns < found[1] < 2 * ns


@pytest.mark.parametrize(("position", "kind"), [(0, 1), (1, 2)])
@pytest.mark.parametrize("slow_rank", [1, 9])
def test_a_slow_nic_is_slow_to_send_and_to_receive(position, kind, slow_rank):
    """Ranks 1 and 9 exchange messages; with a NIC at half speed the bytes take twice as long, the latency does not."""
    ns, found = message(Fault("link", slow_rank, 2.0), position=position, kind=kind)
    links = lowered()[1].pricer.wires
    latency = ns - found[1] + ns
    assert found[:1] + found[2:] == [ns] * 7
    assert min(links.latency_s, links.far_latency_s) * 1e9 - 2 <= latency <= links.far_latency_s * 1e9 + 2


def test_a_message_goes_at_the_pace_of_its_slower_end():
    both = message(Fault("link", 1, 2.0), Fault("link", 9, 3.0))[1]
    assert both == message(Fault("link", 9, 3.0))[1]


def ring(kind, *faults, overrides=("parallel.pipeline=1",)):
    """Durations of the first reduction (3), or of the all-gather (4), of the first position."""
    low, found = durations(*faults, overrides=overrides)
    step, ns = low.syncs[0].reduces[0][1:] if kind == 3 else (-1, low.syncs[0].gather_ns)
    return ns, found.wire(0, step, kind, START, ns)


@pytest.mark.parametrize("kind", [3, 4])
def test_a_ring_goes_at_the_pace_of_its_slowest_hop(kind):
    """Two nodes of 8: the dense ring of all 16 ranks has 8 NICs to a node and is bound by NVLink until they are slow;
    an expert's ring is two ranks over one NIC each, and only ranks 3 and 11 hold those experts."""
    ns, plain = ring(kind)
    assert (plain == ns).all()
    found = ring(kind, Fault("link", 3, 1.2))[1]
    others = np.delete(found, [3, 11])
    assert found[3] == found[11] > others.max() and others.min() == others.max() == ns
    slower = ring(kind, Fault("link", 3, 8.0))[1]
    assert slower[3] == slower[11] > np.delete(slower, [3, 11]).max() > ns
    assert (ring(kind, Fault("link", 3, 8.0), Fault("link", 12, 8.0))[1] >= slower).all()


def test_a_slow_nic_slows_a_ring_of_nccl_as_much_as_its_links() -> None:
    ns, slow = ring(3, Fault("link", 3, 8.0), overrides=("parallel.pipeline=1", "comm.collectives=nccl"))
    assert slow[3] == slow[11] > np.delete(slow, [3, 11]).max() > ns


def test_a_slow_nic_slows_the_gradients_of_its_ring():
    def tail(*faults):
        laid, machine, _ = lowered("parallel.pipeline=1", "parallel.expert=8")
        network = run(laid, machine, *faults).timeline.network[0]
        return [int(t.ends.max() - t.starts.max()) for t in network if t.kind in (3, 4)]

    assert sum(tail(Fault("link", 3, 4.0))) > sum(tail())


# --- as scenarios -----------------------------------------------------------------------------------------------------


def test_faults_with_times_are_read_and_come_back() -> None:
    written = [
        {"kind": "link", "at": 12, "slower": 2, "start": "1 s", "every": "200 ms", "lasts": "20 ms", "end": "3 s"},
        {"kind": "thermal", "at": 7, "slower": 1.25, "start": "2 s", "time_constant": "5 s"},
    ]
    scenario = from_mapping({**TINY, "faults": written})
    s = 10**9
    assert scenario.faults == (
        Fault("link", 12, 2.0, s, 3 * s, s // 5, s // 50), Fault("thermal", 7, 1.25, 2 * s, time_constant_ns=5 * s),
    )  # fmt: skip
    again = from_mapping(scenario.resolved)
    assert again.faults == scenario.faults and again.scenario_hash == scenario.scenario_hash
    assert from_mapping({**TINY, "faults": written[:1]}).scenario_hash != scenario.scenario_hash


# --- mistakes ---------------------------------------------------------------------------------------------------------

BAD = {**TINY, "cluster": {"node": "h800x8", "nodes": 2}}


def complaint(**keys):
    with pytest.raises(DocumentError) as caught:
        from_mapping({**BAD, **keys})
    return str(caught.value)


@pytest.mark.parametrize("slower", [0.9, -1, 1001, float("inf"), float("nan")])
def test_a_factor_is_told_its_bounds_and_not_to_be_whole(slower):
    line = f"<mapping>: faults[0].slower: expected a number from 1 to 1000; found {slower}"
    assert complaint(faults=[{"kind": "gpu", "at": 1, "slower": slower}]) == line


def test_an_unknown_key_is_told_the_legal_ones():
    legal = "at, end, every, kind, lasts, slower, start, time_constant"
    line = f"<mapping>: faults[0].begin: unknown key 'begin'; legal: {legal}"
    assert complaint(faults=[{"kind": "gpu", "at": 1, "slower": 2, "begin": "1 s"}]) == line


def test_faults_that_change_nothing_are_told():
    """By their number: one after the step, one that slows nothing; not one that begins in the last nanosecond."""
    second = 10**9
    given = (
        Fault("gpu", 1, 2.0), Fault("link", 2, 2.0, 2 * second), Fault("gpu", 3, 1.0), Fault("gpu", 4, 2.0, second - 1),
    )  # fmt: skip
    assert missed(given, second) == [
        "faults[1]: changes nothing: it begins at 2.000 s, and the step ends at 1.000 s",
        "faults[2]: changes nothing: slower is 1",
    ]


def test_a_fault_that_is_no_list():
    assert "expected a list" in complaint(faults={"kind": "gpu", "at": 1, "slower": 2})


def test_a_rank_that_is_not_there_is_named_as_elsewhere():
    assert complaint(faults=[{"kind": "gpu", "at": 99, "slower": 2}]).startswith("<mapping>: faults[0].at: 99 is not")


SLOW = "faults=[{kind: gpu, at: 1, slower: 2}]"


@pytest.mark.parametrize(
    ("given", "blamed"),
    [
        (["jitter=0.1"], {"jitter": "jitter needs"}),
        ([SLOW], {"faults": "faults need"}),
        ([SLOW, "jitter=0.1"], {"faults": "faults need", "jitter": "jitter needs"}),
        (["routing=sampled", "jitter=0", "faults=[]"], {}),
    ],
)
def test_without_a_cluster_what_is_given_is_blamed_and_nothing_else(given, blamed):
    times = {"forward": "1 ms", "backward_input": "1 ms", "weight": "1 ms"}
    with pytest.raises(DocumentError) as caught:
        from_mapping({"schedule": "zb1p", "parallel": {"pipeline": 2}, "batch": {"micro_batches": 4},
                      "chunk_times": times}, [*given, "seed=3"])  # fmt: skip
    lines = [line for line in str(caught.value).splitlines() if "routing" not in line]
    assert [line.split("> ")[1].split("=")[0] for line in lines] == list(blamed)
    for line, what in zip(lines, blamed.values(), strict=True):
        assert line.endswith(f": {what} a cluster; chunk_times have no ranks on nodes")
