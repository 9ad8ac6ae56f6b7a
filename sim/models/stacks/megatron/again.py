"""What Megatron Core's `--recompute-modules` run again (megatron/core/transformer: transformer_config.py,
transformer_layer.py, multi_latent_attention.py, moe).

* core_attention (core_attn): fused attention keeps q, k and v anyway, so little is won ("for fused attention, you have
  no need"). `--recompute-granularity selective` without modules is this one.
* mla_up_projection (mla_up_proj): products up, with the norms fused into them, and rope.
* norm (layernorm): norms by themselves, which stand before latent attention and before mixtures; one that is fused
  with the product behind it stays. The product behind then quantises its input once more (`save_original_input`).
* activation (moe_act): of routed experts alone, with the cast behind it.
* mlp, moe, shared_experts: their whole forward to its end; moe has router, dispatch and combine, not the norm.

Where latent attention compresses no queries, their product is one up; of FP8 recipes it then keeps its input in BF16,
which is not counted.
"""

from sim.models.blocks.experts import Experts
from sim.models.blocks.feed_forward import GATED, Network
from sim.models.blocks.gqa import Heads
from sim.models.blocks.mla import Latent
from sim.models.stacks.again import Words
from sim.models.stacks.context import AROUND

WHOLE = ("*", "!*_norm", "!residual")
ATTENTION = {"core_attention": ("sdpa*", "seed", *AROUND)}
WORDS: Words = {
    Heads: ATTENTION,
    Latent: {
        **ATTENTION, "norm": ("input_norm", "*_x_q_down", "*_x_kv_down", "*_x_q"),
        "mla_up_projection": ("q", "*_x_q", "*q_norm", "q_up", "*kv_norm", "kv_up", "rope_*",
                              "gather_*_latent", "gather_k_rope"),
    },
    Network: {"mlp": ("*", "!post_norm", "!residual")},
    Experts: {
        "norm": ("mlp_norm", "*_x_shared_fc1"), "activation": (*GATED, "clamp_*", "*_rows_experts_fc2_fprop"),
        "moe": WHOLE, "shared_experts": ("*shared_fc1", "shared_act", "*shared_fc2"),
    },
}  # fmt: skip
"""Kind of block -> module -> its kernels (see `sim.models.stacks.again`)."""
