"""What linear layers multiply in."""

from enum import Enum

import torch


class Precision(Enum):
    """What linear layers multiply in.

    FP8 is the recipe of DeepSeek-V3 (arXiv 2412.19437 sec 3.3): E4M3 products in all linear layers but the gate and the
    output head, BF16 between them, FP32 master weights and gradients.
    """

    FP32 = "fp32"
    BF16 = "bf16"
    FP8 = "fp8"

    @property
    def dtype(self) -> torch.dtype:
        """Of activations between the products."""
        return torch.float32 if self is Precision.FP32 else torch.bfloat16

    @property
    def quantized(self) -> bool:
        return self is Precision.FP8

    @property
    def plain(self) -> "Precision":
        """Of what is never quantised: the output head (sec 3.3.1)."""
        return Precision.BF16 if self is Precision.FP8 else self
