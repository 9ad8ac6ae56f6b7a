"""Tensor parallelism under torch.compile: what puts chunks in order is fused, and asynchronous tensor parallelism runs
gathers and reduce-scatters in chunks beside the products (`overlap.tensor`)."""

from collections.abc import Callable, Sequence

from hwmodels.formats import PLAIN_BF16, PLAIN_E4M3, Layout
from sim.models.layer import Kernel
from sim.models.stacks import sharing
from sim.models.stacks.cudnn import Shared
from sim.models.stacks.torch.compiled.fused import fused, norm_backward
from sim.models.stacks.torch.compiled.linear import by_rows, cast, cast_gradient, casts, linear, ready, scaled

Products = Sequence[tuple[str, int, int]]
"""Name, columns out and in of each."""
Launched = Callable[[Shared, str, int, int], list[Kernel]]
"""Kernels of a product of a site."""


def gathers(site: Shared, name: str, width: int, layout: Layout = PLAIN_BF16) -> list[Kernel]:
    """Tokens of all ranks, put in order; in chunks they are used as they come."""
    out = sharing.gathered(site, name, layout.row_bytes(width))
    ordered = fused(f"gather_{name}_cat", site.tokens, width, 1, 1)
    return [*sharing.in_order(out), ordered] if out and not site.groups.chunked else out


def sums(site: Shared, name: str, width: int, parts: int = 1) -> list[Kernel]:
    """Sums over the group, put in order before. parts: tensors of each rank that are added up then."""
    ordered = [fused(f"scatter_{name}_cat", site.tokens, width, parts, 1)] if site.groups.sequence else []
    return [*ordered, *sharing.in_order(sharing.summed(site, name, width))]


def entered(site: Shared, products: Products, name: str, launched: Launched = linear) -> list[Kernel]:
    """Products that read what is gathered before: inputs of a block, or gradients of its output. By rows they are cast
    behind the gather, which torch's patterns of chunks do not see through (pytorch issue 149990)."""
    width = products[0][2] if launched is linear else products[0][1]
    own = cast if launched is linear or (site.groups.sequence and not by_rows(site)) else cast_gradient
    if by_rows(site):
        gather = gathers(_whole(site), name, width)
        read = [*own(site, name, site.tokens, width), *ready(site, products, launched is not linear)]
        return [*gather, *read, *_all(site, products, launched)]
    before = own(site, name, site.own, width) + ready(site, products, launched is not linear)
    gather = gathers(site, name, width, PLAIN_E4M3 if casts(site) else PLAIN_BF16)
    return before + sharing.fed(site, gather, lambda at: _all(at, products, launched))


def left(
    site: Shared, products: Products, name: str, launched: Launched = linear, read: list[Kernel] | None = None
) -> list[Kernel]:
    """Products whose output is added up behind: of a block, or gradients of its input. Those of several products are
    added up on the rank first, which none of torch's patterns knows in chunks."""
    width = products[0][1] if launched is linear else products[0][2]
    backward = launched is not linear
    before = (_read(site, products, backward) if read is None else read) + ready(site, products, backward)
    if site.groups.chunked and len(products) == 1 and not (by_rows(site) and launched is not linear):
        return before + sharing.drained(site, lambda at: _all(at, products, launched), name, width)
    out = [*before, *_all(site, products, launched)]
    if launched is linear or not by_rows(site):
        return out + sums(site, name, width, len(products))
    behind = sums(site, name, width)
    return [*out, *scaled(site, name, site.tokens * len(products), width), *behind[bool(site.groups.sequence) :]]


def _whole(site: Shared) -> Shared:
    """The same without chunks."""
    return site._replace(groups=site.groups._replace(chunked=False))


def _read(site: Shared, products: Products, backward: bool) -> list[Kernel]:
    """Casts of the one input of products, or of the gradients of their outputs."""
    first = products[0]
    read = [(f"dy_{name}", n) for name, n, _ in products] if backward else [(f"x_{first[0]}", first[2])]
    return [
        kernel
        for name, width in read
        for kernel in (cast_gradient if backward else cast)(site, name, site.tokens, width)
    ]


def _all(site: Shared, products: Products, launched: Launched) -> list[Kernel]:
    return [kernel for each in products for kernel in launched(site, *each)]


def norm_gradients(site: Shared, name: str, gradients: int) -> list[Kernel]:
    """The gradient of the norm before a block, where that of the residual and of so many products meet; over ranks they
    were added up before, to one, and where they were scaled."""
    return norm_backward(name, site.own, site.shape.hidden, 1 if site.groups.tensor > 1 or by_rows(site) else gradients)
