"""The engine on hand-made templates: streams, contention, mail, meetings and deadlocks, to the nanosecond."""

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from math import ceil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.engine.actor import Actor, Job, Outcome, Route, Sync
from sim.engine.deadlock import DeadlockError
from sim.engine.events import run
from sim.engine.nic import Window
from sim.models.layer import COMMUNICATION, COMPUTE, WEIGHT
from sim.step.template import STREAMS, Segment, Template, fixed
from tests.oracles.solo import alone

Spec = tuple[int, Sequence[tuple[int, int]], Sequence[int]]
"""Lane, kernels as (alone, beside), and the earlier segments a segment needs."""


def hand(*specs: Spec, exchange: Sequence[int] = (), sends: dict[int, int] | None = None) -> Template:
    """A template from segments in launch order."""
    durations: list[list[tuple[int, int]]] = [[] for _ in STREAMS]
    segments = []
    for i, (lane, kernels, needs) in enumerate(specs):
        first = len(durations[lane])
        durations[lane] += kernels
        feeds = tuple(j for j, other in enumerate(specs) if i in other[2])
        out = (sends or {}).get(i, 0)
        segments.append(Segment(lane, first, first + len(kernels), len(needs), feeds, "expert" * (i in exchange), out))
    order = tuple(tuple(i for i, s in enumerate(segments) if s.lane == lane) for lane in STREAMS)
    fast, slow = (tuple(tuple(k[beside] for k in lane) for lane in durations) for beside in (0, 1))
    return Template("F", 0, -1, tuple(segments), order, fast, slow, fast, ((), (), (), ()))


def same(*lengths: int) -> list[tuple[int, int]]:
    """Kernels that nothing slows."""
    return [(ns, ns) for ns in lengths]


def ends(outcome: Outcome) -> list[list[int]]:
    return [list(record.ends) for record in outcome.records]


# --- streams ----------------------------------------------------------------------------------------------------------


def test_a_stream_is_first_in_first_out() -> None:
    """Segment 2 needs nothing but stands behind 1, which waits for compute."""
    timing = alone(hand((COMPUTE, same(30), ()), (COMMUNICATION, same(5), (0,)), (COMMUNICATION, same(7), ())))
    assert timing.segments == ((0, 30), (30, 35), (35, 42))
    assert timing.total == 42


def test_a_segment_waits_for_all_it_needs() -> None:
    timing = alone(hand(
        (COMPUTE, same(10), ()), (COMMUNICATION, same(25), ()), (WEIGHT, same(40), ()), (COMPUTE, same(1), (0, 1, 2)),
    ))  # fmt: skip
    assert timing.segments[3] == (40, 41)


def test_kernels_follow_each_other() -> None:
    timing = alone(hand((COMPUTE, same(3, 4, 5), ()), (COMPUTE, same(6), ())))
    assert timing.kernels[COMPUTE] == ((0, 3), (3, 7), (7, 12), (12, 18))


def test_compute_and_weight_streams_do_not_slow_each_other() -> None:
    timing = alone(hand((COMPUTE, [(10, 99)], ()), (WEIGHT, [(20, 99)], ())))
    assert timing.segments == ((0, 10), (0, 20))


def test_nothing_to_do_takes_no_time() -> None:
    timing = alone(hand())
    assert (timing.segments, timing.total) == ((), 0)
    assert ends(run([Actor("a", (Job(hand()), Job(hand((COMPUTE, same(5), ()))), Job(hand())))])) == [[0, 5, 5]]


@given(st.lists(st.lists(st.integers(1, 1000), min_size=1, max_size=5), min_size=1, max_size=8))
def test_a_single_stream_takes_the_sum(lengths: list[list[int]]) -> None:
    assert alone(hand(*((COMPUTE, same(*some), ()) for some in lengths))).total == sum(map(sum, lengths))


# --- contention -------------------------------------------------------------------------------------------------------


def test_a_kernel_half_beside_communication_takes_its_halves_at_two_rates() -> None:
    """40 of 100 ns are done when communication comes; 60 % of 150 ns remain."""
    timing = alone(hand((COMPUTE, [(100, 150)], ()), (WEIGHT, same(40), ()), (COMMUNICATION, same(1000), (1,))))
    assert timing.segments[0] == (0, 40 + 90)


def test_compute_goes_back_to_its_rate_when_communication_ends() -> None:
    """60 of 150 ns beside it; 60 % of 100 ns remain."""
    timing = alone(hand((COMPUTE, [(100, 150)], ()), (COMMUNICATION, same(60), ())))
    assert timing.segments[0] == (0, 60 + 60)


def test_communication_is_timed_again_when_compute_goes_idle() -> None:
    """50 of 200 ns beside compute; three quarters of 100 ns remain."""
    timing = alone(hand((COMPUTE, same(50), ()), (COMMUNICATION, [(100, 200)], ())))
    assert timing.segments[1] == (0, 50 + 75)


def test_the_weight_stream_alone_slows_communication_too() -> None:
    timing = alone(hand((WEIGHT, same(50), ()), (COMMUNICATION, [(100, 200)], ())))
    assert timing.segments[1] == (0, 125)


def test_communication_stays_slow_while_either_compute_stream_works() -> None:
    """Compute ends at 50, the weight stream at 100: half of 200 ns, then half of 100 ns."""
    timing = alone(hand((COMPUTE, same(50), ()), (WEIGHT, same(100), ()), (COMMUNICATION, [(100, 200)], ())))
    assert timing.segments[2] == (0, 150)


def test_a_kernel_can_change_its_rate_more_than_once() -> None:
    """Alone to 20 (a fifth), beside from 20 to 80 (60 of 200: three tenths), alone again for the half that is left."""
    timing = alone(hand((COMPUTE, [(100, 200)], ()), (WEIGHT, same(20), ()), (COMMUNICATION, same(60), (1,))))
    assert timing.segments[0] == (0, 80 + 50)


def test_the_next_kernel_starts_at_the_rate_of_the_moment() -> None:
    """The first kernel runs beside communication, the second begins when that has just ended."""
    timing = alone(hand((COMPUTE, [(10, 20), (10, 20)], ()), (COMMUNICATION, same(20), ())))
    assert timing.kernels[COMPUTE] == ((0, 20), (20, 30))


def test_exchanges_back_to_back_are_one_stretch_of_contention() -> None:
    timing = alone(hand((COMPUTE, [(30, 40)], ()), (COMMUNICATION, same(20), ()), (COMMUNICATION, same(20), ())))
    assert timing.segments[0] == (0, 40)


RATES = st.tuples(st.integers(1, 400), st.integers(0, 300)).map(lambda pair: (pair[0], sum(pair)))


@given(RATES, RATES)
def test_two_kernels_side_by_side(compute: tuple[int, int], talk: tuple[int, int]) -> None:
    """Both slow until the first ends; what is left of the other goes on alone, rounded up."""
    found = alone(hand((COMPUTE, [compute], ()), (COMMUNICATION, [talk], ()))).segments
    (short, long), late = sorted((compute, talk), key=lambda k: k[1]), int(compute[1] <= talk[1])
    assert found[1 - late] == (0, short[1])
    exact = short[1] + ceil(Fraction(long[0]) * (1 - Fraction(short[1], long[1])))
    assert 0 <= found[late][1] - exact <= 1  # one more where the float fraction lies just above


@given(RATES, RATES)
def test_contention_costs_between_nothing_and_all(compute: tuple[int, int], talk: tuple[int, int]) -> None:
    for (fast, slow), (start, end) in zip(
        (compute, talk), alone(hand((COMPUTE, [compute], ()), (COMMUNICATION, [talk], ()))).segments, strict=True
    ):
        assert start == 0 and fast <= end <= slow + 1


# --- mail -------------------------------------------------------------------------------------------------------------


def test_sends_of_one_step_queue_on_the_network() -> None:
    """Both outputs leave at 10; the second has to wait for the first."""
    first = Job(fixed("F+BW", (0, 1), [10], [3]), sends=((1, 5), (2, 7)))
    one, two = (Job(fixed("F", (0, -1), [1], [0]), waits=((0, 0, kind),)) for kind in (1, 2))
    actors = [Actor("a", (first,)), Actor("b", (one,), peers={0: 0}), Actor("c", (two,), peers={0: 0})]
    outcome = run(actors)
    assert list(outcome.records[0].network) == [10, 15, 0, 1, 15, 22, 0, 2]
    assert [list(r.starts) for r in outcome.records] == [[0], [15], [22]]
    assert [list(r.blame) for r in outcome.records] == [[0], [1], [2]]


def test_a_message_that_both_ends_wait_for_leaves_when_the_later_has_come() -> None:
    """Rank a makes it by 10 and waits; b is busy until 30. It takes 5; a goes on, and so does b."""
    quick, slow = fixed("F", (0, -1), [10], [1]), fixed("F", (1, -1), [30], [0])
    message = ((0, 0, 1),)
    a = (Job(quick, sends=((1, 5),), rendezvous=True), Job(slow, message, rendezvous=True))
    b = (Job(slow, rendezvous=True), Job(slow, message, rendezvous=True))
    outcome = run([Actor("a", a, peers={0: 0, 1: 1}), Actor("b", b, peers={0: 0, 1: 1})])
    assert list(outcome.records[0].network) == [30, 35, 0, 1]
    assert [list(r.starts) for r in outcome.records] == [[0, 35], [0, 35]]
    assert [list(r.blame) for r in outcome.records] == [[0, 3], [0, 1]]


def test_the_last_output_is_waited_for_before_the_norm() -> None:
    """Its receiver comes at 50; nobody begins the norm before 55."""
    quick, slow = fixed("F", (0, -1), [10], [1]), fixed("F", (1, -1), [50], [0])
    sender = Actor("a", (Job(quick, sends=((1, 5),), rendezvous=True),), sync=Sync((), 3, waits=((0, 0, 1),)),
                   peers={0: 0})  # fmt: skip
    jobs = (Job(slow, rendezvous=True), Job(fixed("F", (1, -1), [0], [0]), ((0, 0, 1),), rendezvous=True))
    outcome = run([sender, Actor("b", jobs, sync=Sync((), 3), peers={0: 0, 1: 1})])
    assert [r.update for r in outcome.records] == [(55, 58)] * 2


def test_who_waits_for_both_ends_of_a_message_is_told() -> None:
    """Each hands its own on before it asks for the other's, in batches of their own."""
    step = fixed("F", (0, -1), [1], [1])

    def rank(own: int) -> Actor:
        first = Job(step, sends=((1, 5),), rendezvous=True)
        jobs = (first, Job(step, ((own, 0, 1),), rendezvous=True), Job(step, ((1 - own, 0, 1),), rendezvous=True))
        return Actor("ab"[own], jobs, peers={0: 0, 1: 1})

    with pytest.raises(DeadlockError, match=r"a at step 1 of 3 waits for its own forward output of step 0"):
        run([rank(0), rank(1)])


def test_reductions_after_all_steps_count_with_the_update() -> None:
    """Both are through at 10 and 20; two stages, reduced one after the other for 9 and 2 ns, then the norm at 31."""
    reduces = ((0, 0, 9), (0, 1, 2))
    actors = [Actor(str(ns), (Job(fixed("BW", (0, -1), [ns], [0])),), sync=Sync(reduces, 3, after=True))
              for ns in (10, 20)]  # fmt: skip
    outcome = run(actors)
    assert [list(r.network) for r in outcome.records] == [[20, 29, -1, 3, 29, 31, -2, 3]] * 2
    assert [r.update for r in outcome.records] == [(20, 34)] * 2


def test_the_network_lane_is_busy_into_the_next_step() -> None:
    job = Job(fixed("F", (0, -1), [10], [1]), sends=((1, 25),))
    sink = tuple(Job(fixed("F", (1, -1), [1], [0]), waits=((0, i, 1),)) for i in range(3))
    outcome = run([Actor("a", (job, job, job)), Actor("b", sink, peers={0: 0})])
    assert ends(outcome) == [[10, 20, 30], [36, 61, 86]]


def test_mail_that_is_there_already_costs_nothing() -> None:
    early = Actor("a", (Job(fixed("F", (0, -1), [5], [1]), sends=((1, 5),)),))
    late = Actor("b", tuple(Job(fixed("F", (1, -1), [50], [0]), w) for w in ((), ((0, 0, 1),))), peers={0: 0})
    outcome = run([early, late])
    assert ends(outcome) == [[5], [50, 100]]
    assert list(outcome.records[1].blame) == [0, 0]


@pytest.mark.parametrize(("work", "wire"), [(10, 5), (15, 0)])
def test_mail_in_the_nanosecond_in_which_a_rank_is_free_is_no_wait(work: int, wire: int) -> None:
    """At 15 both: what left long before is there when the rank asks, what leaves just then comes after it has asked.
    A nanosecond later it is a wait."""
    for late in (0, 1):
        early = Actor("a", (Job(fixed("F", (0, -1), [work], [1]), sends=((1, wire + late),)),))
        jobs = (Job(fixed("F", (1, -1), [15], [0])), Job(fixed("F", (1, -1), [50], [0]), ((0, 0, 1),)))
        outcome = run([early, Actor("b", jobs, peers={0: 0})])
        assert ends(outcome)[1] == [15, 65 + late]
        assert list(outcome.records[1].blame) == [0, late]


def test_an_output_leaves_when_its_segment_is_done() -> None:
    """Not at the end of the step: the receiver overlaps with what follows."""
    template = hand((COMPUTE, same(10), ()), (COMPUTE, same(90), ()), sends={0: 1})
    receiver = Actor("b", (Job(fixed("F", (1, -1), [1], [0]), ((0, 0, 1),)),), peers={0: 0})
    outcome = run([Actor("a", (Job(template, sends=((1, 3),)),)), receiver])
    assert ends(outcome) == [[100], [14]]


@given(st.integers(1, 6), st.integers(1, 8), st.integers(1, 50), st.integers(0, 60))
def test_a_chain_of_stages_fills_and_flows(stages: int, micro_batches: int, length: int, wire: int) -> None:
    """Forward only: the slower of a step and a message sets the pace, each stage adds both to the way through."""
    actors = []
    for stage in range(stages):
        jobs = tuple(
            Job(fixed("F", (stage, -1), [length], [1]), ((stage - 1, i, 1),) if stage else (),
                ((1, wire),) if stage < stages - 1 else ())
            for i in range(micro_batches)
        )  # fmt: skip
        actors.append(Actor(f"stage {stage}", jobs, peers={p: p for p in range(stages)}))
    pace = length if stages == 1 else max(length, wire)
    assert run(actors).end == stages * length + (stages - 1) * wire + (micro_batches - 1) * pace


# --- meetings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arrivals", [(10, 30), (30, 10), (5, 40, 20), (7, 7, 7)])
def test_an_exchange_waits_for_the_last_of_its_group(arrivals: tuple[int, ...]) -> None:
    actors = [
        Actor(
            str(i), (Job(hand((COMPUTE, same(ns), ()), (COMMUNICATION, same(4), (0,)), exchange=[1])),), {"expert": 0}
        )
        for i, ns in enumerate(arrivals)
    ]
    outcome = run(actors)
    assert [list(r.phases[COMMUNICATION]) for r in outcome.records] == [[max(arrivals)]] * len(arrivals)
    assert ends(outcome) == [[max(arrivals) + 4]] * len(arrivals)


def test_groups_do_not_wait_for_each_other() -> None:
    actors = [
        Actor(
            str(i),
            (Job(hand((COMPUTE, same(ns), ()), (COMMUNICATION, same(1), (0,)), exchange=[1])),),
            {"expert": group},
        )
        for i, (ns, group) in enumerate([(10, 0), (20, 0), (30, 1), (40, 1), (50, -1)])
    ]
    assert ends(run(actors)) == [[21], [21], [41], [41], [51]]


def test_whoever_waits_for_the_group_does_not_slow_compute() -> None:
    """The early rank's compute runs at its own rate until the exchange begins at 50."""
    early = hand((COMMUNICATION, same(10), ()), (COMPUTE, [(40, 80)], ()), exchange=[0])
    late = hand((COMMUNICATION, same(10), (1,)), (COMPUTE, same(50), ()), exchange=[0])
    outcome = run([Actor("early", (Job(early),), {"expert": 0}), Actor("late", (Job(late),), {"expert": 0})])
    assert list(outcome.records[0].kernels[COMPUTE]) == [40]
    assert [list(r.phases[COMMUNICATION]) for r in outcome.records] == [[50], [50]]


def test_an_early_member_is_held_in_every_exchange() -> None:
    def member(ns: int) -> Actor:
        pair = hand((COMPUTE, same(ns), ()), (COMMUNICATION, same(5), (0,)), exchange=[1])
        return Actor(str(ns), (Job(pair), Job(pair)), groups={"expert": 3})

    assert ends(run([member(10), member(20)])) == [[25, 50], [25, 50]]


def test_gradients_and_the_optimizer_wait_for_the_slowest() -> None:
    """Stage 0 has two holders, reduced from 20; stage 1 one; everybody meets before the norm at 20 + 9."""

    def holder(ns: int, stage: int, reduce_ns: int, update: int) -> Actor:
        return Actor(str(ns), (Job(fixed("BW", (0, -1), [ns], [0])),), sync=Sync(((0, stage, reduce_ns),), update, 6))

    outcome = run([holder(10, 0, 9, 3), holder(20, 0, 9, 4), holder(12, 1, 2, 3)])
    assert [list(r.network) for r in outcome.records] == [
        [20, 29, -1, 3, 32, 38, -1, 4], [20, 29, -1, 3, 33, 39, -1, 4], [12, 14, -2, 3, 32, 38, -1, 4],
    ]  # fmt: skip
    assert [r.update for r in outcome.records] == [(29, 38), (29, 39), (29, 38)]
    assert outcome.end == 39


def test_a_reduction_queues_behind_a_message() -> None:
    sender = Actor("a", (Job(fixed("B", (1, -1), [10], [2]), sends=((2, 30),)),), sync=Sync(((0, 1, 5),)))
    receiver = Actor("b", (Job(fixed("B", (0, -1), [1], [0]), ((0, 0, 2),)),), peers={0: 0})
    assert list(run([sender, receiver]).records[0].network) == [10, 40, 0, 2, 40, 45, -2, 3]


def test_a_reduction_meets_the_exchanges_of_every_holder() -> None:
    """One holder goes on, with an exchange that takes all of its NIC: both reduce at half the pace meanwhile."""
    step, sync = fixed("BW", (0, -1), [10], [0]), Sync(((0, 0, 20),), routes={0: Route((0, 1))})
    busy = Job(fixed("F", (1, -1), [100], [0]), windows=(Window(5, 35, 1.0),))
    actors = [Actor("a", (Job(step),), sync=sync, peers={0: 0, 1: 1}),
              Actor("b", (Job(step), busy), sync=sync, peers={0: 0, 1: 1})]  # fmt: skip
    assert [list(record.network) for record in run(actors).records] == [[10, 15 + 30, -1, 3]] * 2


def test_a_message_meets_the_step_that_starts_at_its_other_end() -> None:
    """It leaves at 10 and needs 20; the receiver's next step, from 14 on, exchanges from 20 to 30 with all its NIC."""
    send = Job(fixed("F", (0, -1), [10], [1]), sends=((1, 20),), routes={1: Route((0, 1))})
    first, next_ = (fixed("F", (1, -1), [ns], [0]) for ns in (14, 50))
    receiver = (Job(first), Job(next_, windows=(Window(6, 16, 1.0),)), Job(first, waits=((0, 0, 1),)))
    actors = [Actor("a", (send,), peers={0: 0, 1: 1}), Actor("b", receiver, peers={0: 0, 1: 1})]
    assert list(run(actors).records[0].network) == [10, 10 + 10 + 10 + 5, 0, 1]


# --- deadlock and determinism -----------------------------------------------------------------------------------------


def test_a_deadlock_says_who_waits_for_what() -> None:
    step = fixed("F", (0, -1), [1], [1])
    jobs = (Job(step), Job(step, ((1, 1, 2),)))
    actors = [Actor("rank 0", jobs, peers={1: 1}), Actor("rank 1", (Job(step), Job(step, ((0, 1, 1),))), peers={0: 0})]
    with pytest.raises(DeadlockError) as caught:
        run(actors)
    assert str(caught.value) == (
        "deadlock: rank 0 at step 1 of 2 waits for the backward output of step 1 of rank 1; "
        "rank 1 at step 1 of 2 waits for the forward output of step 1 of rank 0"
    )


def test_a_group_that_never_meets_is_named() -> None:
    talk = hand((COMMUNICATION, same(1), ()), exchange=[0])
    silent = hand((COMPUTE, same(1), ()))
    with pytest.raises(DeadlockError) as caught:
        run([Actor("left", (Job(talk),), {"expert": 0}), Actor("right", (Job(silent),), {"expert": 0})])
    assert str(caught.value) == (
        "deadlock: left at step 0 of 1 waits for its expert group; "
        "right at step 1 of 1 waits for every rank before the gradient norm"
    )


def test_a_long_deadlock_is_cut_short() -> None:
    waits = Job(fixed("F", (0, -1), [1], [0]), ((0, 7, 1),))
    with pytest.raises(DeadlockError, match=r"rank 7 .*; and 3 more$"):
        run([Actor(f"rank {i}", (waits,), peers={0: 0}) for i in range(11)])


@st.composite
def jumbles(draw: st.DrawFn) -> Template:
    """Segments on three streams that need some of the earlier ones."""
    specs: list[Spec] = []
    for i in range(draw(st.integers(1, 8))):
        kernels = draw(st.lists(RATES, min_size=1, max_size=3))
        needs = draw(st.sets(st.integers(0, i - 1), max_size=2)) if i else set()
        specs.append((draw(st.sampled_from(STREAMS)), kernels, sorted(needs)))
    return hand(*specs, exchange=[i for i, s in enumerate(specs) if s[0] == COMMUNICATION])


def recorded(outcome: Outcome) -> list[tuple[list[int], ...]]:
    return [
        tuple(list(a) for a in (r.starts, r.ends, *r.phases, *r.kernels, r.blame, r.network)) for r in outcome.records
    ]


@settings(max_examples=50)
@given(st.lists(jumbles(), min_size=1, max_size=3))
def test_two_runs_are_equal(templates: list[Template]) -> None:
    actors = [Actor("a", tuple(map(Job, templates))), Actor("b", tuple(map(Job, reversed(templates))))]
    first, second = run(actors), run(actors)
    assert recorded(first) == recorded(second)
    assert (first.end, first.events) == (second.end, second.events)


@settings(max_examples=300)
@given(jumbles())
def test_a_step_by_itself_is_its_simpy_run(template: Template) -> None:
    """Without a clock, to the nanosecond, kernel by kernel (`alone` here compares)."""
    assert alone(template).total == max(end for _, end in alone(template).segments)


@settings(max_examples=50)
@given(jumbles())
def test_order_and_needs_are_kept_whatever_slows_whom(template: Template) -> None:
    timing = alone(template)
    for lane in STREAMS:
        times = [timing.segments[i] for i in template.order[lane]]
        assert all(a[1] <= b[0] for a, b in pairwise(times))
    for i, segment in enumerate(template.segments):
        assert all(timing.segments[follower][0] >= timing.segments[i][1] for follower in segment.feeds)
    for lane in STREAMS:
        for (start, end), fast in zip(timing.kernels[lane], template.alone[lane], strict=True):
            assert end - start >= fast


@settings(max_examples=50)
@given(jumbles(), st.integers(2, 3))
def test_equal_ranks_without_contention_do_as_one_would(template: Template, count: int) -> None:
    calm = replace(template, beside=template.alone)
    folded, unfolded = (run([Actor("a", (Job(calm),), {"expert": 0})] * n) for n in (1, count))
    assert recorded(unfolded) == recorded(folded) * count


# --- what is known to be wrong ----------------------------------------------------------------------------------------


def test_folded_equals_unfolded_between_two_exchanges() -> None:
    """4 ns alone, 7 beside; an exchange of 6 ns and the next at once, so all 7 ns are beside communication."""
    template = hand(
        (COMPUTE, [(4, 7)], ()), (COMMUNICATION, same(6), ()), (COMMUNICATION, same(100), ()), exchange=[1, 2]
    )
    folded, unfolded = (run([Actor("a", (Job(template),), {"expert": 0})] * n) for n in (1, 2))
    assert recorded(unfolded) == recorded(folded) * 2


def test_what_is_left_of_a_kernel_is_exact() -> None:
    """2 of 6 ns are done when communication comes; two thirds of 9 ns remain: 6."""
    timing = alone(hand((COMPUTE, [(6, 9)], ()), (WEIGHT, same(2), ()), (COMMUNICATION, same(50), (1,))))
    assert timing.segments[0] == (0, 2 + 6)


def test_a_timeout_that_nobody_waits_for_is_not_the_end() -> None:
    """Compute starts beside communication at half its rate, and is timed again when that ends."""
    segments = (Segment(COMPUTE, 0, 2, 0, (), "", 0), Segment(COMMUNICATION, 0, 1, 0, (), "", 0))
    alone, beside = ((10, 100), (5,), (), ()), ((20, 200), (5,), (), ())
    made = Template("x", 0, 0, segments, ((0,), (1,), (), ()), alone, beside, ((0, 0), (0,), (), ()), ((), (), (), ()))
    found = run([Actor("a", (Job(made),))])
    assert found.end == max(found.records[0].kernels[COMPUTE]) == found.records[0].ends[-1] == 113
