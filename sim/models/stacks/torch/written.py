"""Modules that write out, operation by operation, what torch has as one kernel, or repeat what kernels need not have.

`stack.norms: plain` is Llama's own norm (meta-llama/llama3, llama/model.py, RMSNorm; pytorch/torchtitan @9dec370ad,
torchtitan/models/norms.py; Hugging Face's LlamaRMSNorm): to FP32, squared, averaged, the inverse root, times the input,
back, times the weights. Its gradient is autograd's, operation by operation (tools/autograd/derivatives.yaml): of the
product with weights, of both sides of that with the inverse root, of the mean, which is spread over the row, of the
square, in three kernels, and the sum of the two.

`stack.rope: complex` multiplies pairs of columns as complex numbers in FP32 (apply_rotary_emb there); Inductor compiles
no complex numbers and calls torch's kernel between its own (torch/_inductor: "does not support code generation for
complex operators"). `stack.repeated`: keys and values are copied once for each query head that shares them (repeat_kv
there); their gradients are summed over these as attention with shared heads does.
"""

from hwmodels.formats import PLAIN_BF16, PLAIN_FP32
from hwmodels.op import Memory
from sim.models.blocks.gqa import Heads
from sim.models.layer import Kernel
from sim.models.stacks.cudnn import Shared
from sim.models.stacks.stack import COMPLEX, PLAIN_NORMS
from sim.models.stacks.torch.kernels import VIEWS, tiny

FORWARD = (
    ("convert", 2, 4), ("elementwise", 4, 4), ("reduce", 4, 0), ("tiny", 0, 0), ("tiny", 0, 0), ("strided", 4, 4),
    ("convert", 4, 2), ("strided", 2, 2),
)  # fmt: skip
"""A plain norm: kinds of its kernels, bytes of an element in and out; tiny: of a number a row."""
BACKWARD = (
    ("strided", 2, 2), ("elementwise", 4, 2), ("reduce", 2, 0),  # of the output: normed rows', and weights' by rows
    ("convert", 2, 4), ("strided", 4, 4), ("elementwise", 8, 4), ("reduce", 4, 0),  # of both sides of the product
    ("tiny", 0, 0), ("tiny", 0, 0), ("strided", 0, 4),  # of the inverse root and of the mean
    ("elementwise", 4, 4), ("elementwise", 4, 4), ("elementwise", 8, 4), ("elementwise", 8, 4), ("convert", 4, 2),
)  # fmt: skip
"""Its gradient."""


def norms(site: Shared, kernels: list[Kernel]) -> list[Kernel]:
    """Kernels with norms in as many as the stack's modules write them in."""
    if site.stack.norms != PLAIN_NORMS:
        return kernels
    return [each for kernel in kernels for each in _norm(kernel)]


def _norm(kernel: Kernel) -> list[Kernel]:
    op = kernel.op
    if not isinstance(op, Memory) or not op.kind.startswith("norm_"):
        return [kernel]
    if op.kind == "norm_weight_gradient":  # among those of the gradient of its input
        return []
    forward = op.kind == "norm_forward"
    width = op.read / PLAIN_BF16.row_bytes(1 if forward else 2)
    steps = FORWARD if forward else BACKWARD
    return [
        tiny(kernel.name) if kind == "tiny" else Kernel(kernel.name, Memory(kind, op.rows, read * width, write * width))
        for kind, read, write in steps
    ]


def turned(site: Shared, name: str, rows: float, width: int, direction: str) -> list[Kernel]:
    """[rows, width] turned as complex numbers: to FP32, the product, and back. Compiled, conversions are Inductor's."""
    narrow, wide = PLAIN_BF16.row_bytes(width), PLAIN_FP32.row_bytes(width)
    kind, host = ("fused", 1.0) if site.stack.compiled else ("convert", 1 + 2 * VIEWS[direction])
    count = round(rows)
    return [
        Kernel(f"{name}_fp32", Memory(kind, count, narrow, wide), host=host),
        Kernel(name, Memory("strided", count, wide, wide)),
        Kernel(f"{name}_bf16", Memory(kind, count, wide, narrow), host=host),
    ]


def complex_rope(site: Shared) -> bool:
    """Whether rope is by complex numbers."""
    return site.stack.rope == COMPLEX


def repeats(site: Shared, heads: Heads) -> list[Kernel]:
    """Keys and values for each query head. Compiled too: attention reads them from memory."""
    if not site.stack.repeated or heads.shared == heads.queries:
        return []
    kind = "fused" if site.stack.compiled else "copy"
    op = Memory(kind, site.tokens, PLAIN_BF16.row_bytes(heads.kv), PLAIN_BF16.row_bytes(heads.q))
    return [Kernel(f"repeat_{name}", op) for name in ("k", "v")]
