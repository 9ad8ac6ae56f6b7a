"""Mamba-2 on stacks of blocks: the kernels of its own library, whose heads a tensor group shares.

Its input is gathered behind the norm and kept so, its output added up; both are exposed.
"""

from hwmodels.formats import PLAIN_BF16
from hwmodels.op import Memory
from hwmodels.refused import Refused
from sim.models.blocks.mamba import Mamba
from sim.models.layer import Kernel
from sim.models.stacks.cudnn import Shared
from sim.models.stacks.deepseek import mamba
from sim.models.stacks.sharing import gathered, summed

NORM = "rmsnorm1"
"""How the kernels of the norm before it are called."""


def forward(site: Shared, m: Mamba) -> list[Kernel]:
    """[tokens, hidden] -> [tokens, hidden]. Raises Refused."""
    if site.groups.context > 1:
        raise Refused("parallel.context is not built for mamba layers; legal: 1")
    h = site.shape.hidden
    norm, *others = mamba.forward(site, m)
    gather = gathered(site, "x_mamba", PLAIN_BF16.row_bytes(h))
    return [_own(site, norm), *gather, *others, *summed(site, "mamba", h)]


def backward(site: Shared, m: Mamba) -> list[Kernel]:
    """Input gradients."""
    h, kernels = site.shape.hidden, mamba.backward(site, m)
    first = next(i for i, kernel in enumerate(kernels) if kernel.name.startswith(NORM))
    come = gathered(site, "dy_mamba", PLAIN_BF16.row_bytes(h))
    ends = [_own(site, kernel) for kernel in kernels[first:]]
    return [*come, *kernels[:first], *summed(site, "dx_mamba", h), *ends]


def weight(site: Shared, m: Mamba) -> list[Kernel]:
    return mamba.weight(site, m)


def _own(site: Shared, kernel: Kernel) -> Kernel:
    """Of a rank's own tokens, where it was of all."""
    op = kernel.op
    if isinstance(op, Memory) and op.rows == site.tokens:
        return kernel._replace(op=op._replace(rows=site.own))
    return kernel
