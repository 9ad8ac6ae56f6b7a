"""Permutes of a mixture in operations of torch (`stack.permute` plain: `moe_permute_fusion` off), behind an all-to-all.

Read off megatron/core/transformer/moe/moe_utils.py of February 2026 (permute, unpermute, sort_chunks_by_idxs) and
torch's kernels: rows are found by masked_select of the map's transpose over all tokens and experts, their
probabilities likewise, and taken by index_select; they come back by scatter_add_ onto zeros. masked_select waits until
it is known how many there are. Chunks are cut by torch.split and put in another order by torch.cat, each a tensor of
its own.
"""

from hwmodels.formats import PLAIN_BF16, PLAIN_FP32
from hwmodels.op import Memory, permute, small
from sim.models.layer import Kernel
from sim.models.stacks.cudnn import Shared
from sim.models.stacks.megatron import host
from sim.models.stacks.megatron.host import SELECTED, chunks, work

PLACE = 8
"""Bytes of a place in int64."""
TRUTH = 1
"""Bytes of a truth value."""
STEPS = ("counted", "prefixed", "chosen")
"""Kernels of masked_select over the map before places are written: cub's sum, its prefixes, its selection."""


def rows(site: Shared, experts: int) -> list[Kernel]:
    """Own tokens as rows in the order of experts, with their probabilities."""
    own, each = site.own, site.rows / site.own
    truths, likely = TRUTH * experts, PLAIN_FP32.row_bytes(experts)
    taken = permute(own, site.rows, site.shape.sent, PLAIN_BF16)
    return [
        Kernel("permute_map", Memory("elementwise", own, truths, truths), host=work(host.OPERATION + host.VIEW, "F")),
        Kernel("permute_tokens", small("tiny"), host=work(host.OPERATION + 2 * host.VIEW, "F")),
        *_selected("permute_rows", own, truths, each, PLACE),
        Kernel("permute_likely", Memory("elementwise", own, likely, likely), host=1 + work(host.VIEW, "F")),
        *_selected("permute_probabilities", own, truths, each, PLAIN_FP32.row_bytes(1)),
        Kernel("permute", taken),
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


def summed(site: Shared, name: str) -> list[Kernel]:
    """Rows added to zeros of their tokens, one by one."""
    row = PLAIN_BF16.row_bytes(site.shape.sent)
    zeros = Memory("fill", site.own, 0.0, row)
    return [Kernel(f"{name}_zeros", zeros), Kernel(name, Memory("elementwise", site.rows, 2 * row, row))]


def ordered(site: Shared, direction: str, likely: bool) -> list[Kernel]:
    """Chunks of rows in another order, a chunk an expert and rank of the group; likely: with their probabilities."""
    launch = work(chunks(site.group * site.local_experts), direction)
    copied = permute(site.rows, site.rows, site.shape.sent, PLAIN_BF16)
    also = [Kernel("sort_probabilities", small("tiny"), host=launch)] if likely else []
    return [Kernel("sort_rows", copied, host=launch), *also]
