"""What every model family speaks: units of a model, the parts of a layer, and the kernels of a part."""

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Generic, NamedTuple, Self, TypeVar

from hwmodels.op import Op
from sim.models.precision import Recipe
from sim.models.recompute import RECIPE, Recompute
from sim.models.shape import ModelShape
from sim.models.stacks.stack import DEEPSEEK, Stack

COMPUTE, COMMUNICATION, WEIGHT, HOST = 0, 1, 2, 3
"""Streams a kernel can be launched on: the last is the copy engine to the host."""

S = TypeVar("S", bound=ModelShape, covariant=True)


class Kernel(NamedTuple):
    """One launch (or `op.kernels` tiny ones): its name in the profile's words, what it does, and its stream. host:
    the host's work to launch it, over that of a simple elementwise operation of its direction, views of tensors before
    it included. waits: the host waits for its end before it goes on. meets: the group of ranks that it meets, all of
    which must have come before it begins; empty: nobody, or whom its part meets. ahead: how many kernels behind it in
    its part do not wait for it. piece: that it belongs to, where its part is cut so that others come between. behind:
    whether it waits for all compute that was launched before it, whoever's."""

    name: str
    op: Op
    lane: int = COMPUTE
    host: float = 1.0
    waits: bool = False
    meets: str = ""
    ahead: int = 0
    piece: str = ""
    behind: bool = False


class Launches(tuple[Kernel, ...]):
    """Kernels one after another, whose hash is worked out once: layers of a kind repeat them."""

    @cached_property
    def _hash(self) -> int:
        return tuple.__hash__(self)

    def __hash__(self) -> int:
        return self._hash

    def __reduce__(self) -> tuple[type, tuple[tuple[Kernel, ...]]]:
        return Launches, (tuple(self),)  # a hash is of its process


class Unit(NamedTuple):
    """A piece of the model that one stage holds whole. kind: the family's word for it, e.g. embedding, dense, head.

    layer: its number, -1 at the ends of the model. block: a transformer layer, which stages may hold any number of.
    routed: with experts that tokens are sent to. beside: of a module that only trains beside the model (multi-token
    prediction), which publishers do not count. title: what reports call it; empty: its kind. checkpoint: of a layer
    that its place in a stage has computed again whole (see `sim.models.recompute`): first of its group, or inside one.
    hosted: bytes of what it keeps of a micro-batch that wait in the host's memory, set by placement too. precise: of a
    layer at an end of the model that the stack has multiply in BF16 (stages count layers from their own first one).
    """

    kind: str
    layer: int
    block: bool = False
    routed: bool = False
    beside: bool = False
    title: str = ""
    checkpoint: str = ""
    hosted: int = 0
    precise: bool = False

    @property
    def label(self) -> str:
        """What reports call it."""
        return self.title or self.kind


EXPERT = "expert"
"""The group that the parts of a dispatch or combine meet; others will have words of their own."""


class Part(NamedTuple):
    """Consecutive kernels of one unit in one pass, e.g. those of attention forward.

    direction: F (forward), B (input gradient) or W (weight gradient). meets: the group of ranks that its kernels meet,
    all of which must have come before they begin; empty: nobody. place: when it is launched in a round, in which one
    unit runs forward beside another backward (see `sim.step.overlap`); of equal places F comes first, then B, then W.
    chained: whether it waits for the part before it in its direction (W: for what its B computes), and the next one for
    it. after: direction, name and layer of earlier parts that it waits for besides.
    """

    name: str
    direction: str
    layer: int
    kernels: tuple[Kernel, ...]
    meets: str = ""
    place: int = 0
    chained: bool = True
    after: tuple[tuple[str, str, int], ...] = ()

    @property
    def label(self) -> str:
        """What is drawn, e.g. attn(F)."""
        return f"{self.name}({self.direction})"


def places(launched: Sequence[tuple[str, Sequence[str]]]) -> dict[tuple[str, str], int]:
    """(direction, name) of a part -> its place. launched: a round in order, each a direction and names of parts."""
    return {(direction, name): place for place, (direction, names) in enumerate(launched) for name in names}


PartsOf = Callable[[Unit, str], tuple[Part, ...]]
"""The parts of a unit for direction F, B or W (a family's `parts`, with its site filled in)."""


class Groups(NamedTuple):
    """Ranks that share a layer. tensor: its heads, columns of networks and vocabulary; sequence: and tokens between
    products; chunked: what they send each other goes chunk by chunk, beside the products that need or make it.
    context: tokens of each sequence; context_kind: ring, all_gather or all_to_all. expert_tensor: columns of routed
    experts. *_nodes: nodes that a group of a kind lies on."""

    tensor: int = 1
    sequence: bool = False
    context: int = 1
    context_kind: str = "ring"
    expert_tensor: int = 1
    tensor_nodes: int = 1
    context_nodes: int = 1
    expert_tensor_nodes: int = 1
    chunked: bool = False


class Site(NamedTuple, Generic[S]):
    """The layer of one rank: the model's dimensions, the recipe, its micro-batch, and its expected routing load.

    shape: of the part of the model that ranks of a tensor group have each (`sim.models.shape.ModelShape.part`).
    sequences, length: of a micro-batch, and tokens of each. received: rows that arrive by dispatch. rows: rows of its
    experts, padded to 128 an expert. nodes_reached, ranks_reached: mean number of distinct nodes and ranks that a token
    goes to. local_experts: experts of this rank. group, group_nodes: ranks and nodes of an expert group. The load of a
    model without experts is all zeros. recompute: what backward computes again. stack: whose kernels they are.
    documents: number and tokens of equal documents, for which attention costs as much as for those that its sequences
    are packed with; None: a sequence is one document. groups: who shares the layer. unseen: part of the embedding's
    rows that no token of the run has named yet.
    """

    shape: S
    recipe: Recipe
    sequences: int
    length: int
    received: int
    rows: int
    nodes_reached: float
    ranks_reached: float
    local_experts: int
    group: int
    group_nodes: int
    recompute: Recompute = RECIPE
    stack: Stack = DEEPSEEK
    documents: tuple[int, int] | None = None
    groups: Groups = Groups()
    unseen: float = 0.0

    @property
    def tokens(self) -> int:
        """Tokens of a micro-batch that this rank's products read."""
        return self.sequences * self.length // self.groups.context

    @property
    def own(self) -> int:
        """Tokens of them whose place in the residual stream is this rank's."""
        return self.tokens // self.groups.tensor if self.groups.sequence else self.tokens

    @property
    def expert_rows(self) -> int:
        """Rows that products of its experts read: those of all ranks that share their columns."""
        return self.rows * self.groups.expert_tensor

    @property
    def local(self) -> Self:
        """The site of what a rank of a tensor group does by itself for its own tokens."""
        length = self.length // self.groups.tensor if self.groups.sequence else self.length
        return self._replace(length=length, groups=self.groups._replace(tensor=1, sequence=False, chunked=False))

    @property
    def attending(self) -> tuple[int, int]:
        """Number and tokens of the stretches of a micro-batch whose tokens attend to each other."""
        return self.documents or (self.sequences, self.length)
