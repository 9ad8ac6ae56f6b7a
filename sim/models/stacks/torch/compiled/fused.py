"""Kernels that Inductor fuses (Triton), by how many tensors they read and write."""

from hwmodels.formats import PLAIN_BF16
from hwmodels.op import Memory
from sim.models.layer import Kernel
from sim.models.stacks.torch.kernels import tiny


def fused(name: str, rows: float, width: float, reads: float, writes: float) -> Kernel:
    """One kernel over [rows, width] in BF16."""
    row = PLAIN_BF16.row_bytes(1) * width
    return Kernel(name, Memory("fused", round(rows), reads * row, writes * row))


def norm(name: str, rows: int, width: int) -> Kernel:
    """A norm with the residual that comes before it: two streams in, the sum and its norm out."""
    return fused(name, rows, width, 2, 2)


def norm_backward(name: str, rows: int, width: int, gradients: int) -> list[Kernel]:
    """The norm's gradient with the sum of so many that meet there and of the residual's; its weights' in two steps."""
    return [
        fused(name, rows, width, gradients + 2, 1), fused(f"{name}_weight", rows, width, gradients + 1, 0),
        tiny(f"{name}_weight_sum", "fused"),
    ]  # fmt: skip
