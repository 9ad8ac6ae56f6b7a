"""A torchtitan job in TOML as the keys of a scenario.

Keys and defaults are those of JobConfig in pytorch/torchtitan @e347b1e5e (torchtitan/config/job_config.py, the last
before jobs became Python); keys of v0.1.0 and before under their old names.
"""

import re
import tomllib
from collections.abc import Mapping
from typing import Any

from hwmodels.document import did_you_mean
from hwmodels.refused import Refused
from sim.scenario.launchers.settings import Note, Setting, Settings
from sim.scenario.launchers.stages import lighter_ends

SECTIONS = (
    "parallelism",
    "activation_checkpoint",
    "training",
    "lr_scheduler",
    "job",
    "metrics",
    "float8",
    "experimental",
)
"""Tables that a job has; with [model] and [training] or [parallelism] it is one."""

FLAVORS: dict[str, dict[str, Any]] = {
    "llama3": {"8B": "llama3_8b", "70B": "llama3_70b", "405B": "llama3_405b"},
    "llama4": {
        "17bx16e_irope": "llama4_scout", "17bx128e_irope": "llama4_maverick", "17bx16e": "llama4_scout",
        "17bx128e": "llama4_maverick"},
    "deepseek_v3": {
        "671B": {"base": "deepseek_v3", "mtp_depth": 0}, "236B": "deepseek_v2", "16B": "deepseek_v2_lite"},
    "qwen3": {
        "0.6B": "qwen3_0_6b", "8B": "qwen3_8b", "32B": "qwen3_32b", "30B-A3B": "qwen3_30b_a3b",
        "235B-A22B": "qwen3_235b_a22b"},
    "gpt_oss": {"20b": "gpt_oss_20b", "120b": "gpt_oss_120b"},
}  # fmt: skip
"""Name -> flavor -> model of scenarios/models with those dimensions (torchtitan/models/*/__init__.py). Its DeepSeek-V3
has no prediction module."""
PART_OF = re.compile(r"_(flex|varlen)(_attn)?\Z")
"""Ends of flavors that say which attention kernel runs."""

OLD = {
    "training.batch_size": "training.local_batch_size", "training.compile": "compile.enable",
    "training.tensor_parallel_degree": "parallelism.tensor_parallel_degree",
    "training.data_parallel_shard_degree": "parallelism.data_parallel_shard_degree",
    "training.data_parallel_replicate_degree": "parallelism.data_parallel_replicate_degree",
    "training.enable_async_tensor_parallel": "parallelism.enable_async_tensor_parallel",
    "experimental.pipeline_parallel_degree": "parallelism.pipeline_parallel_degree",
    "experimental.pipeline_parallel_schedule": "parallelism.pipeline_parallel_schedule",
    "experimental.context_parallel_degree": "parallelism.context_parallel_degree",
    "experimental.context_parallel_rotate_method": "parallelism.context_parallel_rotate_method",
    "experimental.enable_async_tensor_parallel": "parallelism.enable_async_tensor_parallel",
    "float8.recipe_name": "quantize.linear.float8.recipe_name",
    "float8.enable_fsdp_float8_all_gather": "quantize.linear.float8.enable_fsdp_float8_all_gather",
    "float8.precompute_float8_dynamic_scale_for_fsdp":
        "quantize.linear.float8.precompute_float8_dynamic_scale_for_fsdp",
}  # fmt: skip
"""Old key -> the same now."""
SCHEDULES = {"1f1b": "1f1b", "gpipe": "gpipe", "interleaved1f1b": "interleaved", "dualpipev": "dualpipev"}
"""parallelism.pipeline_parallel_schedule -> schedule."""
NEAREST = {"zbvzerobubble": "dualpipev", "interleavedzerobubble": "interleaved", "looped_bfs": "interleaved",
           "loopedbfs": "interleaved"}  # fmt: skip
"""Schedules that are not here -> the nearest that is, with as many stages a rank."""
P, T, A = "parallelism.", "training.", "activation_checkpoint."


def is_job(content: Mapping[str, Any]) -> bool:
    """Whether tables of TOML are a torchtitan job."""
    return len({*content} & {*SECTIONS}) > 1 or ("model" in content and "parallelism" in content)


def tables(text: str, file: str) -> dict[str, Any]:
    """The tables of a TOML text. Raises Refused with the line of its mistake."""
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError, ValueError) as error:
        line = re.search(r"\(at line (\d+), column \d+\)", str(error))
        what = re.sub(r" \(at .*\)", "", str(error).splitlines()[0]) or "lists lie too deep in each other"
        raise Refused(f"not TOML: {what}", file, int(line[1]) if line else 0) from None


def settings(content: Mapping[str, Any], text: str, file: str) -> Settings:
    """What a job sets, by table and key."""
    lines = _lines(text)
    pairs = [(name, Setting((value,), lines.get(name, 0), name)) for name, value in _leaves(content, "")]
    # a key under its name now wins over its old one
    pairs.sort(key=lambda pair: pair[0] not in OLD)
    return Settings(file, {OLD.get(name, name): setting for name, setting in pairs}, "{}", "_")


def _leaves(content: Any, name: str) -> list[tuple[str, Any]]:
    if not isinstance(content, dict):
        return [(name, content)]
    return [pair for key, value in content.items() for pair in _leaves(value, f"{name}.{key}".removeprefix("."))]


def _lines(text: str) -> dict[str, int]:
    """Table and key -> the line that it is written in; of what is written in other ways, nothing."""
    lines: dict[str, int] = {}
    table = ""
    for number, line in enumerate(text.splitlines(), 1):
        if match := re.match(r"\s*\[\s*([\w.\-]+)\s*\]", line):
            table = match[1]
        elif match := re.match(r"\s*([\w.\-]+)\s*=", line):
            lines.setdefault(f"{table}.{match[1]}".removeprefix("."), number)
    return lines


def model(s: Settings) -> Any:
    """The model of a flavor: a name, or one with changes. Raises Refused for one that is not here."""
    name, flavor = s.word("model.name", "llama3"), s.word("model.flavor", "debugmodel")
    known = FLAVORS.get(name)
    if known is None:
        near = did_you_mean(name, FLAVORS)
        raise s.refusal(
            "model.name", f"no model {name!r} is known{near or ';'} legal: {', '.join(FLAVORS)}; or add --model NAME"
        )
    answer = known.get(PART_OF.sub("", flavor))
    if answer is None:
        what = f"{name} {flavor!r} has no model here; legal: {', '.join(known)}; or add --model NAME"
        raise s.refusal("model.flavor", what)
    if name == "llama4" and "irope" not in flavor:
        s.note("model.flavor", "attends to all keys; the model taken attends in chunks where it has rope")
    return answer


def degrees(s: Settings) -> dict[str, int]:
    """Sizes of the mesh's axes; shard is -1 where the rest of the ranks is meant."""
    names = {
        "replicate": "data_parallel_replicate_degree", "tensor": "tensor_parallel_degree",
        "pipeline": "pipeline_parallel_degree", "context": "context_parallel_degree",
        "expert": "expert_parallel_degree", "expert_tensor": "expert_tensor_parallel_degree",
    }  # fmt: skip
    sizes = {word: s.whole(P + name, 1) for word, name in names.items()}
    return sizes | {"shard": s.whole(f"{P}data_parallel_shard_degree", -1, least=-1) or 1}


def world(s: Settings) -> int:
    """Ranks that the degrees need, 0 where one is left open."""
    sizes = degrees(s)
    if sizes["shard"] < 0:
        return 0
    return sizes["replicate"] * sizes["shard"] * sizes["tensor"] * sizes["pipeline"] * sizes["context"]


def keys(s: Settings, model: Mapping[str, Any], ranks: int) -> dict[str, Any]:
    """All of a scenario but its name, cluster and model. model: its keys; ranks: GPUs. Raises Refused."""
    layers, routed = model["layers"], "experts" in model
    sizes = degrees(s)
    held = sizes["replicate"] * sizes["tensor"] * sizes["pipeline"] * sizes["context"]
    some = f"multiples of {held}" if sizes["shard"] < 0 else str(held * sizes["shard"])
    if sizes["shard"] < 0:
        sizes["shard"] = ranks // held
    if held * sizes["shard"] != ranks:
        what = f"[parallelism] is for {some} GPUs, and there are {ranks}"
        raise Refused(f"{what}; add another --nodes N", s.file)
    schedule = _schedule(s, sizes["pipeline"], layers)
    return {
        "precision": _precision(s), "stack": _stack(s) | _loss(s, sizes),
        "parallel": _parallel(s, sizes, routed), **schedule,
        "batch": _batch(s, sizes),
        **(_routing(s) if routed else {}),
        "overlap": _overlap(s, sizes), "recompute": _recompute(s, layers),
        "states": _states(s, sizes), "optimizer": _optimizer(s),
    }  # fmt: skip


def _parallel(s: Settings, sizes: Mapping[str, int], routed: bool) -> dict[str, Any]:
    """Tensor parallelism is with sequence parallelism, and weights are sharded over the context group too."""
    answer: dict[str, Any] = {key: sizes[key] for key in ("pipeline", "tensor", "context", "expert") if sizes[key] > 1}
    if "tensor" in answer:
        answer["sequence"] = True
    if "context" in answer:
        # alltoall hands keys and values on around the ranks (torch/distributed/tensor/experimental/_attention.py)
        method = s.word(f"{P}context_parallel_rotate_method", "allgather", ("allgather", "alltoall"))
        answer["context_kind"] = "all_gather" if method == "allgather" else "ring"
    # without expert parallelism experts are split like other layers (torchtitan/models/*/infra/parallelize.py)
    inside = sizes["expert_tensor"] if sizes["expert"] > 1 else sizes["tensor"]
    if routed and inside > 1:
        answer["expert_tensor"] = inside
    shard = sizes["shard"] * sizes["context"]
    reshard = s.word(f"{P}fsdp_reshard_after_forward", "default", ("default", "always", "never"))
    if shard == 1:
        return {**answer, "zero": 0}
    # by default weights stay gathered beside a pipeline (parallelize.py of each model)
    keeps = reshard == "never" or (reshard == "default" and sizes["pipeline"] > 1)
    hybrid = {"shard": shard} if sizes["replicate"] > 1 else {}
    return {**answer, "zero": 2 if keeps else 3, **hybrid}


def _schedule(s: Settings, pipeline: int, layers: int) -> dict[str, Any]:
    """The schedule with its placement."""
    word = s.word(f"{P}pipeline_parallel_schedule", "1F1B").lower()
    each = s.whole(f"{P}pipeline_parallel_layers_per_stage", 0, least=0)
    ends = [s.whole(f"{P}pipeline_parallel_{end}_stage_less_layers", 1, least=0) for end in ("first", "last")]
    if pipeline == 1:
        return {}
    name = SCHEDULES.get(word) or NEAREST.get(word)
    if name is None:
        raise s.refusal(
            f"{P}pipeline_parallel_schedule", f"unknown schedule {word!r}; legal: {', '.join([*SCHEDULES, *NEAREST])}"
        )
    if word not in SCHEDULES:
        s.note(f"{P}pipeline_parallel_schedule", f"is not here; {name} is taken")
    single = name in ("1f1b", "gpipe")
    chunks = 1 if single else 2
    if each and not single:
        chunks = max(1, round((layers + sum(ends)) / each / pipeline))
    stages = lighter_ends(layers, pipeline * chunks, *ends)
    if min(stages) < 0:
        raise s.refusal(f"{P}pipeline_parallel_degree", f"{layers} layers are too few for {pipeline * chunks} stages")
    schedule = {"name": name, **({"chunks": chunks} if name == "interleaved" else {})}
    return {"schedule": schedule, "placement": stages}


def _batch(s: Settings, sizes: Mapping[str, int]) -> dict[str, Any]:
    """A micro-batch is the local batch, or what a pipeline divides it into."""
    local, length = s.whole(f"{T}local_batch_size", 8), s.whole(f"{T}seq_len", 2048)
    replicas = sizes["replicate"] * sizes["shard"]
    whole = s.whole(f"{T}global_batch_size", -1, least=-1)
    whole = local * replicas if whole < 1 else whole
    micro = s.whole(f"{P}pipeline_parallel_microbatch_size", 1) if sizes["pipeline"] > 1 else local
    if sizes["pipeline"] > 1 and whole > local * replicas:
        s.note(
            f"{T}global_batch_size",
            "is gathered over several runs of the pipeline, each of which drains; one run is simulated",
        )
    s.read.add(f"{P}pipeline_parallel_microbatch_size")
    return {"sequences": whole, "sequence_length": length, "micro_batch": micro}


def _routing(s: Settings) -> dict[str, Any]:
    """Balanced, with a note where it is not forced to be."""
    if not s.flag("debug.moe_force_load_balance") and not s.flag(f"{T}debug_moe_force_load_balance"):
        s.notes.append(Note(0, "routing", "how tokens choose is in no launch file; balanced is taken"))
    return {"routing": "balanced"}


def _converters(s: Settings) -> set[str]:
    """Names in model.converters; before there were any, [float8] said it (torchtitan before v0.1.0)."""
    return {*s.words("model.converters"), *(["float8"] if s.flag("float8.enable_float8_linear") else [])}


def _precision(s: Settings) -> str:
    """BF16 unless a converter says FP8. Where that is, scales are of whole tensors unless a recipe says rows."""
    names = _converters(s)
    linear = {"float8", "quantize.linear.float8"} & names
    mx = {"mx", "quantize.linear.mx"} & names
    kept = s.word(f"{T}mixed_precision_param", "bfloat16", ("bfloat16", "float32"))
    recipe = s.word("quantize.linear.float8.recipe_name", "tensorwise")
    if kept == "float32" and s.word(f"{T}dtype", "float32") == "float32":
        raise s.refusal(f"{T}mixed_precision_param", "trains in FP32, which no stack here does; legal: bfloat16")
    if unsaid := sorted(names - linear - mx):
        s.note("model.converters", f"{', '.join(unsaid)}: cannot be told; those products are in BF16 here")
    if linear and recipe == "rowwise_with_gw_hp":
        s.note("quantize.linear.float8.recipe_name", "weight gradients are by rows here too (fp8_rowwise)")
    floats = "fp8_current" if recipe == "tensorwise" else "fp8_rowwise"
    return floats if linear else "mxfp8" if mx else "bf16"


def _stack(s: Settings) -> dict[str, Any]:
    """torch, compiled where [compile] has the model among its components."""
    compiled = s.flag("compile.enable")
    components = s.words("compile.components") or ("model", "loss")
    if compiled and "model" not in components:
        s.note("compile.components", "without the model: layers are not compiled")
    backend = s.word(f"{P}expert_parallel_comm_backend", "standard")
    if backend != "standard":
        s.note(f"{P}expert_parallel_comm_backend", "is not here on this stack; its exchange is torch's")
    layers = {"compiled": True, "compiled_ends": "loss" if "loss" in components else "none"}
    whole = s.word(f"{A}mode", "selective") in ("selective", "full") and not s.flag(f"{A}early_stop")
    return {
        "name": "torch", **(layers if compiled and "model" in components else {}), **_step(s),
        **({"rope": "complex"} if s.word("model.name", "llama3") in COMPLEX else {}),
        **({"early_stop": False} if whole else {}),
    }  # fmt: skip


COMPLEX = ("llama3", "llama4")
"""Models whose heads turn as complex numbers (apply_rotary_emb; latent attention's are not told apart here)."""
UPDATES = {"fused": "fused", "foreach": "foreach", "for-loop": "loop"}
"""optimizer.implementation -> stack.update."""


def _step(s: Settings) -> dict[str, Any]:
    """The update's implementation, and whether gradients' norm is limited before it (max_norm 1.0 unless said)."""
    update = UPDATES[s.word("optimizer.implementation", "fused", tuple(UPDATES))]
    clips = s.number("training.max_norm", 1.0) > 0
    return {**({"update": update} if update != "fused" else {}), **({"clips": True} if clips else {})}


def _loss(s: Settings, sizes: Mapping[str, int]) -> dict[str, Any]:
    """Each rank of a tensor group has all logits where the parallel loss is off."""
    off = s.flag(f"{P}disable_loss_parallel") and sizes["tensor"] > 1
    return {"loss_parallel": False} if off else {}


def _overlap(s: Settings, sizes: Mapping[str, int]) -> dict[str, Any]:
    """FSDP and DDP reduce and gather beside compute; async tensor parallelism only where layers are compiled."""
    answer = {"gradients": True, "parameters": True}
    hidden = s.flag(f"{P}enable_async_tensor_parallel")
    if sizes["tensor"] > 1:
        answer["tensor"] = hidden and s.flag("compile.enable")
    return answer


def _recompute(s: Settings, layers: int) -> Any:
    """selective with every second layer unless said; 0 is every layer too (activation_checkpoint.py)."""
    mode = s.word(f"{A}mode", "selective", ("selective", "full", "memory_budget", "none"))
    option = s.word(f"{A}selective_ac_option", "2")
    if mode != "selective":
        if mode == "memory_budget":
            s.note(f"{A}mode", "a budget of torch.compile cannot be told; nothing is computed again here")
        return "full" if mode == "full" else "none"
    if option == "op":
        return "selective_op"
    if not option.isdigit() or not 0 <= int(option[:6]) <= layers:
        what = f"found {option!r}; legal: op, or every how many layers, 1 to {layers}"
        raise s.refusal(f"{A}selective_ac_option", what)
    return {"layers": int(option), "method": "every"} if int(option) > 1 else "full"


def _states(s: Settings, sizes: Mapping[str, int]) -> dict[str, Any]:
    """All in the training's dtype: FP32 unless said. What is sharded of layers in float8 may be gathered in that."""
    word = "bf16" if s.word(f"{T}dtype", "float32", ("float32", "bfloat16")) == "bfloat16" else "fp32"
    asked = s.flag("quantize.linear.float8.enable_fsdp_float8_all_gather")
    narrow = asked and _precision(s) == "fp8_current" and sizes["shard"] * sizes["context"] > 1
    return {"master": word, "moments": word, "gradients": word, **({"parameters": "fp8"} if narrow else {})}


def _optimizer(s: Settings) -> dict[str, Any]:
    """AdamW unless said."""
    name = s.word("optimizer.name", "AdamW")
    known = {"adamw": "adamw", "adam": "adamw", "muon": "muon"}
    if name.lower() not in known:
        s.note("optimizer.name", "is not modelled; adamw is taken")
    host = {"offload": "host"} if s.flag(f"{T}enable_cpu_offload") else {}
    return {"name": known.get(name.lower(), "adamw"), **host}
