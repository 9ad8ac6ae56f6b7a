"""Scenarios: every bad file with its exact message, resolved values that reload, hashes, schema."""

import json
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from hwmodels import device, fabric, node
from hwmodels.document import DocumentError
from sim.experiments import kinds
from sim.models.family import families
from sim.scenario import SCENARIOS, Scenario, from_mapping, load, models, schema
from sim.scenario.form import ScenarioForm
from sim.schedules.program import chunked, names

BAD = Path(__file__).parent / "bad"
SHIPPED = sorted(str(file) for file in SCENARIOS.glob("*.yaml") if not kinds.kind(str(file)))
V3 = str(SCENARIOS / "v3_2048gpu.yaml")


def messages() -> dict[str, list[str]]:
    """File name -> its lines of messages.txt, with the names that are known now in place of <devices> and so on."""
    text = (BAD / "messages.txt").read_text()
    for kind, known in {
        "devices": device.available(), "nodes": node.available(), "fabrics": fabric.available(), "models": models(),
        "schedules": names(), "chunked": [n for n in names() if chunked(n, 1)], "families": families(),
    }.items():  # fmt: skip
        text = text.replace(f"<{kind}>", ", ".join(known))
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        found.setdefault(line.split(":")[0], []).append(line)
    return found


def errors(path: str, *overrides: str) -> list[str]:
    with pytest.raises(DocumentError) as caught:
        load(path, overrides)
    return str(caught.value).splitlines()


@pytest.mark.parametrize("name", sorted(file.name for file in BAD.glob("*.yaml")))
def test_a_bad_file_says_exactly_what_is_wrong(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(BAD)
    assert errors(name) == messages()[name]


def test_there_are_bad_files_enough_and_no_message_without_its_file() -> None:
    assert len(messages()) >= 50
    assert set(messages()) == {file.name for file in BAD.glob("*.yaml")}


def test_a_file_that_is_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert errors("absent.yaml") == ["absent.yaml: cannot be read: No such file or directory"]
    assert errors(".") == [".: cannot be read: Is a directory"]


def test_the_main_scenario_is_as_the_design_has_it() -> None:
    scenario = load(V3)
    assert scenario.cluster is not None and scenario.model is not None and scenario.cluster.fabric is not None
    assert (scenario.cluster.gpus, scenario.data_parallel) == (2048, 128)
    assert scenario.cluster.node == node.load("h800x8")
    assert scenario.cluster.fabric == fabric.load("mpft")
    assert (scenario.batch.sequences, scenario.batch.micro_batches) == (15360, None)
    assert (scenario.schedule.name, scenario.schedule.chunks, scenario.comm.sms) == ("dualpipe", 2, 20)
    assert (scenario.detail, scenario.fold, scenario.seed, scenario.pricing) == ("layer", True, 0, "measured")
    assert scenario.outputs == ("result", "report", "trace", "events", "links", "loads")
    assert (scenario.placement, scenario.routing.kind, scenario.chunk_times) == ("balanced", "balanced", None)


def test_the_shapes_are_the_published_ones() -> None:
    v3, v2, lite = (load(V3, [f"model={name}", "parallel.expert=32"]).model
                    for name in ("deepseek_v3", "deepseek_v2", "deepseek_v2_lite"))  # fmt: skip
    assert v3 and v2 and lite
    assert (v3.layers, v3.hidden, v3.experts, v3.experts_per_token, v3.mtp_depth) == (61, 7168, 256, 8, 1)
    assert (v2.layers, v2.hidden, v2.experts, v2.experts_per_token, v2.q_rank) == (60, 5120, 160, 6, 1536)
    assert (lite.layers, lite.hidden, lite.experts, lite.dense_intermediate, lite.q_rank) == (27, 2048, 64, 10944, 0)


def test_a_cache_of_another_size_is_reloaded_with_the_one_that_kernels_were_timed_with() -> None:
    for word in ("l2.capacity=1MiB", "hierarchy={l2: {technology: edram, capacity: 200MiB}}"):
        scenario = load(V3, [f"cluster.node.device.{word}"])
        again = from_mapping(json.loads(json.dumps(scenario.resolved)))
        assert again.cluster.node.device == scenario.cluster.node.device and again.cluster.node.device.timed_cache


@pytest.mark.parametrize("path", SHIPPED)
def test_shipped_scenarios_reload_from_what_they_resolve_to(path: str, tmp_path: Path) -> None:
    scenario = load(path)
    again = tmp_path / "scenario.yaml"
    again.write_text(yaml.safe_dump(scenario.resolved, sort_keys=False))
    assert load(str(again)) == scenario
    assert load(str(again)).scenario_hash == scenario.scenario_hash
    assert from_mapping(json.loads(json.dumps(scenario.resolved))) == scenario
    assert pickle.loads(pickle.dumps(scenario)) == scenario
    assert hash(scenario) == hash(load(path))


def test_the_hash_leaves_out_name_and_outputs_and_nothing_else() -> None:
    first = load(V3).scenario_hash
    assert load(V3, ["name=other", "outputs=[result]"]).scenario_hash == first
    for change in ("seed=1", "fold=false", "detail=op", "comm.sms=12", "cluster.node.nic.bandwidth=51 GB/s",
                   "limits.step_time=20 s", "pricing=roofline", "batch.sequences=30720"):  # fmt: skip
        assert load(V3, [change]).scenario_hash != first, change


def chunks(**times: str) -> Scenario:
    return from_mapping({"schedule": "zb1p", "batch": {"micro_batches": 8}, "chunk_times": times})


def test_chunk_times_are_nanoseconds_and_overlapped_is_the_sum_unless_given() -> None:
    plain = chunks(forward="1 ms", backward_input="2 ms", weight="0.5 us").chunk_times
    assert plain is not None
    assert (plain.forward, plain.backward_input, plain.weight) == (1_000_000, 2_000_000, 500)
    assert (plain.overlapped, plain.p2p) == (3_000_500, 0)
    faster = chunks(forward="1 ms", backward_input="2 ms", weight="1 ms", overlapped="3 ms", p2p="600 us").chunk_times
    assert faster is not None and (faster.overlapped, faster.p2p) == (3_000_000, 600_000)


def test_micro_batches_alone_give_the_sequences() -> None:
    scenario = load(V3, ["batch.sequences=null", "batch.micro_batches=60"])
    assert (scenario.batch.sequences, scenario.batch.micro_batches) == (60 * 128, 60)
    assert from_mapping(scenario.resolved) == scenario


def test_limits_and_short_forms() -> None:
    scenario = load(V3, ["limits.step_time=20 s", "limits.memory=72 GB", "outputs=result", "batch.sequences=1.536e4"])
    assert (scenario.limits.step_time_s, scenario.limits.memory_bytes) == (20.0, 72_000_000_000)
    assert scenario.outputs == ("result",)
    assert scenario.batch.sequences == 15360
    assert from_mapping(scenario.resolved) == scenario


def test_the_name_is_the_files_when_it_gives_none(tmp_path: Path) -> None:
    file = tmp_path / "small.yaml"
    file.write_text("schedule: zb1p\nbatch: {micro_batches: 2}\n"
                    "chunk_times: {forward: 1 us, backward_input: 1 us, weight: 1 us}\n")  # fmt: skip
    assert load(str(file)).name == "small"


def test_a_model_beside_the_scenario_is_found_and_may_build_on_itself_only_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    shutil.copy(V3, tmp_path / "mine.yaml")
    shutil.copy(SCENARIOS / "models" / "deepseek_v3.yaml", tmp_path / "models" / "big.yaml")
    (tmp_path / "models" / "small.yaml").write_text("base: big\nname: small\nlayers: 24\n")
    model = load(str(tmp_path / "mine.yaml"), ["model=small"]).model
    assert model is not None and (model.name, model.layers, model.hidden) == ("small", 24, 7168)
    (tmp_path / "models" / "big.yaml").write_text("base: small\n")
    (line,) = errors(str(tmp_path / "mine.yaml"), "model=small")
    assert line.endswith("models/big.yaml:1:1: model: base goes in a circle: small.yaml -> big.yaml -> small.yaml")


def test_a_mapping_has_no_line_to_name() -> None:
    with pytest.raises(DocumentError) as caught:
        from_mapping({"schedule": "zb1p", "batch": {"micro_batch": 0}})
    assert str(caught.value) == "<mapping>: batch.micro_batch: expected a whole number, 1 or more; found 0"


def test_schema_is_json_and_knows_every_key() -> None:
    content = json.loads(json.dumps(schema()))
    assert content["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert set(content["properties"]) == set(ScenarioForm.model_fields)
    assert content["additionalProperties"] is False
    assert {"batch"} == set(content["required"])
    node_schema = content["$defs"]["ClusterForm"]["properties"]["node"]
    assert node_schema["anyOf"][0]["enum"] == list(node.available())
    assert content["$defs"]["BatchForm"]["properties"]["micro_batch"]["minimum"] == 1


def test_schedules_and_families_are_the_files_there_are() -> None:
    assert {"dualpipe", "dualpipev", "zb1p", "1f1b", "interleaved", "gpipe"} <= set(names())
    assert "deepseek" in families()


def test_reading_the_values_needs_neither_pydantic_nor_torch() -> None:
    heavy = {"pydantic", "torch", "networkx", "plotly", "yaml"}
    code = f"import sys, sim.scenario; print(sorted({heavy} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


@settings(max_examples=40, deadline=None)
@given(pipeline=st.integers(1, 40), expert=st.integers(1, 300), nodes=st.integers(1, 300), sms=st.integers(-3, 140))
def test_a_layout_is_taken_exactly_when_it_divides(pipeline: int, expert: int, nodes: int, sms: int) -> None:
    gpus = nodes * 8
    copies = gpus // pipeline
    divides = gpus % pipeline == 0 and copies % expert == 0 and 256 % expert == 0
    legal = divides and sms % 2 == 0 and 0 <= sms <= 130 and (copies > 0)
    changes = [f"parallel.pipeline={pipeline}", f"parallel.expert={expert}", f"cluster.nodes={nodes}",
               f"comm.sms={sms}", "batch.sequences=null", "batch.micro_batches=64", "schedule=1f1b"]  # fmt: skip
    if legal:
        assert load(V3, changes).data_parallel == copies
    else:
        assert errors(V3, *changes)
