"""Kernels of PyTorch's eager operations on BF16 tensors, as torch 2.11 launches them on an H200.

Which kernels an operation launches is read off profiler traces of training steps (`tests/fixtures/torch_launches.json`
has their numbers by class); what they move follows from the operation. Views of tensors launch nothing, but the host
works for them. Its work, in simple elementwise operations, is from chains of 60 operations of one kind on tensors of
64 x 64, forward with autograd recording and backward (torch 2.11, the host of an H200; see `hwmodels.node.Launch`).
"""

import math

from hwmodels.formats import PLAIN_BF16, PLAIN_FP32
from hwmodels.op import Gemm, Memory, norm, small
from sim.models.layer import Kernel
from sim.models.stacks.cudnn import MEMSET, Shared, cleared

WIDTH, WIDE, INDEX = 2, 4, 8
"""Bytes of an element in BF16, in FP32, and of an index."""
LARGEST = 2**31
"""Bytes of a tensor beyond which an elementwise operation is halved until each half has 32-bit offsets
(aten/src/ATen/TensorIterator.cpp, `can_use_32bit_indexing`)."""
MEMSET_TILES = 2 * 132
"""Output tiles of 128 x 256 beyond which cuBLAS clears a counter before a product: in all products of four traces, and
in none of the others; two waves of an H200's SMs. nvjet kernels of CUDA 13.0."""
SPLIT_TILES, SPLIT_DEPTH, SPLIT = 64, 16384, 2
"""Such tiles up to which, and depth from which on, cuBLAS splits a product's depth (in two, assumed) and adds the
parts: so in all products of those traces, and of the kernels that are named of 14 steps."""
FEW, FEW_DEPTH = 64, 4096
"""Tiles of 64 x 64 up to which it does so from 128 of depth a tile on, 4,096 at least. Of 801 products that were timed
one by one on an H200 (torch 2.11) both rules tell 800; that 64 tiles count is from the launches of `mx_2L_4k2`."""
SPLIT_K = "split_k_sum"
AROUND = (MEMSET, SPLIT_K)
"""Names of kernels that cuBLAS launches around a product."""

VIEWS = {"F": 0.34, "B": 0.51}
"""Work for a view: 5.0 of 14.9 us forward, 10.5 of 20.6 us backward, as elementwise products take."""
LINEAR = {"F": 2.4, "B": 2.3}
"""Work for a linear layer's product, its views included: 35.7 us forward, 95 us for both products backward."""
NORM = {"F": 1.5, "B": 1.95}
"""Of a norm: 22.3 us forward, 40 us backward, for both kernels."""
JOIN = {"F": 1.4, "B": 1.65}
"""Of a concatenation: 20 us forward; what a split's gradient takes backward, 34 us."""
BARE = 0.2
"""Of one of many kernels that one operation launches: a bare launch, 3 us (assumed)."""


def elementwise(name: str, rows: float, width: int, reads: float = 1, writes: float = 1, host: float = 1.0) -> Kernel:
    """On contiguous tensors (`vectorized_elementwise_kernel`)."""
    row = PLAIN_BF16.row_bytes(width)
    return Kernel(name, Memory("elementwise", round(rows), reads * row, writes * row), host=host)


ACTIVATIONS = {"swiglu": "silu", "geglu": "gelu", "gelu": "gelu", "relu2": "elementwise"}
"""Activation of a network -> kind of its kernel."""


def activated(activation: str, rows: float, width: int, back: bool = False) -> Kernel:
    """An activation, or its gradient from its input and the output's."""
    row, kind = PLAIN_BF16.row_bytes(width), ACTIVATIONS[activation]
    tail = "_backward" if back and kind != "elementwise" else ""
    op = Memory(f"{kind}{tail}", round(rows), (1 + back) * row, row)
    return Kernel(f"{activation}_bwd" if back else activation, op)


def strided(name: str, rows: float, width: int, reads: float = 1, writes: float = 1, host: float = 1.0) -> Kernel:
    """On slices, broadcasts or transposed tensors (`elementwise_kernel` with offsets)."""
    row = PLAIN_BF16.row_bytes(width)
    return Kernel(name, Memory("strided", round(rows), reads * row, writes * row), host=host)


def transposed(name: str, rows: float, width: int, host: float = 1.0) -> Kernel:
    """A transposed tensor made contiguous (`direct_copy_kernel_cuda`)."""
    row = PLAIN_BF16.row_bytes(width)
    return Kernel(name, Memory("copy", round(rows), row, row), host=host)


def concatenated(name: str, rows: float, width: int, host: float = 1.0) -> Kernel:
    """`CatArrayBatchedCopy` to rows of `width` elements."""
    row = PLAIN_BF16.row_bytes(width)
    return Kernel(name, Memory("concatenate", round(rows), row, row), host=host)


def joined(name: str, rows: float, width: int, host: float = 1.0) -> Kernel:
    """The same of contiguous tensors, which streams (`CatArrayBatchedCopy_vectorized`)."""
    return concatenated(name, rows, width, host)._replace(
        op=Memory("join", round(rows), PLAIN_BF16.row_bytes(width), PLAIN_BF16.row_bytes(width))
    )


def tiny(name: str, of: str = "", host: float = 1.0) -> Kernel:
    """A kernel that does next to nothing. of: the class it counts with ("": elementwise)."""
    return Kernel(name, small(f"tiny_{of}" if of else "tiny"), host=host)


def halved(kernel: Kernel, bytes_: float) -> list[Kernel]:
    """The launches of an elementwise operation whose largest tensor has so many bytes."""
    count, op = 1, kernel.op
    while bytes_ / count > LARGEST:
        count *= 2
    assert isinstance(op, Memory)
    part = kernel._replace(op=op._replace(rows=op.rows // count))
    return [part, *[part._replace(host=BARE)] * (count - 1)]


def product(name: str, m: int, n: int, k: int, role: str = "fprop", host: float = 1.0) -> list[Kernel]:
    """[m, k] x [k, n] -> [m, n] in BF16, with the counter that cuBLAS clears before a large one. A weight gradient is
    written in BF16, not added to FP32."""
    op, tiles = Gemm(m, n, k, role, "bf16"), m * n / (128 * 256)
    gemm = Kernel(name, op._replace(result="bf16") if role == "wgrad" else op, host=host)
    before = [cleared()] if tiles > MEMSET_TILES else []
    summed = Memory("reduce", m, SPLIT * PLAIN_FP32.row_bytes(n), PLAIN_BF16.row_bytes(n))
    few = math.ceil(m / 64) * math.ceil(n / 64)
    split = (tiles <= SPLIT_TILES and k >= SPLIT_DEPTH) or (few <= FEW and k >= max(FEW_DEPTH, 128 * few))
    return [*before, gemm, *([Kernel(SPLIT_K, summed, host=0.0)] if split else [])]


def linear(site: Shared, name: str, n: int, k: int, rows: int = 0) -> list[Kernel]:
    """`F.linear`: [tokens, k] -> [tokens, n]."""
    return product(name, rows or site.tokens, n, k, host=LINEAR["F"])


def dgrad(site: Shared, name: str, n: int, k: int, rows: int = 0) -> list[Kernel]:
    """Gradient of the input of a [tokens, k] -> [tokens, n] product."""
    return product(f"{name}_dgrad", rows or site.tokens, k, n, "dgrad", LINEAR["B"])


def wgrad(site: Shared, name: str, n: int, k: int, rows: int = 0) -> list[Kernel]:
    """Gradient of its weights."""
    return product(f"{name}_wgrad", n, k, rows or site.tokens, "wgrad", LINEAR["B"])


def bias_gradients(rows: int, biased: bool, **columns: int) -> list[Kernel]:
    """Sums over rows of the gradients of products that have biases, which autograd takes one by one (forward cuBLAS
    adds them in the product). columns: of each product, by its name."""
    ops = {name: Memory("reduce", rows, WIDTH * n, 0.0) for name, n in columns.items() if biased}
    return [Kernel(f"{name}_bias_grad", op) for name, op in ops.items()]


def rms_norm(name: str, rows: float, width: int) -> Kernel:
    """`F.rms_norm` (`vectorized_layer_norm_kernel`)."""
    return Kernel(name, norm(round(rows), width), host=NORM["F"])


def rms_norm_backward(name: str, rows: float, width: int) -> list[Kernel]:
    """Gradients of its input and, in another kernel, of its weights."""
    row = PLAIN_BF16.row_bytes(width)
    return [
        Kernel(name, norm(round(rows), width, 2, 1, "backward"), host=NORM["B"]),
        Kernel(f"{name}_weight", Memory("norm_weight_gradient", round(rows), 2 * row, 0.0), host=0.0),
    ]


def rope(name: str, rows: float, width: int) -> list[Kernel]:
    """Rotation of `width` elements of each row: halves times cosines and sines, their difference and sum, joined."""
    half = width // 2
    mul = strided(name, rows, half)
    pair = [mul._replace(host=1 + VIEWS["F"]), mul]
    return [
        *pair, elementwise(f"{name}_sub", rows, half, 2), *pair, elementwise(f"{name}_add", rows, half, 2),
        concatenated(f"{name}_cat", rows, width, JOIN["F"]),
    ]  # fmt: skip


def rope_backward(name: str, rows: float, width: int) -> list[Kernel]:
    """Its gradient: four products, a sign, two sums, joined."""
    half = width // 2
    mul, add = strided(name, rows, half), elementwise(f"{name}_add", rows, half, 2, host=VIEWS["B"])
    return [
        mul._replace(host=1 + VIEWS["B"]), mul, strided(f"{name}_neg", rows, half), mul, add, mul, add,
        joined(f"{name}_cat", rows, width, JOIN["B"]),
    ]  # fmt: skip


def radix_sort(name: str, count: float, passes: int, element: int = INDEX) -> list[Kernel]:
    """CUB's sort of keys with their positions: a histogram, its sums, and a sweep for each 8 bits."""
    key = Memory("sort", round(count), 2 * element, 2 * element)
    start = [
        cleared(),
        cleared(),
        Kernel(f"{name}_histogram", key._replace(write=0.0)),
        tiny(f"{name}_sums", "index", BARE),
    ]
    return [*start, *[cleared(), Kernel(f"{name}_sweep", key, host=BARE)] * passes]


def converted(name: str, rows: float, width: int, read: float, write: float) -> Kernel:
    """A copy to another format: so many bytes an element in, and out."""
    return Kernel(name, Memory("convert", round(rows), read * width, write * width))
