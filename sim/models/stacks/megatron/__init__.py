"""Megatron Core with TransformerEngine: fused norms, activations, rope, permutes and loss; FP8 and FP4 recipes.

Which kernels are fused follows the documents of both: github.com/NVIDIA/Megatron-LM, megatron/core
(`apply_rope_fusion`, `bias_activation_fusion`, `bias_dropout_fusion`, `gradient_accumulation_fusion`,
`moe_permute_fusion`, `moe_router_fusion`, `cross_entropy_loss_fusion`, all on, as NVIDIA's presets have them). What a
recipe casts when is TE's (nvidia.github.io/TransformerEngine, Low-precision training). No trace of it was at hand:
numbers of launches are not verified. The optimizer is the plan's own (ZeRO-1 over FP32 states), and casts of weights.
"""

from sim.models.stacks.megatron.formats import recipe
from sim.models.stacks.megatron.keeping import kept, kept_for_weight, regained, workspace
from sim.models.stacks.megatron.layers import parts
from sim.models.stacks.megatron.weights import tensors, update

__all__ = ["kept", "kept_for_weight", "parts", "recipe", "regained", "tensors", "update", "workspace"]
