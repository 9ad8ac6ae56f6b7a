"""Parameters of a unit as torch modules hold them: a tensor a weight, of routed experts one a product."""

from sim.models.blocks.made import Made
from sim.models.stacks import tensors as units
from sim.models.stacks.cudnn import Shared
from sim.models.stacks.torch import attention, experts, feed_forward

MODULES = units.Modules(attention.tensors, feed_forward.tensors, experts.tensors)


def tensors(site: Shared, made: Made) -> list[int]:
    """Elements of each parameter of a unit on this rank, in the order of its modules."""
    return units.tensors(MODULES, site, made)
