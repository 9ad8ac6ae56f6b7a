"""Plain PyTorch: BF16 parameters, autograd, `scaled_dot_product_attention`, `torch._grouped_mm`, fused AdamW.

Eager kernels are those of profiled steps of plain transformers (`tests/fixtures/torch_launches.json`), block by block;
compiled ones are what torch.compile fuses of them. Mamba-2 takes the kernels of its own library (mamba_ssm). Full
recomputation runs a layer's forward again, up to its last product, whose output nothing saves
(`torch.utils.checkpoint`, early_stop).
"""

from sim.models.stacks.torch.formats import recipe
from sim.models.stacks.torch.keeping import kept, kept_for_weight, regained, workspace
from sim.models.stacks.torch.layers import parts
from sim.models.stacks.torch.optimizer import update
from sim.models.stacks.torch.tensors import tensors

__all__ = ["kept", "kept_for_weight", "parts", "recipe", "regained", "tensors", "update", "workspace"]
