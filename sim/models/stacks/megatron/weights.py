"""Parameters of Megatron Core's modules, and what stands around their update, once a step.

Gradients of a rank's shard are copied to FP32 where they come in BF16, and scaled to clip their norm; the update's FP32
parameters are copied to those that products read (megatron/core/optimizer: distrib_optimizer.py,
`_copy_model_grads_to_main_grads` and `_copy_main_params_to_model_params`, and clip_grads.py,
`clip_grad_by_total_norm_fp32`, which scales whatever the norm since it is on the card; before, where it is above the
limit, as when a training begins). With moments in fewer bits the optimizer does both copies itself
(`use_precision_aware_optimizer`). TransformerEngine keeps weights in BF16 and casts them before the first micro-batch
of a step; later ones reuse that (`is_first_microbatch`). Where parameters are kept in FP8 (`states.parameters`) a rank
casts its shard (current scaling: behind a pass for the largest values), and what is gathered is transposed once a step
for GPUs that read rows alone (megatron/core/fp8_utils.py, quantize_param_shard; TransformerEngine, pytorch/tensor/
utils.py, cast_master_weights_to_fp8).
"""

import math
from collections.abc import Sequence

from hwmodels.formats import BF16, E4M3, FP32, PLAIN_BF16, PLAIN_FP32
from hwmodels.op import Memory
from sim.models.blocks.experts import Experts
from sim.models.blocks.gqa import Heads
from sim.models.blocks.made import HEAD, Made
from sim.models.blocks.mla import Latent
from sim.models.layer import Kernel
from sim.models.stacks import tensors as units
from sim.models.stacks.cudnn import Shared
from sim.models.stacks.megatron import attention, experts, feed_forward
from sim.models.stacks.megatron.casts import casting, ways
from sim.models.stacks.stack import MXFP8_OUTPUT

MODULES = units.Modules(attention.tensors, feed_forward.tensors, experts.tensors)


def tensors(site: Shared, made: Made) -> list[int]:
    """Elements of each parameter of a unit on this rank."""
    return units.tensors(MODULES, site, made)


def update(site: Shared, made: Sequence[Made], part: float = 1.0) -> list[Kernel]:
    """What stands around the update of a part of each parameter; and weights of products quantised behind it, all of
    them whatever part a rank updates. The update itself is the plan's (`sim.layout.optimizer`)."""
    return [
        *_around(site, math.ceil(part * sum(size for unit in made for size in tensors(site, unit)))),
        *_cast(site, made),
    ]


def _around(site: Shared, count: int) -> list[Kernel]:
    """Of so many parameters."""
    half, wide, own = PLAIN_BF16.row_bytes(1), PLAIN_FP32.row_bytes(1), site.recipe
    precise = own.moment == PLAIN_FP32 and own.master == FP32
    kept = wide if precise else own.gradient.bits / 8
    first = [Memory("convert", count, half, wide)] if precise and own.gradient == BF16 else []
    clipped = [Memory("elementwise", count, kept, kept)]
    last = [Memory("convert", count, wide, half)] if precise else []
    if own.gather == E4M3:
        passes = [Memory("amax", count, wide, 0.0)] if own.name == "fp8_current" else []
        last = [*passes, Memory("cast", count, wide, E4M3.bits / 8)]
    names = ["main_gradients"] * len(first) + ["clip"] + ["model_parameters"] * len(last)
    return [Kernel(name, op) for name, op in zip(names, [*first, *clipped, *last], strict=True)]


def _cast(site: Shared, made: Sequence[Made]) -> list[Kernel]:
    own = casting(site)
    if own is None:
        return []
    row, out = PLAIN_BF16.row_bytes(1), ways(site) * site.recipe.activation.row_bytes(1)
    read = 2 * row if own.first else row
    sizes = [size for unit in made for size in _products(site, unit)]
    if site.recipe.gather == E4M3:
        byte = E4M3.bits / 8
        return [
            Kernel("transpose_weights", Memory("weight_transpose", size, byte, byte))
            for size in sizes * (ways(site) - 1)
        ]
    return [Kernel("cast_weights", Memory("cast_transpose", size, read, out)) for size in sizes]


def _products(site: Shared, made: Made) -> list[int]:
    """Elements of the weights of each quantised product of a unit."""
    h, mixer, network = site.shape.hidden, made.mixer, made.network
    if made.end == HEAD:
        return [h * site.shape.vocabulary] if site.stack.output_layer == MXFP8_OUTPUT else []
    out = [mixer.qkv * h, mixer.q * h] if isinstance(mixer, Heads) else []
    if isinstance(mixer, Latent):
        query = [mixer.q_rank * h, mixer.q * mixer.q_rank] if mixer.q_rank else [mixer.q * h]
        out = [*query, mixer.down * h, mixer.kv * mixer.kv_rank, mixer.out * h]
    if isinstance(network, Experts):
        net, shared, local = network.routed, network.shared, site.local_experts or network.number
        row = network.sent(h)
        both = [local * net.first * row, local * net.width * row, *[network.latent * h] * (2 * bool(network.latent))]
        return out + both + [shared.first * h, shared.width * h] * bool(shared.width)
    return out + ([network.first * h, network.width * h] if network else [])
