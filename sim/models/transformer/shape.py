"""The dimensions of a dense transformer, and the site of one of its layers."""

from dataclasses import dataclass

from sim.models import layer
from sim.models.blocks.gqa import Heads
from sim.models.shape import ModelShape


@dataclass(frozen=True)
class TransformerShape(ModelShape):
    """Dimensions of a dense decoder of the kind of Llama 3. Counts are whole numbers; widths are in elements.

    intermediate: width of the feed-forward layer. heads: query heads; kv_heads: heads of keys and values, each shared
    by heads / kv_heads query heads; head_width: elements of each. tied: the head is the input embedding's table.
    """

    intermediate: int
    heads: int
    kv_heads: int
    head_width: int
    tied: bool

    @property
    def attention(self) -> Heads:
        """Its heads."""
        return Heads(self.heads, self.kv_heads, self.head_width)


Site = layer.Site[TransformerShape]
"""Site of a layer."""
