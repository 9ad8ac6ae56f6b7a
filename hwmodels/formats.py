"""Number formats and scale layouts as values.

A `Format` is one element's encoding; a `Layout` is a tensor's: elements plus the block of elements that shares a
scale. Byte counts of operations follow from them. Sources: OCP FP8 specification (E4M3, E5M2); DeepSeek-V3
report (arXiv 2412.19437) sec 3.3 for 1x128 and 128x128 scaling and for E5M6; OCP Microscaling for UE8M0.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Format:
    """A binary floating-point format: `bits` in all, of which exponent and mantissa (fraction) bits.

    kind says what the codes outside the ordinary ones mean (the exponent's bias is 2^(exponent-1) - 1 in all):
    "ieee" keeps the top exponent for infinities and NaN; "fn" (finite) has no infinity and one NaN a sign, all ones;
    "all" has neither;
    "scale" has neither sign nor zero nor subnormals: code c is 2^(c - bias), all ones NaN.
    """

    name: str
    bits: int
    exponent: int
    mantissa: int
    max_finite: float
    kind: str = "ieee"

    @property
    def bias(self) -> int:
        """What is taken from the stored exponent."""
        return int(2 ** (self.exponent - 1)) - 1

    @property
    def lowest_exponent(self) -> int:
        """Exponent of the smallest normal value; subnormals are multiples of 2^(lowest_exponent - mantissa)."""
        return -self.bias if self.kind == "scale" else 1 - self.bias

    @property
    def max_code(self) -> int:
        """Code of `max_finite`; the next code is infinity in "ieee" and NaN in "fn" and "scale"."""
        top = int(2 ** (self.exponent + self.mantissa)) - 1
        if self.kind == "all":
            return top
        return top - int(2**self.mantissa) if self.kind == "ieee" else top - 1

    @property
    def nan_code(self) -> int:
        """The NaN that encoding writes: positive and quiet (other codes may read as NaN too)."""
        return self.max_code + 1 + (int(2 ** (self.mantissa - 1)) if self.kind == "ieee" else 0)

    def __str__(self) -> str:
        return self.name


E4M3 = Format("e4m3", 8, 4, 3, 448.0, kind="fn")
E5M2 = Format("e5m2", 8, 5, 2, 57344.0)
E5M6 = Format("e5m6", 12, 5, 6, 65024.0)
"""DeepSeek-V3's attention output. The report gives no special values; taken here as IEEE's, so that a code is the
upper 12 bits of a half-precision number (assumed)."""
BF16 = Format("bf16", 16, 8, 7, 3.3895313892515355e38)
FP32 = Format("fp32", 32, 8, 23, 3.4028234663852886e38)
E2M1 = Format("e2m1", 4, 2, 1, 6.0, kind="all")
"""NVFP4's elements (arXiv:2509.25149 sec 2)."""
UE8M0 = Format("ue8m0", 8, 8, 0, 2.0**127, kind="scale")


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
MXFP8 = Layout(E4M3, 32, UE8M0)
NVFP4 = Layout(E2M1, 16, E4M3)
