"""What a checkpoint of a phase takes: a rank copies its shard to the host over PCIe, nodes write it to storage over
their NICs or send it to the memory of others, and read it back when the job starts again.

While training runs, a write has at most half of a node's NICs, as two users of one link share it. Exchanges then have
the rest, and what compute waits for of them lasts so much longer; what compute hides stays hidden.
"""

from dataclasses import dataclass
from math import inf

from sim.campaign import daly
from sim.campaign.prices import Step
from sim.campaign.values import BLOCKING, MEMORY, OPTIMUM, Campaign, Checkpoints, Failures
from sim.scenario.values import Cluster

BESIDE = 0.5
"""Part of a node's NICs that a write has beside training."""


@dataclass(frozen=True)
class Saved:
    """Of one phase, in bytes and seconds. snapshot_s: of the largest shard, to the host. write_s, send_s: to storage,
    and to the memory of other nodes (0 where none). stall_s: in which training waits, with what it is slower meanwhile.
    lag_s: from then until the checkpoint can be loaded; stored_lag_s: from storage. load_s, reload_s: from where it is
    first, and from storage. every_s: between two, of work. optimum_s, young_s: Daly's and Young's interval."""

    total_bytes: float
    node_bytes: float
    snapshot_s: float
    write_s: float
    send_s: float
    stall_s: float
    lag_s: float
    stored_lag_s: float
    load_s: float
    reload_s: float
    every_s: float
    optimum_s: float
    young_s: float


def saved(campaign: Campaign, cluster: Cluster, states: tuple[float, float], step: Step) -> Saved:
    """What a checkpoint of a phase takes. states: bytes in all, and of the largest shard; step: of the phase."""
    own, node = campaign.checkpoint, cluster.node
    total, shard = states
    in_node, nics = shard * node.gpus, node.gpus * node.nics_per_gpu * node.nic.effective
    snapshot = shard / node.pcie.effective
    part = 1.0 if own.kind == BLOCKING else BESIDE
    write = max(total / own.storage, in_node / (nics * part))
    send = in_node * (own.replicas - 1) / (nics * part) if own.kind == MEMORY else 0.0
    read = max(total / own.storage, in_node / nics) + snapshot
    load = in_node / nics + snapshot if own.kind == MEMORY else read
    stall, lag = _waits(own, snapshot, write, send, in_node / nics, step)
    mean = interrupted_s(campaign.failures, cluster.nodes)
    optimum = daly.optimum(stall, mean)
    every = _seconds(own, optimum, lag)
    return Saved(
        total, in_node, snapshot, write, send, stall, lag, 0.0 if own.kind == BLOCKING else write, load, read, every,
        optimum, daly.young(stall, mean),
    )  # fmt: skip


def _waits(
    own: Checkpoints, snapshot: float, write: float, send: float, alone: float, step: Step
) -> tuple[float, float]:
    """Seconds in which training waits, and those after which the checkpoint can be loaded. alone: seconds of a node's
    bytes with the NICs to themselves."""
    if own.kind == BLOCKING:
        return snapshot + write, 0.0
    under_way = send if own.kind == MEMORY else write
    share = alone * (own.replicas - 1 if own.kind == MEMORY else 1) / under_way
    return snapshot + under_way * step.exposed_s / step.seconds * share / (1 - share), under_way


def _seconds(own: Checkpoints, optimum: float, lag: float) -> float:
    """Between two checkpoints; no checkpoint is begun before the last is through."""
    return max(optimum, lag) if own.every_s == OPTIMUM else float(own.every_s)


def interrupted_s(failures: Failures, nodes: int) -> float:
    """Mean seconds between two interruptions of a job on so many nodes; infinite where there are none."""
    rate = 0.0
    if failures.nodes:
        own = failures.nodes
        rate += (nodes - (own.bad_mtbf_s is not None)) / own.mtbf_s + (1 / own.bad_mtbf_s if own.bad_mtbf_s else 0.0)
    if failures.switches:
        rate += -(-nodes // failures.switches.nodes) / failures.switches.mtbf_s
    if failures.software_mtbf_s:
        rate += 1 / failures.software_mtbf_s
    if failures.silent:
        rate += nodes / failures.silent.mtbf_s
    return 1 / rate if rate else inf
