"""Permutes of a mixture in operations of torch (`stack.permute` plain: `moe_permute_fusion` off), behind an all-to-all.

Read off megatron/core/transformer/moe/moe_utils.py of February 2026 (permute, unpermute, sort_chunks_by_idxs) and
torch's kernels: rows are found by masked_select of the map's transpose over all tokens and experts, their
probabilities likewise, and taken by index_select; they come back by scatter_add_ onto zeros. masked_select waits until
it is known how many there are. Chunks are cut by torch.split and put in another order by torch.cat, each a tensor of
its own. Where each expert has as many rows (`stack.padded`), places come from a sort of each expert's tokens, and
chunks change order as one transposed copy.

Kernels of eight shapes on an H200 (docs/EVIDENCE.md, 270; 1,024 to 8,192 tokens, rows of 2,048 to 7,168): the gradient
of an index_select is index_add_, which reaches 0.72 to 0.80 TB/s of its three rows, as torch's tables have it
(`scatter`). scatter_add_ reaches 1.45 to 1.63 TB/s of them, products with a number a row and
transposed copies 1.3 to 1.7, all of which go element by element, as `strided` copies do. The sort takes 14 to 36 us.
"""

from hwmodels.formats import PLAIN_BF16, PLAIN_FP32
from hwmodels.op import Memory, permute, small
from sim.models.layer import Kernel
from sim.models.stacks.cudnn import Shared
from sim.models.stacks.megatron import host
from sim.models.stacks.megatron.host import SELECTED, chunks, work
from sim.models.stacks.stack import WEIGHED_SUMS

PLACE = 8
"""Bytes of a place in int64."""
TRUTH = 1
"""Bytes of a truth value."""
STEPS = ("counted", "prefixed", "chosen")
"""Kernels of masked_select over the map before places are written: cub's sum, its prefixes, its selection."""
SORTED = 9
"""A sort of the map's rows, with the copies before and behind it, in small kernels: 14 to 23 us up to 4,096 tokens."""
LIKELY = ("ranks", "rows", "places", "values")
"""Kernels that take padded rows' probabilities: numbers of experts times tokens, and places added; what is there."""


def rows(site: Shared, experts: int) -> list[Kernel]:
    """Own tokens as rows in the order of experts, with their probabilities where experts weigh them."""
    own, each, truths = site.own, site.rows / site.own, TRUTH * experts
    likely = [] if site.stack.weighting == WEIGHED_SUMS else probabilities(site, experts, "permute")
    taken = Kernel("permute", permute(own, site.rows, site.shape.sent, PLAIN_BF16))
    mapped = Memory("elementwise", own, truths, truths)
    if site.stack.padded:
        sort = [Kernel("permute_sort", small("tiny"))] * SORTED
        return [Kernel("permute_map", mapped), *sort, *likely, taken]
    return [
        Kernel("permute_map", mapped, host=work(host.OPERATION + host.VIEW, "F")),
        Kernel("permute_tokens", small("tiny"), host=work(host.OPERATION + 2 * host.VIEW, "F")),
        *_selected("permute_rows", own, truths, each, PLACE), *likely, taken,
    ]  # fmt: skip


def probabilities(site: Shared, experts: int, name: str) -> list[Kernel]:
    """Of rows, in their order."""
    own, likely = site.own, PLAIN_FP32.row_bytes(experts)
    turned = Kernel(f"{name}_likely", Memory("elementwise", own, likely, likely), host=1 + work(host.VIEW, "F"))
    if site.stack.padded:
        return [turned, *(Kernel(f"{name}_likely_{each}", small("tiny")) for each in LIKELY)]
    values = PLAIN_FP32.row_bytes(1)
    return [turned, *_selected(f"{name}_probabilities", own, TRUTH * experts, site.rows / own, values)]


def weighed(site: Shared, experts: int) -> list[Kernel]:
    """Rows times their probabilities, before they are added up."""
    row, truths = PLAIN_BF16.row_bytes(site.shape.sent), TRUTH * experts
    mapped = [] if site.stack.padded else [Kernel("weigh_map", Memory("elementwise", site.own, truths, truths))]
    times = Kernel("weigh_rows", Memory("strided", site.rows, row, row))
    return [*mapped, *probabilities(site, experts, "weigh"), times]


def weighed_backward(site: Shared) -> list[Kernel]:
    """Gradients of rows, and of their probabilities: products with rows, and sums of these."""
    row = PLAIN_BF16.row_bytes(site.shape.sent)
    return [
        Kernel("weigh_rows_bwd", Memory("strided", site.rows, row, row)),
        Kernel("weights_bwd", Memory("elementwise", site.rows, 2 * row, row)),
        Kernel("weights_bwd_sums", Memory("reduce", site.rows, row, PLAIN_BF16.row_bytes(1))),
    ]


def _selected(name: str, own: int, truths: float, each: float, value: float) -> list[Kernel]:
    """masked_select: so many values of each token, which the host waits for."""
    counted, *others = (Kernel(f"{name}_{step}", small("tiny"), host=0.0) for step in STEPS)
    places = Memory("elementwise", own, truths + PLACE * each, 3 * PLACE * each)  # flat, and of both dimensions
    values = Memory("elementwise", own, (2 * PLACE + value) * each, value * each)
    counted = counted._replace(host=work(SELECTED, "F"), waits=True)
    return [
        counted, *others, Kernel(f"{name}_places", places, host=0.0), Kernel(f"{name}_values", values, host=0.0),
    ]  # fmt: skip


def likely_backward(site: Shared, experts: int) -> list[Kernel]:
    """Gradients of probabilities, back among all experts': zeros, prefixes of the map, and what is put in."""
    row = PLAIN_FP32.row_bytes(experts)
    prefixes = Memory("elementwise", site.own, TRUTH * experts, PLACE * experts)
    put = Memory("elementwise", site.own, (TRUTH + PLACE) * experts, row)
    return [
        Kernel("likely_zeros", Memory("fill", site.own, 0.0, row)), Kernel("likely_prefixes", prefixes),
        Kernel("likely_put", put),
    ]  # fmt: skip


def summed(site: Shared, name: str, kind: str) -> list[Kernel]:
    """Rows added to zeros of their tokens, one by one: kind `strided` by scatter_add_, `scatter` by index_add_."""
    row = PLAIN_BF16.row_bytes(site.shape.sent)
    zeros = Memory("fill", site.own, 0.0, row)
    return [Kernel(f"{name}_zeros", zeros), Kernel(name, Memory(kind, site.rows, 2 * row, row))]


def transposed(site: Shared, likely: bool) -> list[Kernel]:
    """As many rows of each rank and expert in another order, in one copy; likely: with their probabilities."""
    row = PLAIN_BF16.row_bytes(site.shape.sent)
    also = [Kernel("sort_probabilities", small("tiny"))] if likely else []
    return [Kernel("sort_rows", Memory("strided", site.rows, row, row)), *also]


def ordered(site: Shared, direction: str, likely: bool) -> list[Kernel]:
    """Chunks of rows in another order, a chunk an expert and rank of the group; likely: with their probabilities."""
    launch = work(chunks(site.group * site.local_experts), direction)
    copied = permute(site.rows, site.rows, site.shape.sent, PLAIN_BF16)
    also = [Kernel("sort_probabilities", small("tiny"), host=launch)] if likely else []
    return [Kernel("sort_rows", copied, host=launch), *also]
