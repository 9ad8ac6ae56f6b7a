"""How long weights take: to rollouts after an update, and to the host and back while others need the memory.

Gathered, every GPU has each tensor whole for a moment: positions of the pipeline tell each other theirs, then the
groups that share experts and columns do, tensor by tensor, and each is copied into a buffer; where rollouts are apart
one rank broadcasts each buffer, through the same NICs as what fills the next, so that their times add. Receivers' hosts
put one buffer's tensors in place while the next fills, on the same GPUs in turn with what fills it (as NVIDIA-NeMo/RL
refits: nemo_rl/models/policy/utils.py and nemo_rl/utils/packed_tensor.py of v0.6.0; Megatron Bridge,
models/conversion/param_mapping.py). Resharded, every GPU of rollouts gets its own part alone, from senders that share
them (pull request 2413 there), without what hosts do for each tensor.
"""

from typing import NamedTuple

from hwmodels.collectives import Wires, collective_seconds, wires
from hwmodels.memory import streaming
from hwmodels.nccl import library as nccl
from hwmodels.nccl.library import Library
from hwmodels.op import Collective
from sim.campaign.rl.hosts import TIDIED, TIDIED_REFERENCE, TIDIED_TURNS, TURN, pageable, received_s
from sim.campaign.rl.update import held
from sim.campaign.rl.values import HOST, RESHARD, Learning
from sim.models.family import family, main_units, weights
from sim.serving.cache import weight_bytes
from sim.serving.rank import Rank

COPIES = 3
"""Of weights over PCIe for a reference that waits on the host: the policy's away, the reference's there, the policy's
back (use_reference_model in nemo_rl/models/policy/workers/megatron_policy_worker.py of v0.6.0)."""
PAIR = (2 / 3, 1 / 3)
"""Parts of an expert that Megatron Core holds as a tensor each: gate and up together, down."""
LOADED = 3
"""Tensors of an expert as checkpoints have them: gate, up, down."""
RESTS = 8
"""Tensors of a layer beside its experts' in Megatron Core: 6 of Llama, 11 of DeepSeek-V3."""


class Moved(NamedTuple):
    """Seconds: of the sync; of optimizer states to the host, and back; of weights that change places, those of rollouts
    for the trainer's, once, and of what makes room for them; of a change from policy to reference and back."""

    sync_s: float
    away_s: float
    back_s: float
    places_s: float
    reference_s: float


class Size(NamedTuple):
    """Bytes of a model's weights as rollouts have them: of all, and of experts among them. layers: of the model;
    routed: of them, those with experts, each with `each`."""

    total: float
    experts: float
    layers: int
    routed: int
    each: int

    @property
    def tensors(self) -> int:
        """As checkpoints have them."""
        return LOADED * self.routed * self.each + RESTS * self.layers


def moved(learning: Learning) -> Moved:
    """What a step moves, as links and hosts have it."""
    mine, states = held(learning.scenario)
    links = wires(learning.cluster.node, learning.cluster.fabric)
    rate = links.pcie.effective
    slower = pageable(min(learning.cluster.gpus, learning.cluster.node.gpus))
    away, back = (rate, rate) if learning.pinned else (min(rate, each) for each in slower)
    if not learning.offload:
        states = 0.0
    places = (mine if learning.offload else 0.0) + (_part(learning) if learning.asleep else 0.0)
    changes = learning.kl and learning.reference == HOST
    change = COPIES * mine / rate + TIDIED_REFERENCE * TIDIED if changes else 0.0
    room = TIDIED_TURNS / 2 * TIDIED if learning.offload else 0.0
    return Moved(sync_s(learning, links), states / away, states / back, places / rate + room, change)


def size(learning: Learning) -> Size:
    """Of the model as rollouts have it."""
    serve = learning.serve
    whole = Rank(serve.model, 1, 1, serve.node.gpus, serve.precision)
    own = family(serve.model.family)
    units = main_units(own.units(serve.model))
    experts, mixture = whole.weight * weights(serve.model, units).experts, own.mixture(serve.model)
    routed = sum(own.weights(serve.model, unit).experts > 0 for unit in units)
    return Size(weight_bytes(whole, 0), experts, len(units), routed, mixture.experts if mixture else 0)


def sync_s(learning: Learning, links: Wires) -> float:
    """New weights to all rollouts."""
    if learning.sync.takes_s is not None:
        return learning.sync.takes_s
    whole = size(learning)
    if learning.sync.method == RESHARD:
        return _resharded_s(learning, whole, links)
    sent = _gathered_s(learning, whole, links)
    if not learning.apart:
        sent += whole.tensors * TURN
    else:
        nodes = learning.cluster.nodes + -(-learning.serve.gpus // learning.serve.node.gpus)
        sent += _all_gather_s(learning, whole.total, learning.gpus, nodes, links)
    return max(sent, received_s(whole.tensors, whole.each))


def _part(learning: Learning) -> float:
    """Bytes of weights that a GPU of rollouts has."""
    serve, pool = learning.serve, learning.serve.pools[0]
    own = serve.model.part(pool.tensor, pool.tensor if pool.expert == 1 else 1)
    return weight_bytes(Rank(own, pool.tensor, pool.expert, serve.node.gpus, serve.precision), 0)


def _resharded_s(learning: Learning, whole: Size, links: Wires) -> float:
    """The part of one GPU over its links, or what one sender sends, whichever is more."""
    sent = whole.total * learning.serve.pools[0].instances / learning.cluster.gpus
    several = learning.apart or learning.cluster.nodes > 1
    return max(_part(learning), sent) / (links.network if several else links.nvlink.effective)


def _gathered_s(learning: Learning, whole: Size, links: Wires) -> float:
    """Along the pipeline, then over the groups that share experts, and columns of all else, each tensor by itself; and
    into the buffer, read and written once."""
    own = learning.scenario.parallel
    rest, count = whole.total - whole.experts, RESTS * whole.layers
    seconds = count * _tensor_s(learning, rest / count, own.tensor, links)
    if whole.experts:
        sharing, alike = own.expert * own.expert_tensor, whole.routed * whole.each / own.expert
        for part in PAIR:
            seconds += alike * _tensor_s(learning, part * whole.experts / alike, sharing, links)
    if own.zero == 3:
        ranks = own.shard or learning.scenario.data_parallel
        nodes = -(-ranks // learning.cluster.node.gpus)
        seconds += _all_gather_s(learning, whole.total, ranks, nodes, links)
    return seconds + 2 * whole.total / streaming(learning.cluster.node.device)


def _tensor_s(learning: Learning, size_: float, ranks: int, links: Wires) -> float:
    """A tensor that so many ranks share: each one's part along the pipeline, then all parts to all of them."""
    cluster, pipeline = learning.cluster, learning.scenario.parallel.pipeline
    along = _all_gather_s(learning, size_ / ranks, pipeline, min(pipeline, cluster.nodes), links)
    return along + _all_gather_s(learning, size_, ranks, -(-ranks // cluster.node.gpus), links)


def _all_gather_s(learning: Learning, size_: float, ranks: int, nodes: int, links: Wires) -> float:
    if ranks <= 1 or not size_:
        return 0.0
    op, kind = Collective("all_gather", size_, ranks, nodes), learning.cluster.node.device.architecture
    return Library(kind).take(op, links).seconds if nccl.known(kind) else collective_seconds(op, links)
