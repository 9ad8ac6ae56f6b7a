"""Graphs of a layer's modules, as TransformerEngine captures them (`make_graphed_callables`, pytorch/graph.py).

One graph holds all that is graphed of a layer: attention or a scan, and what follows up to a mixture's dispatch
(Megatron Core, transformer_layer.py, `_te_cuda_graph_capture`). It reads where it was captured, so its input is copied
there, and backward the gradient of each of its outputs, for what is outside makes new tensors ("don't copy if autograd
gods have been kind"): of the residual, of what is dispatched, of its probabilities, and of shared experts, which are in
the graph. Each replay of a layer with attention's graph makes a mask of zeros that nothing reads, and copies it where
there is attention (`_get_te_cuda_graph_replay_args`; TransformerEngine 2.9 and of August 2026, Megatron Core from 0.15
on). Graphs of whole steps copy nothing.
"""

from hwmodels.formats import PLAIN_BF16, PLAIN_FP32
from hwmodels.op import Memory
from sim.models.blocks.feed_forward import Network
from sim.models.blocks.gqa import Heads
from sim.models.blocks.made import Made
from sim.models.blocks.mamba import Mamba
from sim.models.blocks.mla import Latent
from sim.models.layer import Kernel
from sim.models.stacks.cudnn import Shared
from sim.models.stacks.megatron.host import OPERATION, REPLAYED, work

WORDS_OF: dict[type, str] = {Heads: "attention", Latent: "attention", Network: "network", Mamba: "mamba"}
"""Kind of block -> the word that says that it is a graph; mixtures are none, for their shapes are not known before."""
TAKEN = {"F": "graph_input", "B": "graph_dy"}
"""What the graph of a layer takes from the layer before, and backward from the one behind."""
SEES = 1
"""Bytes of whether a token sees another."""


def of_block(site: Shared, block: object, kernels: list[Kernel], direction: str) -> list[Kernel]:
    """Kernels of a block behind what its graph, where it is one, takes in."""
    if not _graphed(site, block):
        return kernels
    if direction == "W":
        return _idle(kernels)
    attends = direction == "F" and WORDS_OF[type(block)] == "attention"
    mask = _mask(site, copied=True) if attends else []
    return _replayed([*mask, _copied(site, TAKEN[direction], direction)], kernels, direction)


def of_gate(site: Shared, made: Made, kernels: list[Kernel], direction: str) -> list[Kernel]:
    """Kernels of a mixture's router. Forward the graph is that of what mixes tokens before it, where that is one; so is
    its residual's gradient."""
    if "router" not in site.stack.graphed:
        return kernels
    alone = not _graphed(site, made.mixer)
    if direction == "W" or made.routed is None:
        return _idle(kernels)
    own = [_copied(site, TAKEN[direction], direction)] * alone
    if direction == "F":
        unread = _mask(site, copied=False) if made.mixer is None and "attention" in site.stack.graphed else []
        return _replayed([*unread, *own], kernels, direction) if alone else _idle(kernels)
    own += [_copied(site, "graph_shared", "B")] * bool(made.routed.shared.width)
    own.append(_copied(site, "graph_sent", "B", PLAIN_BF16.row_bytes(site.shape.sent)))
    own.append(_copied(site, "graph_likely", "B", PLAIN_FP32.row_bytes(made.routed.number)))
    return _replayed(own, kernels, direction) if alone else [*own, *_idle(kernels)]


def _graphed(site: Shared, block: object) -> bool:
    return WORDS_OF.get(type(block), "") in site.stack.graphed


def _copied(site: Shared, name: str, direction: str, row: float = 0.0) -> Kernel:
    """A whole tensor of own tokens, rows of hidden states unless said, as a kernel that reads and writes it would."""
    row = row or PLAIN_BF16.row_bytes(site.shape.hidden)
    return Kernel(name, Memory("elementwise", site.own, row, row), host=work(OPERATION, direction))


def _mask(site: Shared, *, copied: bool) -> list[Kernel]:
    """A byte for each token and each of its sequence, filled and copied."""
    row = float(SEES * site.length)
    filled = Kernel("graph_mask", Memory("fill", site.tokens, 0.0, row), host=work(OPERATION, "F"))
    return [
        filled,
        *[filled._replace(name="graph_mask_copy", op=Memory("elementwise", site.tokens, row, row))] * copied,
    ]


def _idle(kernels: list[Kernel]) -> list[Kernel]:
    return [kernel._replace(host=0.0) for kernel in kernels]


def _replayed(before: list[Kernel], kernels: list[Kernel], direction: str) -> list[Kernel]:
    """Kernels that one graph launches: the first pays for it, backward that of gradients of inputs and weights."""
    idle = _idle(kernels)
    return [*before, idle[0]._replace(host=work(REPLAYED, direction)), *idle[1:]]
