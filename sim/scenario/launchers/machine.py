"""Where a job runs: what its launcher says of hosts, and the cluster that somebody names for it."""

from dataclasses import dataclass
from typing import Any, NamedTuple

from hwmodels import fabric as fabrics
from hwmodels import node as nodes
from hwmodels.document import unknown
from hwmodels.refused import Refused


class Hosts(NamedTuple):
    """What a launch file says: hosts and GPUs used on each, 0 where it does not; asked: a variable that would. ranks:
    all of them, where only that is said."""

    hosts: int = 0
    gpus: int = 0
    asked: str = ""
    ranks: int = 0


@dataclass(frozen=True)
class Machine:
    """What only whoever imports knows. node: a name in hwmodels/nodes; nodes: of them, with all their GPUs (0: as the
    file says); fabric: "" for none."""

    node: str
    nodes: int = 0
    fabric: str = ""


RACK = 9
"""GPUs from which on a node is a rack of hosts in one NVLink domain, of which a job may use any number."""


def cluster(machine: Machine, hosts: Hosts, world: int, file: str) -> tuple[dict[str, Any], int]:
    """The cluster's keys, and its GPUs. world: GPUs that the layout needs by itself, 0 where it does not say. Raises
    Refused where the file and the machine together do not say how many there are."""
    if not machine.node:
        raise Refused(f"says no machine; add --node NAME, one of {', '.join(nodes.available())}", file)
    for name, what, legal in (
        (machine.node, "node", nodes.available()),
        (machine.fabric, "fabric", fabrics.available()),
    ):
        if name and name not in legal:
            raise Refused(f"--{what}: {unknown(name, what, legal)}")
    gpus = nodes.load(machine.node).gpus
    if machine.nodes:
        return _keys(machine, gpus, gpus, machine.nodes), gpus * machine.nodes
    world = hosts.hosts * (hosts.gpus or (gpus if gpus < RACK else 0)) or hosts.ranks or world
    if not world:
        why = f" ({hosts.asked} is not set in it)" if hosts.asked else ""
        raise Refused(f"does not say on how many nodes it runs{why}; add --nodes N, of {machine.node}", file)
    used = hosts.gpus if hosts.gpus and gpus < RACK else _largest(world, gpus)
    if used > gpus:
        what = f"runs on {used} GPUs a node; {machine.node} has {gpus}: add --nodes N, or another --node"
        raise Refused(what, file)
    return _keys(machine, gpus, used, world // used), world


def _keys(machine: Machine, gpus: int, used: int, count: int) -> dict[str, Any]:
    node: Any = machine.node if used == gpus else {"base": machine.node, "gpus": used}
    fabric = {"fabric": machine.fabric} if machine.fabric else {}
    return {"node": node, "nodes": count, **fabric}


def _largest(world: int, gpus: int) -> int:
    """The most GPUs of a node that divide all of them."""
    return next(size for size in range(min(world, gpus), 0, -1) if world % size == 0)
