"""How long weights take: to rollouts after an update, and to the host and back while others need the memory.

Gathered, every GPU has each tensor whole for a moment: positions of the pipeline tell each other theirs, then the
groups that share experts and columns do; where rollouts are apart one rank broadcasts meanwhile, over all NICs (as
NVIDIA-NeMo/RL refits: nemo_rl/utils/packed_tensor.py of v0.6.0, pull request 1264). Resharded, every GPU of rollouts
gets its own part alone, from senders that share them (pull request 2413 there). What hosts do for each tensor is left
out, so measured syncs take longer: see docs/RL.md.
"""

from typing import NamedTuple

from hwmodels.collectives import Wires, collective_seconds, wires
from hwmodels.nccl import library as nccl
from hwmodels.nccl.library import Library
from hwmodels.op import Collective
from sim.campaign.rl.update import held
from sim.campaign.rl.values import HOST, RESHARD, Learning
from sim.models.family import family, main_units, weights
from sim.serving.cache import weight_bytes
from sim.serving.rank import Rank


class Moved(NamedTuple):
    """Seconds: of the sync; of optimizer states one way; of a change from policy to reference and back."""

    sync_s: float
    states_s: float
    reference_s: float


class Size(NamedTuple):
    """Bytes of a model's weights as rollouts have them: of all, and of experts among them."""

    total: float
    experts: float


def moved(learning: Learning) -> Moved:
    """What a step moves, as links have it."""
    mine, states = held(learning.scenario)
    links = wires(learning.cluster.node, learning.cluster.fabric)
    change = 2 * mine / links.pcie.effective if learning.kl and learning.reference == HOST else 0.0
    away = states / links.pcie.effective if learning.offload else 0.0
    return Moved(sync_s(learning, links), away, change)


def size(learning: Learning) -> Size:
    """Of the model as rollouts have it."""
    serve = learning.serve
    whole = Rank(serve.model, 1, 1, serve.node.gpus, serve.precision)
    own = family(serve.model.family)
    return Size(weight_bytes(whole, 0), whole.weight * weights(serve.model, main_units(own.units(serve.model))).experts)


def sync_s(learning: Learning, links: Wires) -> float:
    """New weights to all rollouts."""
    if learning.sync.takes_s is not None:
        return learning.sync.takes_s
    whole = size(learning)
    if learning.sync.method == RESHARD:
        return _resharded_s(learning, whole, links)
    gathered = _gathered_s(learning, whole, links)
    if not learning.apart:
        return gathered
    nodes = learning.cluster.nodes + -(-learning.serve.gpus // learning.serve.node.gpus)
    return max(gathered, _all_gather_s(learning, whole.total, learning.gpus, nodes, links))


def _resharded_s(learning: Learning, whole: Size, links: Wires) -> float:
    """The part of one GPU over its links, or what one sender sends, whichever is more."""
    serve, pool = learning.serve, learning.serve.pools[0]
    own = serve.model.part(pool.tensor, pool.tensor if pool.expert == 1 else 1)
    part = weight_bytes(Rank(own, pool.tensor, pool.expert, serve.node.gpus, serve.precision), 0)
    sent = whole.total * pool.instances / learning.cluster.gpus
    several = learning.apart or learning.cluster.nodes > 1
    return max(part, sent) / (links.network if several else links.nvlink.effective)


def _gathered_s(learning: Learning, whole: Size, links: Wires) -> float:
    """Along the pipeline, then over the groups that share experts, and columns of all else."""
    own, per_node = learning.scenario.parallel, learning.cluster.node.gpus
    sharing = max(1, own.expert * own.expert_tensor)
    rest = whole.total - whole.experts
    mine = whole.experts / sharing + rest / own.tensor
    seconds = _all_gather_s(learning, mine, own.pipeline, min(own.pipeline, learning.cluster.nodes), links)
    for size_, ranks in ((whole.experts, sharing), (rest, own.tensor)):
        seconds += _all_gather_s(learning, size_, ranks, -(-ranks // per_node), links)
    if own.zero == 3:
        ranks = own.shard or learning.scenario.data_parallel
        seconds += _all_gather_s(learning, whole.total, ranks, -(-ranks // per_node), links)
    return seconds


def _all_gather_s(learning: Learning, size_: float, ranks: int, nodes: int, links: Wires) -> float:
    if ranks <= 1 or not size_:
        return 0.0
    op, kind = Collective("all_gather", size_, ranks, nodes), learning.cluster.node.device.architecture
    return Library(kind).take(op, links).seconds if nccl.known(kind) else collective_seconds(op, links)
