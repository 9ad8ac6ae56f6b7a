"""From units to kernels: the contract of a stack, and who lowers what. The only place that goes by a stack's name.

DeepSeek's kernels are a family's own affair: they follow its published profile, in which what belongs to one block
runs inside another. Every other stack lowers blocks, whatever family they are of.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, cast

from sim.models.activations import Kept
from sim.models.blocks.made import Made
from sim.models.family import Family, family
from sim.models.layer import Kernel, Part, Site, Unit
from sim.models.precision import Recipe
from sim.models.recompute import MODULES, Recompute
from sim.models.stacks.stack import Stack


class Lowers(Protocol):
    """A folder in sim/models/stacks: which kernels a unit made of blocks becomes, and what these keep and weigh."""

    def parts(self, site: Site[Any], made: Made, unit: Unit, direction: str) -> tuple[Part, ...]:
        """The parts of a unit for direction F, B or W, in the order they depend on each other."""

    def kept(self, site: Site[Any], made: Made, unit: Unit) -> Kept:
        """Activations from a unit's forward to its input gradient."""

    def regained(self, site: Site[Any], made: Made, unit: Unit) -> Kept:
        """Activations that a unit's backward computes again and holds until it is through."""

    def kept_for_weight(self, site: Site[Any], made: Made, unit: Unit) -> Kept:
        """Activations from a unit's input gradient to its weight gradient, when the two are split."""

    def workspace(self, site: Site[Any], made: Iterable[Made]) -> float:
        """Bytes of the largest set of temporaries alive at once. made: all units of the model."""

    def tensors(self, site: Site[Any], made: Made) -> list[int]:
        """Elements of each parameter of a unit that the rank holds, in the order in which the optimizer meets them."""

    def update(self, site: Site[Any], made: Sequence[Made], part: float = 1.0) -> list[Kernel]:
        """Kernels of an update of some units: all of them, or those that follow the plan's own. part: of each tensor,
        that is this rank's to update."""

    def recipe(self, recipe: Recipe) -> Recipe:
        """Formats as the stack has them, where a scenario says nothing else."""


class Lowering(Protocol):
    """What a machine asks of a model on its stack; a family says it all for DeepSeek's."""

    def parts(self, site: Site[Any], unit: Unit, direction: str) -> tuple[Part, ...]:
        """See `sim.models.family.Family`."""

    def kept(self, site: Site[Any], unit: Unit) -> Kept:
        """Likewise."""

    def kept_for_weight(self, site: Site[Any], unit: Unit) -> Kept:
        """Likewise."""

    def regained(self, site: Site[Any], unit: Unit) -> Kept:
        """Likewise."""

    def workspace(self, site: Site[Any]) -> float:
        """Likewise."""


class Updates(Lowering, Protocol):
    """A lowering that has kernels of its own for the optimizer."""

    def update(self, site: Site[Any], units: Iterable[Unit], part: float = 1.0) -> list[Kernel]:
        """Kernels that update the parameters of some units, or a part of each of them."""

    def tensors(self, site: Site[Any], unit: Unit) -> list[int]:
        """Elements of each parameter of a unit that the rank holds, in the order of its modules."""


@dataclass(frozen=True)
class ByBlocks:
    """A family's units on a stack that lowers blocks."""

    family: Family
    stack: Lowers

    def parts(self, site: Site[Any], unit: Unit, direction: str) -> tuple[Part, ...]:
        return self.stack.parts(site, self.family.made(site.shape, unit), unit, direction)

    def kept(self, site: Site[Any], unit: Unit) -> Kept:
        return self.stack.kept(site, self.family.made(site.shape, unit), unit)

    def regained(self, site: Site[Any], unit: Unit) -> Kept:
        return self.stack.regained(site, self.family.made(site.shape, unit), unit)

    def kept_for_weight(self, site: Site[Any], unit: Unit) -> Kept:
        return self.stack.kept_for_weight(site, self.family.made(site.shape, unit), unit)

    def workspace(self, site: Site[Any]) -> float:
        return self.stack.workspace(
            site, [self.family.made(site.shape, unit) for unit in self.family.units(site.shape)]
        )

    def update(self, site: Site[Any], units: Iterable[Unit], part: float = 1.0) -> list[Kernel]:
        """Kernels of an update of some units."""
        return self.stack.update(site, [self.family.made(site.shape, unit) for unit in units], part)

    def tensors(self, site: Site[Any], unit: Unit) -> list[int]:
        """Elements of each parameter of a unit."""
        return self.stack.tensors(site, self.family.made(site.shape, unit))


BY_BLOCKS = ("torch", "megatron")
"""Stacks that lower blocks: folders of sim/models/stacks."""
if TYPE_CHECKING:
    from sim.models.stacks import megatron, torch

    CHECKED: tuple[Lowers, ...] = (torch, megatron)


def by_blocks(name: str) -> Lowers:
    """The stack of that name, one of BY_BLOCKS; imported only where a scenario asks for it."""
    return cast(Lowers, import_module(f"sim.models.stacks.{name}"))


ONE_SCALE = ("fp8_delayed", "fp8_current")
"""Recipes with one scale a tensor: rows and columns differ in layout alone."""


def recipe(own: Recipe, stack: Stack, architecture: str) -> Recipe:
    """A recipe with the formats of its stack, on an architecture: Blackwell's tensor cores read FP8 by rows and by
    columns, Hopper's by rows (nvidia.github.io/TransformerEngine, Performance considerations)."""
    own = replace(own, both_ways=own.name not in ONE_SCALE or architecture == "hopper")
    return by_blocks(stack.name).recipe(own) if stack.name in BY_BLOCKS else own


def lowering(family: Family, stack: Stack) -> Lowering:
    """Who lowers a family's units on a stack."""
    return updates(family, stack) or family


def updates(family: Family, stack: Stack) -> Updates | None:
    """The same for stacks that say which kernels their optimizer runs; None for one whose update is the plan's affair
    (`sim.layout.optimizer`)."""
    return ByBlocks(family, by_blocks(stack.name)) if stack.name in BY_BLOCKS else None


def modules(site: Site[Any], asked: Sequence[str] = MODULES) -> tuple[str, ...]:
    """Modules that a model's backward could compute again on its stack, or keep: those of `asked` that it has there."""
    own = family(site.shape.family)
    lower, none = lowering(own, site.stack), site._replace(recompute=Recompute("none"))
    units = dict.fromkeys(unit._replace(layer=0) for unit in own.units(site.shape))

    def differs(module: str) -> bool:
        other = site._replace(recompute=Recompute("modules", (module,)))
        return any(lower.parts(none, unit, "B") != lower.parts(other, unit, "B") for unit in units)

    return tuple(module for module in MODULES if module in asked and differs(module))
