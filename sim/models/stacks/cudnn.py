"""cuDNN's fused attention on Hopper, as library stacks launch it: a forward kernel, and three to five backward."""

from hwmodels.formats import PLAIN_BF16, PLAIN_FP32
from hwmodels.op import Attention, Memory, small
from sim.models.blocks.gqa import Heads
from sim.models.blocks.mla import Latent
from sim.models.layer import Kernel, Site
from sim.models.shape import ModelShape

Shared = Site[ModelShape]
"""Site of a layer of any family."""
MEMSET = "memset"
"""Name of what clears a counter or a scratch buffer."""
HOST = {"F": 2.8, "B": 3.3}
"""The host's work, over that of a simple elementwise operation: 42 us forward; 68 us backward, for all kernels (88 us
less two that add its gradients); see `sim.models.stacks.torch.kernels`."""


def cleared() -> Kernel:
    """A counter or a scratch buffer cleared."""
    return Kernel(MEMSET, small(MEMSET), host=0.0)


def attend(op: Attention) -> list[Kernel]:
    """cuDNN's forward, behind a counter that it clears."""
    return [cleared(), Kernel("sdpa", op, host=HOST["F"])]


def attend_backward(op: Attention) -> list[Kernel]:
    """Row sums of O dO, the backward itself, dQ from FP32; gradients of shared heads are summed."""
    tokens, heads = op.batch * op.sequence, op.heads
    q, out = PLAIN_BF16.row_bytes(heads * op.qk), PLAIN_BF16.row_bytes(heads * op.v)
    return [
        cleared(),
        Kernel(
            "sdpa_dot_do_o",
            Memory("attention_prepare", tokens, 2 * out, PLAIN_FP32.row_bytes(heads)),
            host=HOST["B"],
        ),
        Kernel("sdpa_bwd", op, host=0.0),
        Kernel("sdpa_convert_dq", Memory("attention_finish", tokens, PLAIN_FP32.row_bytes(heads * op.qk), q), host=0.0),
        *summed_heads(op),
    ]


def summed_heads(op: Attention) -> list[Kernel]:
    """Gradients of keys and values, a head each that shares them, summed up."""
    keys, heads, shared = op.batch * (op.keys or op.sequence), op.heads, op.kv_heads or op.heads
    sums = [
        Kernel("sdpa_reduce_head", Memory("attention_reduce", keys, PLAIN_BF16.row_bytes(heads * width),
                                          PLAIN_BF16.row_bytes(shared * width)), host=0.0)
        for width in (op.qk, op.v)
    ]  # fmt: skip
    return sums if shared != heads else []


def precision(site: Shared) -> str:
    """What attention multiplies in: BF16, or the FP8 of the recipe, where the stack says so."""
    if site.stack.attention_precision == "bf16" or site.recipe.name == "bf16":
        return "bf16"
    return "mxfp8" if site.recipe.name == "mxfp8" else "fp8"


def operations(site: Shared, heads: Heads, direction: str) -> list[Attention]:
    """Attention over whole sequences, or a window of them; over chunks as over so many short sequences."""
    shared = heads.shared if heads.shared != heads.queries else 0
    documents, length = site.attending
    window = heads.window if heads.window < length else 0
    whole, rest = divmod(length, heads.chunk) if heads.chunk and heads.chunk < length else (0, length)
    stretches = ((whole * documents, heads.chunk), (documents, rest))
    return [
        Attention(direction, count, heads.queries, tokens, heads.width, heads.width, kv_heads=shared, window=window,
                  precision=precision(site))
        for count, tokens in stretches if count and tokens
    ]  # fmt: skip


def latent(site: Shared, a: Latent, direction: str) -> Attention:
    """Attention of latent heads, their keys and values expanded."""
    documents, length = site.attending
    width = a.nope + a.rotary
    return Attention(direction, documents, a.heads, length, width, a.v, precision=precision(site))
