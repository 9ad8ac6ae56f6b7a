"""Stragglers through the whole simulator: slower is never faster, names are only names, and the path finds them."""

from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim import assembly
from sim.analysis import metrics
from sim.analysis.critical import critical_ranks
from sim.layout import plan
from sim.scenario import FOREVER, Fault, from_mapping, load
from tests.examples import examples
from tests.oracles import timelines
from tests.oracles.timelines import crossings

TINY = {
    "cluster": {"node": "h800x8", "nodes": 4},
    "model": {"base": "deepseek_v2_lite", "layers": 8, "mtp_depth": 1, "q_rank": 128, "vocabulary": 1024},
    "parallel": {"pipeline": 4, "expert": 4},
    "schedule": "dualpipe",
    "batch": {"micro_batches": 8, "sequence_length": 512},
    "placement": "even",
}
"""4 positions of 8 replicas in 2 expert groups; node p holds position p."""
SCHEDULES = ("dualpipe", "dualpipev", "zb1p", "1f1b", "gpipe", "interleaved")


@cache
def laid_out(*overrides):
    laid = plan.lay_out(from_mapping(TINY, overrides))
    return laid, assembly.machine(laid)


@cache
def ran(faults=(), *overrides):
    return timelines.run(*laid_out(*overrides), *faults)


def run(faults=(), *overrides):
    return ran(faults, *overrides).timeline


def critical(faults, *overrides):
    """Ranks on the critical path, first those that make it longest."""
    found = ran(faults, *overrides)
    return critical_ranks(laid_out(*overrides)[0], found.lowered, found.timeline, found.times)


def step(*faults, overrides=()):
    return run(tuple(faults), *overrides).end


# --- monotone ---------------------------------------------------------------------------------------------------------

KINDS = ("gpu", "node", "link", "thermal", "flapping link", "flapping gpu")


def fault(kind, at, factor):
    """A fault of a kind, from 1 ms on where it changes with time."""
    if kind == "thermal":
        return Fault(kind, at, factor, 10**6, time_constant_ns=2 * 10**7)
    if kind.startswith("flapping"):
        return Fault(kind.split()[1], at, factor, 10**6, every_ns=3 * 10**6, lasts_ns=10**6)
    return Fault(kind, at, factor)


GRID = (1.02, 1.25, 4.0)
"""Beside none; any two factors are drawn below."""


ROOM = (("zb1p", "thermal", 0), ("zb1p", "flapping gpu", 0))
"""Under ZB1P the first position has the slack to take a clock that falls in the middle of the step, and a GPU that is
slow for a third of the time."""


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("kind", KINDS)
def test_slower_is_never_faster(schedule, kind):
    for at in (0, 2, 3) if kind == "node" else (0, 13, 22, 31):
        chosen = (f"schedule={schedule}",)
        times = [step(overrides=chosen), *(step(fault(kind, at, f), overrides=chosen) for f in GRID)]
        assert times == sorted(times), at
        if "link" not in kind and (schedule, kind, at) not in ROOM:  # the small cluster's exchanges stay on NVLink
            assert times[-1] > times[0], at


WHEN = ({}, {"end_ns": 10**7}, {"start_ns": 10**7, "end_ns": 3 * 10**7}, {"every_ns": 10**6, "lasts_ns": 10**5})
ACROSS = ("cluster.nodes=8", "parallel.expert=16")
"""Expert groups of two nodes: exchanges feel slow NICs."""


@examples(16, derandomize=True)
@given(
    schedule=st.sampled_from(SCHEDULES), kind=st.sampled_from(["gpu", "node", "link"]), at=st.integers(0, 31),
    factors=st.tuples(st.floats(1, 8), st.floats(1, 8)).map(sorted), routing=st.sampled_from(["balanced", "sampled"]),
    when=st.sampled_from(WHEN), where=st.sampled_from([(), ACROSS]),
)  # fmt: skip
def test_slower_is_never_faster_anywhere(schedule, kind, at, factors, routing, when, where):
    """Messages that overtake each other could break it; within 0.01 % they never do here."""
    at = at % 4 if kind == "node" else at
    chosen = (f"schedule={schedule}", f"routing={routing}", *where)
    one, two = (step(Fault(kind, at, f, **when), overrides=chosen) for f in factors)
    assert two >= one * (1 - 1e-4)


@pytest.mark.parametrize("kind", ["gpu", "link"])
@pytest.mark.parametrize("schedule", ["dualpipe", "1f1b"])
def test_a_fault_that_comes_and_goes_costs_less_than_one_that_stays(schedule, kind):
    """Longer windows cost more, and always slow is the end of it."""
    chosen = (f"schedule={schedule}", *ACROSS)
    flapping = [Fault(kind, 20, 8.0, 0, every_ns=10**6, lasts_ns=k * 10**5) for k in range(1, 10, 2)]
    times = [step(overrides=chosen), *(step(f, overrides=chosen) for f in (*flapping, Fault(kind, 20, 8.0)))]
    assert times == sorted(times) and times[0] < times[-1]


@pytest.mark.parametrize("schedule", ["dualpipe", "1f1b"])
def test_the_sooner_a_clock_falls_the_longer_the_step(schedule):
    """Between no fault and, at worst, all that the GPU computes slower for good."""
    chosen = (f"schedule={schedule}",)
    hot = [Fault("thermal", 9, 1.5, time_constant_ns=constant) for constant in (10**10, 10**8, 1)]
    times = [step(overrides=chosen), *(step(f, overrides=chosen) for f in (*hot, Fault("gpu", 9, 1.5)))]
    assert times == sorted(times) and times[0] < times[2] < times[4]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_no_more_than_everything_slower(schedule):
    """One slow GPU costs at most what slowing all would, and that is at most the factor."""
    chosen = (f"schedule={schedule}",)
    plain, one = step(overrides=chosen), step(Fault("gpu", 9, 1.5), overrides=chosen)
    everybody = step(*(Fault("node", n, 1.5) for n in range(4)), overrides=chosen)
    assert plain < one <= everybody <= 1.5 * plain * (1 + 1e-5)


@pytest.mark.parametrize("window", [(0, 1), (FOREVER - 1, FOREVER)])
def test_a_fault_outside_the_step_costs_nothing(window):
    assert abs(step(Fault("gpu", 9, 3.0, *window)) - step()) <= 3


@pytest.mark.parametrize("kind", KINDS)
def test_a_fault_of_factor_one_costs_nothing(kind):
    assert step(fault(kind, 2, 1.0)) == step()


def test_a_longer_window_costs_more():
    times = [step(Fault("gpu", 9, 2.0, 0, step() * k // 8)) for k in range(0, 17, 2)]
    assert times == sorted(times) and times[0] == step()
    assert times[-1] == step(Fault("gpu", 9, 2.0))


# --- names ------------------------------------------------------------------------------------------------------------


def sorted_columns(everyone):
    """Starts and ends of every segment, with replicas in an order that knows no names."""
    rows = [np.concatenate([np.concatenate([c.segment_starts, c.segment_ends]) for c in row])
            for row in crossings(everyone, everyone=True)]  # fmt: skip
    table = np.concatenate(rows)
    return table[:, np.lexsort(table[::-1])]


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "node"])
def test_which_of_alike_replicas_is_slow_changes_only_names(schedule, kind):
    """Replica 0, 3 (its group), 5 and 7 (the other group) of position 2, by turns."""
    results = [run((fault(kind, 16 + replica, 1.3),), f"schedule={schedule}") for replica in (0, 3, 5, 7)]
    for other in results[1:]:
        assert other.end == results[0].end
        np.testing.assert_array_equal(sorted_columns(other), sorted_columns(results[0]))
    ends = [np.stack([c.ends for c in crossings(found, everyone=True)[2]]) for found in results]
    assert (ends[0] != ends[3]).any()


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_groups_do_not_touch_until_the_gradients(schedule):
    """The other expert group of every position does as if nothing had happened, until a stage is reduced."""
    plain, slow = run((), f"schedule={schedule}"), run((Fault("gpu", 17, 1.5),), f"schedule={schedule}")
    first = min(int(t.starts.min()) for row in plain.network for t in row if t.kind == 3)
    same = moved = count = 0
    for a, b in zip(crossings(plain), crossings(slow, everyone=True), strict=True):
        for one, two in zip(a, b, strict=True):  # one column of `plain` stands for all
            count += 1
            if one.ends.max() <= first:
                np.testing.assert_array_equal(np.repeat(one.segment_ends, 4, axis=1), two.segment_ends[:, 4:])
                same += 1
                moved += (two.segment_ends[:, :4] != one.segment_ends).any()
    assert slow.end > plain.end and same > 0.7 * count and moved > 0


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("factor", [1.1, 2.0])
def test_a_slow_node_is_as_slow_as_one_gpu_in_each_of_its_groups(schedule, factor):
    """Members wait for the slowest at every exchange: slow or not, they cannot be later than that."""
    chosen = (f"schedule={schedule}",)
    node = step(Fault("node", 2, factor), overrides=chosen)
    assert node == step(Fault("gpu", 16, factor), Fault("gpu", 23, factor), overrides=chosen)
    assert node == step(Fault("gpu", 18, factor), overrides=chosen)


def test_two_stragglers_of_a_group_cost_what_the_worse_does():
    assert step(Fault("gpu", 16, 1.2), Fault("gpu", 18, 1.5)) == step(Fault("gpu", 18, 1.5))


# --- books ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_phases_bubble_and_waterfall_are_the_step(schedule):
    faults = (*(fault(kind, at, 1.3) for at, kind in enumerate(KINDS, 1)), Fault("link", 20, 2.0))
    done = ran(faults, f"schedule={schedule}")
    everyone = done.timeline
    found = metrics.ledgers(done.lowered, everyone, laid_out(f"schedule={schedule}")[1].pricer)
    for ledger in found:
        assert sum(ledger.phases.values()) == pytest.approx(everyone.end / 1e9, rel=1e-12)
    bars = metrics.waterfall(found)
    assert sum(b.seconds for b in bars) == pytest.approx(everyone.end / 1e9, rel=1e-12)
    assert all(b.seconds > -1e-9 for b in bars)


@pytest.mark.parametrize("schedule", ["dualpipe", "zb1p", "1f1b"])
@pytest.mark.parametrize("slow", [1, 14, 21, 31])
def test_the_path_names_the_straggler(schedule, slow):
    found = critical((Fault("gpu", slow, 4.0),), f"schedule={schedule}")
    assert found[0][0] == slow  # slow enough to outweigh the head of the last stage


# --- V3 ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def v3(v3_file):
    laid = plan.lay_out(load(str(v3_file), ["batch.sequences=5120", "outputs=[result]"]))
    return laid, assembly.machine(laid)


def of_v3(v3, *faults):
    return timelines.run(*v3, *faults)


def test_v3_with_one_slow_gpu(v3):
    """10 % slower costs the whole cluster something, at most 10 %, and the path finds it among 2,048."""
    plain, slow = of_v3(v3).timeline, of_v3(v3, Fault("gpu", 1000, 1.1))
    assert plain.end < slow.timeline.end < 1.1 * plain.end
    assert critical_ranks(v3[0], slow.lowered, slow.timeline, slow.times)[0].rank == 1000


@pytest.mark.parametrize("at", [12, 1030])
@pytest.mark.parametrize("when", [{}, {"end_ns": 5 * 10**9}, {"every_ns": 2 * 10**8, "lasts_ns": 2 * 10**7}])
def test_v3_with_a_slow_link(v3, at, when):
    """For good, for a while and flapping: members of a group end alike, and the one with the slow NIC is named."""
    slow = of_v3(v3, Fault("link", at, 20.0, **when))
    found = critical_ranks(v3[0], slow.lowered, slow.timeline, slow.times)
    assert found[0].rank == at and found[0].beyond_s > 0.9 * sum(each.beyond_s for each in found)


def test_v3_with_a_slow_node_is_its_worst_rank(v3):
    node, gpu = of_v3(v3, Fault("node", 125, 1.1)), of_v3(v3, Fault("gpu", 1000, 1.1))
    assert node.timeline.end == gpu.timeline.end
