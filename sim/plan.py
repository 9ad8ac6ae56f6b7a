"""A scenario laid out: which rank holds which stages of the model, and how the groups lie on the nodes.

Ranks are numbered pipeline position first: rank = position * data + replica, so an expert group is a run of
neighbouring GPUs on neighbouring nodes and stays under one leaf switch where it fits.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property

from hwmodels.collectives import UNHINDERED, Hindrance, wires
from hwmodels.op import Send
from hwmodels.price import Pricer
from sim import placement, routing
from sim.engine import alone
from sim.exchange.price import Fidelity
from sim.models.activations import RECIPE, Recompute
from sim.models.family import Family, family
from sim.models.layer import COMPUTE, WEIGHT, Part, Site, Unit
from sim.models.mixture import Mixture
from sim.models.shape import ModelShape
from sim.overlap import PartsOf, compose
from sim.precision import RECIPES, Recipe
from sim.program import Program, Shape, build, check, home
from sim.scenario import Cluster, Scenario
from sim.template import price

MIRRORED = ("dualpipe", "dualpipev")
"""Schedules in which stages s and stages-1-s share a rank."""


OUTPUTS = {"F": (1, 1), "B": (2, -1)}
"""Pass -> which output of its step it makes, and how many stages further that goes."""


@dataclass(frozen=True)
class Plan:
    """Everything decided before time passes. holds: stages of each pipeline position. data: pipeline replicas."""

    scenario: Scenario
    program: Program
    homes: dict[tuple[int, int], int]
    holds: tuple[tuple[int, ...], ...]
    data: int
    micro_batches: int

    def targets(self, position: int) -> dict[tuple[int, int], int]:
        """(step, output: 1 forward, 2 backward) of a position -> where it goes, of all that go to another one."""
        found = {}
        for number, step in enumerate(self.program.steps[position]):
            for letter, stage, micro_batch in step.passes():
                output, ahead = OUTPUTS.get(letter, (0, 0))
                target = self.homes.get((stage + ahead, micro_batch), position)
                if output and target != position:
                    found[number, output] = target
        return found


@dataclass(frozen=True)
class Hindrances:
    """What links between switches do to traffic. exchanges: how many times longer they take alone; beside_messages: and
    beside messages. messages: by positions that they go from and to. rings: by kind of collective, stage, and 0 for all
    parameters but experts', 1 for those.
    """

    exchanges: float = 1.0
    beside_messages: float = 1.0
    messages: Mapping[tuple[int, int], Hindrance] = field(default_factory=dict)
    rings: Mapping[tuple[str, int, int], Hindrance] = field(default_factory=dict)

    def of_message(self, source: int, target: int) -> Hindrance:
        """Of messages between two positions."""
        return self.messages.get((source, target), UNHINDERED)

    def of_ring(self, kind: str, stage: int, which: int) -> Hindrance:
        """Of a stage's ring."""
        return self.rings.get((kind, stage, which), UNHINDERED)


NON_BLOCKING = Hindrances()


@dataclass(frozen=True)
class Machine:
    """The part of a plan that needs a model and a cluster."""

    cluster: Cluster
    recipe: Recipe
    pricer: Pricer
    site: Site[ModelShape]
    parts: PartsOf
    stages: tuple[tuple[Unit, ...], ...]
    units: tuple[Unit, ...]
    hindrances: Hindrances = NON_BLOCKING
    recompute: Recompute = RECIPE

    @property
    def family(self) -> Family:
        """Of the model."""
        return family(self.site.shape.family)

    @property
    def mixture(self) -> Mixture | None:
        """How tokens choose experts; None for a model without."""
        return self.family.mixture(self.site.shape)

    @cached_property
    def routed(self) -> tuple[Unit, ...]:
        """Layers with experts, in the order in which loads count them."""
        return tuple(unit for unit in self.units if unit.routed)


def lay_out(scenario: Scenario) -> Plan:
    """The program of a scenario and who holds what. Raises ValueError with one line when the schedule cannot run."""
    batch, data = scenario.batch, scenario.data_parallel
    micro_batches = batch.micro_batches or (batch.sequences or 0) // (data * batch.micro_batch)
    shape = Shape(scenario.parallel.pipeline, micro_batches, scenario.schedule.chunks)
    program = build(scenario.schedule.name, shape)
    check(program)
    homes = home(program)
    held: list[set[int]] = [set() for _ in range(program.ranks)]
    for (stage, _), rank in homes.items():
        held[rank].add(stage)
    return Plan(scenario, program, homes, tuple(tuple(sorted(h)) for h in held), data, micro_batches)


def machine(plan: Plan, hindrances: Hindrances = NON_BLOCKING) -> Machine:
    """Prices, sites and stages of a scenario with a model. hindrances: by links between switches. Stages are placed
    by what exchanges take with their NICs to themselves.

    Raises ValueError or RefusedError (one line).
    """
    scenario = plan.scenario
    cluster, shape = scenario.cluster, scenario.model
    assert cluster is not None and shape is not None
    own = family(shape.family)
    recipe = RECIPES[scenario.precision]
    fabric, node = cluster.fabric, cluster.node
    comm = scenario.comm
    fidelity = Fidelity(comm.exchange, comm.warps)
    links = wires(node, fabric, hindrances.exchanges, hindrances.beside_messages)
    mixture, units = own.mixture(shape), own.units(shape)
    held = comm.sms if any(unit.routed for unit in units) else 0  # by the kernel of the exchanges, where there are any
    pricer = Pricer(node.device, links, held, scenario.pricing, fidelity)
    group, batch = scenario.parallel.expert, scenario.batch
    tokens = batch.micro_batch * batch.sequence_length
    load = routing.balanced(mixture, tokens, group, node.gpus) if mixture else routing.NONE
    local = slots(scenario, mixture) // group if mixture else 0
    site = Site(
        shape, recipe, batch.micro_batch, batch.sequence_length, load.received, load.rows, load.nodes, load.ranks,
        local, group, -(-group // node.gpus),
    )  # fmt: skip

    @cache
    def parts(unit: Unit, direction: str) -> tuple[Part, ...]:
        return own.parts(site, unit, direction)

    from sim import sharing  # which builds on plans

    stages = _placed(plan, units, parts, pricer)
    return sharing.shared(plan, Machine(cluster, recipe, pricer, site, parts, stages, units, hindrances))


def _placed(plan: Plan, units: tuple[Unit, ...], parts: PartsOf, pricer: Pricer) -> tuple[tuple[Unit, ...], ...]:
    """Units of each stage."""
    costs = [unit_cost_ns(unit, parts, pricer) for unit in units]
    rule, mirrored = plan.scenario.placement, plan.program.schedule in MIRRORED

    def pair_ns(forward: tuple[Unit, ...], backward: tuple[Unit, ...]) -> int:
        composition = compose("F+BW", relative(forward)[0], relative(backward)[0], parts)
        return alone(price("F+BW", (0, 1), composition, pricer)).total

    def least_ns(unit: Unit) -> int:
        return unit_cost_ns(unit, parts, pricer, lanes=(COMPUTE,))

    return placement.place(units, costs, plan.program.stages, rule, mirrored, pair_ns, least_ns)


def message(plan: Plan, machine: Machine, source: int, target: int) -> Send:
    """What one pipeline position sends to another, as the first replica sends it."""
    size = machine.site.tokens * machine.recipe.boundary.row_bytes(machine.site.shape.hidden)
    gpus = machine.cluster.node.gpus
    a, b = (position * plan.data // gpus for position in (source, target))
    fabric = machine.cluster.fabric
    leaf = fabric.nodes_per_leaf if fabric else machine.cluster.nodes
    return Send(size, a != b, a // leaf != b // leaf, slower=machine.hindrances.of_message(source, target).slower)


def slots(scenario: Scenario, mixture: Mixture) -> int:
    """Places for experts in an expert group: every expert, and the copies that redundancy adds."""
    return mixture.experts + scenario.routing.redundant_experts


def unit_cost_ns(
    unit: Unit, parts: PartsOf, pricer: Pricer, directions: str = "FBW", lanes: Sequence[int] = (COMPUTE, WEIGHT)
) -> int:
    """Compute of one unit alone, in ns: every kernel on these streams."""
    return sum(
        pricer.price(kernel.op).ns + pricer.launch_gap_ns * kernel.op.kernels
        for direction in directions
        for part in parts(unit, direction)
        for kernel in part.kernels
        if kernel.lane in lanes
    )


def relative(stage: Sequence[Unit]) -> tuple[tuple[Unit, ...], int]:
    """A stage's units with layers counted from its first one, so that equal stages are equal values; and that first."""
    return placement.alike(tuple(stage)), min((u.layer for u in stage if u.layer >= 0), default=0)
