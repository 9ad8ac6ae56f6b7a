"""The graph of a run: gone through unchanged it is the run, at other prices it is the run at those prices."""

from functools import cache

import numpy as np
import pytest

from sim import assembly
from sim.analysis import graph as replay
from sim.engine import steps
from sim.engine.lowering import lower
from sim.layout import plan
from sim.scenario import from_mapping
from sim.schedules.program import names
from tests.oracles.timelines import last_end

TINY = {
    "cluster": {"node": "h800x8", "nodes": 2},
    "model": {"base": "deepseek_v2_lite", "layers": 8, "mtp_depth": 1, "q_rank": 128, "vocabulary": 1024},
    "parallel": {"pipeline": 4, "expert": 4},
    "batch": {"micro_batches": 8, "sequence_length": 512},
    "placement": "even",
}
TIMES = {"forward": 10_000, "backward_input": 12_000, "weight": 8_000, "p2p": 3_000}


@cache
def found(schedule, *overrides):
    laid = plan.lay_out(from_mapping({**TINY, "schedule": schedule}, overrides))
    low = lower(laid, assembly.machine(laid))
    timeline = steps.run(low.actors, low.kits)
    return low, timeline, replay.graph(low, timeline)


def timed(schedule, messages="hidden", **changed):
    times = {name: f"{ns} ns" for name, ns in {**TIMES, **changed}.items()}
    laid = plan.lay_out(from_mapping({
        "schedule": schedule, "parallel": {"pipeline": 4}, "batch": {"micro_batches": 8}, "chunk_times": times,
        "comm": {"messages": messages},
    }))  # fmt: skip
    low = lower(laid, None)
    timeline = steps.run(low.actors, low.kits)
    return low, timeline, replay.graph(low, timeline)


def no_slopes(graph):
    return [np.zeros((1 + max(map(max, track.rows)), 3, 1)) for track in graph.tracks]


@pytest.mark.parametrize("change", ["detail=op", "detail=layer", "detail=chunk", "comm.messages=waited"])
@pytest.mark.parametrize("schedule", names())
def test_unchanged_prices_are_the_run(schedule, change):
    _, timeline, graph = found(schedule, change)
    assert replay.ends(graph, no_slopes(graph), [np.zeros((1, 3))], np.ones(3)).tolist() == [last_end(timeline)] * 3


@pytest.mark.parametrize("messages", ["hidden", "waited"])
@pytest.mark.parametrize("schedule", names())
def test_every_step_comes_after_what_it_waits_for(schedule, messages):
    low, _, (comings, (track, *_), _) = found(schedule, f"comm.messages={messages}")
    turns, jobs = [(leg.position, leg.step) for leg in track.legs], low.jobs
    place = {turn: i for i, turn in enumerate(turns)}
    assert sorted(turns) == [(p, s) for p, row in enumerate(jobs) for s in range(len(row))]
    for p, row in enumerate(jobs):
        for s, job in enumerate(row):
            assert s == 0 or place[p, s - 1] < place[p, s]
            assert all(place[sender, step] < place[p, s] for sender, step, _ in job.waits)
            assert all(not n or place[q, n - 1] < place[p, s] for m in job.waits for q, n in comings[m])


@pytest.mark.parametrize("messages", ["hidden", "waited"])
@pytest.mark.parametrize("schedule", ["1f1b", "gpipe", "zb1p"])
@pytest.mark.parametrize("forward", [6_000, 40_000])
def test_another_path_takes_over(schedule, forward, messages):
    """Forwards so much cheaper or dearer that the path changes: as the engine runs it."""
    low, _, graph = timed(schedule, messages)
    changed, timeline, _ = timed(schedule, messages, forward=forward)
    twins = {kit.number: twin for row, other in zip(low.kits, changed.kits, strict=True)
             for kit, twin in zip(row, other, strict=True)}  # fmt: skip
    slopes = [track.slopes([twins]) for track in graph.tracks]
    assert replay.ends(graph, slopes, [np.ones((1, 1))], np.ones(1))[0] == pytest.approx(last_end(timeline))


@pytest.mark.parametrize("messages", ["hidden", "waited"])
@pytest.mark.parametrize("schedule", ["1f1b", "gpipe", "zb1p"])
def test_slower_wires(schedule, messages):
    graph, timeline = timed(schedule, messages)[2], timed(schedule, messages, p2p=9_000)[1]
    assert replay.ends(graph, no_slopes(graph), [np.zeros((1, 1))], np.full(1, 3.0))[0] == last_end(timeline)


def test_no_draw_takes_less_than_half():
    _, timeline, graph = timed("1f1b", p2p=0)
    slopes = [np.ones_like(slope) for slope in no_slopes(graph)]
    assert replay.ends(graph, slopes, [np.full((1, 1), -5.0)], np.ones(1))[0] == last_end(timeline) / 2
