"""One GPU and one node are cases of their own: no pipeline, micro-batches that add up, nothing that needs a network."""

import json

import pytest

import sim
from hwmodels.refused import Refused
from reports.folder import write
from sim import simulation
from sim.analysis.notes import notes
from sim.assembly import assembled
from sim.layout.plan import lay_out
from sim.models.layer import COMPUTE
from sim.result.figures import legal
from sim.scenario.shelves import models, scenarios

ONE = {"base": "h200x8", "gpus": 1}
LLAMA = {"cluster": {"node": ONE, "nodes": 1}, "model": "llama3_8b", "precision": "bf16",
         "batch": {"sequences": 4, "sequence_length": 4096}}  # fmt: skip
LITE = {"cluster": {"node": "h800x8", "nodes": 1}, "model": {"base": "deepseek_v2_lite", "layers": 4},
        "precision": "bf16", "parallel": {"expert": 8},
        "batch": {"sequences": 64, "sequence_length": 4096}}  # fmt: skip


def small(name, gpus):
    """Two layers of a model that ships, of which no more than one is dense, on one node."""
    document = {"cluster": {"node": {"base": "h200x8", "gpus": gpus}, "nodes": 1}, "precision": "bf16",
                "batch": {"micro_batches": 3, "sequence_length": 2048},
                "model": {"base": name, "layers": 2}}  # fmt: skip
    try:
        return sim.load(document)
    except Refused:
        return sim.load({**document, "model": {"base": name, "layers": 2, "dense_layers": 1}})


@pytest.mark.parametrize("gpus", [1, 8])
@pytest.mark.parametrize("name", models())
def test_every_model_runs_without_a_pipeline(name, gpus, tmp_path):
    """A step is no shorter than its compute, all parts of memory are there, and so are result and page."""
    scenario = small(name, gpus)
    result, machine = simulation.run(scenario, False), assembled(lay_out(scenario))[0]
    compute = sum(machine.unit_ns(unit, lanes=(COMPUTE,)) for unit in machine.units)
    assert result.summary["step_time_s"] * 1e9 >= 3 * compute
    (peak,) = result.summary["peak_memory_bytes"]
    assert all(size > 0 for size in peak.values())
    assert peak["total"] == sum(size for part, size in peak.items() if part != "total")
    write(result, result.save(tmp_path / "run"), ["report"])
    told = json.loads((tmp_path / "run" / "result.json").read_text(encoding="utf-8"))
    assert all(legal(key) for key in told) and told["mfu"]["causal"] > 0 and told["comm"]["sms"] == 0
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "1 node of" in page and "nan" not in page.lower().replace("nano", "").split("<script")[0]


def test_a_schedule_may_be_left_out_without_a_pipeline():
    left_out, said = sim.load(LLAMA), sim.load({**LLAMA, "schedule": "1f1b"})
    assert left_out == said and left_out.scenario_hash == said.scenario_hash
    with pytest.raises(Refused, match=r"schedule: missing; expected a schedule, e.g. dualpipe .*pipeline 2"):
        sim.load({**LLAMA, "cluster": {"node": "h200x8", "nodes": 1}, "parallel": {"pipeline": 2}})


def test_micro_batches_add_up():
    """Each takes its forward and its backward; one update follows, and activations are those of one."""
    one, two, five = (simulation.run(sim.load(LLAMA, [f"batch.sequences={n}"]), False).summary for n in (1, 2, 5))
    each = two["step_time_s"] - one["step_time_s"]
    assert five["step_time_s"] - one["step_time_s"] == pytest.approx(4 * each, rel=1e-12)
    assert one["phases_s"]["forward"] + one["phases_s"]["backward"] == pytest.approx(each, rel=1e-12)
    assert one["phases_s"]["optimizer"] == five["phases_s"]["optimizer"]
    assert one["peak_memory_bytes"] == five["peak_memory_bytes"]
    all_first = simulation.run(sim.load(LLAMA, ["batch.sequences=5", "schedule=gpipe"]), False).summary
    assert all_first["step_time_s"] == five["step_time_s"]
    kept = [each["peak_memory_bytes"][0]["activations"] for each in (one, all_first)]
    assert kept[1] == 5 * kept[0]


def test_one_gpu_sends_nothing_and_eight_share_the_optimizer():
    alone = simulation.run(sim.load(LLAMA), False)
    eight = simulation.run(sim.load(LLAMA, ["cluster.node.gpus=8", "batch.sequences=32"]), False)
    assert all(row["wire_bytes"] == row["nvlink_bytes"] == 0 for row in alone.summary["communication"])
    assert alone.summary["bubble_fraction"] < 1e-8 < eight.summary["bubble_fraction"]
    one, all_eight = (each.summary["peak_memory_bytes"][0] for each in (alone, eight))
    assert one["optimizer states"] == pytest.approx(8 * all_eight["optimizer states"], rel=1e-9)
    assert one["gradients"] == all_eight["gradients"] == 2 * one["weights"]  # FP32 beside BF16


def test_nobody_to_exchange_with_holds_no_sms():
    together = simulation.run(sim.load(LITE), False).summary
    alone = simulation.run(sim.load(LITE, ["parallel.expert=1"]), False).summary
    assert together["comm"] == {"sms": 20, "hold": "while_running"} and together["exposed_communication_s"] > 0
    assert alone["comm"]["sms"] == 0 and alone["exposed_communication_s"] < together["exposed_communication_s"] / 20


def test_a_fabric_around_one_node_changes_nothing_and_says_so():
    bare, wired = sim.load(LITE), sim.load(LITE, ["cluster.fabric=mpft"])
    figures = [simulation.run(sim.load(each), False).summary for each in (bare, wired)]
    assert figures[0]["step_time_s"] == figures[1]["step_time_s"]
    line = "cluster.fabric changes nothing: nothing leaves one node"
    assert list(notes(wired, figures[1], ())) == [line] and list(notes(bare, figures[0], ())) == []


@pytest.mark.parametrize("name", [name for name in scenarios() if "_one_" in name and not name.startswith("rl_")])
def test_shipped_scenarios_of_one_node_fit(name):
    result = sim.run(sim.load(name), interval=False)
    assert result.feasible[0] and result.summary["gpus"] in (1, 8)
    assert list(notes(sim.load(name), result.summary, ())) == []


def test_one_gpu_of_a_node_is_no_mistyped_node():
    assert list(notes(sim.load(LLAMA), {}, ())) == []
