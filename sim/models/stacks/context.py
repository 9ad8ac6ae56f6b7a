"""Attention of ranks that share the tokens of each sequence (context parallelism), as TransformerEngine does it.

Of a causal sequence in 2 x ranks blocks each rank has two, an early and a late one, so that all have as much to do
(github.com/NVIDIA/TransformerEngine, transformer_engine/pytorch/attention/dot_product_attention/context_parallel.py,
`cp_comm_type`):

* ring (p2p): keys and values go round, in one tensor, each step's beside attention to those of the step before. The
  rank's own blocks are causal; of others' either all queries see the early block, or the late queries see both: half of
  all pairs. Results of a step are scaled or copied to where they are summed up, and added there (TransformerEngine 2.9,
  AttnFuncWithCPAndKVP2P). What is half of a tensor is made contiguous first (so in 1.13, 2.3 and 2.9): keys and values
  of an early block where all queries see it, and queries, outputs and their gradients of late blocks. A rank has one or
  the other in a step; that which takes longer is counted, for ranks wait. Log-sum-exps are summed up in a kernel a step
  (in FP64 before 2.9, whose conversions are left out).
* all_gather: keys and values of all ranks at once, each block of queries sees those up to its own.
* all_to_all (arXiv:2309.14509): heads for tokens and back, a rank then has whole sequences of fewer heads.
"""

from collections.abc import Callable, Sequence

from hwmodels.formats import PLAIN_BF16, PLAIN_FP32
from hwmodels.op import Attention, Collective, Memory, Send, copy
from hwmodels.refused import Refused
from sim.models.layer import COMMUNICATION, Kernel
from sim.models.stacks import cudnn, unfused
from sim.models.stacks.cudnn import Shared
from sim.models.stacks.sharing import CONTEXT

AROUND = (
    "ring_send", "pack_kv", "half_kv", "begin_output", "join_output", "begin_lse", "join_lse", "convert_output",
    "gather_k*", "gather_v", "order_*", "swap_*",
)  # fmt: skip
"""Names of kernels around attention forward, as patterns (see `sim.models.stacks.again`)."""
Launched = Callable[[Attention], list[Kernel]]
"""Kernels of attention in a direction."""


def attention(site: Shared, ops: Sequence[Attention]) -> list[Kernel]:
    """Kernels of attention over whole sequences, forward or backward as the operations say. Raises Refused."""
    by = cudnn if site.stack.fuses_attention else unfused
    run = by.attend if ops[0].direction == "forward" else by.attend_backward
    if site.groups.context == 1:
        return [kernel for op in ops for kernel in run(op)]
    return {"ring": _ring, "all_gather": _gathered, "all_to_all": _to_all}[site.groups.context_kind](site, ops, run)


def key_widths(op: Attention) -> tuple[int, int]:
    """Columns of keys and of values."""
    heads = op.kv_heads or op.heads
    return heads * op.qk, heads * op.v


def _sent(site: Shared, kind: str, name: str, size: float) -> Kernel:
    """A collective of the context group."""
    groups = site.groups
    return Kernel(name, Collective(kind, size, groups.context, groups.context_nodes), COMMUNICATION, meets=CONTEXT)


# --- ring -------------------------------------------------------------------------------------------------------------


def _ring(site: Shared, ops: Sequence[Attention], run: Launched) -> list[Kernel]:
    """A step for each rank. Backward the gradients of keys and values follow these round, a step behind: it begins with
    what forward ended with and ends with the rank's own, whose gradients are home then (TransformerEngine, "In reversed
    order of fwd")."""
    if any(op.window for op in ops) or len(ops) > 1:
        raise Refused(
            "parallel.context_kind ring knows no windows and chunks of attention; legal: all_gather, all_to_all"
        )
    (op,), ranks = ops, site.groups.context
    backward = op.direction == "backward"
    pair = PLAIN_BF16.row_bytes(sum(key_widths(op)))
    out = [Kernel("pack_kv", Memory("elementwise", site.tokens, pair, pair))]
    for step in range(ranks):
        size = pair * ((step < ranks - 1) + (backward and step > 0))
        distance = (step + 1) % ranks if backward else step
        kernels = [
            *_halved(site, op, distance),
            *run(of_step(op, ranks, distance)),
            *_joined(site, op, step, distance),
        ]
        out += [*_passed_on(site, size, len(kernels)), *kernels]
    return out


def of_step(op: Attention, ranks: int, distance: int) -> Attention:
    """The rank's own blocks (distance 0), or as many pairs with another's as all queries have with one block."""
    own = max(1, op.sequence // ranks)
    return op._replace(sequence=own) if not distance else op._replace(sequence=own, keys=max(1, own // 2), causal=False)


def _passed_on(site: Shared, row: float, ahead: int) -> list[Kernel]:
    """Tensors of the rank's tokens to the next rank, `row` bytes a token, beside so many kernels."""
    op = Send(site.tokens * row, site.groups.context_nodes > 1, False)
    return [Kernel("ring_send", op, COMMUNICATION, meets=CONTEXT, ahead=ahead)] if row else []


def _halved(site: Shared, op: Attention, distance: int) -> list[Kernel]:
    """What TransformerEngine copies before a step that is not the rank's own: half of the tokens."""
    if not distance:
        return []
    kv, q, out = sum(key_widths(op)), op.heads * op.qk, op.heads * op.v
    widths = {"kv": kv} if op.direction == "forward" else {"q": q, "out": out, "dout": out}
    return [Kernel(f"half_{name}", copy(max(1, site.tokens // 2), width)) for name, width in widths.items()]


def _joined(site: Shared, op: Attention, step: int, distance: int) -> list[Kernel]:
    """A step's result joins those before it, or begins their sum: outputs, scaled by their shares, and log-sum-exps; or
    gradients of queries (of late blocks alone, where those were cut out), and of keys and values."""
    what, read = "join" if step else "begin", 2 if step else 1

    def sums(name: str, width: int, tokens: int) -> Kernel:
        row = PLAIN_BF16.row_bytes(width)
        return Kernel(f"{what}_{name}", Memory("elementwise", tokens, read * row, row))

    if op.direction == "backward":
        late = max(1, site.tokens // 2) if distance else site.tokens
        return [sums("dq", op.heads * op.qk, late), sums("dkv", sum(key_widths(op)), site.tokens)]
    row = PLAIN_FP32.row_bytes(op.heads)
    lse = Kernel(f"{what}_lse", Memory("elementwise", site.tokens, read * row, row))
    return [lse, sums("output", op.heads * op.v, site.tokens)]


# --- all at once ------------------------------------------------------------------------------------------------------


def _gathered(site: Shared, ops: Sequence[Attention], run: Launched) -> list[Kernel]:
    """Keys and values of all ranks, put in order, for both blocks of queries; backward again, and their gradients."""
    ranks, backward = site.groups.context, ops[0].direction == "backward"
    rows = [PLAIN_BF16.row_bytes(width) for width in key_widths(ops[0])]
    tokens = site.tokens * ranks
    ordered = Kernel("order_kv", copy(tokens, sum(key_widths(ops[0]))))
    out = [_sent(site, "all_gather", f"gather_{name}", tokens * row) for name, row in zip("kv", rows, strict=True)]
    out += [ordered, *(kernel for op in ops for block in _blocks(op, ranks) for kernel in run(block))]
    if not backward:
        return out
    back = [_sent(site, "reduce_scatter", f"scatter_d{n}", tokens * row) for n, row in zip("kv", rows, strict=True)]
    return [*out, ordered._replace(name="order_dkv"), *back]


def _blocks(op: Attention, ranks: int) -> tuple[Attention, Attention]:
    """Queries of the first block and of the last: every rank has as many pairs as the one that has those two."""
    block = max(1, op.sequence // (2 * ranks))
    return op._replace(sequence=block), op._replace(sequence=block, keys=op.sequence)


def _to_all(site: Shared, ops: Sequence[Attention], run: Launched) -> list[Kernel]:
    """Queries, keys and values to the ranks of their heads, and outputs back; backward their gradients the other way.
    Tensors are put in order before they are sent and when they have come."""
    ranks, op = site.groups.context, ops[0]
    inputs = dict(zip("qkv", (op.heads * op.qk, *key_widths(op)), strict=True))
    there, back = inputs, {"out": op.heads * op.v}
    if op.direction == "backward":
        there, back = ({f"d{name}": width for name, width in way.items()} for way in (back, there))
    own = [each._replace(heads=each.heads // ranks, kv_heads=each.kv_heads // ranks) for each in ops]
    moved = [[kernel for item in way.items() for kernel in _swapped(site, *item)] for way in (there, back)]
    return [*moved[0], *(kernel for each in own for kernel in run(each)), *moved[1]]


def _swapped(site: Shared, name: str, width: int) -> list[Kernel]:
    order = Kernel(f"order_{name}", copy(site.tokens, width))
    size = site.tokens * PLAIN_BF16.row_bytes(width)
    return [order, _sent(site, "all_to_all", f"swap_{name}", size), order]
