"""Dispatch and combine of Megatron Core beside the exchange itself: what is counted, permuted and waited for.

All-to-all (`MoEAlltoAllTokenDispatcher`): counts of rows are gathered from all ranks and copied to the host, which
waits for them before it can say how much is sent (`cuda_sync_point`: before_ep_alltoall); rows are put in the order of
ranks meanwhile; their probabilities are sent by an exchange of their own, unless sums weigh them. DeepEP and HybridEP
(fused_a2a.py): one call sends both; the host waits for how many rows come, for it makes the tensor that they come to
("None means no up-bound, will cause a CPU sync"), but not backward, where they are known.
"""

from hwmodels.formats import PLAIN_BF16, PLAIN_FP32
from hwmodels.op import AllToAll, Collective, Memory, copy, permute, small
from sim.models.blocks.experts import Experts
from sim.models.layer import COMMUNICATION, Kernel
from sim.models.stacks import exchange
from sim.models.stacks.cudnn import Shared
from sim.models.stacks.exchange import ONCE
from sim.models.stacks.megatron import unfused
from sim.models.stacks.megatron.host import (
    AWAITED,
    COUNTED,
    DISPATCHED,
    EXCHANGED,
    FUSED,
    GATHERED,
    LAUNCH,
    MAPPED,
    PERMUTED,
    work,
)  # fmt: skip
from sim.models.stacks.stack import PLAIN_PERMUTE, WEIGHED_SUMS

INDEX = 4
"""Bytes of a row's place."""
COUNT = 8
"""Bytes of the number of an expert's rows."""
SUMS = 7
"""Kernels that add up numbers of rows, before and behind their gather."""
MAPS = ("row_map", "row_map_sums", "row_map_final")
"""Kernels that say where each row goes (TransformerEngine, pytorch/triton/permutation.py)."""


def mapped(name: str, sent: int, rows: int, width: int) -> list[Kernel]:
    """Tokens permuted to rows, behind the maps of where each goes."""
    maps = [Kernel(f"{name}_{each}", small("tiny"), host=0.0) for each in MAPS]
    return [*maps, Kernel(name, permute(sent, rows, width, PLAIN_BF16), host=work(PERMUTED["F"], "F"))]


def exchanged(site: Shared, experts: Experts, what: str, direction: str) -> list[Kernel]:
    """Kernels of a dispatch or combine, forward or backward."""
    *_, sent = exchange.all_to_all(site, experts, what, direction)
    first = (what, direction) == ("dispatch", "F")
    if site.stack.dispatcher in ONCE:
        layout = Kernel("dispatch_layout", small("dispatch_layout", site.own, 4.0 * experts.number), COMMUNICATION)
        before = _mapped_routing(site, experts) if site.stack.dispatcher == "hybridep" else [layout]
        waiting = [*before[:-1], before[-1]._replace(waits=True)] if first else []
        if site.stack.dispatcher == "hybridep":
            launch = DISPATCHED if first else FUSED[direction]
            return [*waiting, *_fenced(site, sent._replace(host=work(launch, direction)), direction)]
        return [*waiting, sent._replace(host=work(FUSED[direction], direction))]
    sent = sent._replace(host=work(EXCHANGED[direction], direction))
    likely = [sent._replace(name=f"probabilities({direction})", op=_probabilities(site, experts))]
    if what == "combine":
        return [sent]
    if site.stack.weighting == WEIGHED_SUMS:
        likely = []
    return [*_counted(site, experts), sent, *likely] if first else [*likely, sent]


def _mapped_routing(site: Shared, experts: Experts) -> list[Kernel]:
    """HybridEP's `dispatch_preprocess` (csrc/hybrid_ep/executor/executor.cu, allgather_routing_map; `scan` of backend/
    hybrid_ep_backend.cuh): which experts each token of all ranks chose, a byte each, gathered by NCCL; read twice, of
    the own NVLink domain, for where each row goes: by rank, and by own expert. Backward keeps it."""
    gathered = float(site.own * site.group * experts.number)
    gather = Collective("all_gather", gathered, site.group, site.group_nodes)
    domain = site.group // site.group_nodes
    read = 2.0 * experts.number / site.group_nodes
    write = (INDEX * domain + (INDEX + 1) * site.local_experts) / site.group_nodes
    scan = Memory("elementwise", site.own * site.group, read, write)
    return [
        Kernel("gather_routing", gather, COMMUNICATION, host=work(GATHERED, "F")),
        *[Kernel("layout_zeros", small("tiny"), COMMUNICATION, host=work(LAUNCH, "F"))] * 2,
        Kernel("dispatch_layout", scan, COMMUNICATION, host=work(MAPPED, "F")),
        Kernel("rows_padded", small("tiny"), COMMUNICATION, host=0.0),
    ]


def _fenced(site: Shared, sent: Kernel, direction: str) -> list[Kernel]:
    """HybridEP's exchange between its small kernels: flags raised, ranks of the domain met before and behind, and nodes
    (hybrid_ep_backend.cuh, `dispatch` and `combine`); what goes to other nodes is copied to where NICs read it
    (executor.cu, dispatch_preprocess)."""
    small_one = Kernel("flags", small("tiny"), COMMUNICATION, host=work(LAUNCH, direction))
    before = [small_one, small_one._replace(name="ranks_met")]
    behind = [small_one._replace(name="ranks_met")]
    if site.group_nodes > 1:
        assert isinstance(sent.op, AllToAll)
        own = copy(site.own, site.shape.sent)
        row = small_one._replace(name="rows_to_send", op=own)
        before = [*([row] if sent.op.direction == "dispatch" else []), *before]
        behind = [*behind, small_one._replace(name="nodes_met")]
    return [*before, sent, *behind]


def _probabilities(site: Shared, experts: Experts) -> Collective:
    """An FP32 number a row to where the row goes."""
    size = site.own * experts.chosen * PLAIN_FP32.row_bytes(1)
    return Collective("all_to_all", size, site.group, site.group_nodes, form="fp32")


def _counted(site: Shared, experts: Experts) -> list[Kernel]:
    """Numbers of rows of all ranks, which the host waits for; own rows are permuted meanwhile, launched before. Padded
    rows have no numbers."""
    if site.stack.padded and site.stack.permute == PLAIN_PERMUTE:
        return unfused.rows(site, experts.number)
    if site.stack.padded:
        return mapped("permute", site.own, site.rows, site.shape.sent)
    size = COUNT * experts.number * site.group
    gather = Collective("all_gather", size, site.group, site.group_nodes)
    sums = [Kernel("counts", small("tiny"), COMMUNICATION, host=0.0)] * SUMS
    gathered = Kernel("gather_counts", gather, COMMUNICATION, host=0.0)
    waiting = Kernel("counts_to_host", small("tiny"), COMMUNICATION, host=work(COUNTED + AWAITED, "F"), waits=True)
    if site.stack.permute == PLAIN_PERMUTE:
        return [*sums, gathered, *unfused.rows(site, experts.number), waiting]
    rows = mapped("permute", site.own, site.rows, site.shape.sent)
    waiting = waiting._replace(host=waiting.host + work(PERMUTED["F"], "F"))
    return [*sums, gathered, waiting, *(k._replace(host=0.0) for k in rows)]
