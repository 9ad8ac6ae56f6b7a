"""A space of scenarios: axes of overrides over one scenario, as a product that is never written out.

An axis is a scenario's key with values, or any name with labels, each an override or a list of them. `legal` goes
through the product as a tree, axis by axis, and leaves out every branch that a rule of `sim.scenario.divides` forbids
as soon as the keys of that rule are settled: what is illegal is counted, and never built.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from hwmodels.document import Document, read
from sim.scenario import shelves
from sim.scenario.divides import RULES, Rule
from sim.scenario.overrides import override
from sim.scenario.values import Scenario

Choice = tuple[int, ...]
"""Number of the stop on each axis, in the order of the file."""
ALWAYS_LAST = ("outputs=[result]",)
"""Of every point: figures alone are kept."""


@dataclass(frozen=True)
class Point:
    """One run of a sweep or a search. labels: axis -> label; a point beside a product has the one axis "point"."""

    labels: dict[str, str]
    overrides: tuple[str, ...]

    @property
    def title(self) -> str:
        """Such as "schedule=zb1p, network=doubled"."""
        return ", ".join(f"{axis}={label}" for axis, label in self.labels.items())


class Stop(NamedTuple):
    """A value of an axis: what it is called, and the overrides that make it."""

    label: str
    overrides: tuple[str, ...]


class Axis(NamedTuple):
    """An axis: its name and its stops."""

    name: str
    stops: tuple[Stop, ...]

    @property
    def keys(self) -> tuple[str, ...]:
        """Dotted keys that it changes."""
        return tuple(dict.fromkeys(".".join(override(word)[0]) for stop in self.stops for word in stop.overrides))


def axis(name: str, values: Any) -> Axis:
    """The axis that a list of values of a key, or a mapping of labels to overrides, describes."""
    if isinstance(values, list):
        return Axis(name, tuple(Stop(_shown(value), (f"{name}={_shown(value)}",)) for value in values))
    each = ((label, (o,) if isinstance(o, str) else tuple(o)) for label, o in values.items())
    return Axis(name, tuple(Stop(label, overrides) for label, overrides in each))


def _shown(value: Any) -> str:
    """A value as an override has it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


@dataclass(frozen=True)
class Product(Sequence[Point]):
    """All combinations of axes, the last one fastest; each point is made when it is asked for."""

    axes: tuple[Axis, ...]
    shared: tuple[str, ...] = ()
    last: tuple[str, ...] = ()

    def __len__(self) -> int:
        return math.prod(len(each.stops) for each in self.axes)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        return self.point(self.choice(index % len(self)))

    def choice(self, index: int) -> Choice:
        """Stops of the point with a number."""
        places: list[int] = []
        for each in reversed(self.axes):
            index, place = divmod(index, len(each.stops))
            places.append(place)
        return tuple(reversed(places))

    def point(self, choice: Choice) -> Point:
        """The point at those stops."""
        stops = [each.stops[place] for each, place in zip(self.axes, choice, strict=True)]
        labels = {each.name: stop.label for each, stop in zip(self.axes, stops, strict=True)}
        return Point(labels, (*self.shared, *(o for stop in stops for o in stop.overrides), *self.last))


@dataclass
class Census:
    """What the rules left of a product. illegal: rule, in words -> combinations that it forbids, the first of them and
    why. A combination counts at the first rule that forbids it. whole: whether all of the product was gone through."""

    product: int
    legal: int = 0
    whole: bool = True
    illegal: dict[str, "Forbidden"] = field(default_factory=dict)


class Forbidden(NamedTuple):
    """Combinations that a rule forbids. first: a part of one; why: in a line."""

    combinations: int
    first: str
    why: str


@dataclass(frozen=True)
class Space:
    """Axes over the scenario in a file. more: rules beside those of every scenario, asked before them. general: those;
    none of what is no training step, whose points are legal or not when they are loaded."""

    path: str
    product: Product
    more: tuple[Rule, ...] = ()
    general: tuple[Rule, ...] = RULES

    @cached_property
    def place(self) -> Path:
        """Path of the scenario file."""
        return shelves.place(self.path)

    @cached_property
    def document(self) -> Document:
        """The scenario as its file has it."""
        return read(self.place, self.path)

    def described(self, overrides: Iterable[str]) -> Scenario:
        """The scenario with overrides, whose parts may not go together. Raises DocumentError."""
        from sim.scenario.resolve import described

        return described(self.document, (*self.product.shared, *overrides), self.place)[0]

    @cached_property
    def order(self) -> tuple[int, ...]:
        """Axes in the order of the tree: those that rules read first, so that branches end early."""
        rules = (*self.more, *self.general)

        def rank(number: int) -> int:
            keys = self.product.axes[number].keys
            return next((i for i, rule in enumerate(rules) if _touch(keys, rule.keys)), len(rules))

        return tuple(sorted(range(len(self.product.axes)), key=lambda number: (rank(number), number)))

    @cached_property
    def rules(self) -> tuple[tuple[Rule, ...], ...]:
        """Rules that can be asked once so many axes of the tree are settled."""
        axes = [self.product.axes[number].keys for number in self.order]
        last = [
            max((depth for depth, keys in enumerate(axes, 1) if _touch(keys, rule.keys)), default=0)
            for rule in (*self.more, *self.general)
        ]
        return tuple(
            tuple(rule for rule, at in zip((*self.more, *self.general), last, strict=True) if at == depth)
            for depth in range(len(axes) + 1)
        )

    def broken(self, stops: Sequence[int]) -> tuple[str, str] | None:
        """The first rule (in words) that the latest of some stops, in the order of the tree, breaks, and why; None
        where there is none."""
        rules = self.rules[len(stops)]
        if not rules:
            return None
        axes = [self.product.axes[number] for number in self.order[: len(stops)]]
        scenario = self.described(
            o for each, place in zip(axes, stops, strict=True) for o in each.stops[place].overrides
        )
        for rule in rules:
            for _, message in rule.findings(scenario):
                return rule.what, message
        return None

    def choice(self, stops: Sequence[int]) -> Choice:
        """Stops in the order of the tree as a choice in that of the file."""
        places = dict(zip(self.order, stops, strict=True))
        return tuple(places[number] for number in range(len(places)))


def _touch(keys: Iterable[str], others: Iterable[str]) -> bool:
    """Whether any of some dotted keys is one of others, or lies in it, or has it inside."""
    return any(f"{a}.".startswith(f"{b}.") or f"{b}.".startswith(f"{a}.") for a in keys for b in others)


def legal(space: Space, census: Census, hear: Callable[[int], None] = lambda legal: None) -> Iterator[Choice]:
    """Choices that break no rule, each when it is asked for; the census counts them and all others on the way."""
    sizes = [len(space.product.axes[number].stops) for number in space.order]
    stack: list[tuple[int, ...]] = [()]
    while stack:
        stops = stack.pop()
        if broken := space.broken(stops):
            _forbid(space, census, stops, broken, math.prod(sizes[len(stops) :]))
        elif len(stops) == len(sizes):
            census.legal += 1
            hear(census.legal)
            yield space.choice(stops)
        else:
            stack += [(*stops, place) for place in reversed(range(sizes[len(stops)]))]


def _forbid(space: Space, census: Census, stops: Sequence[int], broken: tuple[str, str], count: int) -> None:
    what, why = broken
    axes = [space.product.axes[number] for number in space.order[: len(stops)]]
    part = ", ".join(f"{each.name}={each.stops[place].label}" for each, place in zip(axes, stops, strict=True))
    old = census.illegal.get(what, Forbidden(0, part, why))
    census.illegal[what] = old._replace(combinations=old.combinations + count)


LAST = ("schedule",)
FIRST = ("model", "cluster", "parallel.tensor", "parallel.context", "batch", "parallel.pipeline")
"""What the program of a schedule goes by, its depth last, and then its prices: neighbours in this order share both, and
those of several depths come to the same prices again before long."""


def neighbours(product: Product) -> Callable[[Choice], tuple[int, ...]]:
    """Sorts choices so that those which share programs and prices come one after another."""

    def rank(each: Axis) -> int:
        if _touch(each.keys, LAST):
            return len(FIRST) + 1
        return next((i for i, key in enumerate(FIRST) if _touch(each.keys, [key])), len(FIRST))

    order = sorted(range(len(product.axes)), key=lambda number: rank(product.axes[number]))
    return lambda choice: tuple(choice[number] for number in order)


def mistake(name: str, values: Any) -> str:
    """What is wrong with an axis as a file has it, or nothing."""
    if isinstance(values, list):
        plain = values and all(isinstance(item, str | int | float) for item in values)
        return "" if plain else f"expected values of the scenario's key {name}; found {values!r}"
    if not isinstance(values, Mapping) or not values:
        return f"expected a list of values, or labels with overrides; found {values!r}"
    bad = next((item for item in values.values() if not (isinstance(item, str) or words(item))), None)
    return "" if bad is None else f"expected overrides, key=value; found {bad!r}"


def words(value: Any) -> bool:
    """Whether a value is a list of texts."""
    return isinstance(value, list) and all(isinstance(word, str) for word in value)
