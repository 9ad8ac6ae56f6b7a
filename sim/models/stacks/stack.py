"""A stack: the software that a job trains with, as a value, and what each is known to do."""

from dataclasses import dataclass
from typing import NamedTuple

from hwmodels.attention import CUDNN


class Kind(NamedTuple):
    """What all jobs of a stack have in common. library: whose kernels they are, the folder of a device's tables
    ("": the project's own). options: keys beside the name that it knows. precisions: recipes that it has kernels for.
    eager: the host launches kernel by kernel. frees: gradients are freed after the update and made anew by the first
    backward. plain: an optimizer of one process, all of whose kernels the stack says; else ZeRO-1 as the plan has it.
    selective: backward can follow torchtitan's policy by operators (`sim.models.recompute`).
    axes: of the mesh, that a layer may be shared over. drains: the gradients of a stage are reduced when its own last
    backward is through, not when the rank is. units: gradients and parameters that are sharded move in units of a
    layer, beside compute, copied into and out of buffers (torch's fully_shard). waits: ranks with one stage wait for
    their pipeline's messages (see sim.scenario.messages).
    """

    library: str
    options: tuple[str, ...]
    precisions: tuple[str, ...]
    eager: bool
    frees: bool = False
    plain: bool = False
    selective: bool = False
    axes: tuple[str, ...] = ()
    drains: bool = False
    units: bool = False
    waits: bool = False


TRANSFORMER_ENGINE = ("bf16", "fp8_delayed", "fp8_current", "fp8_block", "mxfp8", "nvfp4")
"""Recipes of TransformerEngine."""
SHARED = ("tensor", "context", "expert_tensor")
"""Axes that stacks of blocks share a layer over."""
KINDS = {
    "deepseek": Kind("", (), ("fp8", "bf16"), eager=False, drains=True),
    "torch": Kind(
        "torch", ("release", "compiled", "cuda_graphs", "attention", "unpadded", "loss_parallel", "early_stop", "norms",
         "rope", "repeated", "compiled_ends", "update", "clips", "flat", "metrics"),
        ("bf16", "fp8_current", "fp8_rowwise", "mxfp8"),
        eager=True, frees=True, plain=True, axes=SHARED, selective=True, units=True, waits=True,
    ),
    "megatron": Kind(
        "torch",
        (
            "release", "cuda_graphs", "graphed", "dispatcher", "attention", "cross_entropy", "fused_experts", "norms",
            "scales", "casts", "rope", "router", "gating", "permute", "weighting", "padded", "sequential",
            "accumulation", "bf16_first", "bf16_last", "bf16_prediction", "attention_precision", "output_layer",
        ),
        TRANSFORMER_ENGINE,
        eager=True, axes=SHARED, waits=True,
    ),
}  # fmt: skip
"""Name -> what it is. deepseek: kernels and order of DeepSeek's published H800 profile. torch: plain PyTorch modules.
megatron: Megatron Core with TransformerEngine, whose products are cuBLAS's and attention cuDNN's, as torch's are."""

DISPATCHERS = ("alltoall", "deepep", "hybridep")
"""Ways of Megatron Core to send tokens to experts (`--moe-token-dispatcher-type alltoall`, or `flex` with
`--moe-flex-dispatcher-backend deepep | hybridep`; github.com/NVIDIA/Megatron-LM, megatron/core/transformer/moe)."""
GRAPHED = ("attention", "router", "network", "mamba")
"""Modules that may be a graph each (`--cuda-graph-impl transformer_engine` with `--cuda-graph-scope`: attn; moe_router,
with or without moe_preprocess; mlp; mamba)."""

NATIVE = "native"
"""Megatron Core's own cross-entropy, compiled in pieces around what ranks tell each other, in FP32: the only one before
March 2025 (megatron/core/fusions/fused_cross_entropy.py; `--cross-entropy-fusion-impl native`)."""
PLAIN_LOSS = "plain"
"""The same operation by operation (`cross_entropy_loss_fusion` off, Megatron Core's default):
megatron/core/tensor_parallel/cross_entropy.py."""
CUDNN_NORMS = "cudnn"
"""Norms by cuDNN (NVTE_NORM_FWD_USE_CUDNN=1): they write MXFP8, and find no largest values. TransformerEngine's own
write BF16 under MXFP8, and find the largest value of what they write under current scaling (TransformerEngine 2.9 and
later, pytorch/csrc/extensions/normalization.cpp, rmsnorm_fwd; before 2.9 under current scaling as cuDNN's)."""
BOTH, WEIGHTS, NONE = "both", "weights", "none"
"""Of a product's sides, those whose scales of blocks (MXFP8, NVFP4) are put in the order of tensor cores by a kernel of
their own before each product: TransformerEngine before 2.12 (pytorch/csrc/extensions/gemm.cpp, swizzle_scaling_factors
of A and of B), NVFP4's before 2.17 (pull request 3011 of 2026-06-05); from then on, whose casts write activations' so
(`optimize_for_gemm`, MXFP8's by 99df88106 of 2026-01-16); from 42cb81b14 of 2026-06-24 on, whose casts of weights do
too, unless parameters are kept in FP8."""
APART = "apart"
"""NVFP4's rows are cast by a kernel and its columns, behind a Hadamard transform, by another (TransformerEngine before
2.14, pytorch/csrc/quantizer.cpp, NVFP4Quantizer::quantize_impl; then nvte_quantize_with_hadamard_transform)."""
PLAIN_NORMS = "plain"
"""Norms of torch as Llama's own modules write them, operation by operation in FP32."""
COMPLEX, PLAIN_ROPE = "complex", "plain"
"""Rope of torch as a product of complex numbers in FP32; of megatron operation by operation, where TransformerEngine's
kernel is off or knows no such rope (YaRN's with a factor: megatron/core pull request 2038 of 2025-11-22)."""
PLAIN_ROUTER, FP32_GATING = "plain", "fp32"
"""A mixture's router in single operations of torch (`moe_router_fusion` off, Megatron Core's default); gradients of its
product in FP32 (`moe_router_dtype`)."""
PLAIN_PERMUTE = "plain"
"""Rows put in the order of ranks and experts by single operations of torch (`moe_permute_fusion` off)."""
WEIGHED_SUMS = "sums"
"""Rows of experts weighed where they are added up again, so that no weights are sent (Megatron Core before 26596307 of
2025-04-09; from then on they go with rows and experts weigh what they activate)."""
ADDED = "added"
"""Gradients of weights are written by their products and added to what is there by a kernel each, which a hook of the
parameter launches (`gradient_accumulation_fusion` off; megatron/core/distributed/distributed_data_parallel.py)."""
FP8 = "fp8"
"""Attention in the recipe's own FP8 (`fp8_dot_product_attention`): of MXFP8 with its scales of blocks, which
TransformerEngine 2.15 and later do, else with a scale a tensor."""
MXFP8_OUTPUT = "mxfp8"
"""The product of the output layer as all others are (`fp8_output_proj`, which Megatron Core has for MXFP8 alone)."""
ALL, LOSS, NOTHING = "all", "loss", "none"
"""Of a model's ends (embedding, final norm, head, loss), what torch.compile fuses where it fuses layers."""
FUSED, FOREACH, LOOP = "fused", "foreach", "loop"
"""Implementations of torch's AdamW: a kernel for all of it, an operation after the other over all tensors, or over one
tensor after another (`sim.models.stacks.torch.optimizer`)."""
UNFUSED = "unfused"
"""Attention as two batched products with a masked softmax and a dropout between them, each tensor in memory
(Megatron-LM without flash attention: megatron/core/transformer/dot_product_attention.py)."""


@dataclass(frozen=True)
class Stack:
    """name: one of KINDS. release: of its software, in words; decides nothing by itself. compiled: torch.compile has
    fused what it can. cuda_graphs: steps are replayed as graphs, so the host launches nothing. graphed: of GRAPHED,
    modules that are a graph each, where the host launches the others. dispatcher: one of DISPATCHERS. attention: whose
    kernels it is, one of `hwmodels.attention.KERNELS`, or UNFUSED. unpadded: attention's tokens are gathered without
    padding, and scattered behind (flash-attn's bert_padding, around its variable-length call). loss_parallel: ranks
    that share the vocabulary share the loss, each with its part of the logits; else each gathers all of them
    (torchtitan's parallelism.disable_loss_parallel). cross_entropy: whose kernels the loss is, transformer_engine,
    NATIVE or PLAIN_LOSS. fused_experts: experts' first product, its activation and the cast of that are one kernel, and
    so are their gradients (TransformerEngine's fused operations; `use_transformer_engine_op_fuser`). norms: whose they
    are, transformer_engine or CUDNN_NORMS. scales: BOTH, WEIGHTS or NONE. casts: joined, or APART. early_stop: what is
    computed again stops when all that backward needs is there (torch.utils.checkpoint without reentrant backward, from
    torch 2.1 on: pytorch PR 96866), and does not run to its end. norms of torch: its own kernel, or PLAIN_NORMS. rope:
    the stack's own, COMPLEX or PLAIN_ROPE. router: fused, or PLAIN_ROUTER. gating: bf16, or FP32_GATING.
    permute: fused, or PLAIN_PERMUTE. weighting: experts, or WEIGHED_SUMS. padded: each expert has as many rows as the
    mean, and nobody counts them. sequential: experts multiply one after another, each by itself. accumulation: fused or
    ADDED. bf16_first, bf16_last: layers at a model's beginning and end that multiply in BF16 whatever the precision;
    bf16_prediction: those of what predicts further tokens do. attention_precision: bf16, or FP8. output_layer: bf16, or
    MXFP8_OUTPUT. repeated:
    keys and values are copied for each query head that shares them. compiled_ends: ALL, LOSS or NOTHING. update:
    FUSED, FOREACH or LOOP. clips: gradients' norm is limited before the update. flat: what is sharded of a layer is one
    tensor (FullyShardedDataParallel; fully_shard's are tensors). metrics: numbers that each rank gathers of all others
    after a step, one by one and into a tensor a rank (torchmetrics)."""

    name: str = "deepseek"
    release: str = ""
    compiled: bool = False
    cuda_graphs: bool = False
    graphed: tuple[str, ...] = ()
    dispatcher: str = "alltoall"
    attention: str = CUDNN
    unpadded: bool = False
    loss_parallel: bool = True
    cross_entropy: str = "transformer_engine"
    fused_experts: bool = False
    norms: str = "transformer_engine"
    scales: str = WEIGHTS
    casts: str = "joined"
    early_stop: bool = True
    rope: str = "own"
    router: str = "fused"
    gating: str = "bf16"
    permute: str = "fused"
    weighting: str = "experts"
    padded: bool = False
    sequential: bool = False
    accumulation: str = "fused"
    bf16_first: int = 0
    bf16_last: int = 0
    bf16_prediction: bool = False
    attention_precision: str = "bf16"
    output_layer: str = "bf16"
    repeated: bool = False
    compiled_ends: str = ALL
    update: str = FUSED
    clips: bool = False
    flat: bool = False
    metrics: int = 0

    @property
    def fuses_attention(self) -> bool:
        """Whether attention is one kernel; else products, a softmax and a dropout between them, which are kept."""
        return self.attention != UNFUSED

    @property
    def library(self) -> str:
        """Whose kernels it runs: a folder of a device's tables, "" for the project's own."""
        return KINDS[self.name].library

    @property
    def plain_update(self) -> bool:
        """Whether its optimizer is one process's own, with kernels that the stack says."""
        return KINDS[self.name].plain

    @property
    def frees_gradients(self) -> bool:
        """Whether gradients are there only from the first backward to the update (`zero_grad(set_to_none=True)`)."""
        return KINDS[self.name].frees

    @property
    def drains(self) -> bool:
        """Whether gradients of a stage are reduced when its own last backward is through, though others follow."""
        return KINDS[self.name].drains

    @property
    def units(self) -> bool:
        """Whether what is sharded moves in units of a layer (torch's fully_shard)."""
        return KINDS[self.name].units

    @property
    def launches(self) -> bool:
        """Whether the host launches each kernel, so that it can be what a step waits for. DeepSeek's profile has its
        gaps between kernels as they were measured, and no more is known of its host."""
        return KINDS[self.name].eager and not self.cuda_graphs


DEEPSEEK = Stack()
