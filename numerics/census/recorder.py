"""What the layers really run, as operations of the simulator's vocabulary, without a GPU and without memory.

Layers run on tensors of the "meta" device (shapes and types only). Every operation of numerics/ops.py goes to its
Triton wrapper with launches written down instead of made, so its outputs, hidden copies and number of kernels are real;
all other torch operations are seen where torch dispatches them. Bytes are those of the tensors in hand, never derived
from a model's dimensions. Left out, as in the simulator: tables a kernel reads beside its rows (norm weights and 1/rms,
rotation tables, log-sum-exp, row maps). Where layers ask whether a tensor is on a GPU, a meta tensor is not: weight
gradients of few tiles are then one product, and not split by tokens.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from hwmodels.formats import TILE
from hwmodels.op import Attention, Gemm, GroupedGemm, Memory, Op, small
from numerics import ops
from numerics.kernels.flash import takes
from numerics.kernels.launches import recorded
from numerics.reference.permute import Layout

NOTHING = {
    "empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "detach", "_unsafe_view", "alias",
    "_reshape_alias", "lift_fresh", "set_", "resize_",
}  # fmt: skip
"""Torch operations that launch no kernel, beside views."""
COPIES = {"clone", "_to_copy", "copy_", "cat", "stack", "index", "embedding"}
FILLS = {"zeros", "zeros_like", "ones_like", "full", "new_zeros", "new_full", "fill_", "zero_"}
FOLDED = {"_Choose.backward": "routing_backward"}
"""Functions whose many small torch operations are one operation of the vocabulary; its `kernels` counts them."""
TURNED = "turned"
"""Attribute of a weight's codes that were transposed for an input gradient."""


class Recorder(TorchDispatchMode):
    """Appends (part, op) to `seen`; `part` is set by whoever drives the layers, and "" while nothing counts."""

    def __init__(self, rows: Callable[[int, int, Tensor], Layout]) -> None:
        """rows: the layout to use for (experts, tile, indices), as indices without values have none."""
        super().__init__()
        self.part = ""
        self.seen: list[tuple[str, Op]] = []
        self.rows = rows

    def note(self, *entries: Op) -> None:
        if self.part:
            self.seen += [(self.part, op) for op in entries]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.removeprefix("aten::")
        out = func(*args, **(kwargs or {}))
        if not func.is_view and name not in NOTHING:
            entries = plain(name, _tensors((args, kwargs or {})), _tensors(out))
            if folder := _folder():
                self._fold(folder, entries[0])
                return out
            self.note(*entries)
            if entries[0][0] == "weight_transpose":
                setattr(out, TURNED, True)
        return out

    def _fold(self, kind: str, op: Memory) -> None:
        """Add to the last operation, or begin one: its kernels are counted, its traffic summed."""
        last = self.seen[-1][1] if self.seen else None
        if isinstance(last, Memory) and last.kind == kind:
            self.seen.pop()
        else:
            last = Memory(kind, 1, 0.0, 0.0, 0)
        self.note(Memory(kind, 1, last.read + op.rows * op.read, last.write + op.rows * op.write, last.kernels + 1))

    def operation(self, name: str) -> Callable[..., Any]:
        """Stands in for ops.<name>."""
        run = ops.kernel(name, getattr(ops, name).kernels)

        def call(*args: Any, **named: Any) -> Any:
            with recorded() as launches:
                out = self.layout(*args) if name == "layout" else run(*args, **named)
            self.note(*OPERATIONS[name](args, out, max(1, len(launches))))
            return out

        return call

    def layout(self, idx: Tensor, experts: int, tile: int = TILE) -> Layout:
        """The layout that stands in; making it is no work of the layers."""
        before = len(self.seen)
        out = self.rows(experts, tile, idx)
        del self.seen[before:]
        return out


@contextmanager
def recording(rows: Callable[[int, int, Tensor], Layout]) -> Iterator[Recorder]:
    """Inside the block, layers on meta tensors are recorded."""
    recorder = Recorder(rows)
    with ExitStack() as stack:
        for name in [name for name, value in vars(ops).items() if hasattr(value, "kernels")]:
            stack.enter_context(patch.object(ops, name, recorder.operation(name)))
        stack.enter_context(recorder)
        yield recorder


def _folder() -> str:
    """The kind that the running torch operation is a piece of, or ""."""
    frame = sys._getframe(2)
    while frame is not None:
        if frame.f_code.co_qualname in FOLDED and frame.f_globals["__name__"].startswith("numerics.layers."):
            return FOLDED[frame.f_code.co_qualname]
        frame = frame.f_back
    return ""


# --- torch's own operations -------------------------------------------------------------------------------------------


def plain(name: str, read: list[Tensor], written: list[Tensor]) -> tuple[Op, ...]:
    """A torch operation; one on vectors alone is `tiny`."""
    if name in ("mm", "bmm"):
        return (product(*read[:2]),)
    if name in FILLS:
        read = []
    if all(x.dim() < 2 for x in (*read, *written)):
        return (small("tiny"),)
    source, out = read[0] if read else written[0], written[0]
    if name == "clone" and source.dim() > 1 and source.stride(-1) != 1:  # a transposed view made contiguous
        kind = "weight_transpose" if source.element_size() == 1 else "scale_transpose"
        lines = source.numel() // source.shape[-2]
        return (memory(kind, lines, [source], [out]),)
    kind = "fill" if name in FILLS else "copy" if name in COPIES else "elementwise"
    if name == "copy_":  # its first argument is written
        read = read[1:]
    if name in ("embedding", "index"):  # of the table only the rows that are asked for
        return (Memory(kind, rows_of(out), size(out) / rows_of(out) * read[0].element_size() / out.element_size(),
                       size(out) / rows_of(out)),)  # fmt: skip
    return (memory(kind, rows_of(out), read, written),)


def product(a: Tensor, b: Tensor) -> Gemm:
    """A product of plain matrices. Its operands' order in memory tells its role: NT forward, NN input, TN weight."""
    role = "wgrad" if a.stride(-1) != 1 else "fprop" if b.stride(-1) != 1 else "dgrad"
    precision = {torch.bfloat16: "bf16", torch.float32: "fp32"}[a.dtype]
    return Gemm(a.shape[-2], b.shape[-1], a.shape[-1], role, precision)


def memory(kind: str, rows: int, read: list[Tensor], written: list[Tensor], kernels: int = 1) -> Memory:
    """Traffic of whole tensors, by row."""
    return Memory(kind, rows, sum(map(size, read)) / rows, sum(map(size, written)) / rows, kernels)


def size(x: Tensor) -> int:
    """Bytes; an expanded dimension (stride 0) is read once."""
    count = 1
    for length, stride in zip(x.shape, x.stride(), strict=True):
        count *= length if stride or length == 1 else 1
    return count * x.element_size()


def rows_of(x: Tensor) -> int:
    """Tokens of [B, S, H, d]; lines of anything else."""
    if x.dim() == 4:
        return x.shape[0] * x.shape[1]
    return max(1, x.numel() // x.shape[-1]) if x.dim() else 1


def _tensors(thing: Any) -> list[Tensor]:
    if isinstance(thing, Tensor):
        return [thing]
    if isinstance(thing, dict):
        thing = list(thing.values())
    return [x for part in thing for x in _tensors(part)] if isinstance(thing, tuple | list) else []


# --- operations of numerics/ops.py: (arguments, result, launches) -> ops ----------------------------------------------

Note = Callable[[tuple[Any, ...], Any, int], tuple[Op, ...]]


def rowwise(kind: str, read: tuple[int, ...], written: tuple[int, ...] | None = None) -> Note:
    """A memory-bound operation that reads the arguments and writes the results of these positions (None: all)."""

    def note(args: tuple[Any, ...], out: Any, launches: int) -> tuple[Op, ...]:
        outs = _tensors(out)
        given = [args[i] for i in read]
        if written is not None:
            outs = [outs[i] for i in written]
        return (memory(kind, rows_of(given[0]), given, outs, launches),)

    return note


def _gemm(args: tuple[Any, ...], out: Tensor, launches: int) -> tuple[Op, ...]:
    a, b = args[0], args[2]
    return (Gemm(a.shape[0], b.shape[0], a.shape[1], _role(b), "fp8", launches),)


def _wgrad(args: tuple[Any, ...], out: Tensor, launches: int) -> tuple[Op, ...]:
    a, b = args[0], args[2]
    return (Gemm(a.shape[0], b.shape[0], a.shape[1], "wgrad", "fp8", launches),)


def _grouped(args: tuple[Any, ...], out: Tensor, launches: int) -> tuple[Op, ...]:
    a, b = args[0], args[2]
    return (GroupedGemm(b.shape[0], a.shape[0], b.shape[1], a.shape[1], _role(b), "fp8", launches),)


def _grouped_wgrad(args: tuple[Any, ...], out: Tensor, launches: int) -> tuple[Op, ...]:
    a, b = args[0], args[2]  # FP32 that is only written has no word of its own; counted as the simulator's, added to
    return (GroupedGemm(out.shape[0], a.shape[1], a.shape[0], b.shape[0], "wgrad", "fp8", launches, "fp32"),)


def _role(weight: Tensor) -> str:
    return "dgrad" if getattr(weight, TURNED, False) else "fprop"


def _loss(args: tuple[Any, ...], out: Tensor, launches: int) -> tuple[Op, ...]:
    logits = args[0]  # their gradient takes their place
    return (memory("loss", logits.shape[0], [*args[:2]], [logits, out], launches),)


def _norm_backward(args: tuple[Any, ...], out: Any, launches: int) -> tuple[Op, ...]:
    first = memory("norm_backward", args[0].shape[0], _norm_backward_of(args), [out[0]])
    return (first, *[small("tiny")] * (launches - 1))  # sums of the weight's gradient


def _attention(args: tuple[Any, ...], out: Any, launches: int) -> tuple[Op, ...]:
    return (_heads("forward", args[0], args[2], launches),)


def _attention_backward(args: tuple[Any, ...], out: Any, launches: int) -> tuple[Op, ...]:
    do, q, k, v, o, lse, scale = args[:7]
    sums = lse  # row sums of dO * O have lse's shape
    if not takes(q, k, v, scale):
        return memory("attention_prepare", rows_of(q), [do, o], [sums]), _heads("backward", q, v, launches - 1)
    wide = torch.empty_like(q, dtype=torch.float32)  # dQ, cleared first and rounded last
    prepare = memory("attention_prepare", rows_of(q), [do, o], [sums, wide])
    return prepare, _heads("backward", q, v, launches - 2), memory("attention_finish", rows_of(q), [wide], [out[0]])


def _heads(direction: str, q: Tensor, v: Tensor, launches: int) -> Attention:
    batch, sequence, heads, width = q.shape
    return Attention(direction, batch, heads, sequence, width, v.shape[3], True, launches)


def _permute(args: tuple[Any, ...], out: Tensor, launches: int) -> tuple[Op, ...]:
    kind = "permute_scales" if args[0].dtype == torch.float32 else "permute"
    return (memory(kind, out.shape[0], [args[0]], [out], launches),)


def _quantize_weight(args: tuple[Any, ...], out: Any, launches: int) -> tuple[Op, ...]:
    (codes, scales), (turned, turned_scales) = out
    setattr(turned, TURNED, True)
    return (memory("cast_weight", rows_of(args[0]), [args[0]], [codes, scales, turned, turned_scales]),)


def _norm_cast(args: tuple[Any, ...], out: Any, launches: int) -> tuple[Op, ...]:
    casts, y, _ = out
    return (memory("norm_forward", args[0].shape[0], [args[0]], [*_tensors(casts), *_tensors((y,))]),)


def _norm_cast_of_sum(args: tuple[Any, ...], out: Any, launches: int) -> tuple[Op, ...]:
    total, casts, y, _ = out
    written = [total, *_tensors(casts), *_tensors((y,))]
    return (memory("norm_forward", args[0].shape[0], [*args[:2]], written),)


def _norm_backward_of(args: tuple[Any, ...]) -> list[Tensor]:
    return [*args[:2], *([args[4]] if len(args) > 4 else [])]


def _swiglu_backward_both(args: tuple[Any, ...], out: Any, launches: int) -> tuple[Op, ...]:
    dy, q, s = args[:3]
    (rows, row_scales), (turned, turned_scales), (act, act_scales), _ = out
    dx, y = torch.empty_like(q, dtype=dy.dtype), torch.empty_like(dy)
    first = memory("swiglu_backward", dy.shape[0], [dy, q, s], [rows, row_scales, dx, y])
    casts = [memory("cast_transpose", of.shape[0], [of], list(cast)) for of, cast in (
        (dx, (turned, turned_scales)), (y, (act, act_scales)))]  # fmt: skip
    return (first, *casts)


def _heads_split(args: tuple[Any, ...], out: Any, launches: int) -> tuple[Op, ...]:
    q, kv, shared, cos = args[:4]
    turned = q[..., q.shape[-1] - 2 * cos.shape[1] :]
    return (memory("rope", rows_of(q), [turned, kv, shared], [turned, *out[1:]]),)


def _heads_joined(args: tuple[Any, ...], out: Any, launches: int) -> tuple[Op, ...]:
    dq, dk, dv, cos = args[:4]
    turned = dq[..., dq.shape[-1] - 2 * cos.shape[1] :]
    return (memory("rope", rows_of(dq), [turned, dk, dv], [turned, *out[1:]], launches),)


def _layout(args: tuple[Any, ...], out: Layout, launches: int) -> tuple[Op, ...]:
    return (memory("expert_map", args[0].shape[0], [args[0]], [out.row_of_pair, out.expert_of_row]),)


OPERATIONS: dict[str, Note] = {
    "quantize_rows": rowwise("cast", (0,)),
    "quantize_columns": rowwise("cast_transpose", (0,)),
    "requantize_columns": rowwise("recast_transpose", (0, 1)),
    "quantize_blocks": rowwise("cast_weight", (0,)),
    "dequantize_rows": rowwise("dequantize", (0, 1)),
    "dequantize_blocks": rowwise("dequantize_weight", (0, 1)),
    "store_e5m6": rowwise("store_e5m6", (0,)),
    "load_e5m6": rowwise("dequantize_e5m6", (0, 1)),
    "gemm": _gemm,
    "wgrad_gemm": _wgrad,
    "grouped_gemm": _grouped,
    "masked_gemm": _grouped,
    "grouped_wgrad": _grouped_wgrad,
    "cross_entropy": _loss,
    "rmsnorm": rowwise("norm_forward", (0,), (0,)),
    "add_rmsnorm": rowwise("norm_forward", (0, 1), (0, 1)),
    "rmsnorm_quantize": _norm_cast,
    "add_rmsnorm_quantize": _norm_cast_of_sum,
    "rmsnorm_quantize_columns": rowwise("cast_transpose", (0,)),
    "quantize_weight": _quantize_weight,
    "swiglu_quantize_both": rowwise("swiglu", (0,)),
    "swiglu_backward_both": _swiglu_backward_both,
    "swiglu_forward_backward": rowwise("swiglu_backward", (0, 1)),
    "swiglu_backward_weighed": rowwise("swiglu_backward", (0, 1)),
    "split_heads": _heads_split,
    "split_heads_backward": _heads_joined,
    "rmsnorm_backward": _norm_backward,
    "swiglu": rowwise("swiglu", (0,)),
    "swiglu_quantize": rowwise("swiglu", (0,)),
    "swiglu_quantize_columns": rowwise("swiglu_transpose", (0,)),
    "swiglu_backward": rowwise("swiglu_backward", (0, 1)),
    "swiglu_backward_quantize": rowwise("swiglu_backward", (0, 1)),
    "gate_weight_gradient": rowwise("gate_weight_gradient", (0, 1)),
    "expert_count": rowwise("expert_count", (0,)),
    "layout": _layout,
    "permute": _permute,
    "unpermute": rowwise("unpermute", (0,)),
    "unpermute_backward": rowwise("unpermute_backward", (0, 1)),
    "gate": rowwise("routing_forward", (0,)),
    "rope": rowwise("rope", (0,)),
    "rope_backward": rowwise("rope", (0,)),
    "attention": _attention,
    "attention_backward": _attention_backward,
}
