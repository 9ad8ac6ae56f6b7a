"""What the units of any model weigh: counts of parameters by how they are held, and bytes of them."""

from dataclasses import dataclass

from hwmodels.formats import PLAIN_BF16
from sim.models.mixture import Mixture
from sim.models.precision import Recipe


@dataclass(frozen=True)
class Parameters:
    """Counts of one unit. linear: in quantised linear layers, outside experts. experts: in all routed experts. other:
    norms, gate, embedding, head (BF16). shared: of `other`, a second use of a tensor that another unit holds. table: of
    `shared`, what the model's first unit holds, its input embedding."""

    linear: int = 0
    experts: int = 0
    other: int = 0
    shared: int = 0
    table: int = 0

    @property
    def total(self) -> int:
        """Without what is held elsewhere."""
        return self.linear + self.experts + self.other - self.shared

    def active(self, mixture: Mixture | None) -> int:
        """Parameters one token meets: of the routed experts only the chosen ones."""
        idle = self.experts // mixture.experts * (mixture.experts - mixture.chosen) if mixture else 0
        return self.total - idle

    def __add__(self, more: "Parameters") -> "Parameters":
        return Parameters(
            self.linear + more.linear, self.experts + more.experts, self.other + more.other,
            self.shared + more.shared, self.table + more.table,
        )  # fmt: skip


def weight_bytes(p: Parameters, local: float, recipe: Recipe) -> float:
    """Compute copies on one rank; `local`: the part of the routed experts it holds. Shared tensors are held once."""
    quantised = p.linear + p.experts * local
    return recipe.weight.row_bytes(round(quantised)) + PLAIN_BF16.row_bytes(p.other - p.shared)
