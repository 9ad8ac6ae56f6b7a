"""Operations behind the census's differences: for one part of one unit, exactly what either side alone has.

Each function serves an entry of the table in census.py, where its reason stands. Sizes come from a model's
dimensions and the products found, so a difference that grows, shrinks or goes is noticed.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from hwmodels.formats import E4M3_ROWS, TILE
from hwmodels.op import (
    Attention,
    Gemm,
    GroupedGemm,
    Memory,
    Op,
    cast,
    cast_transpose,
    copy,
    elementwise,
    norm,
    small,
    transpose_scales,
)  # fmt: skip
from numerics.kernels.flash import WIDTHS
from numerics.reference.permute import PAIRS
from sim.models.layer import Site

WIDE, NARROW = 4, 2
"""Bytes of FP32 and of BF16."""
TINY = small("tiny")
Both = tuple[Sequence[Op], Sequence[Op]]
"""The simulator's, the layers'."""


class Here(NamedTuple):
    """One part of one unit at a site. ops: operations of the layers in it, and how often each."""

    site: Site
    unit: str
    part: str
    ops: Counter[Op]

    def products(self, *roles: str) -> list[Gemm]:
        """FP8 products of one matrix."""
        products = (op for op in self.ops.elements() if isinstance(op, Gemm) and op.precision == "fp8")
        return [op for op in products if op.role in roles]

    def grouped(self, *roles: str) -> list[GroupedGemm]:
        return [op for op in self.ops.elements() if isinstance(op, GroupedGemm) and op.role in roles]

    def expert_gradients(self) -> list[tuple[int, int]]:
        """[n, k] of the weights of one expert, down and gate-up."""
        s = self.site.shape
        return [(s.hidden, s.expert_intermediate), (2 * s.expert_intermediate, s.hidden)]

    @property
    def heads(self) -> tuple[int, int, int, int]:
        """Elements of a token in all heads: queries, their rotary part, the rest, values."""
        s = self.site.shape
        return s.heads * (s.qk_nope + s.qk_rope), s.heads * s.qk_rope, s.heads * s.qk_nope, s.heads * s.v_head


@dataclass(frozen=True)
class Difference:
    """where: patterns of "unit part". view: "simulator" or "layers", whoever is right; "both": a choice of kernels.

    operations: (simulator's, layers').
    """

    reason: str
    view: str
    where: tuple[str, ...]
    operations: Callable[[Here], Both]


def of(kind: str, rows: int, read: float, write: float) -> Memory:
    """A memory-bound operation by its whole traffic in bytes."""
    return Memory(kind, rows, read / rows, write / rows)


def tiles(length: int) -> int:
    return -(-length // TILE)


def codes(width: int) -> float:
    """Bytes of a row in E4M3 with a whole scale for a last tile that is not full."""
    return width + WIDE * tiles(width)


# --- every linear layer -----------------------------------------------------------------------------------------------


def transposed_scales(here: Here) -> Both:
    plain = [(p.m, p.k) for p in here.products("fprop", "dgrad")]
    return [transpose_scales(*size) for size in plain + [(g.rows, g.k) for g in here.grouped("fprop", "dgrad")]], []


def forward(here: Here) -> bool:
    return here.part.endswith("(F)")


def cast_weight(here: Here) -> Both:
    """A weight's codes as it lies and turned, with both ways' scales, where the forward product reads it."""
    if not forward(here):
        return [], []
    weights = [(1, p.n, p.k) for p in here.products("fprop")] + [(g.groups, g.n, g.k) for g in here.grouped("fprop")]
    out: list[Op] = []
    for experts, n, k in weights:
        written = 2 * (n * k + WIDE * tiles(n) * tiles(k))
        out += [of("cast_weight", experts * n, experts * WIDE * n * k, experts * written)]
    return [], out


def turned_weights(here: Here) -> Both:
    """Each weight's transpose for its input gradient, which the layers' cast has written."""
    return [of("weight_transpose", p.k, p.k * p.n, p.k * p.n) for p in here.products("dgrad")], []


def accumulate(rows: int, elements: int) -> Memory:
    """autograd's addition to a gradient."""
    return of("elementwise", rows, 2 * WIDE * elements, WIDE * elements)


def gradients(here: Here) -> Both:
    out: list[Op] = []
    for p in here.products("wgrad"):
        out += [of("fill", p.m, 0, WIDE * p.m * p.n), accumulate(p.m, p.m * p.n)]
    return [], out


# --- attention --------------------------------------------------------------------------------------------------------


def fused_norm(rows: int, width: int, read: int = 1, kept: int = 0, casts: int = 1) -> Memory:
    """A norm that casts its output: `read` tensors in, `kept` tensors out, and codes."""
    return Memory("norm_forward", rows, NARROW * read * width, NARROW * kept * width + casts * codes(width))


def norms(here: Here) -> Both:
    """Both of a layer, and the casts of their outputs: of the first for each user, of the second for dispatch."""
    t, h = here.site.tokens, here.site.shape.hidden
    kept, casts = (2, 2) if here.unit == "moe" else (1, 1)
    users = 2 if here.site.shape.q_rank else 1
    simulator = [*[norm(t, h, 2, 2)] * 2, *[cast(t, h)] * (users + 1)]
    stand_ins = [TINY] * (3 - kept)  # for an output that nothing reads
    return simulator, [fused_norm(t, h), fused_norm(t, h, 2, kept, casts), *stand_ins]


def latent_norms(here: Here) -> Both:
    """Forward, and again in backward. A latent's columns are copied out for its norm in the simulator."""
    t, s = here.site.tokens, here.site.shape
    widths = [s.q_rank, s.kv_rank] if s.q_rank else [s.kv_rank]
    simulator = [op for w in widths for op in (norm(t, w), cast(t, w))]
    return [*simulator, copy(t, s.kv_rank)], [fused_norm(t, w) for w in widths]


def gradient_sums(here: Here) -> Both:
    """Backward: both norms with all that meets there, against the residual alone and other additions of torch's."""
    t, h = here.site.tokens, here.site.shape.hidden
    simulator = [norm(t, h, reads, 1, "backward") for reads in (5, 3)]
    return simulator, [norm(t, h, 3, 1, "backward")] * 2


def norm_again(here: Here) -> Both:
    t, h = here.site.tokens, here.site.shape.hidden
    users = 2 if here.site.shape.q_rank else 1
    return [norm(t, h, 2, 2), *[cast_transpose(t, h)] * (users - 1)], [norm(t, h)] * (here.unit == "moe")


def queries_without_latent(here: Here) -> Both:
    if here.site.shape.q_rank:
        return [], []
    t, h = here.site.tokens, here.site.shape.hidden
    return [cast(t, h)], [fused_norm(t, h)] if forward(here) else [
        fused_norm(t, h), norm(t, h, 2, 1, "backward"), *[TINY] * 3]  # fmt: skip


def assemble(here: Here) -> Both:
    t, s = here.site.tokens, here.site.shape
    q, rotary, nope, v = here.heads
    key = NARROW * s.qk_rope
    turns = [Memory("rope", t, NARROW * width, NARROW * width) for width in (rotary, s.qk_rope)]
    simulator = [copy(t, rotary, reads=0), copy(t, nope), *turns]
    return simulator, [Memory("rope", t, NARROW * (rotary + nope + v) + key, NARROW * (rotary + q + v))]


def disassemble(here: Here) -> Both:
    t, s = here.site.tokens, here.site.shape
    q, rotary, nope, v = here.heads
    key = NARROW * s.qk_rope
    turns = [Memory("rope", t, NARROW * width, NARROW * width) for width in (rotary, s.qk_rope)]
    simulator = [Memory("elementwise", t, NARROW * rotary, key), copy(t, nope), copy(t, v), *turns]
    joined = Memory("rope", t, NARROW * (rotary + q + v), NARROW * (rotary + nope + v) + key, 2)
    return simulator, [joined, copy(t, s.kv_rank + s.qk_rope)]


def on_hopper(here: Here) -> bool:
    """Whether attention has a form for Hopper with heads of these widths."""
    s = here.site.shape
    return (s.qk_nope + s.qk_rope, s.v_head) in WIDTHS


def attention_backward(here: Here) -> Both:
    if not on_hopper(here):
        return [], []
    q, _, _, v = here.heads
    prepared = Memory("attention_prepare", here.site.tokens, 2 * NARROW * v, WIDE * q)
    return [prepared], [prepared._replace(write=WIDE * (q + here.site.shape.heads)), TINY]


def attention_backward_twins(here: Here) -> Both:
    if on_hopper(here):
        return [], []
    t, s = here.site.tokens, here.site.shape
    q, _, _, v = here.heads
    op = Attention("backward", here.site.sequences, s.heads, here.site.length, s.qk_nope + s.qk_rope, s.v_head)
    prepared = Memory("attention_prepare", t, 2 * NARROW * v, 2 * NARROW * q)
    finished = Memory("attention_finish", t, 2 * NARROW * q, NARROW * q)
    return [op, prepared, finished], [op._replace(kernels=2), prepared._replace(write=WIDE * s.heads)]


def latents(here: Here) -> Both:
    t, s = here.site.tokens, here.site.shape
    widths = (s.q_rank or s.hidden, s.kv_rank)
    return [cast_transpose(t, w) for w in widths], [cast_transpose(t, w, E4M3_ROWS) for w in widths]


def ragged_latent(here: Here) -> Both:
    t, s = here.site.tokens, here.site.shape
    width = s.kv_rank + s.qk_rope
    if not width % TILE:
        return [], []
    return [cast(t, width)], [cast(t, width)._replace(write=codes(width))]


def gate_forward(here: Here) -> Both:
    t, s = here.site.tokens, here.site.shape
    e, k = s.experts, s.experts_per_token
    simulator = [Gemm(t, e, s.hidden, "fprop", "bf16"), small("routing_forward", t, WIDE * e, 37)]
    own = [Gemm(t, e, s.hidden, "fprop", "fp32"), Memory("routing_forward", t, WIDE * e, 2 * WIDE * k)]
    # load of the experts: counts, of each block of pairs too; a fill for them, and their addition
    counted = of("expert_count", t, WIDE * k * t, WIDE * e * (1 + -(-k * t // PAIRS)))
    return simulator, [*own, Memory("copy", t, NARROW * s.hidden, WIDE * s.hidden), counted, TINY, TINY]


def gate_backward(here: Here) -> Both:
    t, s = here.site.tokens, here.site.shape
    e, k, h = s.experts, s.experts_per_token, s.hidden
    shapes = ((t, h, e, "dgrad"), (e, h, t, "wgrad"))
    simulator = [*(Gemm(*shape, "bf16") for shape in shapes), small("routing_backward", t, WIDE * e, 26)]
    # bytes a token: tensors of E, of k and of one element that numerics/layers/gate.py reads and writes, in FP32
    read, write, kernels = (12 * e + 72 * k + 20, 12 * e + 40 * k + 16, 16)
    if s.score == "softmax":
        read, write, kernels = (24 * e + 40 * k + 4, 20 * e + 20 * k + 4, 10)
    own = [*(Gemm(*shape, "fp32") for shape in shapes), Memory("routing_backward", 1, t * read, t * write, kernels)]
    casts = [Memory("copy", t, NARROW * h, WIDE * h), Memory("copy", t, WIDE * h, NARROW * h)]
    # autograd makes up a gradient of the indices
    return simulator, [*own, *casts, accumulate(e, e * h), of("fill", t, 0, WIDE * k * t)]


def tiny(simulator: int, layers: int) -> Callable[[Here], Both]:
    return lambda here: ([TINY] * simulator, [TINY] * layers)


def tiny_of_norms(here: Here) -> Both:
    """A fill a norm; the simulator's five are torch's."""
    return [TINY] * 5, [TINY] * (4 if here.site.shape.q_rank else 3)


def simulator_only(*ops: Callable[[Here], Op]) -> Callable[[Here], Both]:
    return lambda here: ([op(here) for op in ops], [])


def rotary_key(here: Here) -> Op:
    return copy(here.site.tokens, here.site.shape.qk_rope)


def residual_scale(here: Here) -> Memory:
    return elementwise(here.site.tokens, here.site.shape.hidden)
