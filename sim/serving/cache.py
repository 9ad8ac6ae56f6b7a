"""What models keep of a token: keys and values by attention's kind, in elements and in bytes; what a rank has room for.

A layer that attends to a window or chunk is counted like the others: it stops growing there, which no pool of equal
blocks makes use of.
"""

from collections.abc import Sequence
from typing import NamedTuple

from hwmodels.formats import PLAIN_BF16
from sim.models.blocks.gqa import Heads
from sim.models.blocks.made import Made
from sim.models.blocks.mla import Latent
from sim.models.family import family, main_units, weights
from sim.models.shape import ModelShape
from sim.serving.rank import Rank

BITS = {"bf16": 16, "fp8": 8, "fp6": 6}
"""Formats of a cache, bits of an element (6: DeepSeek-V2 as deployed, arXiv:2405.04434 sec 3.2.3)."""
BYTE = 8


class Held(NamedTuple):
    """Of a token. kind: MHA, GQA, MQA or MLA, all of them that layers have; layers that attend; elements kept; and
    those of multi-head attention, where each query head has a key and a value of its own."""

    kind: str
    layers: int
    elements: int
    whole: int

    def bytes(self, form: str) -> float:
        """Bytes in a format."""
        return self.elements * BITS[form] / BYTE

    @property
    def less(self) -> float:
        """Part that multi-head attention would keep and this does not."""
        return 1 - self.elements / self.whole if self.whole else 0.0


def held(shape: ModelShape) -> Held:
    """What a model keeps of a token in all its layers."""
    own = family(shape.family)
    mixers = [own.made(shape, unit).mixer for unit in main_units(own.units(shape))]
    kept = [mixer for mixer in mixers if isinstance(mixer, Heads | Latent)]
    kinds = list(dict.fromkeys(_kind(mixer) for mixer in kept))
    return Held(", ".join(kinds) or "none", len(kept), sum(map(_elements, kept)), sum(map(_whole, kept)))


def _kind(mixer: Heads | Latent) -> str:
    if isinstance(mixer, Latent):
        return "MLA"
    return "MHA" if mixer.shared == mixer.queries else "MQA" if mixer.shared == 1 else "GQA"


def _elements(mixer: Heads | Latent) -> int:
    return mixer.down if isinstance(mixer, Latent) else 2 * mixer.kv


def _whole(mixer: Heads | Latent) -> int:
    """Of latent attention, heads as wide as their products are: keys with and values without rotary elements."""
    return mixer.q + mixer.out if isinstance(mixer, Latent) else 2 * mixer.q


def token_bytes(units: Sequence[Made], element: float) -> float:
    """Bytes of a token on a rank. units: of the rank's part of the model."""
    kept = (made.mixer for made in units if isinstance(made.mixer, Heads | Latent))
    return element * sum(map(_elements, kept))


def weight_bytes(rank: Rank, redundant: int) -> float:
    """Bytes of a rank's weights: its part of the products, its experts with their copies, all else in BF16."""
    own = family(rank.part.family)
    total, mixture = weights(rank.part, main_units(own.units(rank.part))), own.mixture(rank.part)
    local = 1.0
    if mixture and rank.expert > 1:
        local = (mixture.experts + redundant) / (rank.expert * mixture.experts)
    return rank.weight * (total.linear + total.experts * local) + PLAIN_BF16.row_bytes(total.other - total.shared)
