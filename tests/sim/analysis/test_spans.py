"""Traces: each lane first in, first out; every kernel of every step once; labels, layers and prices in place."""

from collections import Counter

import numpy as np
import pytest

from sim import assembly, simulation
from sim.engine.lowering import lower
from sim.layout import plan
from sim.result.trace import LANES, PHASES, Trace
from sim.scenario import from_mapping
from sim.schedules.program import names

SMALL = {
    "cluster": {"node": "h800x8", "nodes": 1},
    "model": {"base": "deepseek_v2_lite", "layers": 4, "vocabulary": 1024},
    "precision": "fp8",
    "parallel": {"pipeline": 2, "expert": 4},
    "batch": {"micro_batches": 8, "sequence_length": 512},
    "placement": "even",
    "detail": "op",
    "outputs": ["result", "events"],
}


@pytest.fixture(scope="module", params=names())
def done(request):
    scenario = from_mapping(SMALL | {"schedule": request.param})
    laid = plan.lay_out(scenario)
    return laid, lower(laid, assembly.machine(laid)), simulation.run(scenario, False)


def test_lanes_are_first_in_first_out(done):
    """No two spans of a lane of a rank overlap, and they are recorded in order."""
    spans = done[2].spans
    for rank in range(2):
        for lane in range(4):
            own = spans.where((spans.position == rank) & (spans.lane == lane))
            assert (own.end >= own.start).all()
            assert (own.start[1:] >= own.end[:-1]).all()


def test_every_kernel_once(done):
    """As many rows of each name as the templates of the rank's steps hold."""
    _, low, result = done
    for rank in range(2):
        expected = Counter(task.label for kit in low.kits[rank] for lane in kit.fine.tasks for task in lane)
        own = result.spans.where((result.spans.position == rank) & (result.spans.sms >= 0))
        assert Counter(own.labels[i] for i in own.label.tolist()) == expected


def test_spans_lie_in_their_step(done):
    """A kernel runs inside the step that its stage and micro-batch name."""
    steps, spans = done[2].steps, done[2].spans
    columns = ("position", "stage", "micro_batch", "stage_b", "micro_batch_b", "phase")

    def keys(trace):
        return list(zip(*(getattr(trace, c).tolist() for c in columns), strict=True))

    within = dict(zip(keys(steps), zip(steps.start.tolist(), steps.end.tolist(), strict=True), strict=True))
    kernels = spans.where(spans.sms >= 0)
    for key, start, end in zip(keys(kernels), kernels.start.tolist(), kernels.end.tolist(), strict=True):
        first, last = within[key]
        assert first <= start <= end <= last


def test_layers_belong_to_stages(done):
    """Layers 0 and 1 on stages of rank 0's first half and so on: a layer's kernels run where its stage is."""
    laid, _, result = done
    machine = assembly.machine(laid)
    stage_of = {u.layer: s for s, stage in enumerate(machine.stages) for u in stage if u.layer >= 0}
    rows = result.spans.where(result.spans.layer >= 0)
    assert len(rows)
    for layer, stage, stage_b in {*zip(rows.layer.tolist(), rows.stage.tolist(), rows.stage_b.tolist(), strict=True)}:
        assert stage_of[layer] in (stage, stage_b)


def test_prices_and_sms(done):
    """Every kernel says where its time comes from; communication runs on 20 SMs, compute on the 112 that it leaves
    where the schedule overlaps, and else on all 132 while nothing communicates."""
    plan, _, result = done
    rows = result.spans.where(result.spans.sms >= 0)
    assert (rows.price >= 0).all()
    assert {rows.prices[i] for i in set(rows.price.tolist())} <= set(result.price_sources)
    talk = rows.lane == LANES.index("communication")
    assert set(rows.sms[talk].tolist()) == {20} and set(rows.sms[~talk].tolist()) == {112 if plan.overlapped else 132}


def test_launch_gaps(done):
    """Two kernels of a segment are at least a launch gap of 1.99 us apart."""
    spans = done[2].spans
    own = spans.where((spans.position == 0) & (spans.lane == 0) & (spans.sms >= 0))
    assert (own.start[1:] - own.end[:-1]).min() == 1990


def test_messages(done):
    """Sends and reductions of a rank queue on its network lane; both say whose they are."""
    _, low, result = done
    spans = result.spans
    rows = spans.where(spans.lane == LANES.index("network"))
    labels = Counter(rows.labels[i] for i in rows.label.tolist())
    sends = sum(len(job.sends) for p in range(2) for job in low.jobs[p])
    assert labels["send activations"] + labels["send gradients"] == sends > 0
    assert labels["all-gather"] == 2
    phases = {"send activations": "forward", "send gradients": "backward_input"}
    for label, phase in zip(rows.label.tolist(), rows.phase.tolist(), strict=True):
        assert PHASES[phase] == phases.get(rows.labels[label], "optimizer")
    for label, phase, stage in zip(rows.label.tolist(), rows.phase.tolist(), rows.stage.tolist(), strict=True):
        sent, reduced = (rows.labels[label].startswith(word) for word in ("send", "reduce"))
        assert (PHASES[phase] != "optimizer") == sent and (sent or reduced) == (stage >= 0)


def test_steps_are_the_program(done):
    laid, _, result = done
    for rank, row in enumerate(laid.program.steps):
        own = result.steps.of_position(rank)
        labels = [own.labels[i] for i in own.label.tolist()]
        assert labels == [step.kind for step in row] + ["optimizer"]
        assert own.micro_batch.tolist()[:-1] == [step.micro_batch for step in row]
        assert own.stage_b.tolist()[:-1] == [step.stage_b for step in row]


def test_columns_agree(done):
    for trace in (done[2].steps, done[2].spans, done[2].pair):
        assert {len(getattr(trace, c)) for c in Trace.COLUMNS} == {len(trace)}
        assert {getattr(trace, c).dtype for c in Trace.COLUMNS} == {np.dtype(np.int64)}
        assert trace.label.max() < len(trace.labels) and trace.price.max() < max(1, len(trace.prices))


def test_a_step_that_comes_once_is_not_drawn():
    """The first forward, which gathers parameters beside it, is the longest step of a position, and no usual one."""
    ring = {"parallel": {"pipeline": 2, "expert": 8}, "cluster": {"node": "h800x8", "nodes": 4}, "schedule": "1f1b",
            "stack": "megatron", "precision": "bf16", "overlap": {"gradients": True, "parameters": True}}  # fmt: skip
    laid = plan.lay_out(from_mapping(SMALL | ring))
    low = lower(laid, assembly.machine(laid))
    kit, step, name = simulation._pair(laid, low)
    longest = max(low.kits[1], key=lambda each: each.timing.total)
    assert low.kits[1].count(longest) == 1 and step.kind == "BW" and name == "BW of stage 1"
    assert sum(each.number == kit.number for each in low.kits[1]) == 7


def test_pair_is_one_step_alone(done):
    """The drawn step starts at 0, lasts as long as the summary says, and holds its template's kernels."""
    result = done[2]
    pair = result.pair
    assert (pair.position == 0).all() and pair.start.min() == 1990  # after the first launch
    assert pair.end.max() == round(result.summary["pair_s"]["seconds"] * 1e9)
    assert ("forward of stage" in result.pair_name) == bool((pair.phase == 0).any() and (pair.phase == 1).any())
