"""The dimensions that models of every family have; a family adds its own in `sim/models/<family>/shape.py`."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Self


@dataclass(frozen=True)
class ModelShape:
    """Dimensions of a model, as `scenarios/models/*.yaml` give them. family: its folder in sim/models. vocabulary:
    tokens it knows. hidden: width of the residual stream, in elements. layers: transformer layers, without those of
    modules that only train beside it. source: where the dimensions come from. unmodelled: what the real model has
    beside all that, in words (empty: nothing), and its parameters.
    """

    family: str
    name: str
    vocabulary: int
    hidden: int
    layers: int
    source: str
    unmodelled: str = field(default="", kw_only=True)
    unmodelled_parameters: int = field(default=0, kw_only=True)

    @property
    def sent(self) -> int:
        """Elements of a row that routed experts are sent."""
        return self.hidden

    def part(self, tensor: int, expert_tensor: int = 1) -> Self:
        """What each rank of a tensor group has, as a model of its own: fewer heads, narrower networks, fewer tokens in
        its table; routed experts are as narrow as `expert_tensor` ranks make them. Norms, gates and what compresses
        queries, keys and values stay whole, and heads of keys and values that are fewer than ranks are on several."""
        return replace(self, vocabulary=-(-self.vocabulary // tensor))

    def splits(self, tensor: int, expert_tensor: int = 1) -> Iterator[tuple[str, int, int]]:
        """Dimensions that cannot be divided so: key, value, and the ranks that would divide it."""
        yield from ()


def split(pairs: Iterable[tuple[str, int, int]]) -> Iterator[tuple[str, int, int]]:
    """Of keys with their values and what would divide them, those that it does not."""
    return ((key, value, ranks) for key, value, ranks in pairs if value % ranks)
