"""Mixtures of routed and shared experts: what one is, and what it weighs."""

from typing import NamedTuple

from sim.models.blocks.feed_forward import Network
from sim.models.weights import Parameters


class Experts(NamedTuple):
    """A mixture's feed-forward networks: how many are routed and chosen, one of them, and all shared ones as one
    (width 0: none)."""

    number: int
    chosen: int
    routed: Network
    shared: Network

    def parameters(self, hidden: int) -> Parameters:
        """Parameters of the experts, without the gate's."""
        shared, routed = self.shared, self.routed
        own = self.number * (routed.weights(hidden) + routed.biases(hidden))
        return Parameters(shared.weights(hidden), own, shared.biases(hidden) if shared.width else 0)
