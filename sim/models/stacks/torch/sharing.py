"""Tensor parallelism of torch (DTensor): collectives on the sequence's dimension, which is not the first, so that what
comes is joined from chunks and what goes is put in chunks first.

torch/distributed/_functional_collectives.py, all_gather_tensor and reduce_scatter_tensor: `torch.cat(torch.chunk(...))`
where the dimension is not 0; profiled steps have such a kernel a collective. All wait for them, as they wait for all
that was launched before, and autograd keeps the gathered input. Compiled, torch can run them in chunks beside the
products (torch.distributed._symmetric_memory: fused_all_gather_matmul, fused_matmul_reduce_scatter).
"""

from sim.models.layer import Kernel
from sim.models.stacks import sharing
from sim.models.stacks.cudnn import Shared
from sim.models.stacks.sharing import collective
from sim.models.stacks.torch.kernels import WIDE, WIDTH, concatenated, elementwise, joined


def gathered(site: Shared, name: str, width: int) -> list[Kernel]:
    """Tokens of all ranks, [own, width] -> [tokens, width]."""
    out = sharing.gathered(site, name, WIDTH * width)
    return [*sharing.in_order(out), joined(f"gather_{name}_cat", site.tokens, width)] if out else []


def summed(site: Shared, name: str, width: int) -> list[Kernel]:
    """Sums over the group: [tokens, width] -> [own, width], or all tokens where they are not shared."""
    out = sharing.summed(site, name, width)
    chunks = [concatenated(f"scatter_{name}_cat", site.tokens, width)] if site.groups.sequence else []
    return [*chunks, *sharing.in_order(out)]


def reduced(site: Shared, name: str, width: int, element: int = WIDTH) -> list[Kernel]:
    """[tokens, width] added up (or compared) over the group, and the same for all. element: bytes of one."""
    if site.groups.tensor == 1:
        return []
    return sharing.in_order([collective(site, "all_reduce", f"reduce_{name}", site.tokens * float(width) * element)])


def token_numbers(site: Shared, name: str) -> list[Kernel]:
    """A number in FP32 a token, over the group."""
    return reduced(site, name, 1, WIDE)


def logits(site: Shared) -> int:
    """Columns of the logits that a rank's loss reads: its part of the vocabulary, or all."""
    own = site.shape.vocabulary
    return own if site.stack.loss_parallel else own * site.groups.tensor


def whole_logits(site: Shared) -> list[Kernel]:
    """The gather of all logits where each rank has its own loss, joined along the columns."""
    if logits(site) == site.shape.vocabulary:
        return []
    whole = site.tokens * float(logits(site)) * WIDTH
    gather = collective(site, "all_gather", "gather_logits", whole)
    return [*sharing.in_order([gather]), joined("logits_cat", site.tokens, logits(site))]


def own_logits(site: Shared) -> list[Kernel]:
    """This rank's part of their gradient, out of the whole."""
    return (
        []
        if logits(site) == site.shape.vocabulary
        else [elementwise("dlogits_own", site.tokens, site.shape.vocabulary)]
    )
