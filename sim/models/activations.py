"""Activations that wait for a backward pass: how many bytes, by what a rank received."""

from dataclasses import dataclass
from typing import Any

from hwmodels.refused import Refused
from sim.models.layer import Site
from sim.models.recompute import RECIPE


@dataclass(frozen=True)
class Kept:
    """Bytes that one micro-batch of a unit keeps. fixed: whatever is routed. token: of each token that the rank
    received. row: of each row of its experts."""

    fixed: float = 0.0
    token: float = 0.0
    row: float = 0.0

    def __add__(self, more: "Kept") -> "Kept":
        return Kept(self.fixed + more.fixed, self.token + more.token, self.row + more.row)

    def bytes(self, received: Any, rows: Any) -> Any:
        """Bytes of a rank that received so many tokens and has so many expert rows; of many, as arrays."""
        return self.fixed + received * self.token + rows * self.row

    def at(self, site: Site[Any]) -> float:
        """Bytes of a rank with the expected load."""
        return float(self.bytes(site.received, site.rows))


def landing_bytes(site: Site[Any]) -> float:
    """Bytes of the landing zones of an expert exchange (dispatched rows, and expert outputs on their way back), what
    each token received takes."""
    h = site.shape.hidden
    return site.recipe.dispatch.row_bytes(h) + site.recipe.combine.row_bytes(h)


def only_recipe(site: Site[Any]) -> None:
    """Raises Refused for a choice that has no kernels yet."""
    if site.recompute != RECIPE:
        raise Refused(f"recompute {site.recompute.kind!r} is not built yet; legal: {RECIPE.kind}")
