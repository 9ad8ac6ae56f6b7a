"""What a unit of a model is made of, in blocks: what any stack can lower, whatever the family."""

from typing import NamedTuple

from sim.models.blocks.experts import Experts
from sim.models.blocks.feed_forward import Network
from sim.models.blocks.gqa import Heads
from sim.models.blocks.mamba import Mamba
from sim.models.blocks.mla import Latent
from sim.models.mixture import Mixture

EMBEDDING, HEAD, PROJECTION = "embedding", "head", "projection"
"""Units at the ends of a model, and what begins a multi-token-prediction module."""


class Made(NamedTuple):
    """end: of the words above, or "" for a layer. mixer: what mixes tokens, behind a norm; network: what follows it,
    behind another; None: the layer has none. gate: how tokens choose among the experts of a mixture; gate_bias: with a
    bias that corrects the choice. norm_parameters:
    of a norm over the residual stream. post_norms: what mixer and network say is normalised before it joins the
    residual. positions: learned ones beside the embedding. tied: the head is the embedding's table."""

    end: str = ""
    mixer: Heads | Latent | Mamba | None = None
    network: Network | Experts | None = None
    gate: Mixture | None = None
    gate_bias: bool = False
    norm_parameters: int = 0
    post_norms: bool = False
    positions: int = 0
    tied: bool = False

    @property
    def routed(self) -> Experts | None:
        """Its mixture of experts."""
        return self.network if isinstance(self.network, Experts) else None

    @property
    def dense(self) -> Network | None:
        """Its dense feed-forward network."""
        return self.network if isinstance(self.network, Network) else None
