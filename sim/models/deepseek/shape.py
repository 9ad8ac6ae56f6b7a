"""The dimensions of a DeepSeek model, and the site of one of its layers."""

from collections.abc import Iterator
from dataclasses import dataclass

from sim.models import layer
from sim.models.blocks.experts import Experts
from sim.models.blocks.feed_forward import Network
from sim.models.blocks.mla import Latent
from sim.models.shape import ModelShape, split

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

    def part(self, tensor: int, expert_tensor: int = 1) -> "DeepSeekShape":
        if tensor == expert_tensor == 1:
            return self
        whole, shared = super().part(tensor), self.shared_experts * self.expert_intermediate
        sizes = {"heads": self.heads // tensor, "dense_intermediate": self.dense_intermediate // tensor}
        sizes |= {"expert_intermediate": self.expert_intermediate // expert_tensor, "shared_width": shared // tensor}
        return PartShape(**{**vars(whole), **sizes})

    def splits(self, tensor: int, expert_tensor: int = 1) -> Iterator[tuple[str, int, int]]:
        shared = self.shared_experts * self.expert_intermediate
        yield from split((key, getattr(self, key), tensor) for key in ("heads", "dense_intermediate"))
        yield from split([("expert_intermediate", shared, tensor)])
        yield from split([("expert_intermediate", self.expert_intermediate, expert_tensor)])

    @property
    def latent(self) -> Latent:
        """Its attention."""
        return Latent(self.heads, self.qk_nope, self.qk_rope, self.v_head, self.q_rank, self.kv_rank)

    @property
    def dense(self) -> Network:
        """Its dense feed-forward network."""
        return Network(self.dense_intermediate)

    @property
    def mixed(self) -> Experts:
        """Its routed and shared experts."""
        shared = Network(self.shared_experts * self.expert_intermediate)
        return Experts(self.experts, self.experts_per_token, Network(self.expert_intermediate), shared)


@dataclass(frozen=True)
class PartShape(DeepSeekShape):
    """What a rank of a tensor group has of it. shared_width: of all shared experts together."""

    shared_width: int

    @property
    def mixed(self) -> Experts:
        return super().mixed._replace(shared=Network(self.shared_width))


Site = layer.Site[DeepSeekShape]
"""Site of a DeepSeek layer."""
