"""The dimensions of a DeepSeek model, and the site of one of its layers."""

from dataclasses import dataclass

from sim.models import layer
from sim.models.shape import ModelShape

SCORES = ("sigmoid", "softmax")
"""Functions that turn router logits into affinities."""


@dataclass(frozen=True)
class DeepSeekShape(ModelShape):
    """Dimensions of one model of the DeepSeek family. Counts are whole numbers; widths are in elements.

    layers: transformer layers without MTP modules, the first `dense_layers` with a dense FFN of width
    dense_intermediate, the rest mixtures of `experts` routed experts (experts_per_token chosen, from at most
    groups_per_token of `groups` groups) and shared_experts shared ones, each of width expert_intermediate.
    heads: attention heads, each with qk_nope + qk_rope query and key elements and v_head value elements.
    q_rank, kv_rank: widths of the compressed query (0: not compressed) and key-value. mtp_depth: MTP modules.
    """

    dense_layers: int
    dense_intermediate: int
    expert_intermediate: int
    experts: int
    shared_experts: int
    experts_per_token: int
    groups: int
    groups_per_token: int
    route_scale: float
    score: str
    heads: int
    qk_nope: int
    qk_rope: int
    v_head: int
    q_rank: int
    kv_rank: int
    mtp_depth: int


Site = layer.Site[DeepSeekShape]
"""Site of a DeepSeek layer."""
