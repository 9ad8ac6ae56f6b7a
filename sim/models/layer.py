"""What every model family speaks: units of a model, the parts of a layer, and the kernels of a part."""

from typing import Generic, NamedTuple, TypeVar

from hwmodels.op import Op
from sim.models.shape import ModelShape
from sim.precision import Recipe

COMPUTE, COMMUNICATION, WEIGHT = 0, 1, 2
"""Streams a kernel can be launched on; indices into sim.trace.LANES."""

S = TypeVar("S", bound=ModelShape, covariant=True)


class Kernel(NamedTuple):
    """One launch (or `op.kernels` tiny ones): its name in the profile's words, what it does, and its stream."""

    name: str
    op: Op
    lane: int = COMPUTE


class Unit(NamedTuple):
    """A piece of the model that one stage holds whole. kind: the family's word for it, e.g. embedding, dense, head.

    layer: its number, -1 at the ends of the model. block: a transformer layer, which stages may hold any number of.
    routed: with experts that tokens are sent to. beside: of a module that only trains beside the model (multi-token
    prediction), which publishers do not count. title: what reports call it; empty: its kind.
    """

    kind: str
    layer: int
    block: bool = False
    routed: bool = False
    beside: bool = False
    title: str = ""

    @property
    def label(self) -> str:
        """What reports call it."""
        return self.title or self.kind


class Part(NamedTuple):
    """Consecutive kernels of one unit in one pass, e.g. attn(F). `exchange`: an all-to-all with the expert group."""

    name: str
    layer: int
    kernels: tuple[Kernel, ...]
    exchange: bool = False


class Site(NamedTuple, Generic[S]):
    """Where and on what a layer runs: dimensions, recipe, the micro-batch of one rank, and its expected routing load.

    sequences x length tokens a micro-batch; received: rows that arrive by dispatch; rows: expert rows padded to 128
    an expert; nodes, ranks: distinct ones a token goes to; local_experts: experts this rank holds; group, group_nodes:
    size of the expert group. A model without experts has a load of zeros.
    """

    shape: S
    recipe: Recipe
    sequences: int
    length: int
    received: int
    rows: int
    nodes: float
    ranks: float
    local_experts: int
    group: int
    group_nodes: int

    @property
    def tokens(self) -> int:
        return self.sequences * self.length
