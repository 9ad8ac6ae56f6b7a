"""The contract of a model family: what its folder in `sim/models` must say before a model of it can be simulated."""

from collections.abc import Iterable, Iterator
from functools import cache, lru_cache
from importlib import import_module
from importlib.machinery import PathFinder
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any, Protocol, cast

from sim import models
from sim.models.activations import Kept
from sim.models.blocks.made import Made
from sim.models.layer import Part, Site, Unit
from sim.models.mixture import Mixture
from sim.models.shape import ModelShape
from sim.models.weights import Parameters

if TYPE_CHECKING:
    from sim.models.form import ShapeForm


STAGES = 500
"""Stages and units whose parameters are kept: a run asks for those of a stage a dozen times."""


class Family(Protocol):
    """A module in sim/models. All of it is asked; a module that lacks one name cannot be used.

    Of a folder `form.py` has the class ModelForm, the dimensions in YAML; of a single file, the file itself.
    """

    @property
    def Shape(self) -> type[ModelShape]:  # noqa: N802
        """The dataclass of its dimensions."""

    def mistakes(self, shape: Any) -> Iterator[tuple[str, str]]:
        """Key of a dimension, and one line on why no model has it so beside the others."""

    def units(self, shape: Any) -> tuple[Unit, ...]:
        """The model in order."""

    def mixture(self, shape: Any) -> Mixture | None:
        """How tokens choose experts in its routed units; None where it has none."""

    def made(self, shape: Any, unit: Unit) -> Made:
        """What a unit is made of, for stacks that lower blocks (`sim.models.lowering`)."""

    def parts(self, site: Site[Any], unit: Unit, direction: str) -> tuple[Part, ...]:
        """The parts of a unit for direction F, B or W, in the order they depend on each other, with DeepSeek's
        kernels."""

    def weights(self, shape: Any, unit: Unit) -> Parameters:
        """Parameters of one unit."""

    def flop(self, shape: Any, length: int, causal: bool) -> float:
        """FLOPs of forward and backward of one token at sequence `length`, as publishers count them."""

    def cache(self, shape: Any) -> float:
        """Bytes that the key-value cache takes for a token."""

    def kept(self, site: Site[Any], unit: Unit) -> Kept:
        """Activations from a unit's forward to its input gradient."""

    def kept_for_weight(self, site: Site[Any], unit: Unit) -> Kept:
        """Activations from a unit's input gradient to its weight gradient, when the two are split."""

    def regained(self, site: Site[Any], unit: Unit) -> Kept:
        """Activations that a unit's backward computes again and holds until it is through, beside the workspace."""

    def workspace(self, site: Site[Any]) -> float:
        """Bytes of the largest set of temporaries alive at once."""


CONTRACT = tuple(name for name in vars(Family) if not name.startswith("_"))
"""Names that a family must have."""


def families() -> tuple[str, ...]:
    """Names of the families, all of which are imported."""
    return tuple(sorted(module.name for module in iter_modules(models.__path__) if is_family(module.name)))


def is_family(name: object) -> bool:
    """Whether it is the name of a module in sim/models that has a Shape."""
    known = isinstance(name, str) and name.isidentifier() and PathFinder.find_spec(name, models.__path__)
    return bool(known and known.loader and hasattr(import_module(f"{models.__name__}.{name}"), "Shape"))


def form(name: str) -> "type[ShapeForm]":
    """The YAML form of a family's models."""
    module = import_module(f"{models.__name__}.{name}")
    place = import_module(f"{module.__name__}.form") if hasattr(module, "__path__") else module
    return cast("type[ShapeForm]", place.ModelForm)


@cache
def family(name: str) -> Family:
    """The family's module. Raises TypeError when it lacks a part of the contract, ModuleNotFoundError for no module."""
    module = import_module(f"sim.models.{name}")
    if missing := [each for each in CONTRACT if not hasattr(module, each)]:
        raise TypeError(f"model family {name} lacks {', '.join(missing)} (see sim.models.family.Family)")
    return cast(Family, module)


def weights(shape: ModelShape, units: Iterable[Unit]) -> Parameters:
    """Parameters of some units of a model together."""
    return _weights(shape, tuple(units))


@lru_cache(maxsize=STAGES)
def _weights(shape: ModelShape, units: tuple[Unit, ...]) -> Parameters:
    own = family(shape.family)
    return sum((own.weights(shape, unit) for unit in units), Parameters())


def main_units(units: Iterable[Unit]) -> tuple[Unit, ...]:
    """The model as publishers count it."""
    return tuple(unit for unit in units if not unit.beside)
