"""Multi-head latent attention (arXiv:2405.04434 sec 2.1): its dimensions, what it weighs, and its FLOPs."""

from typing import NamedTuple

from sim.models.weights import Parameters


class Latent(NamedTuple):
    """Heads, each with nope + rotary query and key elements and v value elements; widths of the compressed query (0:
    not compressed) and of the compressed keys and values."""

    heads: int
    nope: int
    rotary: int
    v: int
    q_rank: int
    kv_rank: int

    @property
    def q(self) -> int:
        """Columns of queries."""
        return self.heads * (self.nope + self.rotary)

    @property
    def kv(self) -> int:
        """Columns of keys and values after up-projection."""
        return self.heads * (self.nope + self.v)

    @property
    def down(self) -> int:
        """Columns of the compressed keys and values, with the rotary key that all heads share: what a cache holds."""
        return self.kv_rank + self.rotary

    @property
    def out(self) -> int:
        """Columns of the output."""
        return self.heads * self.v

    def parameters(self, hidden: int) -> Parameters:
        """Down- and up-projections of q and kv, and output; the norms of both latents."""
        query = hidden * self.q_rank + self.q_rank * self.q if self.q_rank else hidden * self.q
        linear = query + hidden * self.down + self.kv_rank * self.kv + self.out * hidden
        return Parameters(linear=linear, other=self.q_rank + self.kv_rank)

    def flop(self, pairs: float) -> float:
        """FLOPs of a token's two products forward, with so many keys."""
        return 2.0 * self.heads * pairs * (self.nope + self.rotary + self.v)
