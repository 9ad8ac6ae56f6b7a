"""A whole run: everything a Result promises, for models and for chunk times, and what outputs leave out."""

import json
from pathlib import Path

import pytest

from sim import simulation
from sim.models import deepseek
from sim.models.family import weights
from sim.scenario import from_mapping, load

SCENARIOS = Path(__file__).parents[2] / "scenarios"
KEYS = {
    "schema_version", "scenario", "scenario_hash", "step_time_s", "tokens_per_day", "gpu_hours_per_trillion_tokens",
    "tflops_per_gpu", "mfu", "phases_s", "phases_per_rank", "bubble_fraction", "exposed_communication_s",
    "overlap_fraction", "peak_memory_bytes", "price_shares", "events",
}  # fmt: skip
PHASES = {"forward", "backward", "weight", "overlapped", "bubble", "optimizer"}


@pytest.fixture(scope="module")
def main():
    return simulation.run(load(str(SCENARIOS / "v3_2048gpu.yaml"), ["outputs=[result]", "detail=chunk"]))


@pytest.fixture(scope="module")
def chunks():
    return simulation.run(load(str(SCENARIOS / "zb_chunk_times.yaml")))


@pytest.mark.parametrize("which", ["main", "chunks"])
def test_promised_keys(which, request):
    summary = request.getfixturevalue(which).summary
    assert summary.keys() >= KEYS
    assert summary["phases_s"].keys() == summary["phases_per_rank"].keys() == PHASES
    assert json.loads(json.dumps(summary)) == summary  # plain values only


def test_stages_are_the_model(main):
    """Layers and parameters of all stages together; what the ends hold is said."""
    shape = load(str(SCENARIOS / "v3_2048gpu.yaml")).model
    assert sum(s.layers for s in main.stages) == 62  # with the prediction module's
    assert sum(s.parameters for s in main.stages) == weights(shape, deepseek.units(shape)).total
    assert main.stages[0].contents.startswith("embedding, dense 0-2")
    assert main.stages[-1].contents.endswith("head, MTP projection, MoE 61, head")
    assert [s.stage for s in main.stages] == list(range(16))
    assert all(min(s.forward_s, s.backward_input_s, s.weight_s) > 0 for s in main.stages)


def test_alike_stages_cost_alike(main):
    inner = {(s.forward_s, s.backward_input_s, s.weight_s) for s in main.stages[2:14] if s.layers == 4}
    assert len(inner) == 1


def test_pair_of_v3_is_four_layers_each_way(main):
    """The pair of the published profile, 129.0 ms there: within 5 % here, from single kernels alone."""
    assert main.pair_name == "forward of stage 8 with backward of stage 7"
    assert main.summary["pair_s"]["seconds"] == pytest.approx(0.1290, rel=0.05)


def test_step_is_no_faster_than_its_longest_rank(main):
    """A bound nobody can beat: forward and backward of all micro-batches of the most loaded rank, perfectly packed."""
    s = main.summary
    for rank in range(16):
        work = sum(s["phases_per_rank"][name][rank] for name in ("forward", "backward", "weight", "overlapped"))
        assert work < s["step_time_s"]
    # all products at FP8's peak, even those that run in BF16, are a bound below "ideal compute"
    tokens_per_gpu = s["tokens_per_step"] / 2048
    assert main.waterfall[0].seconds > tokens_per_gpu * 250.4e9 / 1979e12
    assert main.waterfall[0].name == "ideal compute" and 0 < main.waterfall[0].seconds < s["step_time_s"]


def test_outputs_leave_out_spans(main):
    assert len(main.spans) == 0 and main.pair is None
    assert len(main.steps) > 1000 and len(main.memory) == 16


def test_chunk_times_alone(chunks):
    """No machine: no memory, no stages, no pair; the timeline is there."""
    assert chunks.memory == () and chunks.stages == () and chunks.pair is None
    assert chunks.feasible == (True, "")
    assert len(chunks.steps) == 8 * 24 * 3 == len(chunks.spans.where(chunks.spans.lane == 0))
    assert chunks.waterfall[0].name == "compute"
    assert chunks.waterfall[0].seconds == pytest.approx(24 * (18.5 + 18.1 + 9.3) * 1e-3)


def test_name_and_outputs_do_not_change_the_answer():
    mapping = {
        "schedule": "1f1b", "parallel": {"pipeline": 2}, "batch": {"micro_batches": 4},
        "chunk_times": {"forward": "1 ms", "backward_input": "1 ms", "weight": "1 ms"},
    }  # fmt: skip
    one, two = (simulation.run(from_mapping(mapping | extra)) for extra in ({}, {"name": "x", "outputs": ["result"]}))
    assert one.summary == two.summary | {"scenario": one.summary["scenario"]}


@pytest.mark.parametrize("name", ["v2_236b", "v2_lite", "dualpipe_8x20"])
def test_shipped_scenarios_run(name):
    result = simulation.run(load(str(SCENARIOS / f"{name}.yaml"), ["outputs=[result]", "detail=chunk"]))
    assert result.summary["step_time_s"] > 0
    assert result.feasible == (True, "")
