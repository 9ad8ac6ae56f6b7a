"""torchtitan's jobs in our keys."""

from pathlib import Path
from typing import Any

import pytest

from hwmodels.refused import Refused
from tests.sim.scenario.launchers.launched import FIXTURES, imported

JOB = """
[model]
name = "{name}"
flavor = "{flavor}"
{model}
[training]
local_batch_size = 2
seq_len = 4096
{training}
[activation_checkpoint]
mode = "none"
{checkpoint}
[parallelism]
{parallel}
{more}
"""

STACK = {"name": "torch", "rope": "complex", "clips": True}
COMPILED = STACK | {"compiled": True, "compiled_ends": "loss"}


def job(
    folder: Path, name: str = "llama3", flavor: str = "8B", node: str = "h100x8", nodes: int = 4, **parts: str
) -> Any:
    path = folder / "job.toml"
    parts = {"model": "", "training": "", "checkpoint": "", "parallel": "", "more": ""} | parts
    if parts["checkpoint"]:
        parts["checkpoint"] = f"# {parts['checkpoint']}"
    path.write_text(JOB.format(name=name, flavor=flavor, **parts), encoding="utf-8")
    return imported(path, node, nodes)


def test_defaults_are_the_launchers(tmp_path: Path) -> None:
    scenario = job(tmp_path).scenario
    assert scenario == {
        "name": "job", "cluster": {"node": "h100x8", "nodes": 4}, "model": "llama3_8b", "precision": "bf16",
        "stack": STACK, "parallel": {"zero": 3},
        "batch": {"sequences": 64, "sequence_length": 4096, "micro_batch": 2},
        "overlap": {"gradients": True, "parameters": True}, "recompute": "none",
        "states": {"master": "fp32", "moments": "fp32", "gradients": "fp32"}, "optimizer": {"name": "adamw"},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("parts", "key", "value"),
    [
        ({"parallel": "tensor_parallel_degree = 8"}, "parallel", {"tensor": 8, "sequence": True, "zero": 3}),
        ({"parallel": "context_parallel_degree = 2"}, "parallel",
         {"context": 2, "context_kind": "all_gather", "zero": 3}),
        ({"parallel": 'context_parallel_degree = 2\ncontext_parallel_rotate_method = "alltoall"'}, "parallel",
         {"context": 2, "context_kind": "ring", "zero": 3}),
        ({"parallel": "data_parallel_replicate_degree = 4"}, "parallel", {"zero": 3, "shard": 8}),
        ({"parallel": "data_parallel_replicate_degree = 32\ndata_parallel_shard_degree = 1"}, "parallel", {"zero": 0}),
        ({"parallel": 'fsdp_reshard_after_forward = "never"'}, "parallel", {"zero": 2}),
        ({"parallel": "pipeline_parallel_degree = 4"}, "parallel", {"pipeline": 4, "zero": 2}),
        ({"parallel": "pipeline_parallel_degree = 4"}, "schedule", {"name": "1f1b"}),
        ({"parallel": "pipeline_parallel_degree = 4"}, "placement", [8, 9, 8, 7]),
        ({"parallel": "pipeline_parallel_degree = 4"}, "batch",
         {"sequences": 16, "sequence_length": 4096, "micro_batch": 1}),
        ({"parallel": 'pipeline_parallel_degree = 4\npipeline_parallel_schedule = "Interleaved1F1B"\n'
          "pipeline_parallel_layers_per_stage = 3"}, "schedule", {"name": "interleaved", "chunks": 3}),
        ({"parallel": 'pipeline_parallel_degree = 4\npipeline_parallel_schedule = "DualPipeV"'}, "schedule",
         {"name": "dualpipev"}),
        ({"training": "global_batch_size = 256"}, "batch",
         {"sequences": 256, "sequence_length": 4096, "micro_batch": 2}),
        ({"training": 'dtype = "bfloat16"'}, "states", {"master": "bf16", "moments": "bf16", "gradients": "bf16"}),
        ({"training": "enable_cpu_offload = true"}, "optimizer", {"name": "adamw", "offload": "host"}),
        ({"more": "[compile]\nenable = true"}, "stack", COMPILED),
        ({"more": '[compile]\nenable = true\ncomponents = ["loss"]'}, "stack", STACK),
        ({"parallel": "tensor_parallel_degree = 2\ndisable_loss_parallel = true"}, "stack",
         STACK | {"loss_parallel": False}),
        ({"parallel": "disable_loss_parallel = true"}, "stack", STACK),
        ({"training": "compile = true"}, "stack", COMPILED),
        ({"more": '[compile]\nenable = true\ncomponents = ["model"]'}, "stack", COMPILED | {"compiled_ends": "none"}),
        ({"more": '[optimizer]\nimplementation = "for-loop"'}, "stack", STACK | {"update": "loop"}),
        ({"training": "max_norm = 0.0"}, "stack", {"name": "torch", "rope": "complex"}),
        ({"model": 'converters = ["quantize.linear.float8"]'}, "precision", "fp8_current"),
        ({"model": 'converters = "float8"'}, "precision", "fp8_current"),
        ({"model": 'converters = "float8"', "more": '[float8]\nrecipe_name = "rowwise"'}, "precision", "fp8_rowwise"),
        *((
            {"model": 'converters = "float8"', "more": f"[float8]\nenable_fsdp_float8_all_gather = true\n{recipe}"},
            "states", {"master": "fp32", "moments": "fp32", "gradients": "fp32", **kept},
        ) for recipe, kept in (("", {"parameters": "fp8"}), ('recipe_name = "rowwise"', {}))),
        ({"more": "[float8]\nenable_float8_linear = true"}, "precision", "fp8_current"),
        ({"parallel": "tensor_parallel_degree = 2\nenable_async_tensor_parallel = true",
          "more": "[compile]\nenable = true"}, "overlap", {"gradients": True, "parameters": True, "tensor": True}),
        ({"name": "deepseek_v3", "flavor": "671B", "parallel": "expert_parallel_degree = 32"}, "model",
         {"base": "deepseek_v3", "mtp_depth": 0}),
        ({"name": "qwen3", "flavor": "30B-A3B", "parallel": "expert_parallel_degree = 8\ntensor_parallel_degree = 2"},
         "parallel", {"tensor": 2, "expert": 8, "sequence": True, "zero": 3}),
        ({"name": "qwen3", "flavor": "30B-A3B", "parallel": "tensor_parallel_degree = 2"}, "parallel",
         {"tensor": 2, "sequence": True, "expert_tensor": 2, "zero": 3}),
    ],
)  # fmt: skip
def test_a_key_says_a_key(tmp_path: Path, parts: dict[str, str], key: str, value: Any) -> None:
    assert job(tmp_path, **parts).scenario[key] == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('mode = "full"', "full"),
        ('mode = "selective"', {"layers": 2, "method": "every"}),
        ('mode = "selective"\nselective_ac_option = "4"', {"layers": 4, "method": "every"}),
        ('mode = "selective"\nselective_ac_option = "0"', "full"),
        ('mode = "selective"\nselective_ac_option = "1"', "full"),
        ('mode = "selective"\nselective_ac_option = "op"', "selective_op"),
        ('mode = "selective"\nselective_ac_option = "op"\n[compile]\nenable = true', "selective_op"),
    ],
)
def test_activation_checkpoints(tmp_path: Path, text: str, value: Any) -> None:
    path = tmp_path / "job.toml"
    job(tmp_path)
    path.write_text(path.read_text().replace('mode = "none"', text))
    scenario = imported(path, nodes=4).scenario
    assert scenario["recompute"] == value
    assert ("early_stop" in scenario["stack"]) == (value != "none")  # its default, from August 2025 on


def test_checkpoints_that_stop_early_say_so(tmp_path: Path) -> None:
    job(tmp_path)
    path = tmp_path / "job.toml"
    path.write_text(path.read_text().replace('mode = "none"', 'mode = "full"\nearly_stop = true'))
    assert imported(path, nodes=4).scenario["stack"] == STACK


@pytest.mark.parametrize(
    ("parts", "line"),
    [
        ({"flavor": "9B"}, "job.toml:4: model.flavor: llama3 '9B' has no model here; legal: 8B, 70B, 405B"),
        ({"name": "lama3"}, "job.toml:3: model.name: no model 'lama3' is known, did you mean 'llama3'?"),
        ({"parallel": "tensor_parallel_degree = 5"}, "[parallelism] is for multiples of 5 GPUs, and there are 32"),
        ({"parallel": "data_parallel_shard_degree = 4"}, "[parallelism] is for 4 GPUs, and there are 32"),
        ({"parallel": 'pipeline_parallel_degree = 2\npipeline_parallel_schedule = "Zigzag"'}, "unknown schedule"),
        (
            {"parallel": "tensor_parallel_degree = true"},
            "tensor_parallel_degree: expected a whole number; found 'True'",
        ),
        ({"training": 'mixed_precision_param = "float32"'}, "trains in FP32"),
        ({"parallel": "tensor_parallel_degree = "}, "not TOML: Invalid value"),
        ({"training": "seq_len = 1"}, "not TOML: Cannot overwrite a value"),
    ],
)
def test_what_is_wrong_is_a_line(tmp_path: Path, parts: dict[str, str], line: str) -> None:
    with pytest.raises(Refused) as refused:
        job(tmp_path, **parts)
    assert line in str(refused.value) and "\n" not in str(refused.value)


def test_the_fixture_says_its_own_world() -> None:
    found = imported(FIXTURES / "llama3_70b.toml")
    assert found.scenario["cluster"] == {"node": "h100x8", "nodes": 8} and found.scenario["parallel"]["shard"] == 4
    lines = (FIXTURES / "llama3_70b.toml").read_text().splitlines()
    assert all(lines[note.line - 1].startswith(note.word.split()[0].split(".")[-1]) for note in found.notes)
    assert found.scenario["states"]["parameters"] == "fp8"


def test_a_mixture_over_a_pipeline() -> None:
    found = imported(FIXTURES / "deepseek.toml", nodes=4)
    assert found.scenario["schedule"] == {"name": "interleaved", "chunks": 2}
    assert found.scenario["placement"] == [7, 7, 7, 6] and found.scenario["routing"] == "balanced"
    assert found.scenario["recompute"] == "selective_op" and len([*found.notes]) == len({*found.notes})
