"""Activations that wait for a backward pass: how many bytes, by what a rank received."""

from dataclasses import dataclass
from typing import Any

from hwmodels.formats import PLAIN_BF16
from sim.models.layer import Site, Unit
from sim.models.recompute import FIRST


@dataclass(frozen=True)
class Kept:
    """Bytes that one micro-batch of a unit keeps. fixed: whatever is routed. token: of each token that the rank
    received. row: of each row of its experts."""

    fixed: float = 0.0
    token: float = 0.0
    row: float = 0.0

    def __add__(self, more: "Kept") -> "Kept":
        return Kept(self.fixed + more.fixed, self.token + more.token, self.row + more.row)

    def __sub__(self, less: "Kept") -> "Kept":
        return Kept(self.fixed - less.fixed, self.token - less.token, self.row - less.row)

    def bytes(self, received: Any, rows: Any) -> Any:
        """Bytes of a rank that received so many tokens and has so many expert rows; of many, as arrays."""
        return self.fixed + received * self.token + rows * self.row

    def at(self, site: Site[Any]) -> float:
        """Bytes of a rank with the expected load."""
        return float(self.bytes(site.received, site.rows))


def landing_bytes(site: Site[Any]) -> float:
    """Bytes of the landing zones of an expert exchange (dispatched rows, and expert outputs on their way back), what
    each token received takes."""
    row = site.shape.sent
    return site.recipe.dispatch.row_bytes(row) + site.recipe.combine.row_bytes(row)


def layer_input(site: Site[Any], unit: Unit) -> Kept:
    """What is kept of a layer that is computed again whole: its input, of a group the first one's."""
    return Kept(site.own * PLAIN_BF16.row_bytes(site.shape.hidden) if unit.checkpoint == FIRST else 0.0)
