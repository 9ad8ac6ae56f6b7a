"""Dispatch and combine of library stacks: NCCL's all-to-all, or DeepEP's kernels, in BF16 or in the recipe's format.

All-to-all sends a row for each token and expert, copies of a token included (Megatron Core, MoEAlltoAllTokenDispatcher;
torch.distributed.all_to_all_single). DeepEP and HybridEP send a token once to each node and from there once to each
rank (github.com/deepseek-ai/DeepEP; Megatron Core, `flex` dispatcher). With each row HybridEP sends probabilities of
all experts of the NVLink domain, in FP32, forward with dispatch and backward with combine (branch hybrid-ep @94a9f8f,
csrc/hybrid_ep/backend/hybrid_ep_backend.cuh: intra_node_prob_buffer; Megatron Core, fused_a2a.py, HybridEPDispatch).
"""

from hwmodels.formats import PLAIN_FP32
from hwmodels.op import HYBRIDEP, NCCL_SENDS, AllToAll, small
from sim.models.blocks.experts import Experts
from sim.models.layer import COMMUNICATION, Kernel, Site
from sim.models.shape import ModelShape

EXCHANGES = ("dispatch", "combine")
"""Names of the parts that are exchanges."""
ONCE = ("deepep", "hybridep")
"""Dispatchers that send a token once to each node and rank."""
MOVED = {"alltoall": NCCL_SENDS, "hybridep": HYBRIDEP}
"""Dispatcher -> who moves its exchanges; others: kernels such as DeepEP's."""
COUNTS = 4.0
"""Bytes of the count of an expert's rows, which ranks tell each other before an all-to-all of unequal sizes."""


def likely_bytes(site: Site[ModelShape], experts: Experts) -> float:
    """Bytes of the probabilities that go with a row of HybridEP's dispatch, or with its gradient."""
    domain = experts.number / site.group_nodes
    return PLAIN_FP32.row_bytes(1) * domain if site.stack.dispatcher == "hybridep" else 0.0


def all_to_all(site: Site[ModelShape], experts: Experts, what: str, direction: str) -> list[Kernel]:
    """Forward dispatch and backward combine carry rows in the recipe's dispatch format, the other two in its combine
    format."""
    narrow = (what, direction) in (("dispatch", "F"), ("combine", "B"))
    layout = site.recipe.dispatch if narrow else site.recipe.combine
    once = site.stack.dispatcher in ONCE
    nodes, ranks = (site.nodes_reached, site.ranks_reached) if once else (float(experts.chosen),) * 2
    row = layout.row_bytes(site.shape.sent) + (likely_bytes(site, experts) if what == "dispatch" else 0.0)
    op = AllToAll(
        "dispatch" if narrow else "combine", f"{what}({direction})", site.own, row,
        nodes, ranks, site.group, site.group_nodes, by=MOVED.get(site.stack.dispatcher, ""),
    )  # fmt: skip
    counts = small("dispatch_layout", site.own, COUNTS * experts.number)
    first = [Kernel("dispatch_layout", counts, COMMUNICATION)] if (what, direction) == ("dispatch", "F") else []
    return [*first, Kernel(f"{what}({direction})", op, COMMUNICATION)]
