"""The machine of a plan: prices of what its model does on its cluster, and which units each stage holds.

`sim.assembly` builds it, in stages; everything here is settled before time passes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import accumulate
from typing import Any

from hwmodels.collectives import UNHINDERED, Hindrance, Wires
from hwmodels.op import Send
from hwmodels.price import Pricer
from hwmodels.units import seconds_to_ns
from sim.layout.mesh import Mesh
from sim.layout.placement import Stage, alike
from sim.models.activations import Kept
from sim.models.family import Family, family
from sim.models.layer import COMPUTE, WEIGHT, Kernel, Part, PartsOf, Site, Unit
from sim.models.lowering import Lowering, lowering
from sim.models.mixture import Mixture
from sim.models.precision import Recipe
from sim.models.shape import ModelShape
from sim.scenario.values import Cluster

KEPT = 8
"""Sets of links whose prices are kept."""


@dataclass(frozen=True)
class Hindrances:
    """What links between switches do to traffic. exchanges: how many times longer they take alone; beside_messages: and
    beside messages. messages: by positions that they go from and to. rings: by kind of collective, stage, and whether
    they are of experts.
    """

    exchanges: float = 1.0
    beside_messages: float = 1.0
    messages: Mapping[tuple[int, int], Hindrance] = field(default_factory=dict)
    rings: Mapping[tuple[str, int, bool], Hindrance] = field(default_factory=dict)
    groups: Mapping[str, float] = field(default_factory=dict)

    def of_message(self, source: int, target: int) -> Hindrance:
        """Hindrance of messages between two positions."""
        return self.messages.get((source, target), UNHINDERED)

    def of_ring(self, kind: str, stage: int, experts: bool) -> Hindrance:
        """Hindrance of a stage's ring."""
        return self.rings.get((kind, stage, experts), UNHINDERED)


NON_BLOCKING = Hindrances()


Costs = dict[tuple[Unit, str, tuple[int, ...]], int]
Chains = dict[tuple[Unit, str], int]
Holds = dict[tuple[str, Unit], Kept]


@dataclass(eq=False)
class Known:
    """What machines with equal prices share, each made once. costs: (unit, directions, lanes) -> ns. holds: (what
    of a lowering, unit) -> bytes. workspace: bytes of temporaries. chains: (unit, direction) -> ns to its output, of
    `sim.experiments.least`. stages: by what placement goes by. pairs: units of a forward and a backward -> ns of both
    overlapped. kits: by the prices of links, and by the step's kind and units. runs: of ranks that are alike.
    over: prices over other links. slower: what is known where groups of some kinds are so many times slower; parts:
    that do it then. holding: prices where NCCL holds so many SMs while it runs, and what is known at them. clocks:
    likewise at a clock."""

    costs: Costs = field(default_factory=dict)
    holds: Holds = field(default_factory=dict)
    workspace: float | None = None
    chains: Chains = field(default_factory=dict)
    stages: dict[Any, tuple[Stage, ...]] = field(default_factory=dict)
    pairs: dict[tuple[Stage, Stage], int] = field(default_factory=dict)
    kits: dict[Any, Any] = field(default_factory=dict)
    runs: dict[Any, Any] = field(default_factory=dict)
    over: dict[Wires, Pricer] = field(default_factory=dict)
    slower: dict[tuple[tuple[str, float], ...], "Known"] = field(default_factory=dict)
    parts: PartsOf | None = None
    holding: "dict[int, tuple[Pricer, Known]]" = field(default_factory=dict)
    clocks: "dict[float, tuple[Pricer, Known]]" = field(default_factory=dict)


@dataclass(frozen=True)
class Machine:
    """A cluster as a model's ranks find it. whole: the model, of which `site` has what a rank of a tensor group has.
    parts: of a unit in a direction. stages: units of each. hindrances: by
    links between switches, which the pricer counts for exchanges."""

    cluster: Cluster
    recipe: Recipe
    pricer: Pricer
    whole: ModelShape
    site: Site[ModelShape]
    parts: PartsOf
    stages: tuple[Stage, ...]
    units: tuple[Unit, ...]
    hindrances: Hindrances = NON_BLOCKING
    known: Known = field(default_factory=Known, init=False, compare=False, repr=False)

    def keeping(self, **changes: Any) -> "Machine":
        """The machine with changes that leave what is known true: stages, hindrances, links that the pricer knows of.
        `dataclasses.replace` forgets it, as other prices must."""
        other = replace(self, **changes)
        object.__setattr__(other, "known", self.known)
        return other

    def doing(self, parts: PartsOf, known: Known) -> "Machine":
        """The machine whose units have other parts. known: of these."""
        other = replace(self, parts=parts)
        object.__setattr__(other, "known", known)
        return other

    def over(self, links: Wires, **changes: Any) -> "Machine":
        """The machine over other links, and with changes that they make."""
        over = self.known.over
        over[links] = self.pricer.over(links, over.get(links))
        if len(over) > KEPT:
            del over[next(iter(over))]
        return self.keeping(pricer=over[links], **changes)

    def holding(self, sms: int) -> "Machine":
        """The machine whose collectives hold so many SMs of compute while they run."""
        return self._priced(self.known.holding, sms, comm_sms=sms, held=False)

    def at(self, clock: float) -> "Machine":
        """The machine whose cards have a clock (`Pricer.clock`)."""
        return self._priced(self.known.clocks, clock, clock=clock)

    def _priced(self, kept: "dict[Any, tuple[Pricer, Known]]", key: float, **changes: Any) -> "Machine":
        """The machine with other prices, which are made once. kept: those, and what is known at them, by what makes
        them other ones."""
        if key not in kept:
            kept[key] = replace(self.pricer, **changes), Known()
        other = replace(self, pricer=kept[key][0])
        object.__setattr__(other, "known", kept[key][1])
        return other

    @property
    def family(self) -> Family:
        """Family of the model."""
        return family(self.site.shape.family)

    @cached_property
    def lowering(self) -> Lowering:
        """Who says which kernels its units are, and what they keep."""
        return lowering(self.family, self.site.stack)

    @cached_property
    def mixture(self) -> Mixture | None:
        """How tokens choose experts; None for a model without."""
        return self.family.mixture(self.site.shape)

    @cached_property
    def routed(self) -> tuple[Unit, ...]:
        """Layers with experts, in the order in which loads count them."""
        return tuple(unit for unit in self.units if unit.routed)

    @property
    def routed_sorts(self) -> tuple[Unit, ...]:
        """A layer with experts of each sort: as backward finds it kept, and computed again whole."""
        return tuple({unit.checkpoint != "": unit for unit in reversed(self.routed)}.values())

    def unit_ns(self, unit: Unit, directions: str = "FBW", lanes: tuple[int, ...] = (COMPUTE, WEIGHT)) -> int:
        """Compute of one unit alone, in ns: every kernel on these streams. Layers of a kind cost alike."""
        (like,) = alike((unit,))
        key = (like, directions, lanes)
        if key not in self.known.costs:
            self.known.costs[key] = sum(
                self.pricer.price(kernel.op).ns + self.pricer.launch_gap_ns * kernel.op.kernels
                for direction in directions
                for part in self.parts(like, direction)
                for kernel in part.kernels
                if kernel.lane in lanes
            )
        return self.known.costs[key]

    def holds(self, what: str, unit: Unit) -> Kept:
        """What a unit holds of a micro-batch: `kept`, `kept_for_weight` or `regained` of its lowering. Layers of a kind
        hold alike."""
        (like,) = alike((unit,))
        key = (what, like)
        if key not in self.known.holds:
            self.known.holds[key] = getattr(self.lowering, what)(self.site, like)
        return self.known.holds[key]

    @property
    def workspace(self) -> float:
        """Bytes of the largest set of temporaries alive at once."""
        if self.known.workspace is None:
            self.known.workspace = self.lowering.workspace(self.site)
        return self.known.workspace

    def part_ns(self, part: Part) -> int:
        """Every kernel of a part alone, one after another, in ns."""
        price, gap = self.pricer.price, self.pricer.launch_gap_ns
        return sum(price(kernel.op).ns + gap * kernel.op.kernels for kernel in part.kernels)

    def launch_ns(self, direction: str, kernel: Kernel) -> int:
        """The host's time to launch a kernel; 0 where nothing waits for it."""
        host = self.pricer.host
        return (
            round(kernel.host * seconds_to_ns(host.forward_s if direction == "F" else host.backward_s)) if host else 0
        )

    @cached_property
    def streams(self) -> tuple[int, ...]:
        """Hidden states of a token that leave each stage: the model's, and one of each module beside it that is through
        (a stage with the head is the last: it sends none of them on)."""
        modules = (sum(unit.beside and unit.block for unit in stage) for stage in self.stages)
        return tuple(accumulate(modules, initial=1))[1:]

    def message(self, mesh: Mesh, source: int, target: int, stage: int = 0) -> Send:
        """What one pipeline position sends to another over the end of a stage. The farthest way that any replica has:
        where `order` does not put the pipeline last, some may find their neighbour on their node and others not."""
        size = self.streams[stage] * self.site.own * self.recipe.boundary.row_bytes(self.site.shape.hidden)
        a, b = (mesh.node(mesh.of_position(position)) for position in (source, target))
        leaf = self.cluster.fabric.nodes_per_leaf if self.cluster.fabric else self.cluster.nodes
        leaves_node, leaves_leaf = bool((a != b).any()), bool((a // leaf != b // leaf).any())
        return Send(size, leaves_node, leaves_leaf, slower=self.hindrances.of_message(source, target).slower)
