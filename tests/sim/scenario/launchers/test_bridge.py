"""Recipes of Megatron-Bridge and NeMo in our keys."""

from pathlib import Path
from typing import Any

import pytest

from hwmodels.refused import Refused
from tests.sim.scenario.launchers.launched import DENSE, FIXTURES, arguments, imported, told

RECIPE = """
model: {num_layers: 8, hidden_size: 1024, num_attention_heads: 16, vocab_size: 32000, seq_length: 2048, %s}
train: {micro_batch_size: 2, global_batch_size: 64}
%s
"""


def recipe(folder: Path, model: str = "", more: str = "", **asked: Any) -> Any:
    path = folder / "recipe.yaml"
    path.write_text(RECIPE % (model, more), encoding="utf-8")
    return imported(path, nodes=4, **asked)


def test_a_recipe_begins_as_bridges_do(tmp_path: Path) -> None:
    scenario = recipe(tmp_path).scenario
    assert scenario["parallel"] == {"zero": 1} and scenario["precision"] == "bf16"
    assert scenario["overlap"] == {"gradients": True, "parameters": True}
    assert "states" not in scenario
    model = scenario["model"]
    assert (model["kv_heads"], model["intermediate"], model["tied"], model["norm"]) == (16, 4096, True, "layer")


@pytest.mark.parametrize(
    ("model", "more", "key", "value"),
    [
        ("num_query_groups: 4", "", "model.kv_heads", 4),
        ("gated_linear_unit: true", "", "model.activation", "swiglu"),
        ("activation_func: megatron.core.activations.squared_relu", "", "model.activation", "relu2"),
        ("share_embeddings_and_output_weights: false", "", "model.tied", False),
        ("num_moe_experts: 8, moe_ffn_hidden_size: 512", "", "model.experts", 8),
        ("pipeline_model_parallel_size: 2, virtual_pipeline_model_parallel_size: 2", "", "schedule",
         {"name": "interleaved", "chunks": 2}),
        ("pipeline_model_parallel_size: 2, virtual_pipeline_model_parallel_size: null", "", "schedule",
         {"name": "1f1b"}),
        ("pipeline_model_parallel_size: 2, num_layers_in_last_pipeline_stage: 3", "", "placement", [5, 3]),
        ("recompute_granularity: selective, recompute_modules: [mlp, moe_act]", "", "recompute",
         {"modules": ["mlp", "activation"]}),
        ("", "mixed_precision: bf16_with_mxfp8_mixed", "precision", "mxfp8"),
        ("", "mixed_precision: bf16-with-fp8-subchannel-scaling-mixed", "precision", "fp8_block"),
        ("", "mixed_precision: {bf16: true, fp8: hybrid, fp8_recipe: tensorwise}", "precision", "fp8_current"),
        ("", "ddp: {use_distributed_optimizer: false, overlap_grad_reduce: false}", "parallel", {"zero": 0}),
        ("", "ddp: {grad_reduce_in_fp32: false}", "states.gradients", "bf16"),
        ("tensor_model_parallel_size: 2, sequence_parallel: true", "comm_overlap: {tp_comm_overlap: true}",
         "overlap.tensor", True),
        ("overlap_p2p_comm: false, pipeline_model_parallel_size: 4, virtual_pipeline_model_parallel_size: 2", "",
         "overlap.pipeline", False),
        ("", "ddp: {bucket_size: 40000000}", "overlap.buckets", "160000000 B"),
        ("", "ddp: {bucket_size: 40000000, grad_reduce_in_fp32: false}", "overlap.buckets", "80000000 B"),
        ("ffn_hidden_size: '${multiply:4, ${.hidden_size}}'", "", "model.intermediate", 4096),
        ("ffn_hidden_size: '${divide_ceil:${model.hidden_size}, 3}'", "", "model.intermediate", 342),
        ("max_position_embeddings: '${.seq_length}', position_embedding_type: learned_absolute", "",
         "model.positions", 2048),
        ("kv_channels: '${..train.global_batch_size}'", "", "model.head_width", 64),
    ],
)  # fmt: skip
def test_a_key_says_a_key(tmp_path: Path, model: str, more: str, key: str, value: Any) -> None:
    part = recipe(tmp_path, model, more).scenario
    for word in key.split("."):
        part = part[word]
    assert part == value


@pytest.mark.parametrize("value", ["${.nothing}", "${model}", "${.ffn_hidden_size}", "${divide_floor:8,0}", "${....x}"])
def test_a_reference_to_nothing_is_refused_in_a_line(tmp_path: Path, value: str) -> None:
    """Also one that leads to itself."""
    with pytest.raises(Refused, match=r"ffn_hidden_size: is .*, which the file does not say"):
        recipe(tmp_path, f"ffn_hidden_size: '{value}'")


def test_buckets_of_gradients_that_do_not_overlap_are_told(tmp_path: Path) -> None:
    found = recipe(tmp_path, "", "ddp: {bucket_size: 40000000, overlap_grad_reduce: false}")
    assert "buckets" not in found.scenario["overlap"] and "one bucket" in told(found)["ddp.bucket_size"]


def test_a_teacher_and_sections_apart_are_told_and_not_taken(tmp_path: Path) -> None:
    found = recipe(tmp_path, "teacher: {hidden_size: 9}", "checkpoint: {save: here}\noptimizer: {lr: 1e-4}\nstrange: 1")
    why = told(found)
    assert "not known" in why["model.teacher.hidden_size"] and "not known" in why["strange"]
    assert "saved or loaded" in why["checkpoint.save"] and "learned" in why["optimizer.lr"]
    assert found.scenario["model"]["hidden"] == 1024


def test_flags_in_yaml_are_those_of_a_list(tmp_path: Path) -> None:
    """Megatron-LM's own functional tests write their arguments so."""
    words = DENSE.split("--")[1:]
    pairs = [word.split() for word in words]
    lines = [f"  --{name}: {rest[0] if rest else 'true'}" for name, *rest in pairs]
    path = tmp_path / "model_config.yaml"
    path.write_text("ENV_VARS: {X: 1}\nMODEL_ARGS:\n" + "\n".join(lines), encoding="utf-8")
    scenario, other = imported(path, nodes=4).scenario, arguments(tmp_path).scenario
    for each in (scenario, other):
        each.pop("name")
        each["model"] = {key: value for key, value in each["model"].items() if key not in ("name", "source")}
    assert scenario == other


def test_bridges_fixture() -> None:
    scenario = imported(FIXTURES / "bridge.yaml", nodes=4).scenario
    assert scenario["parallel"] == {
        "pipeline": 2, "tensor": 2, "context": 2, "sequence": True, "context_kind": "ring", "zero": 1,
    }  # fmt: skip
    assert scenario["precision"] == "fp8_current"
    assert scenario["states"] == {"gradients": "bf16", "parameters": "fp8"} and scenario["overlap"]["tensor"] is True


def test_nemos_fixture() -> None:
    scenario = imported(FIXTURES / "nemo.yaml").scenario
    assert scenario["cluster"] == {"node": "h100x8", "nodes": 2}
    assert scenario["parallel"] == {"tensor": 2, "sequence": True, "zero": 1}
    assert scenario["recompute"] == {"layers": 4, "method": "block"}
    assert scenario["model"]["intermediate"] == 11008 and scenario["model"]["vocabulary"] == 32000


def test_keys_given_beside_it_count(tmp_path: Path) -> None:
    found = recipe(tmp_path, given={"model.tensor_model_parallel_size": "4", "train.global_batch_size": "256"})
    assert found.scenario["parallel"]["tensor"] == 4 and found.scenario["batch"]["sequences"] == 256
    found = recipe(
        tmp_path, given={"model.recompute_granularity": "selective", "model.recompute_modules": "[mlp, moe]"}
    )
    assert found.scenario["recompute"] == {"modules": ["mlp", "moe"]}
    with pytest.raises(Refused, match="expected a whole number; found 'x'"):
        recipe(tmp_path, given={"train.global_batch_size": "x"})


def test_a_whole_configuration_is_read_by_what_it_asks_for() -> None:
    """Precision over the model, data over its longest sequence, the model's own vocabulary; nothing is told of null."""
    found = imported(FIXTURES / "whole.yaml", nodes=1)
    scenario, model = found.scenario, found.scenario["model"]
    assert scenario["precision"] == "fp8_block" and scenario["batch"]["sequence_length"] == 1024
    assert (model["vocabulary"], model["tied"], model["kv_heads"]) == (128255, True, 8)
    overlap = {"gradients": True, "parameters": False, "buckets": "160000000 B"}
    assert scenario["overlap"] == overlap and scenario["parallel"] == {"zero": 1}
    assert set(told(found)) <= {
        "checkpoint.save", "optimizer.lr", "model.init_method", "mixed_precision.params_dtype",
        "model.moe_token_dispatcher_type", "model.moe_router_topk",
    }  # fmt: skip
