"""Runs whose repeated periods are not run are those that run every period: records, end and count of events."""

from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hwmodels.collectives import Hindrance
from hwmodels.refused import Refused
from sim.engine import events, steady
from sim.engine.actor import Route
from sim.engine.lowering import lower
from sim.engine.nic import Window
from sim.layout.plan import lay_out
from sim.scenario import from_mapping
from sim.schedules.program import names
from tests.oracles import actor_per_rank as oracle
from tests.sim.engine.test_kernels import CLUSTERS, settings_of


def told(outcome):
    rows = [(list(r.starts), list(r.ends), list(r.blame), list(r.network), r.update) for r in outcome.records]
    return rows, outcome.end, outcome.events


def skipped(monkeypatch):
    """Steps of the first rank that were not run, of each jump to come."""
    jumps, repeat = [], steady.Steady.repeat

    def counted(self, before, mark, periods):
        jumps.append(periods * (mark.steps[0] - before.steps[0]))
        repeat(self, before, mark, periods)

    monkeypatch.setattr(steady.Steady, "repeat", counted)
    return jumps


def both(actors):
    """The run, once it is seen to be the run of all periods."""
    short, whole = events.run(actors, chunks=True), events.run(actors, chunks=True, steady=False)
    assert told(short) == told(whole)
    return short


def timed(schedule, positions, micro_batches, messages="hidden", **times):
    chunk_times = {"forward": "10 us", "backward_input": "11 us", "weight": "7 us", "p2p": "1 us"} | times
    content = {
        "name": "chunks", "schedule": schedule, "parallel": {"pipeline": positions}, "chunk_times": chunk_times,
        "batch": {"micro_batches": micro_batches}, "comm": {"messages": messages},
    }  # fmt: skip
    return lower(lay_out(from_mapping(content)), None).actors


MICROSECONDS = st.integers(1, 40).map(lambda us: f"{us} us")


@settings(max_examples=120, deadline=None)
@given(
    st.sampled_from(names()), st.integers(1, 4), st.integers(1, 12), st.sampled_from(["hidden", "waited"]),
    st.fixed_dictionaries(dict.fromkeys(("forward", "backward_input", "weight", "p2p"), MICROSECONDS)),
)  # fmt: skip
def test_chunk_times_of_any_schedule(schedule, half, many, messages, times):
    try:
        actors = timed(schedule, 2 * half, 2 * half * many, messages, **times)
    except Refused:
        assume(False)
    both(actors)


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(names()), st.sampled_from(CLUSTERS), st.integers(2, 10), st.sampled_from([5, 50]),
    st.sampled_from(["hidden", "waited"]),
)  # fmt: skip
def test_messages_that_meet_exchanges(schedule, cluster, many, speed, messages):
    more = f"cluster.node.nic.bandwidth={speed}GB/s", f"comm.messages={messages}"
    more = *more, f"batch.micro_batches={2 * cluster[0] * many}"
    try:
        _, _, low = oracle.lowered(*settings_of(schedule, cluster, *more))
    except Refused:
        assume(False)
    both(low.actors)


def shared(actor, positions, windows, exchanges):
    """An actor whose messages pass NICs on which its steps have exchanges."""
    jobs = [
        job._replace(
            windows=windows[job.template.kind],
            routes={kind: Route((number, to), Hindrance(1.0, exchanges)) for kind, _ in job.sends},
        )
        for number, to in [(positions[actor.name], (positions[actor.name] + 1) % len(positions))]
        for job in actor.jobs
    ]
    return replace(actor, jobs=tuple(jobs))


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["1f1b", "zb1p", "dualpipe"]), st.integers(4, 14), st.data())
def test_exchanges_at_any_time(schedule, many, data):
    """The rates of messages are fractions that no clock has: what is left of them is compared to the last bit."""
    actors = timed(schedule, 4, 4 * many)
    positions = {actor.name: number for number, actor in enumerate(actors)}
    windows = {}
    for kind in sorted({job.template.kind for actor in actors for job in actor.jobs}):
        start = data.draw(st.integers(0, 5000))
        length, part = data.draw(st.integers(1, 20000)), data.draw(st.floats(0.0, 1.0))
        windows[kind] = (Window(start, start + length, part),)
    exchanges = data.draw(st.floats(0.0, 2.0))
    both([shared(actor, positions, windows, exchanges) for actor in actors])


@pytest.mark.parametrize("messages", ["hidden", "waited"])
@pytest.mark.parametrize("schedule", ["1f1b", "zb1p", "gpipe", "dualpipe", "dualpipev"])
def test_most_of_a_long_run_is_not_run(schedule, messages, monkeypatch):
    jumps = skipped(monkeypatch)
    try:
        actors = timed(schedule, 4, 200, messages)
    except Refused:
        pytest.skip("the schedule hides its messages")
    steps = len(actors[0].jobs)
    both(actors)
    assert sum(jumps) > steps / 3


def test_what_happens_once_is_not_repeated(monkeypatch):
    """A step that takes longer, in the middle: no period goes past it."""
    jumps, actors = skipped(monkeypatch), list(timed("1f1b", 2, 120))
    jobs = list(actors[1].jobs)
    other = timed("1f1b", 2, 120, forward="13 us")[1].jobs[0].template
    jobs[150] = jobs[150]._replace(template=other if jobs[150].template.kind == other.kind else jobs[150].template)
    jobs[151] = jobs[151]._replace(template=other if jobs[151].template.kind == other.kind else jobs[151].template)
    actors[1] = replace(actors[1], jobs=tuple(jobs))
    both(actors)
    assert jumps and 0 < jumps[0] < 150
