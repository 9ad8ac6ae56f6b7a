"""A dozen rows, by hand: exactly the scenario that they say, and what is left to defaults."""

from dataclasses import replace

import pytest

from sim.validation.runs.rows import FILE, UNSEEN, read
from sim.validation.runs.scenario import mapped

ROWS = {run.id: run for run in read(FILE)}
LATER = {run.id: run for run in read(UNSEEN)}
NCCL, RESULT = {"collectives": "nccl"}, ["result"]
HYBRIDEP = NCCL | {"sms": 32}
REDUCED = {"gradients": True, "parameters": True}
V3_STATES = {"moments": "bf16", "gradients": "bf16"}
V3_LAYOUT = "Et*4|(t*4|)*14tmL"
TITAN_STATES = {"master": "fp32", "moments": "fp32", "gradients": "fp32"}
TITAN = {
    "name": "torch", "attention": "flash2", "compiled": True, "norms": "plain", "rope": "complex", "repeated": True,
    "clips": True, "compiled_ends": "loss",
}  # fmt: skip
DECEMBER = {"update": "foreach", "compiled_ends": "none"}
H100_96 = {"hbm": {"bandwidth": "2.4 TB/s", "capacity": "96 GB"}, "power": "500 W"}


def batch(sequences, length, micro=1):
    return {"sequences": sequences, "sequence_length": length, "micro_batch": micro}


def h100(nodes, **more):
    return {"node": {"base": "h100x8", "gpus": 8, **more}, "nodes": nodes}


EXPECTED = {
    # DeepSeek-V3 on four racks, a layout string, exchanges beside another micro-batch
    "MB-041": {
        "cluster": {"node": {"base": "gb300x72", "gpus": 64}, "nodes": 4}, "model": {"base": "deepseek_v3"},
        "stack": {
            "name": "megatron", "dispatcher": "hybridep", "cuda_graphs": True, "fused_experts": True, "norms": "cudnn",
            "gating": "fp32", "output_layer": "mxfp8", "attention_precision": "fp8",
        },
        "precision": "mxfp8",
        "parallel": {"zero": 1, "pipeline": 2, "expert": 32}, "schedule": {"name": "interleaved", "chunks": 8},
        "placement": V3_LAYOUT, "batch": batch(15360, 4096), "recompute": "none", "states": V3_STATES,
        "overlap": {**REDUCED, "expert": True}, "routing": {"kind": "balanced"}, "comm": HYBRIDEP,
    },
    # a layout of the preset that the row does not name
    "MB-084": {
        "cluster": {"node": {"base": "gb200x72", "gpus": 64}, "nodes": 4}, "model": {"base": "deepseek_v3"},
        "stack": {
            "name": "megatron", "dispatcher": "hybridep", "cuda_graphs": False, "graphed": ["attention", "router"],
            "norms": "cudnn", "gating": "fp32",
        }, "precision": "mxfp8",
        "parallel": {"zero": 1, "pipeline": 4, "expert": 64}, "schedule": {"name": "interleaved", "chunks": 4},
        "placement": V3_LAYOUT, "batch": batch(4096, 4096), "recompute": {"modules": ["mlp"]},
        "states": V3_STATES, "overlap": {**REDUCED, "expert": False}, "routing": {"kind": "balanced"},
        "comm": HYBRIDEP,
    },
    # MLPerf: 128 slots for 126 layers, two other things that count as layers
    "MLP-003": {
        "cluster": {**h100(304), "fabric": "ndr_sharp"}, "model": {"base": "llama3_405b"},
        "stack": {"name": "megatron"}, "precision": "fp8_delayed", "states": {"parameters": "fp8"},
        "parallel": {"zero": 1, "pipeline": 8, "tensor": 8, "context": 2},
        "schedule": {"name": "interleaved", "chunks": 8}, "placement": "Et|(tt|)*62tL", "batch": batch(1216, 8192),
        "recompute": "none", "overlap": {**REDUCED, "tensor": True, "pipeline": True},
    },
    # a whole rack
    "MLP-025": {
        "cluster": {"node": {"base": "gb200x72", "gpus": 72}, "nodes": 1}, "model": {"base": "llama3_8b"},
        "stack": {"name": "megatron", "cuda_graphs": True, "norms": "cudnn"}, "precision": "fp8_current",
        "parallel": {"zero": 1, "context": 2}, "schedule": {"name": "1f1b"}, "batch": batch(36, 8192),
        "recompute": "none", "overlap": {**REDUCED, "buckets": "1.61 GB"},
        "states": {"gradients": "bf16", "parameters": "fp8"},
    },
    "MLP6-003": {
        "cluster": {"node": {"base": "gb200x72", "gpus": 64}, "nodes": 8},
        "model": {"base": "deepseek_v3", "mtp_depth": 1}, "precision": "mxfp8",
        "stack": {
            "name": "megatron", "dispatcher": "hybridep", "cuda_graphs": True, "fused_experts": True, "norms": "cudnn",
            "attention_precision": "fp8",
        },
        "parallel": {"zero": 1, "pipeline": 4, "tensor": 2, "expert": 32},
        "schedule": {"name": "interleaved", "chunks": 4}, "placement": V3_LAYOUT, "batch": batch(15360, 4096),
        "recompute": {"modules": ["mlp"]},
        "overlap": {**REDUCED, "expert": True, "buckets": "268435456 B", "gather": "on_demand"},
        "states": {"gradients": "bf16"},
    },
    # a proxy of 12 layers, heads for tokens over a node
    "SMX-038": {
        "cluster": {"node": {"base": "b200x8", "gpus": 8, "device": {"power": "735 W"}}, "nodes": 1},
        "model": {"base": "llama3_70b", "layers": 12},
        "stack": {"name": "megatron"}, "precision": "bf16",
        "parallel": {"zero": 1, "context_kind": "all_to_all", "context": 8}, "schedule": {"name": "1f1b"},
        "batch": batch(4, 32768), "recompute": "none", "overlap": {"gradients": False, "parameters": False},
    },
    # torchtitan on the H100 of 96 GB
    "TT-009": {
        "cluster": h100(1, device=H100_96), "model": {"base": "llama3_8b"}, "stack": TITAN | DECEMBER,
        "precision": "fp8_current",
        "parallel": {"zero": 3, "context_kind": "all_gather", "context": 4}, "schedule": {"name": "1f1b"},
        "batch": batch(2, 131072), "recompute": "full", "states": TITAN_STATES, "overlap": REDUCED,
    },
    "TT-019": {
        "cluster": h100(32, device=H100_96), "model": {"base": "llama3_70b"},
        "stack": TITAN, "precision": "bf16", "parallel": {"zero": 3, "tensor": 8},
        "schedule": {"name": "1f1b"}, "batch": batch(512, 8192, 16), "recompute": "full", "states": TITAN_STATES,
        "overlap": {**REDUCED, "tensor": False},
    },
    # TransformerEngine's modules and DeepEP under FSDP2: kernels of the megatron stack
    "AUTO-007": {
        "cluster": h100(1), "model": {"base": "qwen3_30b_a3b"}, "precision": "bf16",
        "stack": {"name": "megatron", "dispatcher": "deepep"},
        "parallel": {"zero": 3, "expert": 8}, "schedule": {"name": "1f1b"}, "batch": batch(512, 4096, 4),
        "overlap": REDUCED, "recompute": "full", "routing": {"kind": "balanced"},
    },
    # tensor and sequence parallelism on one node of A100s, no data parallelism: nothing of it to overlap
    "PAP-039": {
        "cluster": {"node": {"base": "a100x8", "gpus": 8}, "nodes": 1},
        "stack": {"name": "megatron", "attention": "unfused", "cross_entropy": "native"},
        "model": {
            "base": "gpt3_175b", "name": "GPT 22B", "vocabulary": 51200, "hidden": 6144, "layers": 48,
            "intermediate": 24576, "heads": 64, "kv_heads": 64, "head_width": 96,
            "source": "Korthikanti et al., arXiv:2205.05198, table 3",
        },
        "precision": "bf16", "parallel": {"zero": 0, "sequence": False, "tensor": 8}, "schedule": {"name": "1f1b"},
        "batch": batch(4, 2048, 4), "recompute": "full", "overlap": {"tensor": False},
    },
    # 32 stages for 30 layers: embedding and loss count as layers
    "DGXC-100": {
        "cluster": h100(8), "model": {"base": "llama3_405b", "layers": 30}, "precision": "bf16",
        "stack": {"name": "megatron", "release": "NeMo 25.02", "cross_entropy": "native"},
        "parallel": {"zero": 1, "pipeline": 4, "tensor": 8, "context": 2},
        "schedule": {"name": "interleaved", "chunks": 8}, "placement": [0, *[1] * 30, 0], "batch": batch(64, 8192),
        "recompute": "none", "overlap": {**REDUCED, "tensor": True, "pipeline": True}, "states": {"gradients": "bf16"},
    },
    # experts cut as in the row, whose recipe says the rest
    "DGXC-194": {
        "cluster": h100(64), "model": {"base": "llama4_maverick"}, "precision": "bf16", "recompute": "none",
        "stack": {"name": "megatron", "dispatcher": "alltoall", "router": "plain", "padded": True},
        "states": {"gradients": "bf16"}, "routing": {"kind": "balanced"},
        "parallel": {"zero": 1, "tensor": 4, "expert": 128, "expert_tensor": 4}, "schedule": {"name": "1f1b"},
        "batch": batch(1024, 8192), "overlap": {**REDUCED, "expert": False},
    },
}  # fmt: skip


@pytest.mark.parametrize("name", EXPECTED)
def test_a_row_is_this_scenario(name):
    run = ROWS[name]
    plain = {"name": f"{name} {run.model}", "comm": NCCL, "outputs": RESULT} | EXPECTED[name]
    assert mapped(run).plain == plain


def test_what_a_row_leaves_unsaid_is_counted():
    assert mapped(ROWS["TT-009"]).defaults == ("overlap.buckets", "stack.cuda_graphs")
    assert mapped(ROWS["DGXC-194"]).defaults == (
        "overlap.buckets", "overlap.tensor", "parallel.sequence", "stack.cuda_graphs", "cluster.fabric",
    )  # fmt: skip
    assert "micro_batch (assumed)" in mapped(ROWS["TT-015"]).defaults
    assert "overlap.tensor" not in mapped(ROWS["MB-041"]).defaults  # a rank alone has nothing of it


def test_experts_are_cut_as_other_products_where_a_row_does_not_say():
    grok = next(run for run in ROWS.values() if run.model == "grok1-314b" and run.expert_tensor is None)
    assert mapped(grok).plain["parallel"]["expert_tensor"] == grok.tensor == 4
    assert "parallel.expert_tensor" in mapped(grok).defaults


def test_a_precision_that_torch_lacks_is_transformer_engines():
    fp8 = [run for run in ROWS.values() if run.family == "llm-foundry" and run.precision == "FP8"]
    assert fp8 and all(mapped(run).plain["stack"]["name"] == "megatron" for run in fp8)


def test_a_stand_in_has_no_keys_of_the_stack_that_it_stands_for():
    """llm-foundry's rows in FP8 run Megatron's kernels here, which know no loop over parameters."""
    stacks = {name: mapped(ROWS[name]).plain["stack"] for name in ("LF-065", "LF-061")}
    assert stacks["LF-061"]["update"] == "loop" and "update" not in stacks["LF-065"]


def test_mxfp8_of_torchtitan_is_torchs_own_and_nvfp4_is_megatrons_with_none_of_torchs_words():
    own, other = (mapped(LATER[name]) for name in ("UN-TT-05", "UN-TT-04"))
    assert (own.plain["stack"]["name"], own.plain["stack"]["norms"]) == ("torch", "plain")
    assert own.scenario.precision == "mxfp8" and "stack.name (instead)" not in own.defaults
    assert other.plain["stack"] == {"name": "megatron", "attention": "flash2", "bf16_last": 6}
    assert "stack.name (instead)" in other.defaults and any("Megatron Core's stand" in note for note in other.notes)


def test_compiled_mixtures_are_eager_ones_which_is_counted():
    for name, stack in (("UN-AM-01", "torch"), ("UN-AM-02", "megatron")):  # BF16, MXFP8
        row = mapped(LATER[name])
        assert row.plain["stack"]["name"] == stack and not row.plain["stack"].get("compiled")
    assert "stack.compiled (instead)" in mapped(LATER["UN-AM-01"]).defaults


def test_kempnerforge_reduces_gradients_once_a_step_and_gathers_logits_over_tensor_ranks():
    for name, once, shared in (("UN-KF-14", True, False), ("UN-KF-16", True, True), ("UN-AO-04", False, True)):
        own = mapped(LATER[name])
        assert (own.scenario.parallel.no_sync, own.scenario.stack.loss_parallel) == (once, shared)
        assert not {"parallel.no_sync", "stack.loss_parallel"} & set(own.defaults)


def test_ranks_that_a_row_leaves_out_are_its_recipes():
    """GPT-OSS of AutoModel has a dash in its table, and ep_size in the recipe of that day; a row that says ranks keeps
    them."""
    for run, ranks in ((ROWS["AUTO-008"], 8), (LATER["UN-AU-03"], 64)):
        assert run.expert == 1 and mapped(run).plain["parallel"]["expert"] == ranks
        assert mapped(replace(run, expert=4)).plain["parallel"]["expert"] == 4
    assert mapped(ROWS["AUTO-008"]).plain["recompute"] == "full"


def test_grok_of_two_releases_is_its_files():
    """v25.02: NeMo 1's own with FlashAttention-2 and a loss that is not fused; v25.05.04: Mixtral's classes with other
    numbers. Both without norms behind, with another vocabulary, and with as many rows for each expert."""
    first, later = (mapped(ROWS[name]).scenario for name in ("DGXC-050", "DGXC-170"))
    for own in (first, later):
        assert (own.model.post_norms, own.model.vocabulary, own.model.tied) == (False, 128512, False)
        stack, states = own.stack, own.states
        assert stack.padded and stack.sequential and (stack.permute, stack.router) == ("plain", "plain")
        assert states.gradients == "bf16" and own.overlap.tensor
    told = [(own.stack.attention, own.stack.cross_entropy, own.stack.weighting) for own in (first, later)]
    assert told == [("flash2", "plain", "sums"), ("cudnn", "transformer_engine", "experts")]
    assert [own.model.activation for own in (first, later)] == ["geglu", "swiglu"]


def test_losses_are_unfused_where_a_recipe_does_not_fuse_them():
    names = ("DGXC-063", "NEMO-001", "NEMO-005", "NEMO-008", "NEMO-011")
    assert [mapped(ROWS[name]).scenario.stack.cross_entropy for name in names] == ["plain"] * 3 + ["native"] * 2


def test_permutes_that_are_said_to_be_plain_are():
    assert [mapped(ROWS[name]).scenario.stack.permute for name in ("AB-005", "AB-008")] == ["plain", "fused"]


def test_what_a_release_computed_again_is_a_rows():
    """A100s of 40 GB ran torch 1.13.1; the other A100s ran again under 2.1, but for 70 B."""
    for name, early, gradients in (("LF-099", False, "bf16"), ("LF-070", False, "bf16"), ("LF-080", None, "fp32")):
        plain = mapped(ROWS[name]).plain
        assert (plain["stack"].get("early_stop"), plain["states"]["gradients"]) == (early, gradients)


def test_micro_batches_of_a_pipeline_are_as_many_as_its_software_makes():
    assert mapped(ROWS["TT-014"]).scenario.batch.micro_batch == 4


def test_what_a_row_says_of_overlap_reaches_its_scenario():
    overlap = mapped(ROWS["MLP-026"]).scenario.overlap
    assert (overlap.gradients, overlap.parameters, overlap.tensor) == (True, True, True)
    assert overlap.buckets == 1_610_000_000


def test_parameters_of_mlperfs_v3_are_gathered_stage_by_stage_or_by_the_validation_before():
    said = {name: mapped(ROWS[name]).scenario.overlap.gather for name in ("MLP6-006", "MLP6-009", "MLP6-010")}
    assert said == {"MLP6-006": "on_demand", "MLP6-009": "before", "MLP6-010": None}


@pytest.mark.parametrize(("name", "expected"), [
    ("MB-253", {"scales": "both"}),  # MXFP8 of 25.11: TransformerEngine 2.9
    ("MB-084", {"norms": "cudnn"}),  # V3 of 26.04 on GB200s
    ("MLP-017", {"scales": "both", "casts": "apart"}),  # NVFP4 of MLPerf v5.1
    ("MB-035", {"scales": "both"}),  # NVFP4 of 26.06: TransformerEngine 2.16
    ("MLP6-010", {"scales": "both"}),  # NVFP4 of MLPerf v6.0
    ("MB-014", {}),  # NVFP4 of 26.08
    ("DGXC-001", {}),
])  # fmt: skip
def test_a_release_says_what_it_launches(name, expected):
    stack = mapped(ROWS[name]).plain["stack"]
    assert {key: stack[key] for key in ("norms", "scales", "casts") if key in stack} == expected
