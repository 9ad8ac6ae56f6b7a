"""What stands around flash-attention's variable-length call: tokens gathered without padding, and scattered behind.

`flash_attn_fn` of llm-foundry (llmfoundry/models/layers/attention.py @5e85bd62d) calls flash-attn's bert_padding for
queries, keys and values one after another, in each layer and whether anything is padded or not: lengths are summed,
numbers of tokens listed and the longest length read, both of which the host waits for, and rows gathered; behind,
rows are put into zeros. Backward rows are put into zeros three times. Rates are of the nearest kinds that were timed: a
gather of whole rows, an elementwise kernel with offsets.
"""

from hwmodels.formats import PLAIN_BF16
from hwmodels.op import Memory
from sim.models.blocks.gqa import Heads
from sim.models.layer import Kernel
from sim.models.stacks.cudnn import Shared
from sim.models.stacks.torch.kernels import INDEX, tiny

TENSORS = ("q", "k", "v")


def unpadded(site: Shared, heads: Heads) -> list[Kernel]:
    """Queries, keys and values gathered, before attention."""
    if not site.stack.unpadded:
        return []
    return [kernel for name, width in _widths(heads) for kernel in (*_listed(name), _gathered(site, name, width))]


def _listed(name: str) -> list[Kernel]:
    """Lengths, numbers of tokens (counted, then listed), where sequences begin, and the longest."""
    small = [tiny(f"unpad_{name}_{what}") for what in ("lengths", "count", "numbers", "starts", "begin", "longest")]
    return [kernel._replace(waits=kernel.name.endswith(("_numbers", "_longest"))) for kernel in small]


def _gathered(site: Shared, name: str, width: int) -> Kernel:
    row = PLAIN_BF16.row_bytes(width)
    return Kernel(f"unpad_{name}", Memory("gather", site.tokens, row + INDEX, row))


def _put(site: Shared, name: str, width: int) -> list[Kernel]:
    """Rows put into zeros."""
    row = PLAIN_BF16.row_bytes(width)
    zeros = Kernel(f"{name}_zeros", Memory("fill", site.tokens, 0.0, row))
    return [zeros, Kernel(name, Memory("strided", site.tokens, row + INDEX, row))]


def padded(site: Shared, heads: Heads) -> list[Kernel]:
    """Attention's output with padding, behind it."""
    return _put(site, "pad_output", heads.q) if site.stack.unpadded else []


def padded_backward(site: Shared, heads: Heads) -> list[Kernel]:
    """Gradients of queries, keys and values with padding, behind attention's backward."""
    if not site.stack.unpadded:
        return []
    return [kernel for name, width in _widths(heads) for kernel in _put(site, f"pad_d{name}", width)]


def unpadded_backward(site: Shared, heads: Heads) -> list[Kernel]:
    """The output's gradient gathered, before it."""
    return [_gathered(site, "dout", heads.q)] if site.stack.unpadded else []


def _widths(heads: Heads) -> list[tuple[str, int]]:
    return list(zip(TENSORS, (heads.q, heads.kv, heads.kv), strict=True))
