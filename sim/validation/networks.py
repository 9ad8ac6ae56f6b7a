"""Fabrics and exchanges: what a fat tree is made of, and how fast tokens reach their experts."""

from dataclasses import replace

from hwmodels import fabric as fabrics
from hwmodels.collectives import Wires
from hwmodels.op import AllToAll
from hwmodels.units import GIGA, KILO, MEGA, NS_PER_S
from sim.communication.exchange.price import Fidelity
from sim.communication.exchange.roles import FIXED
from sim.layout.machine import Machine
from sim.routing import balanced
from sim.validation.answer import Answer, timed


def fabric(name: str) -> dict[str, Answer]:
    """Endpoints, switches and links between them of a shipped fabric; what it costs, in millions of USD (an endpoint of
    it in thousands)."""
    network = fabrics.load(name)
    parts = {part: Answer(getattr(network, part)) for part in ("endpoints", "switches", "links")}
    costs = {"cost": network.cost_usd / MEGA, "cost of an endpoint": network.cost_per_endpoint_usd / KILO}
    return parts | {name: Answer(cost) for name, cost in costs.items()}


def exchange(machine: Machine, direction: str, group: int) -> Answer:
    """GB/s of one exchange alone by DeepEP's kernel, whose roles are fixed, as DeepEP counts them: rows for the own
    node (or, inside a node, rank) included."""
    op, deepep = _exchange(machine, direction, group), replace(machine.pricer, exchange=Fidelity(warps=FIXED))
    counted = op.logical_bytes() if op.group_nodes > 1 else op.bytes()
    return timed(deepep.price(op)).inverse.times(counted * NS_PER_S / GIGA)


def _exchange(machine: Machine, direction: str, group: int) -> AllToAll:
    """One micro-batch of the machine's model over `group` ranks."""
    gpus, recipe, mixture = machine.cluster.node.gpus, machine.recipe, machine.mixture
    assert mixture is not None
    load = balanced.balanced(mixture, machine.site.tokens, group, gpus)
    layout = recipe.dispatch if direction == "dispatch" else recipe.combine
    row, nodes = layout.row_bytes(machine.site.shape.hidden), -(-group // gpus)
    return AllToAll(direction, "", machine.site.tokens, row, load.nodes_reached, load.ranks_reached, group, nodes)


def nvlink_ratio(wires: Wires) -> Answer:
    """Effective NVLink over effective network bandwidth of a GPU."""
    return Answer(wires.nvlink.effective / wires.network)


def free_experts(machine: Machine) -> Answer:
    """Ranks a token may reach on each node before NVLink takes longer than the network, in the machine's exchange."""
    op, wires = _exchange(machine, "dispatch", machine.site.group), machine.pricer.wires
    one_each = op._replace(ranks_reached=op.nodes_reached)
    return Answer(op.wire_bytes() / wires.network / (one_each.nvlink_bytes() / wires.nvlink.effective))


def balanced_slots(
    loads: list[list[int]], placed: list[list[int]], slots: int, groups: int, nodes: int, ranks: int
) -> Answer:
    """Slots of redundant experts that the balancer fills as `placed` [layer][slot] for `loads` [layer][expert]."""
    from sim.routing import eplb

    experts = [expert for load in loads for expert in eplb.place(load, slots, groups, nodes, ranks).tolist()]
    wanted = [expert for layer in placed for expert in layer]
    return Answer(sum(ours == theirs for ours, theirs in zip(experts, wanted, strict=True)))
