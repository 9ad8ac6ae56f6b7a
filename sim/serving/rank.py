"""What one rank does in a step: its part of the model, the batch that it sees, and the load of its experts."""

from typing import Any, NamedTuple

from hwmodels.op import OPERAND


class Rank(NamedTuple):
    """One GPU of an instance. part: what it has of the model (`sim.models.shape.ModelShape.part`). tensor: ranks that
    share its heads and columns. expert: ranks that share the experts; 1: `tensor` ranks share each expert's columns.
    gpus_per_node: of the cluster. precision: of products. element: bytes of an element of the cache. attention: format
    of products of attention on latents. nvlink: whether low-latency exchanges reach its node's GPUs over NVLink. apart:
    whether norms, casts and copies that engines fused later are kernels of their own, as in SGLang 0.4.6 (sglang
    0.4.6.post2 on PyPI of 30 April 2025, srt/models/deepseek_v2.py, srt/layers/moe/ep_moe/layer.py). whole: whether
    its experts are priced as one. gathers: whether all tokens of the group come to each rank, and parts of their sums
    back, in NCCL's collectives, as TensorRT-LLM has it inside a node of Hoppers (pull request 3439)."""

    part: Any
    tensor: int
    expert: int
    gpus_per_node: int
    precision: str = "fp8"
    element: float = 2.0
    attention: str = "bf16"
    nvlink: bool = True
    apart: bool = False
    whole: bool = False
    gathers: bool = False

    @property
    def nodes(self) -> int:
        """Nodes of its tensor group."""
        return -(-self.tensor // self.gpus_per_node)

    @property
    def expert_nodes(self) -> int:
        """Nodes of its expert group."""
        return -(-self.expert // self.gpus_per_node)

    @property
    def exchanges(self) -> bool:
        """Whether tokens travel to experts: not where a tensor group holds them all, whose ranks see all tokens."""
        return self.expert > self.tensor

    @property
    def quantised(self) -> bool:
        """Whether inputs of products are cast."""
        return self.precision != "bf16"

    @property
    def weight(self) -> float:
        """Bytes of a weight of a product."""
        return OPERAND[self.precision]


class Batch(NamedTuple):
    """What a rank's attention group computes in a step: sequences, new tokens of each, and keys that the last of them
    sees. prefill: whether the new tokens are a prompt's, which attention and exchanges of whole prompts serve. mean:
    new tokens of all groups of the expert group, over as many as if each had those of this one, the fullest."""

    sequences: int
    queries: int
    keys: float
    prefill: bool = False
    mean: float = 1.0

    @property
    def tokens(self) -> int:
        """New tokens."""
        return self.sequences * self.queries

    @property
    def halves(self) -> "tuple[Batch, Batch] | tuple[()]":
        """Its sequences in two, or the tokens of a prompt; nothing where there is one token."""
        if self.sequences > 1:
            first = (self.sequences + 1) // 2
            return self._replace(sequences=first), self._replace(sequences=self.sequences - first)
        if self.queries > 1:
            first = (self.queries + 1) // 2
            second = self.queries - first
            return self._replace(queries=first, keys=self.keys - second), self._replace(queries=second)
        return ()


class Load(NamedTuple):
    """Of the busiest rank in a layer. rows: that its experts read; hits: experts among them that any row reads; above:
    rows that it receives, over those of the mean rank. received, reached: tokens that come to it, each once, and to the
    busiest node, over the mean of ranks and of nodes."""

    rows: int
    hits: int
    above: float = 1.0
    received: float = 1.0
    reached: float = 1.0

    @property
    def mean(self) -> "Load":
        """Of the mean rank."""
        return Load(round(self.rows / self.above), self.hits)
