"""What of torch's library is timed: operations as hwmodels prices them, with the call that does each.

Shapes are those of layers that people train: Llama 1B, 8B and 70B, whole and in eighths (tensor parallelism), GPT-175B,
V2-Lite, Mixtral and Qwen3's experts, and a small one of 1,024.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import torch

from hwmodels.op import Attention, Gemm, GroupedGemm, Memory, Op
from numerics.card import torch_calls as calls
from numerics.card.torch_calls import Call, Operands

MOST_FLOP = 8e12
"""Of a product, about 12 ms on an H200: larger ones run at the rate of these."""
MOST_BYTES = 12e9
ROLES = ("fprop", "dgrad", "wgrad_bf16")


class Case(NamedTuple):
    """An operation, torch's name for it, and what makes its call. loaded: timed under sustained load as well."""

    op: Op
    name: str
    make: Callable[[Operands], Call]
    loaded: bool = False


class Sizes(NamedTuple):
    """Shapes of a plan. weights: (n, k) of products; experts: (groups, rows, n, k); attention: (heads, kv heads, qk,
    v); vocabularies: (words, hidden); gates: (experts, chosen, hidden)."""

    tokens: tuple[int, ...]
    weights: tuple[tuple[int, int], ...]
    experts: tuple[tuple[int, int, int, int], ...]
    attention: tuple[tuple[int, int, int, int], ...]
    sequences: tuple[int, ...]
    widths: tuple[int, ...]
    rows: tuple[int, ...]
    vocabularies: tuple[tuple[int, int], ...]
    gates: tuple[tuple[int, int, int], ...]
    parameters: tuple[int, ...]


FULL = Sizes(
    tokens=(1024, 2048, 4096, 8192, 16384, 32768),
    weights=(
        (4096, 4096), (1024, 4096), (6144, 4096), (14336, 4096), (28672, 4096), (4096, 14336), (128256, 4096),
        (8192, 8192), (1024, 8192), (10240, 8192), (28672, 8192), (57344, 8192), (8192, 28672), (128256, 8192),
        (1280, 8192), (8192, 1024), (3584, 8192), (7168, 8192), (8192, 3584), (16032, 8192), (1792, 4096),
        (4096, 1792), (12288, 12288), (36864, 12288), (49152, 12288), (12288, 49152), (51200, 12288), (4608, 12288),
        (12288, 1536), (6144, 12288), (12288, 6144), (2048, 2048), (512, 2048), (8192, 2048), (2048, 8192),
        (128256, 2048), (3072, 2048), (576, 2048), (4096, 512), (10944, 2048), (2048, 10944), (2816, 2048),
        (2048, 2816), (102400, 2048), (1024, 1024), (4096, 1024), (1024, 4096), (50304, 1024), (64, 2048),
    ),
    experts=(
        (8, 8192, 28672, 4096), (8, 8192, 4096, 14336), (8, 16384, 28672, 4096), (8, 16384, 4096, 14336),
        (64, 24576, 2816, 2048), (64, 24576, 2048, 1408), (64, 49152, 2816, 2048), (64, 49152, 2048, 1408),
        (128, 32768, 1536, 2048), (128, 32768, 2048, 768), (128, 65536, 1536, 2048), (128, 65536, 2048, 768),
        (8, 32768, 4096, 7168), (8, 32768, 7168, 2048), (16, 131072, 1536, 2048), (16, 131072, 2048, 768),
    ),
    attention=(
        (32, 8, 128, 128), (64, 8, 128, 128), (8, 1, 128, 128), (32, 8, 64, 64), (96, 96, 128, 128), (12, 12, 128, 128),
        (16, 16, 64, 64), (16, 16, 192, 128),
    ),
    sequences=(1024, 2048, 4096, 8192, 16384, 32768),
    widths=(1024, 4096, 14336),
    rows=(2048, 8192, 32768),
    vocabularies=((50304, 1024), (102400, 2048), (128256, 4096)),
    gates=((8, 2, 4096), (64, 6, 2048), (128, 8, 2048)),
    parameters=(1 << 20, 1 << 24, 1 << 28, 1 << 30),
)  # fmt: skip
TINY = Sizes(
    (64, 128), ((32, 64), (64, 128)), ((2, 64, 32, 32),), ((4, 2, 16, 16), (2, 2, 24, 16)), (32, 64), (32, 64),
    (32, 64), ((96, 32),), ((8, 2, 32),), (1 << 10,),
)  # fmt: skip
"""The same plan for a machine without a GPU: that it runs, not what it takes."""


def cases(sizes: Sizes) -> Iterator[Case]:
    """Everything, in order of what a training step spends."""
    yield from products(sizes)
    yield from attentions(sizes)
    yield from memory(sizes)
    yield from grouped(sizes)
    yield from fused(sizes)


def products(sizes: Sizes) -> Iterator[Case]:
    """Three products of a linear layer of every size; the FP32-accumulating one at one number of tokens."""
    middle = sizes.tokens[len(sizes.tokens) // 2]
    for i, (n, k) in enumerate(sizes.weights):
        for m in sizes.tokens:
            if 2.0 * m * n * k > MOST_FLOP:
                continue
            both = i % 6 == 0
            for op in (Gemm(m, n, k, "fprop", "bf16"), Gemm(m, k, n, "dgrad", "bf16"),
                       Gemm(n, k, m, "wgrad_bf16", "bf16"), Gemm(n, k, m, "wgrad", "bf16")):  # fmt: skip
                if op.role == "wgrad" and m != middle:
                    continue
                loaded = both if op.role != "fprop" else m == middle or both
                yield Case(op, f"mm {op.role}", partial(calls.product, op), loaded and op.role != "wgrad")


def scaled(sizes: Sizes) -> Iterator[Case]:
    """Products in FP8 with one scale a tensor; of widths that the library can multiply (multiples of 16)."""
    for i, (n, k) in enumerate(sizes.weights[::2]):
        for m in sizes.tokens[1:5]:
            if 2.0 * m * n * k > 2 * MOST_FLOP:
                continue
            for op in (Gemm(m, n, k, "fprop"), Gemm(m, k, n, "dgrad"), Gemm(n, k, m, "wgrad_bf16")):
                yield Case(op, f"_scaled_mm {op.role}", partial(calls.scaled, op), m == sizes.tokens[-3] and i % 2 == 0)


def grouped(sizes: Sizes) -> Iterator[Case]:
    for groups, rows, n, k in sizes.experts:
        for role in ROLES:
            sides = (k, n) if role == "dgrad" else (n, k)
            op = GroupedGemm(groups, rows, *sides, role, "bf16")
            yield Case(op, f"_grouped_mm {role}", partial(calls.grouped, op), rows * n * k > 1 << 39)


def attentions(sizes: Sizes) -> Iterator[Case]:
    """Causal, of about 8,192 tokens; one sequence at each length besides."""
    most = sizes.sequences[-3:][0]
    for heads, kv, qk, v in sizes.attention:
        for s in sizes.sequences:
            if heads * s * s > 96 * 16384**2:
                continue
            for batch in {1, max(1, 2 * most // s)}:
                for direction in ("forward", "backward"):
                    op = Attention(direction, batch, heads, s, qk, v, True, 1, 0 if kv == heads else kv)
                    name = f"scaled_dot_product_attention {direction}"
                    yield Case(op, name, partial(calls.attention, op), s in (most, most // 4) and batch > 1)


# --- memory-bound: kind, bytes read and written a row -----------------------------------------------------------------

POINTWISE = {
    "add": ("elementwise", 4, 2), "mul": ("elementwise", 4, 2), "neg": ("elementwise", 2, 2),
    "add_": ("elementwise", 4, 2), "clone": ("elementwise", 2, 2), "silu": ("activation", 2, 2),
    "silu_backward": ("activation_backward", 4, 2), "gelu": ("activation", 2, 2), "gelu_tanh": ("activation", 2, 2),
    "gelu_backward": ("activation_backward", 4, 2), "gelu_tanh_backward": ("activation_backward", 4, 2),
    "widen": ("convert", 2, 4), "narrow": ("convert", 4, 2), "accumulate": ("accumulate", 6, 4),
    "zero": ("fill", 0, 2), "sum": ("column_sum", 2, 0),
}  # fmt: skip
"""torch's call -> kind and bytes that it reads and writes for each element."""
HEADED = {
    "contiguous": ("copy", 2, 2), "rotate": ("broadcast_multiply", 2, 2), "rotated": ("broadcast_multiply", 2, 2),
    "halves": ("concatenate", 2, 2), "neg_half": ("strided", 1, 1), "add_views": ("strided", 4, 2),
}  # fmt: skip
"""The same for calls around attention; tables of a rotation are shared by all heads and stay in cache."""


def memory(sizes: Sizes) -> Iterator[Case]:
    yield from elements(sizes)
    yield from norms(sizes)
    yield from ends(sizes)
    yield from gates(sizes)
    for parameters in sizes.parameters:
        for tensors in {1, 64}:
            for dtype, width in ((torch.bfloat16, 2), (torch.float32, 4)):
                op = Memory("adam", parameters, 4.0 * width, 3.0 * width)
                make = partial(calls.adam, parameters=parameters, tensors=tensors, dtype=dtype)
                yield Case(op, f"AdamW(fused=True) {tensors} tensors {width} bytes", make, parameters == 1 << 28)
        for name, kind, write in (("norm", "gradient_norm", 0.0), ("scale", "elementwise", 2.0)):
            op = Memory(kind, parameters, 2.0, write)
            yield Case(op, f"_foreach_{name}", partial(calls.foreach, name, parameters=parameters, tensors=64))


def elements(sizes: Sizes) -> Iterator[Case]:
    for rows in sizes.rows:
        for width in sizes.widths:
            for name, (kind, read, write) in POINTWISE.items():
                op = Memory(kind, rows, float(read * width), float(write * width))
                make = partial(calls.pointwise, name, rows=rows, width=width)
                yield Case(op, name, make, rows * width == 8192 * 14336 and name in ("add", "silu_backward"))
        for heads, _, width, _ in sizes.attention[:4]:
            for name, (kind, read, write) in HEADED.items():
                op = Memory(kind, rows, float(read * heads * width), float(write * heads * width))
                yield Case(op, f"{name} by head", partial(calls.headed, name, tokens=rows, heads=heads, width=width))


def norms(sizes: Sizes) -> Iterator[Case]:
    for rows in sizes.rows:
        for width in sorted({*sizes.widths[:2], 2 * sizes.widths[0], 2 * sizes.widths[1], 3 * sizes.widths[1]}):
            for name in ("rms_norm", "layer_norm"):
                for tail, kind, read in (("", "forward", 2), ("_backward", "backward", 4)):
                    op = Memory(f"norm_{kind}", rows, float(read * width), 2.0 * width)
                    make = partial(calls.norm, name + tail, rows=rows, width=width)
                    yield Case(op, name + tail, make, rows == 8192 and width == 4096)


def ends(sizes: Sizes) -> Iterator[Case]:
    """Embedding, softmax over a vocabulary in FP32, and its loss. Bytes are those that a call cannot do without."""
    for words, hidden in sizes.vocabularies:
        for tokens in sizes.rows:
            for name, kind in (("embedding", "embedding"), ("embedding_dense_backward", "embedding_backward")):
                op = Memory(kind, tokens, 2.0 * hidden + 8, 2.0 * hidden)
                make = partial(calls.embedding, name, tokens=tokens, width=hidden, words=words)
                yield Case(op, f"{name} {words}", make)
            for name, kind, read, write in (
                ("log_softmax", "softmax", 4, 4), ("log_softmax_backward", "softmax_backward", 8, 4),
                ("nll_loss", "nll", 0, 0), ("nll_loss_backward", "nll_backward", 0, 4),
            ):  # fmt: skip
                op = Memory(kind, tokens, float(read * words or 12), float(write * words))
                if tokens * words * (read + write + 4) < 2 * MOST_BYTES:
                    make = partial(calls.vocabulary, name, tokens=tokens, width=words)
                    yield Case(op, name, make, tokens == 8192 and read > 0 and words == 128256)


def gates(sizes: Sizes) -> Iterator[Case]:
    for experts, chosen, hidden in sizes.gates:
        for tokens in sizes.rows:
            rows, row = tokens * chosen, 2.0 * hidden
            for name, op in (
                ("softmax", Memory("softmax", tokens, 4.0 * experts, 4.0 * experts)),
                ("softmax_backward", Memory("softmax_backward", tokens, 8.0 * experts, 4.0 * experts)),
            ):
                yield Case(op, name, partial(calls.vocabulary, name, tokens=tokens, width=experts))
            for name, op in (
                ("topk", Memory("topk", tokens, 4.0 * experts, 12.0 * chosen)),
                ("sort", Memory("sort", rows, 8.0, 16.0)), ("bincount", Memory("bincount", rows, 8.0, 0.0)),
                ("gather", Memory("permute", rows, row / chosen + 8, row)),
                ("index_add", Memory("unpermute", rows, row + 8, 2 * row / chosen)),
            ):  # fmt: skip
                make = partial(calls.routing, name, tokens=tokens, width=hidden, experts=experts, chosen=chosen)
                yield Case(op, name, make)


def fused(sizes: Sizes) -> Iterator[Case]:
    """What torch.compile writes for the commonest runs of memory-bound calls."""
    for width in sizes.widths[:2] if len(sizes.widths) > 2 else ():
        for rows in sizes.rows[:2]:
            for name, kind, read, write in (
                ("residual_norm", "compiled_norm", 4, 4), ("swiglu", "compiled", 4, 2),
                ("swiglu_backward", "compiled", 4, 4),
            ):  # fmt: skip
                op = Memory(kind, rows, float(read * width), float(write * width))
                yield Case(op, f"compiled {name}", partial(calls.compiled, name, rows=rows, width=width))
