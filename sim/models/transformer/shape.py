"""The dimensions of a transformer whose layers follow a pattern, and the site of one of its layers."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

from sim.models import layer
from sim.models.blocks.experts import Experts
from sim.models.blocks.feed_forward import Network
from sim.models.blocks.gqa import Heads
from sim.models.blocks.mamba import Mamba
from sim.models.blocks.mla import Latent
from sim.models.shape import ModelShape, split

GROUPED = ("attention", "window", "chunk", "unrotated")
"""Mixers of grouped-query attention: over all keys, over a sliding window, over chunks, over all without rope."""
MIXERS = (*GROUPED, "latent", "mamba")
NETWORKS = ("dense", "moe")
NORMS = {"rms": 1, "layer": 2, "layer_unbiased": 1}
"""Norm -> its parameters for each element of `hidden`."""


@dataclass(frozen=True)
class TransformerShape(ModelShape):
    """Dimensions of a decoder. Counts are whole numbers; widths are in elements; 0 or false: the model has none.

    heads: query heads; kv_heads: heads of keys and values, each shared by heads / kv_heads query heads; head_width:
    elements of each, the first `rotary` of which turn with the position (null: all). tied: the head is the input
    embedding's table. intermediate: width of dense feed-forward layers.

    pattern: a word a layer, repeated to `layers`: a mixer (attention, window, chunk, unrotated, latent, mamba), a
    feed-forward network (dense, moe), or both with a + between. In the first dense_layers, moe stands for dense.
    """

    heads: int
    kv_heads: int
    head_width: int
    tied: bool
    intermediate: int = 0
    pattern: str = "attention+dense"
    dense_layers: int = 0
    activation: str = "swiglu"
    norm: str = "rms"
    post_norms: bool = False
    mlp_bias: bool = False
    qkv_bias: bool = False
    output_bias: bool = False
    qk_norm: str = "none"
    rotary: int | None = None
    positions: int = 0
    window: int = 0
    chunk: int = 0
    sinks: bool = False
    experts: int = 0
    experts_per_token: int = 0
    expert_intermediate: int = 0
    shared_intermediate: int = 0
    expert_latent: int = 0
    expert_bias: bool = False
    expert_clamp: bool = False
    gate_bias: bool = False
    score: str = "softmax"
    groups: int = 1
    groups_per_token: int = 1
    capacity: float = 0.0
    mtp_depth: int = 0
    mtp_layer: str = ""
    q_rank: int = 0
    kv_rank: int = 0
    qk_nope: int = 0
    qk_rope: int = 0
    v_head: int = 0
    mamba_heads: int = 0
    mamba_width: int = 0
    mamba_groups: int = 1
    mamba_state: int = 0
    mamba_conv: int = 4
    mamba_chunk: int = 128

    @cached_property
    def _words(self) -> list[str]:
        return self.pattern.split() or [""]

    @cached_property
    def kinds(self) -> tuple[str, ...]:
        """Kinds of layers that it has, each once."""
        beside = [self.mtp_layer] * bool(self.mtp_layer and self.mtp_depth)
        return tuple(dict.fromkeys([*(self.kind(i) for i in range(self.layers)), *beside]))

    def kind(self, number: int) -> str:
        """What layer `number` is, in the words of the pattern."""
        words = self._words
        word = words[number % len(words)]
        return word.replace("moe", "dense") if number < self.dense_layers else word

    @property
    def norm_parameters(self) -> int:
        """Parameters of one norm over the residual stream."""
        return NORMS[self.norm] * self.hidden

    def attention(self, mixer: str) -> Heads:
        """Heads of a layer whose mixer is one of GROUPED."""
        turned = self.head_width if self.rotary is None else self.rotary
        return Heads(
            self.heads, self.kv_heads, self.head_width, 0 if mixer == "unrotated" else turned,
            # norms without weights go with rope (Llama-4)
            normed=self.qk_norm == "rms" or (self.qk_norm == "l2" and mixer != "unrotated"),
            scaled=self.qk_norm == "rms", qkv_bias=self.qkv_bias, output_bias=self.output_bias,
            window=self.window if mixer == "window" else 0, chunk=self.chunk if mixer == "chunk" else 0,
            sinks=self.sinks,
        )  # fmt: skip

    @property
    def latent(self) -> Latent:
        """Its multi-head latent attention."""
        return Latent(self.heads, self.qk_nope, self.qk_rope, self.v_head, self.q_rank, self.kv_rank)

    @property
    def mamba(self) -> Mamba:
        """Its Mamba-2 layers."""
        return Mamba(
            self.mamba_heads, self.mamba_width, self.mamba_groups, self.mamba_state, self.mamba_conv, self.mamba_chunk
        )

    @property
    def dense(self) -> Network:
        """Its dense feed-forward network."""
        return Network(self.intermediate, self.activation, self.mlp_bias)

    def part(self, tensor: int, expert_tensor: int = 1) -> "TransformerShape":
        whole = super().part(tensor)
        return replace(
            whole, heads=self.heads // tensor, kv_heads=max(1, self.kv_heads // tensor),
            intermediate=self.intermediate // tensor, shared_intermediate=self.shared_intermediate // tensor,
            expert_intermediate=self.expert_intermediate // expert_tensor, mamba_heads=self.mamba_heads // tensor,
            mamba_groups=max(1, self.mamba_groups // tensor),
        )  # fmt: skip

    def splits(self, tensor: int, expert_tensor: int = 1) -> Iterator[tuple[str, int, int]]:
        heads = ("heads", "intermediate", "shared_intermediate", "mamba_heads")
        yield from split((key, getattr(self, key), tensor) for key in heads)
        if self.kv_heads % tensor and tensor % self.kv_heads:
            yield "kv_heads", self.kv_heads, tensor
        yield from split([("expert_intermediate", self.expert_intermediate, expert_tensor)])

    @property
    def mixed(self) -> Experts:
        """Its routed and shared experts."""
        routed, shared = (
            Network(width, self.activation, self.expert_bias, self.expert_clamp)
            for width in (self.expert_intermediate, self.shared_intermediate)
        )
        return Experts(self.experts, self.experts_per_token, routed, shared, self.expert_latent)

    @property
    def sent(self) -> int:
        return self.expert_latent or self.hidden


@lru_cache
def halves(kind: str) -> tuple[str, str]:
    """Mixer and feed-forward network of a layer, "" for one that it has not."""
    words = kind.split("+")
    return next((w for w in words if w in MIXERS), ""), next((w for w in words if w in NETWORKS), "")


Site = layer.Site[TransformerShape]
"""Site of a layer."""
