"""What a scenario says of the software that trains: its keys, options of each stack, formats that it multiplies in."""

from collections.abc import Iterator
from typing import Annotated, Literal

from hwmodels.attention import CUDNN, TIMED_IN_FP8
from sim.models.form import Form, Layers, Listed, Natural
from sim.models.recompute import SELECTIVE
from sim.models.stacks.stack import KINDS, Stack
from sim.scenario.values import Scenario

Graphed = Literal["attention", "router", "network", "mamba"]
"""Modules of megatron that can be a graph."""


class StackForm(Form):
    """The software that trains."""

    name: Literal["deepseek", "torch", "megatron"] = "deepseek"
    """Whose kernels a layer becomes: deepseek (its published H800 profile), torch (plain modules) or megatron (Megatron
    Core with TransformerEngine)."""
    release: str = ""
    """Of its software, in words: moves no time, but intervals of mixtures are wider where it is not said."""
    compiled: bool | None = None
    """Of torch: torch.compile fuses what lies between products."""
    cuda_graphs: bool | None = None
    """Steps are replayed as CUDA graphs: the host launches no kernel by itself."""
    graphed: Annotated[tuple[Graphed, ...], Listed] | None = None
    """Of megatron: modules that are replayed as a graph each; the host launches the others, mixtures among them."""
    dispatcher: Literal["alltoall", "deepep", "hybridep"] | None = None
    """How megatron sends tokens to experts: alltoall (NCCL; the default), deepep or hybridep."""
    attention: Literal["cudnn", "flash2", "flash3", "triton", "unfused"] | None = None
    """Of torch and megatron, whose attention runs: cudnn (the default), flash2 or flash3 (FlashAttention-2 and -3;
    torch's flash backend is the former), triton (the first FlashAttention in Triton), unfused (products, a softmax)."""
    unpadded: bool | None = None
    """Of torch without torch.compile: attention's tokens are gathered without padding before it and scattered behind
    (flash-attn's variable-length call by bert_padding, as llm-foundry and transformers make it)."""
    loss_parallel: bool | None = None
    """Of torch: ranks of a tensor group share the loss, each with its part of the logits (the default), or each gathers
    all of them."""
    cross_entropy: Literal["transformer_engine", "native", "plain"] | None = None
    """Of megatron: whose kernels the loss is, transformer_engine (the default), native, Megatron Core's own in FP32,
    which is all that there was before March 2025, or plain, that one operation by operation
    (cross_entropy_loss_fusion off)."""
    fused_experts: bool | None = None
    """Of megatron in mxfp8: experts' first product, its activation and the cast of that are one kernel, and so are
    their gradients (Megatron's use_transformer_engine_op_fuser)."""
    norms: Literal["transformer_engine", "cudnn", "plain"] | None = None
    """Of megatron, whose norms: transformer_engine (the default), which leave MXFP8's cast to a kernel of its own and
    find current scaling's largest values, or cudnn (NVTE_NORM_FWD_USE_CUDNN=1), which cast and do not find. Of torch:
    its own kernel unless said, or plain, operation by operation in FP32 where nothing compiles them."""
    scales: Literal["both", "weights", "none"] | None = None
    """Of megatron in mxfp8 or nvfp4: sides of a product whose scales are put in the tensor cores' order by a kernel of
    their own before each: both (TransformerEngine before 2.12, NVFP4's before 2.17), weights (the default) or none
    (July 2026 and later)."""
    casts: Literal["joined", "apart"] | None = None
    """Of megatron in nvfp4: rows and transformed columns are cast by one kernel (joined, the default) or by two (apart:
    TransformerEngine before 2.14)."""
    early_stop: bool | None = None
    """Of torch: what is computed again stops when all that backward needs is there (the default), or runs to its end,
    last product included (reentrant checkpoints, all before torch 2.1, and torchtitan from August 2025 on)."""
    rope: Literal["own", "complex", "plain"] | None = None
    """own: torch's on halves of a head, megatron's fused kernel (the default). complex, of torch: as complex numbers in
    FP32, which torch.compile does not fuse. plain, of megatron: operation by operation (apply_rope_fusion off, and
    YaRN with a factor, as GPT-OSS has it)."""
    router: Literal["fused", "plain"] | None = None
    """Of megatron, a mixture's router: fused (the default) or plain, its scores, choices and auxiliary loss operation
    by operation (moe_router_fusion off)."""
    gating: Literal["fp32", "bf16"] | None = None
    """Of megatron, in what a router's product is differentiated: bf16 (the default) or fp32 (moe_router_dtype)."""
    permute: Literal["fused", "plain"] | None = None
    """Of megatron with alltoall, how rows are put in the order of experts: fused (the default) or plain, operation by
    operation and chunk by chunk (moe_permute_fusion off)."""
    weighting: Literal["experts", "sums"] | None = None
    """Of megatron with alltoall, who weighs rows: experts, to which weights are sent beside them (the default), or the
    sums that they come back to (Megatron Core before April 2025)."""
    padded: bool | None = None
    """Of megatron with alltoall: each expert has as many rows as the mean, tokens above are dropped and gaps filled
    (moe_pad_expert_input_to_capacity with a capacity of 1), so that nobody counts rows or waits for numbers."""
    sequential: bool | None = None
    """Of megatron: experts multiply one after another, each by products of its own (moe_grouped_gemm off)."""
    accumulation: Literal["fused", "added"] | None = None
    """Of megatron: gradients of weights are added to those there in their products (fused, the default) or by a kernel
    each behind them (added: gradient_accumulation_fusion off)."""
    bf16_first: Layers | None = None
    """Of megatron: layers at a model's beginning that multiply in BF16 whatever the precision (none unless said;
    num_layers_at_start_in_bf16 with first_last_layers_bf16)."""
    bf16_last: Layers | None = None
    """Of megatron: likewise at its end (num_layers_at_end_in_bf16), with what predicts further tokens."""
    bf16_prediction: bool | None = None
    """Of megatron: layers that predict further tokens multiply in BF16 whatever the precision (keep_mtp_spec_in_bf16).
    """
    attention_precision: Literal["bf16", "fp8"] | None = None
    """Of megatron, in what attention multiplies: bf16 (the default) or fp8, with the scales of the precision
    (fp8_dot_product_attention)."""
    output_layer: Literal["bf16", "mxfp8"] | None = None
    """Of megatron in mxfp8, in what logits are multiplied: bf16 (the default) or mxfp8 (fp8_output_proj)."""
    repeated: bool | None = None
    """Of torch: keys and values are copied for each query head that shares them (repeat_kv)."""
    compiled_ends: Literal["all", "loss", "none"] | None = None
    """Of torch with torch.compile, what of embedding, final norm, head and loss it fuses: all (the default), the loss
    alone, or none (layers compiled one by one)."""
    update: Literal["fused", "foreach", "loop"] | None = None
    """Of torch: AdamW as one kernel (fused, the default), or operation by operation over all tensors at once (foreach)
    or over each (loop)."""
    clips: bool | None = None
    """Of torch: the gradients' norm is limited before the update (clip_grad_norm_)."""
    flat: bool | None = None
    """Of torch with parallel.zero 2 or 3: what is sharded of a layer is one tensor (FullyShardedDataParallel); tensors
    of their own unless said (fully_shard)."""
    metrics: Natural | None = None
    """Of torch: numbers that each rank gathers of all ranks after each step, one after another (states of
    torchmetrics that are computed each batch, as Composer does with a loss and a perplexity: 4)."""

    @property
    def value(self) -> Stack:
        """The stack that they say."""
        return Stack(**self.model_dump(exclude_none=True))


Finding = tuple[tuple[str, ...], str]
"""The keys involved, the one to change first, and one line on what is wrong and what is legal."""


def findings(scenario: Scenario) -> Iterator[Finding]:
    """Options of other stacks, and a precision that the stack has no kernels for."""
    stack, kind = scenario.stack, KINDS[scenario.stack.name]
    for key in StackForm.model_fields:
        if key != "name" and getattr(stack, key) != getattr(Stack(), key) and key not in kind.options:
            having = ", ".join(name for name, other in KINDS.items() if key in other.options)
            yield (f"stack.{key}", "stack"), f"{stack.name} runs without it; it goes with: {having}"
    if stack.cuda_graphs and stack.graphed:
        what = "steps that are graphs have no graphs of modules"
        yield ("stack.graphed", "stack.cuda_graphs"), f"{what}; legal: one of the two"
    yield from _mixed(stack, scenario)
    if stack.scales != Stack.scales and scenario.precision not in BLOCKS:
        yield ("stack.scales", "precision"), f"no scales of blocks to put in order; legal with: {', '.join(BLOCKS)}"
    if stack.casts != Stack.casts and scenario.precision != "nvfp4":
        yield ("stack.casts", "precision"), "one kernel casts rows and columns but in nvfp4; legal: joined"
    if "bf16_last" in kind.options:
        yield from _precise(scenario)
    for key, owners in WHOSE.items():
        word = getattr(stack, key)
        if key in kind.options and not has(stack.name, key, word):
            legal = ", ".join([getattr(Stack(), key), *(each for each, name in owners.items() if name == stack.name)])
            yield (f"stack.{key}", "stack"), f"{word} {key} is {owners[word]}'s; legal: {legal}"
    if stack.unpadded and stack.compiled:
        yield ("stack.unpadded", "stack.compiled"), "compiled code has no such call; legal: one of the two"
    if stack.flat and "flat" in kind.options and scenario.parallel.zero < 2:
        yield ("stack.flat", "parallel.zero"), "nothing of a layer is sharded; legal: false, or parallel.zero 2 or 3"
    if not stack.loss_parallel and "loss_parallel" in kind.options and scenario.parallel.tensor == 1:
        what = "a rank with the whole vocabulary shares its loss with nobody"
        yield ("stack.loss_parallel", "parallel.tensor"), f"{what}; legal: true, or parallel.tensor 2 or more"
    if kind.plain:
        yield from _torchaos(scenario)
    if scenario.precision not in kind.precisions:
        what = f"the {stack.name} stack has no kernels for {scenario.precision}"
        yield ("precision", "stack"), f"{what}; legal: {', '.join(kind.precisions)}"
    yield from _again(scenario)


def _torchaos(scenario: Scenario) -> Iterator[Finding]:
    """Precisions of torchao where torch.compile has not fused their casts, or does not get through them."""
    if scenario.precision in ("fp8_current", "fp8_rowwise", "mxfp8") and not scenario.stack.compiled:
        what = "torchao's casts are fast only where torch.compile fuses them"
        yield ("stack.compiled", "stack", "precision"), f"{what}; legal with precision {scenario.precision}: true"
    if scenario.precision == "mxfp8" and scenario.parallel.tensor > 1:
        what = "torchao's MXFP8 is not compiled over ranks that share a layer (pytorch/torchtitan issue 2401)"
        yield ("parallel.tensor", "stack", "precision"), f"{what}; legal: 1, or another precision"


def _mixed(stack: Stack, scenario: Scenario) -> Iterator[Finding]:
    """Options of mixtures that do not go with others."""
    if stack.dispatcher != Stack.dispatcher and scenario.parallel.expert == 1:
        what = "a rank that holds all experts dispatches nothing"
        yield ("stack.dispatcher", "parallel.expert"), f"{what}; legal: alltoall, or parallel.expert 2 or more"
    if stack.permute != Stack.permute and (stack.dispatcher != Stack.dispatcher or scenario.parallel.expert == 1):
        what = "rows are put in order operation by operation where alltoall sends them alone"
        yield ("stack.permute", "stack.dispatcher"), f"{what}; legal: fused, or alltoall and parallel.expert 2 or more"
    for key, legal in (("weighting", Stack.weighting), ("padded", "false")):
        if getattr(stack, key) != getattr(Stack, key) and (
            stack.dispatcher != Stack.dispatcher or scenario.parallel.expert == 1
        ):
            what = "known of alltoall's rows alone"
            yield (
                (f"stack.{key}", "stack.dispatcher"),
                f"{what}; legal: {legal}, or alltoall and parallel.expert 2 or more",
            )
    if stack.padded and scenario.routing.kind != "balanced":
        what = "padded rows are as many for each expert"
        yield ("stack.padded", "routing.kind"), f"{what}; legal: false, or routing.kind balanced"
    if stack.sequential and stack.fused_experts:
        what = "a fused kernel has all experts"
        yield ("stack.sequential", "stack.fused_experts"), f"{what}; legal: one of the two"
    if stack.fused_experts and scenario.precision != "mxfp8":
        yield ("stack.fused_experts", "precision"), "experts are fused in mxfp8 alone; legal: false, or precision mxfp8"


def _precise(scenario: Scenario) -> Iterator[Finding]:
    """Layers in BF16 where all are, or where there are not as many."""
    stack, layers = scenario.stack, scenario.model.layers if scenario.model else 0
    for key in ("bf16_first", "bf16_last"):
        if getattr(stack, key) and scenario.precision == "bf16":
            yield (f"stack.{key}", "precision"), "all layers multiply in BF16; legal: 0, or another precision"
        elif scenario.model and getattr(stack, key) > layers:
            yield (f"stack.{key}", "model"), f"the model has {layers} layers; legal: 0 to {layers}"
    if stack.bf16_prediction and scenario.precision == "bf16":
        yield ("stack.bf16_prediction", "precision"), "all layers multiply in BF16; legal: false, or another precision"
    if stack.output_layer != Stack.output_layer and scenario.precision != "mxfp8":
        yield ("stack.output_layer", "precision"), "logits are multiplied so in mxfp8 alone; legal: bf16"
    if stack.attention_precision != Stack.attention_precision:
        yield from _attends(scenario)


def _attends(scenario: Scenario) -> Iterator[Finding]:
    """Attention in FP8 where no kernel does it."""
    stack, key = scenario.stack, "stack.attention_precision"
    if scenario.precision == "bf16":
        yield (
            (key, "precision"),
            "attention goes by the scales of an FP8 or FP4 recipe; legal: bf16, or such a precision",
        )
    if stack.attention != CUDNN:
        yield (
            (key, "stack.attention"),
            f"{stack.attention} attention has no such kernels; legal: bf16, or attention cudnn",
        )
    device = scenario.cluster.node.device if scenario.cluster else None
    if device and device.architecture not in TIMED_IN_FP8:
        legal = ", ".join(sorted(TIMED_IN_FP8))
        yield (key, "cluster.node"), f"no such kernels are known on {device.name} ({legal} have some); legal: bf16"


WHOSE = {"norms": {"plain": "torch", "cudnn": "megatron"}, "rope": {"complex": "torch", "plain": "megatron"}}
"""Key -> word -> the one stack that has it."""


def has(stack: str, key: str, word: object) -> bool:
    """Whether a stack that knows an option has such a word for it."""
    return WHOSE.get(key, {}).get(str(word), stack) == stack


BLOCKS = ("mxfp8", "nvfp4")
"""Precisions whose scales tensor cores read in an order of their own."""
SCALED_LATER = ("norm", "activation")
"""Modules whose output the product behind them would have to quantise again."""


def _again(scenario: Scenario) -> Iterator[Finding]:
    """What the stack cannot compute again as it runs."""
    stack, recompute = scenario.stack, scenario.recompute
    if recompute.kind == SELECTIVE and not KINDS[stack.name].selective:
        having = ", ".join(name for name, kind in KINDS.items() if kind.selective)
        what = f"the {stack.name} stack has no policy by operators (it goes with: {having})"
        yield ("recompute.kind", "recompute", "stack"), f"{what}; legal: recipe, none, full, modules or layers"
    if scenario.precision == "fp8_delayed" and (named := [m for m in SCALED_LATER if m in recompute.modules]):
        what = (
            "delayed scaling has moved on when backward would quantise its output again (Megatron Core refuses it too)"
        )
        yield ("recompute.modules", "recompute", "precision"), f"{' and '.join(named)}: {what}; legal: other modules"
