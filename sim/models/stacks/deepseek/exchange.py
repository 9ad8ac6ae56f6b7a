"""Dispatch and combine: what travels to the experts and back."""

from hwmodels.op import AllToAll, cast, small
from sim.models.layer import COMMUNICATION, EXPERT, Kernel
from sim.models.recompute import AGAIN
from sim.models.stacks.deepseek.linear import Shared, quantized

EXCHANGES = ("dispatch", "combine")
"""Names of the parts that are exchanges."""
FORWARD_META_BYTES = 72
"""Source and index metadata that travels with a row of the first dispatch (h800_dualpipe_trace: 7168+224+72)."""
CACHED_META_BYTES = 8
"""Bytes of the same when the layout is cached, as in the backward pass (h800_dualpipe_trace)."""
COMBINE_META_BYTES = 40
"""Top-k weights and index that travel with a BF16 row (h800_dualpipe_trace: 14336+40)."""


def meets(part: str) -> str:
    """The group that a part of this name meets."""
    return EXPERT * (part.removesuffix(AGAIN) in EXCHANGES)


def exchange(site: Shared, experts: int, what: str, direction: str) -> list[Kernel]:
    """Forward dispatch and backward combine carry the dispatch format, the other two the combine format. experts: of
    a layer, on all ranks."""
    narrow = (what, direction) in (("dispatch", "F"), ("combine", "B"))
    first = what == "dispatch" and direction == "F"
    layout = site.recipe.dispatch if narrow else site.recipe.combine
    meta = FORWARD_META_BYTES if first else CACHED_META_BYTES if narrow else COMBINE_META_BYTES
    op = AllToAll(
        "dispatch" if narrow else "combine", f"{what}({direction})", site.tokens,
        layout.row_bytes(site.shape.sent) + meta, site.nodes_reached, site.ranks_reached, site.group,
        site.group_nodes,
    )  # fmt: skip
    out = []
    if first:
        layout_op = small("dispatch_layout", site.tokens, 4.0 * experts)
        out = [Kernel("dispatch_layout", layout_op, COMMUNICATION)]
    elif narrow:
        cast_dy = Kernel("cast_dY_for_dispatch", cast(site.tokens, site.shape.sent), COMMUNICATION)
        out = quantized(site, cast_dy)
    return [*out, Kernel(f"{what}({direction})", op, COMMUNICATION)]
