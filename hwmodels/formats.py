"""Number formats and scale layouts as values.

A `Format` is one element's encoding; a `Layout` is a tensor's: elements plus the block of elements that shares a
scale. Byte counts of operations follow from them. Sources: OCP FP8 specification (E4M3, E5M2); DeepSeek-V3
report (arXiv 2412.19437) sec 3.3 for 1x128 and 128x128 scaling and for E5M6; OCP Microscaling for UE8M0.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Format:
    """A binary floating-point format: `bits` in all, of which exponent and mantissa (fraction) bits."""

    name: str
    bits: int
    exponent: int
    mantissa: int
    max_finite: float

    def __str__(self) -> str:
        return self.name


E4M3 = Format("e4m3", 8, 4, 3, 448.0)
E5M2 = Format("e5m2", 8, 5, 2, 57344.0)
E5M6 = Format("e5m6", 12, 5, 6, 65024.0)
BF16 = Format("bf16", 16, 8, 7, 3.3895313892515355e38)
FP32 = Format("fp32", 32, 8, 23, 3.4028234663852886e38)
UE8M0 = Format("ue8m0", 8, 8, 0, 2.0**127)


@dataclass(frozen=True, slots=True)
class Layout:
    """Elements of `element`, one `scale` for each block of `block` elements (block 0: no scales)."""

    element: Format
    block: int = 0
    scale: Format = FP32

    def row_bytes(self, width: int) -> float:
        """Bytes of one row of `width` elements, scales included. A 128x128 block is `block` 16384."""
        bits: float = width * self.element.bits
        if self.block:
            bits += width * self.scale.bits / self.block
        return bits / 8

    def __str__(self) -> str:
        return f"{self.element}/{self.block}" if self.block else self.element.name


TILE = 128
"""Elements that share a scale along K in DeepSeek-V3's activations (1x128) and the side of a weight block."""

PLAIN_BF16 = Layout(BF16)
PLAIN_FP32 = Layout(FP32)
PLAIN_E4M3 = Layout(E4M3)
E4M3_ROWS = Layout(E4M3, TILE)
E4M3_BLOCKS = Layout(E4M3, TILE * TILE)
E5M6_ROWS = Layout(E5M6, TILE)
