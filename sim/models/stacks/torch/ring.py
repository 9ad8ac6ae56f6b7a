"""Attention of ranks that share the tokens of each sequence, as torch's `context_parallel` does it.

(torch 2.6, torch/distributed/tensor/experimental/_attention.py, `_templated_ring_attention` and `_backward`, with
`enable_load_balance` and `convert_to_f32`, as they are unless said.) Blocks lie as TransformerEngine's do
(`sim.models.stacks.context`), a step for each rank: its own tokens causal, then all queries with an early block of
others, or late queries with both; that which takes longer is counted, for ranks wait. Outputs are merged in FP32 by
log-sum-exps. `set_rotate_method`: allgather fetches keys and values of all ranks at once, alltoall those of one rank a
step. Backward fetches them again, and gradients of keys and values go round in FP32 after each step and once more home.
Keys and values that modules copied for each query head (`stack.repeated`) are sent so.

What is fetched comes beside the step before it. Traced by torch.compile there is a wait right behind each collective
(torch/distributed/_functional_collectives.py, `_maybe_wrap_tensor`) and nothing moves it (torch/_inductor/config.py,
`reorder_for_compute_comm_overlap` False; code that Inductor made of it is in torchtitan pull request 3305), so compiled
rings hide nothing. Joins, conversions and sums of a step are one kernel then.
"""

from collections.abc import Sequence

from hwmodels.formats import PLAIN_BF16, PLAIN_FP32
from hwmodels.op import Attention, Collective, Memory, Send
from hwmodels.refused import Refused
from sim.models.layer import COMMUNICATION, Kernel
from sim.models.stacks import context, cudnn, unfused
from sim.models.stacks.cudnn import Shared
from sim.models.stacks.sharing import CONTEXT

NARROW, WIDE = int(PLAIN_BF16.row_bytes(1)), int(PLAIN_FP32.row_bytes(1))
"""Bytes of an element in BF16 and in FP32."""


def attention(site: Shared, ops: Sequence[Attention]) -> list[Kernel]:
    """Kernels of attention over whole sequences, forward or backward as the operations say. Raises Refused."""
    groups = site.groups
    if groups.context == 1 or groups.context_kind == "all_to_all":
        return context.attention(site, ops)
    if any(op.window for op in ops) or len(ops) > 1:
        raise Refused("torch's context_parallel knows no windows and chunks of attention; legal: all_to_all")
    op = ops[0]._replace(kv_heads=0) if site.stack.repeated else ops[0]
    if op.direction == "forward":
        return _forward(site, op)
    return [*_backward(site, op), *(cudnn.summed_heads(ops[0]) if site.stack.repeated else [])]


def _steps(site: Shared, op: Attention) -> list[list[Kernel]]:
    """Attention of each step."""
    by, ranks = cudnn if site.stack.fuses_attention else unfused, site.groups.context
    run = by.attend if op.direction == "forward" else by.attend_backward
    return [run(context.of_step(op, ranks, distance)) for distance in range(ranks)]


def _pass(site: Shared, name: str, width: int, read: int, write: int) -> Kernel:
    """A kernel over [tokens, width], so many bytes an element in and out."""
    kind = "fused" if site.stack.compiled else "elementwise"
    return Kernel(name, Memory(kind, site.tokens, read * width, write * width))


def _packed(site: Shared, op: Attention) -> list[Kernel]:
    """Keys and values in one tensor; eager they are made contiguous first."""
    width = sum(context.key_widths(op))
    return [_pass(site, "pack_kv", width, NARROW, NARROW)] * (1 if site.stack.compiled else 2)


def _fetched(site: Shared, op: Attention, step: int, ahead: int) -> list[Kernel]:
    """Keys and values of others, asked for in a step, beside so many kernels."""
    groups, row = site.groups, NARROW * sum(context.key_widths(op))
    ahead = 0 if site.stack.compiled else ahead
    if step == groups.context - 1 or (step and groups.context_kind == "all_gather"):
        return []
    if groups.context_kind == "all_gather":
        size = site.tokens * groups.context * row
        gather = Collective("all_gather", size, groups.context, groups.context_nodes)
        return [Kernel("gather_kv", gather, COMMUNICATION, meets=CONTEXT, ahead=ahead)]
    return [_sent(site, row, ahead)]


def _sent(site: Shared, row: int, ahead: int) -> Kernel:
    """Tensors of the rank's tokens to the next rank, `row` bytes a token."""
    op = Send(site.tokens * row, site.groups.context_nodes > 1, False)
    return Kernel("ring_send", op, COMMUNICATION, meets=CONTEXT, ahead=ahead)


def _forward(site: Shared, op: Attention) -> list[Kernel]:
    out = _packed(site, op)
    for step, attended in enumerate(_steps(site, op)):
        kernels = [*attended, *_joined(site, op, step)]
        if step and not site.stack.compiled and step < site.groups.context - 1:  # also where all have been fetched
            out += _packed(site, op)[1:]
        out += [*_fetched(site, op, step, len(kernels)), *kernels]
    return out


def _joined(site: Shared, op: Attention, step: int) -> list[Kernel]:
    """A step's output and log-sum-exps join those before it: out - sigmoid(l' - l) (out - out')."""
    width, first, last = op.heads * op.v, not step, step == site.groups.context - 1
    if site.stack.compiled:
        if first:
            return []
        before, behind = NARROW if step == 1 else WIDE, NARROW if last else WIDE
        return [
            _pass(site, "join_output", width, before + NARROW, behind),
            _pass(site, "join_lse", op.heads, 2 * WIDE, WIDE),
        ]
    converted = Kernel("convert_output", Memory("convert", site.tokens, NARROW * width, WIDE * width))
    back = Kernel("convert_output", Memory("convert", site.tokens, WIDE * width, NARROW * width))
    return [converted, *([] if first else _single_join(site, op)), *([back] if last else [])]


def _single_join(site: Shared, op: Attention) -> list[Kernel]:
    """The same in single operations: the share, a difference, both multiplied (a share a head), and what is left."""
    share = [_pass(site, "join_lse", op.heads, WIDE * reads, WIDE) for reads in (2, 1, 2, 1, 2)]
    difference = _pass(site, "join_output", op.heads * op.v, 2 * WIDE, WIDE)
    width = WIDE * op.heads * op.v
    shared = Kernel("join_output", Memory("strided", site.tokens, width, width))
    return [*share, difference, shared, difference]


def _backward(site: Shared, op: Attention) -> list[Kernel]:
    """Each step's attention, its gradients of keys and values to those that came, on to the next rank, its gradients of
    queries to those before."""
    ranks, eager, steps = site.groups.context, not site.stack.compiled, _steps(site, op)
    width = sum(context.key_widths(op))
    out = [*([_pass(site, "zero_dqkv", op.heads * op.qk + width, 0, WIDE)] if eager else []), *_packed(site, op)]
    for step, attended in enumerate(steps):
        keys, queries = _keys(site, op, step), _queries(site, op, step)
        again = _packed(site, op)[1:] if eager and 0 < step < ranks - 1 else []
        asked = _fetched(site, op, step, len([*attended, *keys, *queries]) + 1)
        beside = list(queries)
        if step < ranks - 1:
            packed = _packed(site, op)[1:] if step < ranks - 2 else []
            beside += [*packed, *_fetched(site, op, step + 1, 0), *steps[step + 1]]
        sent = _sent(site, WIDE * width, len(beside) if eager else 0)
        out += [*again, *asked, *attended, *keys, sent, *queries]
    return [*out, _pass(site, "convert_dkv", width, WIDE, NARROW)]


def _keys(site: Shared, op: Attention, step: int) -> list[Kernel]:
    """Gradients of keys and values to those of the ranks before, in one tensor."""
    width, came = sum(context.key_widths(op)), WIDE if step or not site.stack.compiled else 0
    added = _pass(site, "join_dkv", width, came + NARROW, WIDE)
    return [added] if site.stack.compiled else [added, _pass(site, "pack_dkv", width, WIDE, WIDE)]


def _queries(site: Shared, op: Attention, step: int) -> list[Kernel]:
    """Gradients of queries to those of the steps before; in BF16 at last."""
    width, last = op.heads * op.qk, step == site.groups.context - 1
    if site.stack.compiled:
        before, behind = NARROW if step == 1 else WIDE, NARROW if last else WIDE
        return [_pass(site, "join_dq", width, before + NARROW, behind)] if step else []
    added = _pass(site, "join_dq", width, WIDE + NARROW, WIDE)
    back = Kernel("convert_dq", Memory("convert", site.tokens, WIDE * width, NARROW * width))
    return [added, *([back] if last else [])]
