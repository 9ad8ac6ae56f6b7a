"""Mixtures of routed and shared experts: what one is, and what it weighs."""

from typing import NamedTuple

from sim.models.blocks.feed_forward import Network
from sim.models.weights import Parameters


class Experts(NamedTuple):
    """A mixture's feed-forward networks: how many are routed and chosen, one of them, and all shared ones as one
    (width 0: none). latent: columns that a product compresses tokens to before they are sent to routed experts, whose
    outputs another one expands behind (0: neither; LatentMoE, arXiv:2512.20856; github.com/NVIDIA/Megatron-LM,
    megatron/core/transformer/moe/moe_layer.py, `moe_latent_size`)."""

    number: int
    chosen: int
    routed: Network
    shared: Network
    latent: int = 0

    def sent(self, hidden: int) -> int:
        """Columns of a row that routed experts read and write."""
        return self.latent or hidden

    def parameters(self, hidden: int) -> Parameters:
        """Parameters of the experts, without the gate's."""
        shared, routed = self.shared, self.routed
        row = self.sent(hidden)
        own = self.number * (routed.weights(row) + routed.biases(row))
        return Parameters(
            shared.weights(hidden) + 2 * self.latent * hidden, own, shared.biases(hidden) if shared.width else 0
        )
