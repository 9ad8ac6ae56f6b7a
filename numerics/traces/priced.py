"""What the kernels of anyone's trace do, as operations that hwmodels prices.

Sizes are those of the host operator around a kernel's launch (`record_shapes`), counted as stacks count them: operands
that are broadcast stay in cache, an index is not counted beside the rows that it picks. What a product is for is told
by how its operands lie: y = x w^T has the second transposed, dw = dy^T x the first, dx = dy w neither.
"""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from math import prod
from typing import Any, NamedTuple

from hwmodels.op import Attention, Gemm, GroupedGemm, Memory, Op
from numerics.traces.names import function
from numerics.traces.operations import Operation
from numerics.traces.samples import precision

WIDTHS = {
    "double": 8, "long int": 8, "float": 4, "int": 4, "c10::BFloat16": 2, "c10::Half": 2, "bool": 1, "signed char": 1,
    "unsigned char": 1, "c10::Float8_e4m3fn": 1, "c10::Float8_e5m2": 1,
}  # fmt: skip
"""How torch writes the type of a tensor -> bytes of an element."""
LISTED = 2
"""The same of tensors in a list, whose type torch does not write: as parameters and activations mostly have."""
TINY_US = 10.0
"""What takes less, and moves nothing that the trace tells, counts as next to nothing."""
CHUNK, BLOCKS = 65536, 320
"""Elements of a chunk of torch's multi-tensor kernels, and chunks of a launch at most (aten MultiTensorApply.cuh)."""
INDEX = 8
"""Bytes of an index: a key, or its place, in a sort."""


class Tensor(NamedTuple):
    """Sides, bytes of an element, strides (empty: unsaid)."""

    sides: tuple[int, ...]
    width: int
    strides: tuple[int, ...]

    @property
    def elements(self) -> int:
        return prod(self.sides)

    @property
    def bytes(self) -> float:
        return float(self.elements * self.width)

    @property
    def transposed(self) -> bool:
        """Whether its last two sides lie the other way round."""
        return len(self.strides) > 1 and self.strides[-1] != 1 and self.strides[-2] == 1


def tensors(op: Operation) -> list[Tensor]:
    """The operator's operands that are tensors, those of a list one by one; [] where the trace does not say."""
    dims, types, strides = (_listed(text) for text in (op.dims, op.types, op.strides))
    if len(strides) != len(dims):
        strides = [[]] * len(dims)
    out = []
    for sides, kind, steps in zip(dims, types, strides, strict=False):
        many = isinstance(sides, list) and any(isinstance(side, list) for side in sides)
        width = WIDTHS.get(str(kind), LISTED if many else 0)
        members = _members(sides, steps) if many else [(sides, steps)]
        out += [Tensor(tuple(each), width, tuple(by)) for each, by in members if _is_sides(each) and width]
    return out


def _members(sides: list[Any], steps: list[Any]) -> list[tuple[Any, Any]]:
    """Tensors of a list, with their strides."""
    return list(zip(sides, steps if len(steps) == len(sides) else [[]] * len(sides), strict=True))


def _listed(text: str) -> list[Any]:
    """A list as torch writes it, in Python's words."""
    try:
        value = json.loads(text.replace("'", '"').replace("None", "null"))
    except (ValueError, RecursionError):
        return []
    return value if isinstance(value, list) else []


def _is_sides(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(type(side) is int and side > 0 for side in value)


def priced(op: Operation) -> Op | None:
    """What an operation of a trace is to hwmodels; None where the trace or this file does not tell."""
    given = tensors(op)
    for kinds, how in CLASSES.items():
        if op.kind in kinds and (what := how(op, given)):
            return what
    for pattern, kernel in KERNELS:
        if pattern.search(_name(op)):
            return kernel(op, given) if given or kernel is _updated else _least(op)
    return _least(op)


def _name(op: Operation) -> str:
    """A kernel's own name with what its template names, behind the operator's."""
    named = function(op.kernel)
    return f"{op.operator.removeprefix('aten::')} {named.own} {named.inside}"


def _least(op: Operation) -> Op | None:
    """What does next to nothing."""
    if op.kernel.startswith("Memset"):
        return Memory("memset", 1, 0.0, 0.0)
    heavy = op.median_us >= TINY_US or op.kind.startswith(("gemm", "attn", "comm"))
    return None if heavy else Memory("tiny", 1, 0.0, 0.0)


# --- products and attention -------------------------------------------------------------------------------------------


def _product(op: Operation, given: Sequence[Tensor]) -> Op | None:
    """One product, of two matrices, or of a batch of them and a matrix."""
    if len(given) < 2 or not op.shapes or not all(op.shapes[0]):
        return None
    m, n, k = (round(side) for side in op.shapes[0])
    role = "wgrad" if given[0].transposed else "fprop" if given[1].transposed or not given[1].strides else "dgrad"
    form = precision(op)
    if form not in ("bf16", "fp8"):
        return None
    return Gemm(m, n, k, role, form, result="bf16") if role == "wgrad" else Gemm(m, n, k, role, form)


def _grouped(op: Operation, given: Sequence[Tensor]) -> Op | None:
    """Rows by groups of weights; or gradients of these from rows."""
    if "grouped_mm" not in op.operator or len(given) < 3:
        return None
    a, b, ends = given[:3]
    if len(a.sides) == len(b.sides) == 2 and a.sides[1] == b.sides[0]:
        return GroupedGemm(ends.elements, a.sides[1], a.sides[0], b.sides[1], "wgrad", "bf16")
    if len(a.sides) != 2 or len(b.sides) != 3:
        return None
    role = "dgrad" if "Grouped" in op.node else "fprop"  # how weights lie is the model's choice
    return GroupedGemm(b.sides[0], a.sides[0], b.sides[2], a.sides[1], role, "bf16")


HEADS_FIRST = re.compile("cudnn_attention|_scaled_dot_product")
"""Operators whose operands are [batch, heads, sequence, width]; of others, [batch, sequence, heads, width]."""


def _attended(op: Operation, given: Sequence[Tensor]) -> tuple[Attention, bool] | None:
    """The attention that an operator does, and whether forward."""
    forward = "backward" not in op.operator and "bwd" not in op.operator
    q, k, v = given[:3] if forward else given[1:4] if len(given) > 4 else (None, None, None)
    if q is None or k is None or v is None or not all(len(each.sides) == 4 for each in (q, k, v)):
        return None
    heads, length = (1, 2) if HEADS_FIRST.search(op.operator) else (2, 1)
    own, shared, keys = q.sides[heads], k.sides[heads], k.sides[length]
    return Attention(
        "forward" if forward else "backward", q.sides[0], own, q.sides[length], q.sides[3], v.sides[3], _causal(op), 1,
        0 if shared == own else shared, 0, 0 if keys == q.sides[length] else keys,
    ), forward  # fmt: skip


def _causal(op: Operation) -> bool:
    """By the first flag behind dropout's rate that the trace gives; as language models are, where it gives none."""
    said = [str(each) for each in _listed(op.given)]
    rates = [i for i, each in enumerate(said) if re.fullmatch(r"0?\.\d*|0\.", each)]
    flags = [each for each in said[rates[0] :] if each in ("True", "False")] if rates else []
    return not flags or flags[0] == "True"


def _attention(op: Operation, given: Sequence[Tensor]) -> Op | None:
    """Attention itself, or a kernel around its backward."""
    attended = _attended(op, given) if given else None
    if attended is None:
        return None
    whole, forward = attended
    tokens, keys = whole.batch * whole.sequence, whole.batch * (whole.keys or whole.sequence)
    out, q, shared = 2.0 * whole.heads * whole.v, 2.0 * whole.heads * whole.qk, whole.kv_heads or whole.heads
    around = {
        r"dot_do_o|bwd_dot|backward_preprocess": Memory("attention_prepare", tokens, 2 * out, 4.0 * whole.heads),
        r"convert_dq|bwd_convert|postprocess": Memory("attention_finish", tokens, 2 * q, q),
        r"reduce_head": Memory("attention_reduce", keys, q, 2.0 * shared * whole.qk),
    }
    name = function(op.kernel).own
    return next((part for words, part in around.items() if not forward and re.search(words, name)), whole)


CLASSES: dict[tuple[str, ...], Callable[[Operation, Sequence[Tensor]], Op | None]] = {
    ("gemm", "gemm_bf16", "gemm_fp8"): _product, ("gemm_grouped",): _grouped, ("attn_fwd", "attn_bwd"): _attention,
}  # fmt: skip
"""Classes of a trace's kernels that are more than bytes, and what they are."""


# --- memory-bound -----------------------------------------------------------------------------------------------------

Bytes = Callable[[Operation, Sequence[Tensor]], Op | None]


def streams(kind: str, reads: int | None = None, writes: int = 1) -> Bytes:
    """A kernel that goes through its largest operands: all that are as large, or so many of them (`reads`)."""

    def of(op: Operation, given: Sequence[Tensor]) -> Op:
        rows, _ = _rows(given[0])
        most = max(each.elements for each in given)
        whole = [each for each in given if each.elements == most]
        read = sum(each.width for each in (whole if reads is None else whole[:reads])) * most
        return Memory(kind, rows, read / rows, writes * most * given[0].width / rows)

    return of


def _rows(tensor: Tensor) -> tuple[int, int]:
    """Rows and their width."""
    return max(1, tensor.elements // tensor.sides[-1]), tensor.sides[-1]


def written(kind: str) -> Bytes:
    """A kernel that writes its first operand."""
    return lambda op, given: Memory(kind, _rows(given[0])[0], 0.0, given[0].bytes / _rows(given[0])[0])


def read(kind: str) -> Bytes:
    """A kernel that reads its first operand and writes next to nothing."""
    return lambda op, given: Memory(kind, _rows(given[0])[0], given[0].bytes / _rows(given[0])[0], 0.0)


def _copied(op: Operation, given: Sequence[Tensor]) -> Op | None:
    """[target, source]: to another format, to another order, or as it is."""
    if len(given) < 2:
        return None
    rows, width = _rows(given[0])
    target, source = given[:2]
    kind = "convert" if target.width != source.width else "copy" if "vectorized" not in op.kernel else "elementwise"
    kind = "elementwise" if op.kernel.startswith("Memcpy") else kind
    return Memory(kind, rows, float(width * source.width), float(width * target.width))


def _joined(op: Operation, given: Sequence[Tensor]) -> Op:
    """Tensors of a list side by side."""
    rows, _ = _rows(given[0])
    whole = sum(each.bytes for each in given) / rows
    return Memory("join" if "vectorized" in op.kernel else "concatenate", rows, whole, whole)


def _added(op: Operation, given: Sequence[Tensor]) -> Op | None:
    """[sum, what is added]: FP32 that takes BF16 in, or the same format."""
    wide = len(given) > 1 and given[0].width == 4 and given[1].width == 2
    return streams("accumulate" if wide else "elementwise" if "vectorized" in op.kernel else "strided")(op, given)


def _gathered(op: Operation, given: Sequence[Tensor]) -> Op | None:
    """Rows that an index picks: the last operand of `gather` is as large as what comes out; of `index`, grids tell."""
    wide = [each for each in given if len(each.sides) > 1]
    if not wide:
        return None
    out, width = wide[-1], wide[-1].sides[-1] * wide[0].width
    rows = _rows(out)[0] if len(wide) > 1 else _blocks(op, wide[0])
    return Memory("gather", rows, float(width), float(width)) if rows else None


def _blocks(op: Operation, table: Tensor) -> int:
    """Rows of a look-up with a block or more a row, as `vectorized_gather_kernel` has them."""
    return op.grids[0][0] if "vectorized_gather" in op.kernel and op.grids[0][0] else 0


def _scattered(op: Operation, given: Sequence[Tensor]) -> Op | None:
    """Rows added to a table by an index: the largest operand."""
    rows = max((each for each in given if len(each.sides) > 1), key=lambda each: each.elements, default=None)
    if rows is None:
        return None
    count, width = _rows(rows)
    twice = 2 if "index_add" in op.operator else 1
    return Memory("scatter", count, float(twice * width * rows.width), float(width * rows.width))


def _sorted(op: Operation, given: Sequence[Tensor]) -> Op:
    """A pass over keys and their places, or a count of them."""
    count = max((each.elements for each in given if each.width == INDEX), default=given[0].elements)
    return Memory("sort", count, 2.0 * INDEX, 2.0 * INDEX * ("Histogram" not in op.kernel))


def _chosen(op: Operation, given: Sequence[Tensor]) -> Op:
    """The most of each row: a value and a place of each are written."""
    rows, width = _rows(given[0])
    said = [str(each) for each in _listed(op.given)]
    chosen = int(said[1]) if len(said) > 1 and said[1].isdecimal() else 1
    return Memory("topk", rows, float(width * given[0].width), (given[0].width + INDEX) * float(chosen))


def _lost(op: Operation, given: Sequence[Tensor]) -> Op:
    """The loss: of each row one value, at a place."""
    rows = max(_rows(each)[0] for each in given)
    return Memory("nll_backward" if "backward" in op.operator else "nll", rows, 12.0, 0.0)


def _updated(op: Operation, given: Sequence[Tensor]) -> Op | None:
    """A launch of the fused optimizer that is full: as many chunks as a launch has. Its states are as wide as the
    parameters, whose format its name says."""
    if "Fused" not in op.kernel or op.grids[0][0] < BLOCKS:
        return None
    width = 2 if re.search("BFloat16|Half", op.kernel) else 4
    return Memory("adam", BLOCKS * CHUNK, 4.0 * width, 3.0 * width)


def _fused(op: Operation, given: Sequence[Tensor]) -> Op:
    """What torch.compile wrote: its pointers are the operands, what is written last. Of a table only rows are read."""
    looked_up = "embedding" in op.kernel and "backward" not in op.kernel
    table = max(given, key=lambda each: each.elements) if looked_up else None
    given = [each for each in given if each is not table] or given
    rows, _ = _rows(max(given, key=lambda each: each.elements))
    out = given[-1].bytes
    return Memory("fused", rows, (sum(each.bytes for each in given) - out) / rows, out / rows)


def _summed(op: Operation, given: Sequence[Tensor]) -> Op | None:
    """Parts of a product added up: two of FP32, as cuBLAS splits depth (see `sim.models.stacks.torch.kernels`)."""
    if not op.shapes and len(given) < 2:
        return None
    m, n = given[0].sides[0], given[1].sides[-1]
    return Memory("reduce", m, 8.0 * n, 2.0 * n)


def _least_of(op: Operation, given: Sequence[Tensor]) -> Op | None:
    return _least(op)


def _patterns(*rules: tuple[str, Bytes]) -> Iterator[tuple[re.Pattern[str], Bytes]]:
    for pattern, kernel in rules:
        yield re.compile(pattern), kernel


KERNELS = tuple(_patterns(
    ("^triton_", _fused),
    ("splitKreduce", _summed),
    ("prepare_grouped_gemm", _least_of),
    ("Memset", _least_of),
    ("CatArray", _joined),
    (r"^(native_)?layer_norm.* GammaBeta", streams("layer_norm_weight_gradient", 2, 0)),
    ("GammaBeta", streams("norm_weight_gradient", 2, 0)),
    (r"^native_layer_norm_backward .*layer_norm_grad", streams("layer_norm_backward", 2)),
    ("layer_norm_grad", streams("norm_backward", 2)),
    (r"^native_layer_norm .*layer_norm", streams("layer_norm_forward", 1)),
    ("layer_norm_kernel|RowwiseMoments", streams("norm_forward", 1)),
    ("nll_loss", _lost),
    ("SoftMax(Forward|With)|softmax_warp_forward|softMaxForward", streams("softmax", 1)),
    ("SoftMaxBackward|softmax_warp_backward", streams("softmax_backward", 2)),
    ("FusedOptimizer|FusedAdam", _updated),
    ("multi_tensor_apply", _least_of),
    ("gatherTopK", _chosen),
    ("radix_sort|RadixSort|kernelHistogram", _sorted),
    ("compute_grad_weight|indexFunc|embedding_backward_feature|indexing_backward_kernel", _scattered),
    ("sum_and_scatter", _scattered),
    ("vectorized_gather|index_elementwise|indexSelect", _gathered),
    ("FillFunctor|^zero_|^fill_", written("fill")),
    ("^silu_backward ", streams("silu_backward")),
    ("^silu ", streams("silu")),
    ("^gelu_backward ", streams("gelu_backward")),
    ("^gelu ", streams("gelu")),
    ("copy_kernel|direct_copy|Memcpy D|^copy_ ", _copied),
    ("reduce_kernel", read("reduce")),
    ("^add_? ", _added),
    ("vectorized_elementwise", streams("elementwise")),
    ("elementwise_kernel", streams("strided")),
))  # fmt: skip
"""Pattern in "operator kernel arguments" -> what it is; the first that fits. Kinds are those that stacks lower to."""
