"""Activations that wait for a backward pass: how many bytes, by what a rank received, and what is computed again."""

from dataclasses import dataclass
from typing import Any

from hwmodels.refused import Refused
from sim.models.layer import Site


@dataclass(frozen=True)
class Recompute:
    """What backward computes again instead of keeping it. kind: recipe, as the family's publishers did."""

    kind: str = "recipe"


RECIPE = Recompute()


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


def only_recipe(recompute: Recompute, family: str) -> None:
    """Raises Refused for a choice that the family has no kernels for."""
    if recompute != RECIPE:
        raise Refused(f"recompute {recompute.kind!r} is not built for {family}; legal: {RECIPE.kind}")
