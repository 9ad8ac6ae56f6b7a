"""What modules computed again are in eager torch: selective contexts of `torch.utils.checkpoint`
(`create_selective_checkpoint_contexts`) around a module and the product behind it, which save that product's output.

So the module's own output is made again in backward, from inputs that are kept anyway. mlp and moe are plain
checkpoints around the network behind its norm: their second forward stops before the last product, whose output
nothing needs. Norms are those before products. torch.compile follows such marks (functorch's partitioner saves what
must be saved and bans no other from being computed again); how much of that Inductor fuses into backward's own kernels
is not known, so compiled kernels of forward run again as they are, a bound.
"""

from sim.models.blocks.experts import Experts
from sim.models.blocks.feed_forward import GATED, Network
from sim.models.blocks.gqa import Heads
from sim.models.blocks.mla import Latent
from sim.models.stacks.again import Words
from sim.models.stacks.context import AROUND

WHOLE = ("*", "!*_norm", "!residual")
ATTENTION, ACTIVATION = (
    {"core_attention": ("sdpa*", *AROUND)},
    {"norm": ("mlp_norm",), "activation": (*GATED, "gate_mul")},
)
WORDS: Words = {
    Heads: {**ATTENTION, "norm": ("attn_norm",)},
    Latent: {
        **ATTENTION, "norm": ("attn_norm", "q_norm", "kv_norm"),
        "mla_up_projection": ("q", "q_b", "kv_b", "rope_*", "join_q", "join_k"),
    },
    Network: {**ACTIVATION, "mlp": WHOLE},
    Experts: {**ACTIVATION, "moe": WHOLE},
}  # fmt: skip
"""Kind of block -> module -> its kernels (see `sim.models.stacks.again`)."""
