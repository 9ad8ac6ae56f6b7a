"""Grouped-query attention (arXiv:2305.13245): its heads, what they weigh, and the FLOPs of attention."""

from typing import NamedTuple

from sim.models.weights import Parameters


class Heads(NamedTuple):
    """Heads of queries, heads of keys and values (equal: multi-head attention), and elements of each.

    rotary: elements of a head with rotary position. normed: queries and keys are normalised a head; scaled: with
    weights. qkv_bias, output_bias: of the products. window: keys that a query sees at most (sliding window); chunk:
    keys of which a query sees those of its own chunk; 0: all. sinks: a learned logit a head that takes attention away
    from keys (arXiv:2508.10925 sec 2.2), inside the attention kernel.
    """

    queries: int
    shared: int
    width: int
    rotary: int
    normed: bool = False
    scaled: bool = True
    qkv_bias: bool = False
    output_bias: bool = False
    window: int = 0
    chunk: int = 0
    sinks: bool = False

    @property
    def q(self) -> int:
        """Columns of queries, and of the output."""
        return self.queries * self.width

    @property
    def kv(self) -> int:
        """Columns of keys, and of values."""
        return self.shared * self.width

    @property
    def qkv(self) -> int:
        """Columns of the product that makes all three."""
        return self.q + 2 * self.kv

    def parameters(self, hidden: int) -> Parameters:
        """Parameters of both products, their biases, norms of queries and keys, and sinks."""
        biases = self.qkv_bias * self.qkv + self.output_bias * hidden
        norms = 2 * self.width if self.normed and self.scaled else 0
        return Parameters(linear=hidden * (self.qkv + self.q), other=biases + norms + self.sinks * self.queries)

    def keys(self, length: int, causal: bool) -> float:
        """Keys that a query of a sequence sees on average; where causality counts, half of its own stretch."""
        if self.chunk and self.chunk < length:
            whole, rest = divmod(length, self.chunk)
            return float(whole * self.chunk**2 + rest**2) / length / (2 if causal else 1)
        seen = min(self.window or length, length)
        return seen - (seen * seen / 2 / length if causal else 0)

    def flop(self, pairs: float) -> float:
        """FLOPs of a token's two products forward, with so many keys."""
        return 2.0 * pairs * 2 * self.q
