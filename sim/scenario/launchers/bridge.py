"""A Megatron-Bridge or NeMo recipe in YAML as Megatron-LM's settings.

Names and defaults: ConfigContainer of NVIDIA-NeMo/Megatron-Bridge @067f987d (training/config.py, mixed_precision.py,
recipes/common.py), GPTModelProvider there and TransformerConfig of Megatron Core; of NeMo, megatron_gpt_config.yaml
(NVIDIA/NeMo, examples/nlp/language_modeling/conf).
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from hwmodels.document import Document, dotted
from sim.scenario.launchers.machine import Hosts
from sim.scenario.launchers.references import followed
from sim.scenario.launchers.settings import Setting, Settings

SECTIONS = (
    "model", "train", "trainer", "dataset", "data", "ddp", "optimizer", "optim", "mixed_precision", "comm_overlap",
    "tokenizer", "MODEL_ARGS",
)  # fmt: skip
"""Top keys that only a recipe has; two of them make a YAML file one (MODEL_ARGS: flags of Megatron-LM's own tests)."""
OURS = ("cluster", "chunk_times", "batch")
"""Top keys of a scenario."""

NAMES = {
    "num_moe_experts": "num_experts", "seq_len": "seq_length", "sequence_length": "seq_length",
    "encoder_seq_length": "seq_length", "fp8": "fp8_format", "fp4": "fp4_format", "precision_aware": "",
    "activations_checkpoint_granularity": "recompute_granularity",
    "activations_checkpoint_method": "recompute_method", "activations_checkpoint_num_layers": "recompute_num_layers",
    "ub_tp_comm_overlap": "tp_comm_overlap", "bucket_size": "ddp_bucket_size", "rotary_percentage": "rotary_percent",
    "microbatch_group_size_per_vp_stage": "microbatch_group_size_per_virtual_pipeline_stage",
    "overlap_grad_sync": "overlap_grad_reduce", "overlap_param_sync": "overlap_param_gather",
    "moe_router_group_topk": "moe_router_group_topk", "override_vocab_size": "vocab_size",
    "head_dim": "kv_channels", "num_layers_in_first_pipeline_stage": "decoder_first_pipeline_num_layers",
    "num_layers_in_last_pipeline_stage": "decoder_last_pipeline_num_layers",
}  # fmt: skip
"""Key -> the argument that means the same, where it has another name."""
TURNED = {
    "share_embeddings_and_output_weights": "untie_embeddings_and_output_weights",
    "add_bias_linear": "disable_bias_linear", "bias": "disable_bias_linear",
    "overlap_p2p_comm": "no_overlap_p2p_communication", "grad_reduce_in_fp32": "grad_reduce_in_bf16",
    "torch_fsdp2_reshard_after_forward": "torch_fsdp2_no_reshard_after_forward",
}  # fmt: skip
"""Key -> the argument that means its opposite."""
WHERE = {
    "num_nodes": "hosts", "devices": "gpus", "gpus_per_node": "gpus", "num_gpus_per_node": "gpus",
}  # fmt: skip
APART = (
    "checkpoint", "logger", "scheduler", "rng", "profiling", "exp_manager", "env_vars", "ft", "straggler", "peft",
    "nvrx_straggler", "tensor_inspect", "inprocess_restart", "rerun_state_machine", "run", "hydra", "validation",
    "trainer", "ENV_VARS",
)  # fmt: skip
"""Sections whose keys keep their section's name, for arguments have other names or none for them."""
INSIDE = (("model", "data"), ("model", "optim"), ("model", "tokenizer"))
"""Sections of NeMo's model that are Bridge's own sections."""

MIXED: dict[str, dict[str, Any]] = {
    "bf16_mixed": {"bf16": True}, "fp16_mixed": {"fp16": True, "grad_reduce_in_bf16": True},
    "bf16_with_fp8_delayed_scaling_mixed": {
        "bf16": True, "fp8_format": "hybrid", "fp8_recipe": "delayed", "fp8_param_gather": True},
    "bf16_with_mxfp8_mixed": {"bf16": True, "fp8_format": "e4m3", "fp8_recipe": "mxfp8", "fp8_param_gather": True},
    "bf16_with_fp8_current_scaling_mixed": {
        "bf16": True, "fp8_format": "hybrid", "fp8_recipe": "tensorwise", "first_last_layers_bf16": True,
        "fp8_param_gather": True},
    "bf16_with_fp8_subchannel_scaling_mixed": {"bf16": True, "fp8_format": "hybrid", "fp8_recipe": "blockwise"},
    "bf16_with_nvfp4_mixed": {"bf16": True, "fp4_format": "e2m1", "fp4_recipe": "nvfp4"},
    "bf16": {"bf16": True}, "bf16-true": {"bf16": True}, "16-mixed": {"fp16": True},
}  # fmt: skip
"""Recipe of mixed precision -> what it sets (mixed_precision.py); and NeMo's trainer.precision."""
COMMON = {
    "bf16": True, "use_distributed_optimizer": True, "overlap_grad_reduce": True, "overlap_param_gather": True,
}  # fmt: skip
"""What Bridge's recipes begin with (_pretrain_common of recipes/common.py)."""

PRECEDENCE = (
    "tokenizer",
    "model",
    "optim",
    "optimizer",
    "ddp",
    "train",
    "data",
    "dataset",
    "mixed_precision",
    "comm_overlap",
)
"""Sections that say the same, each over those before it (ConfigContainer.validate)."""


def is_recipe(content: Any) -> bool:
    """Whether a document is a recipe: two of its sections, or one with parallelism in it."""
    if not isinstance(content, Mapping):
        return False
    own = [key for key in SECTIONS if key in content]
    model = content.get("model")
    return len(own) > 1 or "MODEL_ARGS" in own or (isinstance(model, Mapping) and "tensor_model_parallel_size" in model)


def settings(document: Document, file: str) -> tuple[Settings, Hosts]:
    """What a recipe sets, in the names of Megatron-LM's arguments, and where it runs."""
    named: dict[str, tuple[int, Setting]] = {}
    where: dict[str, int] = {}
    whole = "_target_" in document.content
    for path, value in _leaves(followed(document).content, ()):
        setting = Setting((value,), document.place(path).line, dotted(path))
        last = str(path[-1])
        if last in WHERE and type(value) is int and value > 0:
            where[WHERE[last]] = value
            continue
        for name, other in _named(path, setting):
            rank = PRECEDENCE.index(path[0]) if path[0] in PRECEDENCE else -1
            empty = _asks_nothing(other.values[0] if other.values else True) if whole else other.values == (None,)
            if not (empty and (name in named or (whole and name not in COMMON))) and named.get(name, (-1,))[0] <= rank:
                named[name] = rank, other
    if not is_flags(document.content) and "trainer" not in document.content:
        for name, value in COMMON.items():
            if name != "bf16" or not {"fp16", "bf16"} & named.keys():
                named.setdefault(name, (-1, Setting((value,), 0, name)))
    plain = {name: setting for name, (_, setting) in named.items()}
    return Settings(file, plain, "{}", "_"), Hosts(where.get("hosts", 0), where.get("gpus", 0))


def _asks_nothing(value: Any) -> bool:
    """Whether a value asks for nothing: a whole configuration has hundreds of them, which are not told."""
    return value is None or value is False or (not isinstance(value, int | float) and not value)


def is_flags(content: Any) -> bool:
    """Whether a document holds Megatron-LM's own flags."""
    return isinstance(content, Mapping) and "MODEL_ARGS" in content


def pads(content: Any) -> bool:
    """Whether a recipe pads its vocabulary: NeMo always, Bridge where the model says so."""
    model = content.get("model")
    return "trainer" in content or (isinstance(model, Mapping) and bool(model.get("should_pad_vocab")))


def _leaves(content: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Values that are no mappings, with their key paths; an object that a whole configuration makes (`_target_`) is the
    last word of its name, and a section's class says nothing."""
    if not isinstance(content, Mapping) or (not content and path):
        yield path, content
        return
    if len(path) > 1 and isinstance(target := content.get("_target_"), str):
        yield path, target.rpartition(".")[2]
    elif path != ("model", "generation_config"):
        for key, value in content.items():
            if key not in ("_target_", "_call_", "_args_", "_partial_"):
                yield from _leaves(value, (*path, str(key)))


def _named(path: tuple[str, ...], setting: Setting) -> Iterator[tuple[str, Setting]]:
    """The arguments that a key stands for."""
    path = path[1:] if path[:2] in INSIDE else path
    value, last = setting.values[0], path[-1]
    if path[0] in APART and path != ("trainer", "precision"):
        yield dotted(path), setting
    elif last.startswith("--"):
        yield last.lstrip("-").replace("-", "_"), _flagged(setting)
    elif len(path) > 2:
        yield dotted(path), setting  # inside another model (a teacher), or a plan of overlaps
    elif path in (("mixed_precision",), ("trainer", "precision")) and str(value).replace("-", "_") in _MIXED:
        for name, one in _MIXED[str(value).replace("-", "_")].items():
            yield name, _as(setting, one)
    elif last in TURNED and isinstance(value, bool):
        yield TURNED[last], _as(setting, not value)
    elif path[-2:] == ("optim", "name"):
        yield "use_distributed_optimizer", _as(setting, "distributed" in str(value))
    elif (special := SPECIAL.get(last)) and path[0] == "model":
        yield from ((name, _as(setting, one)) for name, one in special(value))
    elif path[0] in ("tokenizer", "dataset", "data", "optimizer", "optim") and not _plain(last):
        yield dotted(path), setting
    else:
        yield NAMES.get(last, last) or last, setting


def _as(setting: Setting, value: Any) -> Setting:
    """A setting that stands for another value than it is written with."""
    return setting._replace(values=(value,), written=setting.values)


def _plain(last: str) -> bool:
    """Whether a key of a section where most have no effect has one."""
    return last in (
        "seq_length", "sequence_length", "seq_len", "vocab_size", "micro_batch_size", "global_batch_size", "optimizer",
        "use_distributed_optimizer", "use_precision_aware_optimizer", "main_grads_dtype", "main_params_dtype",
        "exp_avg_dtype", "exp_avg_sq_dtype", "optimizer_cpu_offload", "optimizer_offload_fraction", "tokenizer_type",
        "overlap_grad_sync", "overlap_param_sync", "reset_position_ids", "reset_attention_mask", "overlap_grad_reduce",
    )  # fmt: skip


def _flagged(setting: Setting) -> Setting:
    """A flag of Megatron-LM with its value: true alone is the flag without any, and a text has several words."""
    (value,) = setting.values
    if isinstance(value, str):
        return setting._replace(values=tuple(value.split()))
    return setting._replace(values=() if value is True else (value,))


def _activation(value: Any) -> list[tuple[str, Any]]:
    """NeMo's model.activation."""
    word = str(value).removeprefix("fast-")
    known = {"swiglu": "swiglu", "squared-relu": "squared_relu", "geglu": "quick_geglu"}
    return [(known[word], True)] if word in known else []


def _function(value: Any) -> list[tuple[str, Any]]:
    """Bridge's model.activation_func, a name or a path; gated_linear_unit says the rest."""
    word = str(value).rpartition(".")[2]
    return [("squared_relu", True)] if word == "squared_relu" else []


def _tied(value: Any) -> list[tuple[str, Any]]:
    return [("untie_embeddings_and_output_weights", not value)] if isinstance(value, bool) else []


SPECIAL: dict[str, Callable[[Any], list[tuple[str, Any]]]] = {
    "activation": _activation, "activation_func": _function,
    "gated_linear_unit": lambda value: [("swiglu", value)],
    "tie_word_embeddings": _tied,
    "make_vocab_size_divisible_by": lambda value: [("make_vocab_size_divisible_by", value)],
}  # fmt: skip
"""Keys of a model that stand for other arguments, by their value."""
_MIXED = {name.replace("-", "_"): values for name, values in MIXED.items()}
