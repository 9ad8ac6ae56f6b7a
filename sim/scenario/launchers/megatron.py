"""A Megatron-LM job as the keys of a scenario, from its arguments by their names.

Defaults are those of megatron/training/arguments.py in NVIDIA/Megatron-LM, core_v0.15.0; so are the rules by which one
argument follows from another (validate_args).
"""

from collections.abc import Mapping
from typing import Any

from hwmodels.refused import Refused
from sim.models.precision import TENSORWISE
from sim.scenario.launchers.settings import Note, Settings
from sim.scenario.launchers.stages import placement, virtual

RECIPES = {
    "delayed": "fp8_delayed", "tensorwise": "fp8_current", "blockwise": "fp8_block", "mxfp8": "mxfp8",
    "nvfp4": "nvfp4",
}  # fmt: skip
"""--fp8-recipe and --fp4-recipe -> precision."""
MODULES = {
    "core_attn": "core_attention", "mla_up_proj": "mla_up_projection", "layernorm": "norm", "moe_act": "activation",
    "mlp": "mlp", "moe": "moe", "shared_experts": "shared_experts",
}  # fmt: skip
"""--recompute-modules -> recompute.modules."""
GRAPHED = {"attn": "attention", "moe_router": "router", "mlp": "network", "mamba": "mamba"}
"""--cuda-graph-scope, or --cuda-graph-modules -> stack.graphed."""
CONTEXT = {"p2p": "ring", "all_gather": "all_gather", "a2a": "all_to_all", "allgather": "all_gather"}
"""--cp-comm-type -> parallel.context_kind."""
ATTENTION = {
    "auto": "cudnn", "fused": "cudnn", "flash": "flash2", "unfused": "unfused", "local": "unfused",
}  # fmt: skip
"""--attention-backend -> stack.attention: auto is TransformerEngine's choice, cuDNN on Hopper and Blackwell; local,
Megatron's own, is products and a softmax (AttnBackend of megatron/core/transformer/enums.py)."""
SHARDING = {"no_shard": 0, "optim": 1, "optim_grads": 2, "optim_grads_params": 3}
"""--data-parallel-sharding-strategy of Megatron-FSDP -> ZeRO stage."""


def keys(s: Settings, model: Mapping[str, Any], world: int) -> dict[str, Any]:
    """All of a scenario but its name, cluster and model. model: its keys; world: GPUs. Raises Refused."""
    layers = model["layers"]
    routed = "experts" in model
    _dropout(s)
    parallel = _parallel(s, world, routed)
    schedule = _schedule(s, parallel.get("pipeline", 1), layers)
    precision, states = _precision(s), _states(s)
    overlap = _overlap(s, parallel, "chunks" in schedule.get("schedule", ())) | _buckets(s, states["gradients"])
    return {
        "precision": precision, "stack": _stack(s, parallel.get("expert", 1)) | _attention(s),
        "parallel": parallel, **schedule, "batch": _batch(s, parallel, world),
        **(_routing(s) if routed else {}),
        "overlap": overlap, "recompute": _recompute(s), "states": states | _kept(s, precision),
        "optimizer": _optimizer(s), **_offload(s, layers),
    }  # fmt: skip


def _dropout(s: Settings) -> None:
    """Tell where there is dropout, whose kernels are not here: 0.1 of both kinds unless said."""
    for name in ("hidden_dropout", "attention_dropout"):
        if s.number(name, 0.1):
            s.admit(name, "kernels of dropout are not modelled", "is 0.1 unless said: ")


def tensor(s: Settings) -> int:
    """Ranks that share a layer."""
    return s.whole("tensor_model_parallel_size", 1)


def _parallel(s: Settings, world: int, routed: bool) -> dict[str, Any]:
    """Degrees that are not 1, and the ZeRO stage."""
    size = tensor(s)
    answer: dict[str, Any] = {
        "pipeline": s.whole("pipeline_model_parallel_size", 1), "tensor": size,
        "context": s.whole("context_parallel_size", 1), "expert": s.whole("expert_model_parallel_size", 1),
    }  # fmt: skip
    answer = {key: value for key, value in answer.items() if value > 1}
    shared = s.flag("sequence_parallel")
    if size > 1:
        answer["sequence"] = shared
    elif shared:
        s.note("sequence_parallel", "without tensor parallelism there is none")
    if "context" in answer:
        answer["context_kind"] = _context_kind(s)
    else:
        s.read.add("cp_comm_type")
    # experts are split like other layers unless said
    if routed and (inside := s.whole("expert_tensor_parallel_size", size)) > 1:
        answer["expert_tensor"] = inside
    s.read.add("expert_tensor_parallel_size")
    if s.flag("use_tp_pp_dp_mapping"):
        answer["order"] = "tp-cp-ep-pp-dp"
    return answer | _zero(s, answer, world)


def _context_kind(s: Settings) -> str:
    """How keys travel; p2p unless said, and one kind for all layers."""
    words = s.words("cp_comm_type") or ("p2p",)
    if words[0] not in CONTEXT:
        s.note(
            "cp_comm_type", "is not modelled; ring is taken" if words[0] == "a2a+p2p" else "is not known; ring is taken"
        )
    elif len(set(words)) > 1:
        s.note("cp_comm_type", f"all layers are alike here; {words[0]} is taken")
    return CONTEXT.get(words[0], "ring")


def _zero(s: Settings, parallel: Mapping[str, Any], world: int) -> dict[str, Any]:
    """Optimizer states are whole on each rank unless --use-distributed-optimizer or FSDP."""
    zero = int(s.flag("use_distributed_optimizer"))
    strategy = s.word("data_parallel_sharding_strategy", "no_shard", tuple(SHARDING))
    if s.flag("use_megatron_fsdp") or s.flag("use_custom_fsdp"):
        zero = SHARDING[strategy]
    elif s.flag("use_torch_fsdp2"):
        zero = 2 if s.flag("torch_fsdp2_no_reshard_after_forward") else 3
    elif strategy != "no_shard" and s.settings["data_parallel_sharding_strategy"].line:
        s.note("data_parallel_sharding_strategy", "counts only beside --use-megatron-fsdp")
    answer = {"zero": zero}
    instances = s.whole("num_distributed_optimizer_instances", 1)
    if instances > 1:
        others = parallel.get("pipeline", 1) * parallel.get("tensor", 1)
        answer["shard"] = max(1, world // others // instances)
    return answer


def _schedule(s: Settings, pipeline: int, layers: int) -> dict[str, Any]:
    """1F1B, interleaved where a rank has several stages."""
    chunks = virtual(s, pipeline, layers)
    group = s.whole("microbatch_group_size_per_virtual_pipeline_stage", 0, least=0)
    if pipeline == 1:
        return {}
    schedule: dict[str, Any] = {"name": "1f1b"}
    if chunks > 1:
        schedule = {"name": "interleaved", "chunks": chunks, **({"group": group} if group not in (0, pipeline) else {})}
    return {"schedule": schedule, "placement": placement(s, pipeline, chunks, layers)}


def _batch(s: Settings, parallel: Mapping[str, Any], world: int) -> dict[str, Any]:
    """--global-batch-size is one micro-batch a replica unless said."""
    hint = "; without it there is no batch"
    micro = s.needed("micro_batch_size", hint)
    length = s.needed("seq_length", hint, "encoder_seq_length")
    split = parallel.get("pipeline", 1) * parallel.get("tensor", 1) * parallel.get("context", 1)
    if world % split:
        what = f"{world} GPUs cannot be divided by pipeline x tensor x context parallelism, {split}"
        raise Refused(f"{what}; add --nodes N", s.file)
    sequences = s.whole("global_batch_size", micro * (world // split))
    return {"sequences": sequences, "sequence_length": length, "micro_batch": micro}


def _precision(s: Settings) -> str:
    """BF16 or a recipe of TransformerEngine. Raises Refused for FP32, which no stack here multiplies in."""
    if s.word("fp4_format") or s.word("fp4"):
        s.read |= {"fp16", "bf16"}
        return RECIPES[s.word("fp4_recipe", "nvfp4", ("nvfp4",))]
    eight = s.word("fp8_format") or s.word("fp8")
    recipe = s.word("fp8_recipe", "delayed", tuple(RECIPES))
    if eight not in ("", "None", "none", "null", "False"):
        s.read |= {"fp16", "bf16"}
        return RECIPES[recipe]
    if not s.flag("bf16") and not s.flag("fp16"):
        raise Refused(f"{s.named('bf16')} is missing, so it trains in FP32, which no stack here does; write it", s.file)
    if s.flag("fp16") and not s.flag("bf16"):
        s.read.discard("fp16")  # told
    return "bf16"


def _stack(s: Settings, expert: int) -> dict[str, Any]:
    """--moe-token-dispatcher-type and CUDA graphs."""
    answer: dict[str, Any] = {"name": "megatron"}
    kind = s.word("moe_token_dispatcher_type", "allgather", ("allgather", "alltoall", "alltoall_seq", "flex"))
    backend = s.word("moe_flex_dispatcher_backend", "deepep", ("deepep", "hybridep", "ncclep"))
    deep = s.flag("moe_enable_deepep")
    if expert > 1:
        if kind == "flex" or deep:
            answer["dispatcher"] = backend if backend != "ncclep" else "alltoall"
        elif kind == "allgather":
            why = "an exchange by all-gather is not modelled; alltoall is taken"
            s.admit("moe_token_dispatcher_type", why, "is allgather unless said: ")
    graphs = s.word("cuda_graph_impl", "none") not in ("none", "None")
    if graphs or s.flag("enable_cuda_graph") or s.flag("external_cuda_graph"):
        modules = {*s.words("cuda_graph_scope"), *s.words("cuda_graph_modules")} - {"full", "full_iteration"}
        graphed = [word for scope, word in GRAPHED.items() if scope in modules]
        answer |= {"graphed": graphed} if graphed else {"cuda_graphs": True}
    else:
        s.read |= {"cuda_graph_scope", "cuda_graph_modules", "cuda_graph_warmup_steps"}
    return answer | _precise(s)


def _precise(s: Settings) -> dict[str, Any]:
    """Layers in BF16 at a model's ends, one at each unless said, where --first-last-layers-bf16 asks for any; and what
    else of a recipe's format is a key of its own."""
    names = {"bf16_first": "num_layers_at_start_in_bf16", "bf16_last": "num_layers_at_end_in_bf16"}
    layers, precision = {key: s.whole(name, 1, least=0) for key, name in names.items()}, _precision(s)
    asked = s.flag("first_last_layers_bf16") and precision != "bf16"
    answer: dict[str, Any] = {key: number for key, number in layers.items() if number} if asked else {}
    if s.flag("keep_mtp_spec_in_bf16") and precision != "bf16":
        answer["bf16_prediction"] = True
    if s.flag("fp8_dot_product_attention") and precision != "bf16":
        answer["attention_precision"] = "fp8"
    if s.flag("fp8_output_proj") and precision == "mxfp8":
        answer["output_layer"] = "mxfp8"
    return answer


def _attention(s: Settings) -> dict[str, Any]:
    """Whose attention runs, where it is not cuDNN's."""
    word = s.word("attention_backend", "auto").rpartition(".")[2]
    word = "flash" if s.flag("use_flash_attn") and word == "auto" and s.word("transformer_impl") == "local" else word
    if word not in ATTENTION:
        s.note("attention_backend", f"is not known; cudnn is taken; legal: {', '.join(ATTENTION)}")
    kind = ATTENTION.get(word, "cudnn")
    if kind == "flash2" and s.word("flash_attention_version") in ("3", "fa3"):
        kind = "flash3"
    return {"attention": kind} if kind != "cudnn" else {}


def _offload(s: Settings, layers: int) -> dict[str, Any]:
    """Activations that wait on the host: those of so many layers, or a fraction of those that modules keep."""
    number = s.whole("cpu_offloading_num_layers", 0, least=0)
    s.flag("cpu_offloading")
    part, words = s.number("activation_offload_fraction", 1.0), s.words("offload_modules")
    if s.flag("fine_grained_activation_offloading"):
        what = f"{part:g} of the inputs of {', '.join(words) or 'no module'}"
        why = f"{what} waits on the host: say offload in the scenario, their part of all that layers keep"
        s.note("fine_grained_activation_offloading", why)
    return {"offload": round(min(1.0, number / layers), 4)} if number else {}


def _routing(s: Settings) -> dict[str, Any]:
    """Balanced, with a note where it is not forced to be."""
    if not s.flag("moe_router_force_load_balancing"):
        s.notes.append(Note(0, "routing", "how tokens choose is in no launch file; balanced is taken"))
    return {"routing": "balanced"}


BESIDE = {"gradients": "overlap_grad_reduce", "parameters": "overlap_param_gather"}


def _overlap(s: Settings, parallel: Mapping[str, Any], interleaved: bool) -> dict[str, Any]:
    """Nothing overlaps unless said, but for messages of an interleaved schedule."""
    answer: dict[str, Any] = {name: s.flag(flag) for name, flag in BESIDE.items()}
    if "tensor" in parallel:
        answer["tensor"] = s.flag("tp_comm_overlap")
    if "expert" in parallel:
        answer["expert"] = s.flag("overlap_moe_expert_parallel_comm")
    waits = s.flag("no_overlap_p2p_communication")
    if "pipeline" in parallel:
        answer["pipeline"] = interleaved and not waits
        aligned = s.flag("align_param_gather", not s.flag("no_align_param_gather"))
        if answer["parameters"] and interleaved and not aligned:
            answer["gather"] = "on_demand"
    s.read |= {"tp_comm_overlap", "overlap_moe_expert_parallel_comm"}
    return answer


def _buckets(s: Settings, gradients: str) -> dict[str, Any]:
    """--ddp-bucket-size counts elements, and without --overlap-grad-reduce there is one bucket (DistributedDataParallel
    of Megatron Core)."""
    elements = s.whole("ddp_bucket_size", 0, least=0)
    if not elements or s.flag("overlap_grad_reduce"):
        return {"buckets": f"{elements * GRADIENT_BYTES[gradients]} B"} if elements else {}
    s.note("ddp_bucket_size", "without overlap_grad_reduce there is one bucket")
    return {}


def _recompute(s: Settings) -> Any:
    """Nothing is computed again unless said; selectively, core attention."""
    grain = s.word("recompute_granularity", "selective" if s.flag("recompute_activations") else "none")
    s.flag("recompute_activations")
    if s.flag("moe_layer_recompute") and grain in ("none", "None"):
        return {"modules": ["moe"]}
    if grain in ("none", "None"):
        s.read |= {"recompute_modules", "recompute_method", "recompute_num_layers"}
        return "none"
    if grain == "full":
        layers = s.whole("recompute_num_layers", 1, least=0)
        method = s.word("recompute_method", "uniform", ("uniform", "block"))
        if not layers:
            return "none"
        return "full" if (method, layers) == ("uniform", 1) else {"layers": layers, "method": method}
    if grain != "selective":
        raise s.refusal("recompute_granularity", f"found {grain!r}; legal: full, selective")
    words = s.words("recompute_modules") or ("core_attn",)
    if unsaid := [word for word in words if word not in MODULES]:
        s.note("recompute_modules", f"{', '.join(unsaid)}: cannot be told alone; kept")
    known = [MODULES[word] for word in words if word in MODULES]
    return {"modules": known} if known else "none"


GRADIENT_BYTES = {"fp32": 4, "bf16": 2, "fp8": 1}
"""Of an element."""
FORMATS = {"fp32": "fp32", "float32": "fp32", "fp16": "bf16", "bf16": "bf16", "bfloat16": "bf16", "fp8": "fp8"}


def _states(s: Settings) -> dict[str, Any]:
    """FP32 masters, moments and gradients, unless the precision-aware optimizer or --grad-reduce-in-bf16 say others."""
    s.flag("accumulate_allreduce_grads_in_fp32")
    aware = s.flag("use_precision_aware_optimizer")
    master, moments, second, gradients = (
        FORMATS[s.word(name, "fp32", tuple(FORMATS))]
        for name in ("main_params_dtype", "exp_avg_dtype", "exp_avg_sq_dtype", "main_grads_dtype")
    )
    if second != moments:
        s.note("exp_avg_sq_dtype", f"both moments are of one format here; {moments} is taken")
    if not aware:
        master = moments = gradients = "fp32"
    if s.word("megatron_fsdp_main_grads_dtype") in FORMATS:
        gradients = FORMATS[s.word("megatron_fsdp_main_grads_dtype")]
    half = s.flag("grad_reduce_in_bf16")
    return {"master": master, "moments": moments, "gradients": "bf16" if half else gradients}


def _kept(s: Settings, precision: str) -> dict[str, Any]:
    """--fp8-param-gather, where a tensor has one scale."""
    if precision not in TENSORWISE:
        return {}
    return {"parameters": "fp8"} if s.flag("fp8_param_gather") or s.flag("fp8_param") else {}


def _optimizer(s: Settings) -> dict[str, Any]:
    """adam unless said."""
    name = s.word("optimizer", "adam")
    known = {"adam": "adamw", "adamw": "adamw", "muon": "muon", "dist_muon": "muon", "adaptive_muon": "muon"}
    if name not in known:
        s.note("optimizer", "is not modelled; adamw is taken")
    answer = {"name": known.get(name, "adamw")}
    return answer | ({"offload": "host"} if s.flag("optimizer_cpu_offload") else {})
