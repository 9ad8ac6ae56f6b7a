"""Attention of new tokens over keys and values that a cache holds, and products by head: arithmetic and traffic."""

from typing import NamedTuple

TILE = 64
"""Rows of queries that tensor cores take at once (WGMMA's M); decoding kernels put the heads that share keys, and the
new tokens of a sequence, side by side in them (FlashMLA, csrc; FlashAttention-3, `pack_gqa`)."""
MASKED = "masked"
"""Role of products of experts whose rows lie in places for as many as may come: DeepGEMM's masked layout."""
BF16 = 2.0
"""Bytes of an element of queries and outputs."""


class Cached(NamedTuple):
    """sequences, each with `queries` new tokens that see `keys` tokens, their own included. heads of queries; shared:
    heads of keys and values, `element` bytes an element. qk, v: elements of a head's key and value. latent: values are
    the first elements of keys, read once (multi-head latent attention in absorbed form). fp8: whether it multiplies in
    that format."""

    sequences: int
    keys: float
    queries: int
    heads: int
    shared: int
    qk: int
    v: int
    element: float = BF16
    latent: bool = False
    fp8: bool = False
    kernels: int = 2

    @property
    def tiles(self) -> int:
        """Tiles of queries for each head of keys."""
        return -(-self.queries * self.heads // self.shared // TILE)

    @property
    def seen(self) -> float:
        """Keys that a query sees on average: later ones of a sequence see earlier ones."""
        return max(1.0, self.keys - (self.queries - 1) / 2)

    def flop(self) -> float:
        """Of whole tiles."""
        return 2.0 * self.sequences * self.shared * self.tiles * TILE * self.seen * (self.qk + self.v)

    def bytes(self) -> float:
        """The cache once, queries and outputs."""
        width = self.qk if self.latent else self.qk + self.v
        cache = self.sequences * self.keys * self.shared * width * self.element
        return cache + BF16 * self.sequences * self.queries * self.heads * (self.qk + self.v)


class PerHead(NamedTuple):
    """A product in BF16 for each head: [tokens, k] x [k, n] (latent attention, absorbed: `torch.bmm` of engines)."""

    heads: int
    tokens: int
    n: int
    k: int

    def flop(self) -> float:
        """Of all heads."""
        return 2.0 * self.heads * self.tokens * self.n * self.k

    def bytes(self) -> float:
        """Operands and results, once."""
        return BF16 * self.heads * (self.tokens * (self.n + self.k) + self.n * self.k)


class Block(NamedTuple):
    """A rank's routed experts in one: from tokens in BF16 to the sums of what comes back, by FP8 products. hits:
    experts that any of `rows` rows reads; hidden, width: of a token, and inside an expert."""

    hits: int
    rows: int
    hidden: int
    width: int

    def flop(self) -> float:
        """Of three matrices."""
        return 6.0 * self.rows * self.hidden * self.width

    def bytes(self) -> float:
        """Weights in FP8; rows in BF16, as they come and go, and inside."""
        return 3.0 * self.hits * self.hidden * self.width + BF16 * self.rows * (2 * self.hidden + 3 * self.width)


class Notify(NamedTuple):
    """The kernel before an exchange of prompts between nodes, in which all ranks meet: dispatch's tells how many rows
    come, combine's clears the buffers' heads (DeepEP V1, csrc/kernels/internode.cu: `notify_dispatch`,
    `cached_notify`). tokens: of a rank; ranks: of the group."""

    combine: bool
    tokens: int
    ranks: int

    def flop(self) -> float:
        """It multiplies nothing."""
        return 0.0

    def bytes(self) -> float:
        """Counts alone: a fixed cost says it."""
        return 0.0
