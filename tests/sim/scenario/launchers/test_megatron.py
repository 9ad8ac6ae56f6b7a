"""Arguments of Megatron-LM in our keys."""

from pathlib import Path
from typing import Any

import pytest

from hwmodels.refused import Refused
from tests.sim.scenario.launchers.launched import FIXTURES, arguments, imported, told

PLAIN = {
    "name": "job", "cluster": {"node": "h100x8", "nodes": 4},
    "model": {
        "family": "transformer", "name": "job", "vocabulary": 32128, "hidden": 1024, "layers": 8, "heads": 16,
        "kv_heads": 16, "head_width": 64, "tied": True, "intermediate": 4096, "activation": "gelu", "norm": "layer",
        "mlp_bias": True, "qkv_bias": True, "output_bias": True, "rotary": 0, "positions": 2048,
    },
    "precision": "bf16", "stack": {"name": "megatron"}, "parallel": {"zero": 0},
    "batch": {"sequences": 64, "sequence_length": 2048, "micro_batch": 2},
    "overlap": {"gradients": False, "parameters": False}, "recompute": "none",
    "optimizer": {"name": "adamw"},
}  # fmt: skip
"""What the arguments of a small model say by the defaults of arguments.py."""


def test_defaults_are_the_launchers(tmp_path: Path) -> None:
    scenario = arguments(tmp_path).scenario
    scenario["model"].pop("source")
    assert scenario == PLAIN


@pytest.mark.parametrize(
    ("more", "key", "value"),
    [
        ("--tensor-model-parallel-size 4", "parallel", {"tensor": 4, "sequence": False, "zero": 0}),
        ("--tensor-model-parallel-size 2 --sequence-parallel", "parallel", {"tensor": 2, "sequence": True, "zero": 0}),
        ("--context-parallel-size 2", "parallel", {"context": 2, "context_kind": "ring", "zero": 0}),
        ("--context-parallel-size 2 --cp-comm-type a2a", "parallel",
         {"context": 2, "context_kind": "all_to_all", "zero": 0}),
        ("--use-distributed-optimizer", "parallel", {"zero": 1}),
        ("--use-distributed-optimizer --num-distributed-optimizer-instances 4", "parallel", {"zero": 1, "shard": 8}),
        ("--use-megatron-fsdp --data-parallel-sharding-strategy optim_grads_params", "parallel", {"zero": 3}),
        ("--use-megatron-fsdp --data-parallel-sharding-strategy optim_grads", "parallel", {"zero": 2}),
        ("--use-megatron-fsdp --data-parallel-sharding-strategy optim", "parallel", {"zero": 1}),
        ("--use-torch-fsdp2", "parallel", {"zero": 3}),
        ("--use-torch-fsdp2 --torch-fsdp2-no-reshard-after-forward", "parallel", {"zero": 2}),
        ("--use-tp-pp-dp-mapping", "parallel", {"zero": 0, "order": "tp-cp-ep-pp-dp"}),
        ("--pipeline-model-parallel-size 4", "schedule", {"name": "1f1b"}),
        ("--pipeline-model-parallel-size 4", "placement", "even"),
        ("--pipeline-model-parallel-size 2 --num-layers-per-virtual-pipeline-stage 2", "schedule",
         {"name": "interleaved", "chunks": 2}),
        ("--pipeline-model-parallel-size 2 --num-virtual-stages-per-pipeline-rank 4 "
         "--microbatch-group-size-per-virtual-pipeline-stage 4", "schedule",
         {"name": "interleaved", "chunks": 4, "group": 4}),
        ("--pipeline-model-parallel-size 2 --pipeline-model-parallel-layout Ett|(tt|)*2,ttL", "placement",
         "Ett|(tt|)*2,ttL"),
        ("--pipeline-model-parallel-size 4 --decoder-first-pipeline-num-layers 1 --decoder-last-pipeline-num-layers 3",
         "placement", [1, 2, 2, 3]),
        ("--pipeline-model-parallel-size 3 --account-for-embedding-in-pipeline-split", "placement", [2, 3, 3]),
        ("--overlap-grad-reduce --overlap-param-gather --tensor-model-parallel-size 2 --sequence-parallel "
         "--tp-comm-overlap", "overlap", {"gradients": True, "parameters": True, "tensor": True}),
        ("--pipeline-model-parallel-size 2 --num-layers-per-virtual-pipeline-stage 2", "overlap",
         {"gradients": False, "parameters": False, "pipeline": True}),
        ("--pipeline-model-parallel-size 2 --num-layers-per-virtual-pipeline-stage 2 --overlap-grad-reduce "
         "--overlap-param-gather --no-align-param-gather", "overlap",
         {"gradients": True, "parameters": True, "pipeline": True, "gather": "on_demand"}),
        ("--pipeline-model-parallel-size 2", "overlap", {"gradients": False, "parameters": False, "pipeline": False}),
        ("--recompute-activations", "recompute", {"modules": ["core_attention"]}),
        ("--recompute-granularity full --recompute-method uniform --recompute-num-layers 1", "recompute", "full"),
        ("--recompute-granularity full --recompute-method block --recompute-num-layers 3", "recompute",
         {"layers": 3, "method": "block"}),
        ("--recompute-granularity selective --recompute-modules layernorm moe_act mla_up_proj", "recompute",
         {"modules": ["norm", "activation", "mla_up_projection"]}),
        ("--fp8-format hybrid", "precision", "fp8_delayed"),
        ("--fp8-format e4m3 --fp8-recipe blockwise", "precision", "fp8_block"),
        ("--fp8-format e4m3 --fp8-recipe tensorwise --fp8-param-gather", "precision", "fp8_current"),
        ("--fp8-format e4m3 --fp8-recipe tensorwise --fp8-param-gather", "states", {"parameters": "fp8"}),
        ("--fp4-format e2m1", "precision", "nvfp4"),
        ("--grad-reduce-in-bf16", "states", {"gradients": "bf16"}),
        ("--use-precision-aware-optimizer --exp-avg-dtype bf16 --exp-avg-sq-dtype bf16 --main-grads-dtype bf16",
         "states", {"moments": "bf16", "gradients": "bf16"}),
        ("--cuda-graph-impl local", "stack", {"name": "megatron", "cuda_graphs": True}),
        ("--fp8-format e4m3 --fp8-recipe blockwise --first-last-layers-bf16", "stack",
         {"name": "megatron", "bf16_first": 1, "bf16_last": 1}),
        ("--fp4-format e2m1 --first-last-layers-bf16 --num-layers-at-start-in-bf16 0 --num-layers-at-end-in-bf16 4",
         "stack", {"name": "megatron", "bf16_last": 4}),
        ("--fp4-format e2m1 --num-layers-at-end-in-bf16 4", "stack", {"name": "megatron"}),
        ("--attention-backend unfused", "stack", {"name": "megatron", "attention": "unfused"}),
        ("--attention-backend flash", "stack", {"name": "megatron", "attention": "flash2"}),
        ("--attention-backend flash --flash-attention-version 3", "stack",
         {"name": "megatron", "attention": "flash3"}),
        ("--attention-backend fused --use-flash-attn", "stack", {"name": "megatron"}),
        ("--use-flash-attn --transformer-impl local", "stack", {"name": "megatron", "attention": "flash2"}),
        ("--use-flash-attn", "stack", {"name": "megatron"}),
        ("--cpu-offloading-num-layers 4", "offload", 0.5),
        ("--optimizer-cpu-offload", "optimizer", {"name": "adamw", "offload": "host"}),
        ("--global-batch-size 128", "batch", {"sequences": 128, "sequence_length": 2048, "micro_batch": 2}),
    ],
)  # fmt: skip
def test_an_argument_says_a_key(tmp_path: Path, more: str, key: str, value: Any) -> None:
    scenario = arguments(tmp_path, more, nodes=3 if "size 3" in more else 4).scenario
    assert scenario[key] == value
    others = {name: each for name, each in scenario.items() if name in PLAIN and name not in ("model", "cluster", key)}
    changed = {name for name, each in others.items() if each != PLAIN[name]}
    assert changed <= {"parallel", "overlap", "states", "precision"}  # what an axis brings along


def test_a_batch_left_unsaid_is_one_micro_batch_a_replica(tmp_path: Path) -> None:
    text = (tmp_path / "job.args", "--tensor-model-parallel-size 2")
    arguments(tmp_path)
    text[0].write_text(text[0].read_text().replace("--global-batch-size 64", text[1]))
    assert imported(text[0], nodes=4).scenario["batch"]["sequences"] == 2 * 16


MIXTURE = "--num-experts 16 --expert-model-parallel-size 8 --tensor-model-parallel-size 2 --sequence-parallel "


@pytest.mark.parametrize(
    ("more", "parallel", "stack"),
    [
        ("--moe-token-dispatcher-type alltoall", {"expert_tensor": 2}, {}),
        ("--expert-tensor-parallel-size 1 --moe-token-dispatcher-type alltoall", {}, {}),
        ("--expert-tensor-parallel-size 1 --moe-token-dispatcher-type flex --moe-enable-deepep", {},
         {"dispatcher": "deepep"}),
        ("--expert-tensor-parallel-size 1 --moe-token-dispatcher-type flex --moe-flex-dispatcher-backend hybridep", {},
         {"dispatcher": "hybridep"}),
    ],
)  # fmt: skip
def test_experts_are_split_as_other_layers_unless_said(
    tmp_path: Path, more: str, parallel: dict[str, int], stack: dict[str, str]
) -> None:
    scenario = arguments(tmp_path, MIXTURE + more).scenario
    assert scenario["parallel"] == {"tensor": 2, "expert": 8, "sequence": True, **parallel, "zero": 0}
    assert scenario["stack"] == {"name": "megatron", **stack}
    assert scenario["overlap"]["expert"] is False and scenario["routing"] == "balanced"


def test_what_stands_in_for_something_is_told(tmp_path: Path) -> None:
    found = arguments(
        tmp_path, MIXTURE + "--cp-comm-type a2a+p2p --context-parallel-size 2 --optimizer sgd --qk-layernorm"
    )
    why = told(found)
    assert "balanced is taken" in why["routing"] and "alltoall is taken" in why["--moe-token-dispatcher-type"]
    assert "ring is taken" in why["--cp-comm-type"] and "adamw is taken" in why["--optimizer"]
    assert "RMSNorm" in why["--qk-layernorm"]


def test_dropout_is_told_also_by_default(tmp_path: Path) -> None:
    text = "--hidden-dropout 0.1"
    assert told(arguments(tmp_path, text))["--hidden-dropout"].startswith("kernels of dropout")
    path = tmp_path / "job.args"
    path.write_text(path.read_text().replace("--hidden-dropout 0 ", "").replace(text, ""))
    assert told(imported(path, nodes=4))["--hidden-dropout"].startswith("is 0.1 unless said")


@pytest.mark.parametrize(
    ("gone", "more", "line"),
    [
        ("--hidden-size 1024", "", "--hidden-size is missing; write it, or name a known model with --model"),
        ("--num-layers 8", "", "--num-layers is missing"),
        ("--micro-batch-size 2", "", "--micro-batch-size is missing; without it there is no batch"),
        ("--vocab-size 32000", "", "--vocab-size is not in it, only a tokenizer; add --vocabulary N"),
        ("--bf16", "", "--bf16 is missing, so it trains in FP32"),
        ("", "--hidden-size many", "1: --hidden-size: expected a whole number; found 'many'"),
        ("", "--hidden-size 0", "--hidden-size: expected a whole number from 1 to"),
        ("", f"--hidden-size {'9' * 400}", "--hidden-size: expected a whole number"),
        (
            "",
            "--tensor-model-parallel-size $TP",
            "--tensor-model-parallel-size: is $TP, which the file does not say; add",
        ),
        ("", "--fp8-format e4m3 --fp8-recipe cubic", "--fp8-recipe: found 'cubic'; legal: delayed, tensorwise"),
        ("", "--recompute-granularity some", "--recompute-granularity: found 'some'; legal: full, selective"),
        (
            "",
            "--tensor-model-parallel-size 3",
            "32 GPUs cannot be divided by pipeline x tensor x context parallelism, 3",
        ),
        ("", "--num-layers 9999", "--num-layers: expected a whole number from 1 to 4096"),
        ("", "--num-experts 4 --moe-layer-freq [0,1]", "--moe-layer-freq: has 2 layers of 8"),
        ("", "--hybrid-override-pattern M*X", "--hybrid-override-pattern: has a layer 'X'; legal: M * - E"),
        (
            "",
            "--pipeline-model-parallel-size 2 --num-layers-per-virtual-pipeline-stage 3",
            "8 layers cannot be divided",
        ),
    ],
)
def test_what_is_missing_or_wrong_is_a_line(tmp_path: Path, gone: str, more: str, line: str) -> None:
    arguments(tmp_path)
    path = tmp_path / "job.args"
    path.write_text(path.read_text().replace(gone, "") + more)
    with pytest.raises(Refused) as refused:
        imported(path, nodes=4)
    assert line in str(refused.value) and "\n" not in str(refused.value)


def test_a_known_model_stands_instead_of_dimensions(tmp_path: Path) -> None:
    found = arguments(tmp_path, "--num-experts 4 --made-up", model="llama3_8b")
    assert found.scenario["model"] == "llama3_8b" and "routing" not in found.scenario
    why = told(found)
    assert "in whose place stands llama3_8b" in why["--hidden-size"] and "not known" in why["--made-up"]
    assert "--seq-length" not in why


def test_a_script_is_read_as_its_shell_would(tmp_path: Path) -> None:
    """The fixture: variables, arrays, a sum, a condition, Slurm's nodes, flags in a string."""
    found = imported(FIXTURES / "llama3_70b.sh")
    scenario = found.scenario
    assert scenario["cluster"] == {"node": "h100x8", "nodes": 8}
    assert scenario["parallel"] == {"pipeline": 4, "tensor": 8, "sequence": True, "zero": 1}
    assert scenario["schedule"] == {"name": "interleaved", "chunks": 4}
    assert scenario["batch"] == {"sequences": 128, "sequence_length": 4096, "micro_batch": 1}
    assert scenario["recompute"] == {"modules": ["core_attention"]}
    assert scenario["model"]["kv_heads"] == 8 and scenario["model"]["vocabulary"] == 129024
    lines = (FIXTURES / "llama3_70b.sh").read_text().splitlines()
    assert all(note.word.split()[0] in lines[note.line - 1] for note in found.notes if note.line)
    assert told(found)["--made-up-flag"] == "is not known; nothing is done with it"
    given = imported(FIXTURES / "llama3_70b.sh", given={"TP": "4", "RECOMPUTE": "yes", "SLURM_NNODES": "16"}).scenario
    assert given["parallel"]["tensor"] == 4 and given["recompute"] == "full"
    assert given["batch"]["sequences"] == 256 and given["cluster"]["nodes"] == 16
    with pytest.raises(Refused, match="has no variable NOPE"):
        imported(FIXTURES / "llama3_70b.sh", given={"NOPE": "4"})


def test_a_mixture_launched_in_a_string_is_read() -> None:
    scenario = imported(FIXTURES / "mixture.sh").scenario
    model = scenario["model"]
    assert (model["pattern"], model["dense_layers"], model["layers"]) == ("latent+moe", 1, 12)
    assert (model["q_rank"], model["kv_rank"], model["shared_intermediate"]) == (512, 512, 2816)
    assert scenario["cluster"] == {"node": "h100x8", "nodes": 4} and scenario["parallel"] == {"expert": 8, "zero": 1}
    assert scenario["precision"] == "fp8_block" and scenario["states"] == {"moments": "bf16"}


def test_modules_on_the_host_are_told(tmp_path: Path) -> None:
    """Their part of what layers keep is in no argument."""
    more = "--fine-grained-activation-offloading --offload-modules core_attn moe_act --activation-offload-fraction 0.8"
    made = arguments(tmp_path, more)
    assert "offload" not in made.scenario
    why = told(made)["--fine-grained-activation-offloading"]
    assert why.startswith("0.8 of the inputs of core_attn, moe_act waits on the host: say offload")


def test_a_backend_that_nobody_knows_is_told(tmp_path: Path) -> None:
    made = arguments(tmp_path, "--attention-backend fast")
    assert made.scenario["stack"] == {"name": "megatron"}
    assert told(made)["--attention-backend"].startswith("is not known; cudnn is taken; legal: auto, fused, flash")
