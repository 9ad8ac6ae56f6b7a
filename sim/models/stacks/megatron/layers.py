"""Parts of a unit in Megatron Core."""

from types import ModuleType

from sim.models.blocks.experts import Experts
from sim.models.blocks.feed_forward import Network
from sim.models.blocks.gqa import Heads
from sim.models.blocks.made import Made
from sim.models.blocks.mamba import Mamba
from sim.models.blocks.mla import Latent
from sim.models.layer import Kernel, Part, Unit
from sim.models.stacks import layers
from sim.models.stacks.cudnn import Shared
from sim.models.stacks.layers import Block
from sim.models.stacks.megatron import attention, experts, feed_forward, graphs, latent, mamba, router
from sim.models.stacks.megatron.again import WORDS
from sim.models.stacks.megatron.ends import end
from sim.models.stacks.megatron.exchange import exchanged
from sim.models.stacks.megatron.formats import of_unit
from sim.models.stacks.megatron.linear import dgrad, linear, norm_backward, plain_norm, wgrad

BLOCKS: dict[type, ModuleType] = {
    Heads: attention, Latent: latent, Mamba: mamba, Network: feed_forward, Experts: experts,
}  # fmt: skip
"""Kind of block -> the module with its passes."""


def parts(site: Shared, made: Made, unit: Unit, direction: str) -> tuple[Part, ...]:
    """The parts of a unit for direction F, B or W, in the order they depend on each other. Raises Refused."""
    return layers.parts(STACK, of_unit(site, unit), made, unit, direction)


def _block(site: Shared, block: Block, direction: str) -> list[Kernel]:
    module = BLOCKS[type(block)]
    kernels = {"F": module.forward, "B": module.backward, "W": module.weight}[direction](site, block)
    return graphs.of_block(site, block, kernels, direction)


def _gate(site: Shared, made: Made, direction: str) -> list[Kernel]:
    passes = {"F": router.gate, "B": router.gate_backward, "W": router.gate_weight}
    return graphs.of_gate(site, made, passes[direction](site, made), direction)


def _post_norm(site: Shared, direction: str) -> list[Kernel]:
    t, h = site.tokens, site.shape.hidden
    return plain_norm("post_norm", t, h) if direction == "F" else norm_backward("post_norm_bwd", t, h)


def _latent(site: Shared, name: str, n: int, k: int, direction: str) -> list[Kernel]:
    return {"F": linear, "B": dgrad, "W": wgrad}[direction](site, name, n, k)


STACK = layers.Stack(_block, _gate, _latent, end, _post_norm, exchange=exchanged, words=WORDS, stops=False)
