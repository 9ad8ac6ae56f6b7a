"""The FP8 tensor core of Hopper, bit for bit, as a model: what `wgmma` adds up and what it throws away.

Source: MMA-Sim (arXiv 2511.10909; github.com/microsoft/MMA-Sim at c785138), which found these rules by probing the
chip: a step takes 32 products and the accumulator, aligns all to the largest exponent among them, cuts each to 13
fraction bits toward zero, adds exactly, and rounds the sum toward zero to 8 exponent and 13 fraction bits. A product's
exponent is the sum of its operands' exponents (not normalised: its significand lies in [1, 4)); a subnormal operand
has the exponent of the smallest normal, with a significand below 1; a zero has none.

DeepSeek-V3's report (arXiv 2412.19437 sec 3.3.2) gives "around 14 bits" for the same thing: the leading one and 13
fraction bits. Its remedy is `gemm(..., promote=128)`: the partial sum of every 128 elements goes to an FP32 register.

Confirmed on an H200 (2026-11-28, driver 580.159.04, this repository's weight-gradient kernel as it was at a25ce7e, on
Triton 3.6.0): every probe of `PROBES`
answers as if the accumulator takes part in the alignment as one more term ("joins"), and 262,144 sums of 128 random
products (narrow, wide and non-negative ones) are this model's bit for bit. `python -m numerics check` asks again on any
card. The other reading, products first and the accumulator afterwards ("after"), is kept as a parameter.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from hwmodels.formats import E4M3, E5M2, FP32, TILE, Format
from numerics.reference.formats import power_of_two

JOINS, AFTER = "joins", "after"
NEVER = 0
"""As `promote`: one accumulator register from the first element to the last."""
_FORMATS = {torch.float8_e4m3fn: E4M3, torch.float8_e5m2: E5M2}
_NOTHING = -4096
"""Exponent given to zeros: below that of every product and accumulator."""


@dataclass(frozen=True)
class TensorCore:
    """How one generation adds: products a step, fraction bits kept, and how the accumulator comes in."""

    products: int = 32
    fraction_bits: int = 13
    accumulator: str = JOINS

    def __post_init__(self) -> None:
        if self.accumulator not in (JOINS, AFTER):
            raise ValueError(f"the accumulator {JOINS!r} or comes {AFTER!r}; got {self.accumulator!r}")


HOPPER = TensorCore()
"""MMA-Sim (arXiv 2511.10909): wgmma m64nNk32 of E4M3 or E5M2 into FP32."""


def wgmma(a: Tensor, b: Tensor, c: Tensor | None = None, core: TensorCore = HOPPER) -> Tensor:
    """a [M, K], b [N, K] (both e4m3 or e5m2) and c float32 [M, N] or None (zero) -> a b^T + c, float32 [M, N].

    K / 32 steps one after the other (tests/oracles/tensor_core.py is one of them, by fractions); a last short step is
    filled with zeros.
    NaN or infinity among an element's inputs gives what ordinary arithmetic gives. Raises ValueError on other types.
    """
    (x, x_exponent), (y, y_exponent) = _operand(a, core), _operand(b, core)
    out = torch.zeros(a.shape[0], b.shape[0], device=a.device) if c is None else c.float()
    for k in range(0, x.shape[1], core.products):
        part = slice(k, k + core.products)
        out = _step(
            x[:, None, part] * y[None, :, part], x_exponent[:, None, part] + y_exponent[None, :, part], out, core
        )
    return _with_special_values(out, a, b, c)


def _operand(x: Tensor, core: TensorCore) -> tuple[Tensor, Tensor]:
    """float32 values (0 where not finite) and exponents (float32: exact, and faster than integers) of an operand."""
    if x.dtype not in _FORMATS:
        raise ValueError(f"the FP8 tensor core multiplies float8_e4m3fn or float8_e5m2; got {x.dtype}")
    values = x.float()
    values = torch.where(torch.isfinite(values), values, 0.0)
    values = torch.nn.functional.pad(values, (0, -x.shape[1] % core.products))
    return values, _exponents(values, _FORMATS[x.dtype]).float()


def _exponents(x: Tensor, fmt: Format) -> Tensor:
    exponent = (torch.frexp(x).exponent - 1).clamp(min=fmt.lowest_exponent)
    return torch.where(x == 0, _NOTHING, exponent)


def _step(products: Tensor, exponents: Tensor, c: Tensor, core: TensorCore) -> Tensor:
    """products, exponents [M, N, 32] and c [M, N] -> the register after the step, float32 [M, N]."""
    top = exponents.amax(-1).int()
    c_exponent = _exponents(c, FP32)
    if core.accumulator == JOINS:
        top = torch.maximum(top, c_exponent)
        return _cut(_cut_sum(products, top, core) + _terms(c, top, core), top, core)
    inner = _cut(_cut_sum(products, top, core), top, core)
    top = torch.maximum(_exponents(inner, FP32), c_exponent)
    return _cut(_terms(inner, top, core) + _terms(c, top, core), top, core)


def _cut_sum(products: Tensor, top: Tensor, core: TensorCore) -> Tensor:
    """Sum of the products in units of 2^(top - fraction_bits), each cut toward zero (float64 [M, N]).

    Exact in float32: 32 terms of at most 4 * 2^13 units stay below 2^24. The clamp keeps the factor finite where
    there are no products but zeros (a product of two subnormals of E5M2 has exponent -28).
    """
    factor = power_of_two(core.fraction_bits - top.clamp(min=-64)).float()
    return (products * factor[..., None]).trunc_().sum(-1).double()


def _terms(c: Tensor, top: Tensor, core: TensorCore) -> Tensor:
    """c in the same units, cut toward zero (float64)."""
    return (c.double() * power_of_two(core.fraction_bits - top.clamp(min=-256))).trunc()


def _cut(units: Tensor, top: Tensor, core: TensorCore) -> Tensor:
    """units * 2^(top - fraction_bits), rounded toward zero to the register's format, as float32."""
    value = units * power_of_two(top.clamp(min=-256) - core.fraction_bits)
    exponent = (torch.frexp(value).exponent - 1).clamp(min=FP32.lowest_exponent)
    kept = (value * power_of_two(core.fraction_bits - exponent)).trunc()
    return (kept * power_of_two(exponent - core.fraction_bits)).float()


def _with_special_values(out: Tensor, a: Tensor, b: Tensor, c: Tensor | None) -> Tensor:
    """out with NaN and infinities where ordinary arithmetic has them."""
    if torch.isfinite(a.float()).all() and torch.isfinite(b.float()).all() and (c is None or torch.isfinite(c).all()):
        return out
    plain = a.double() @ b.double().t() + (0 if c is None else c.double())
    return torch.where(torch.isfinite(plain), out, plain.float())


def gemm(a: Tensor, b: Tensor, promote: int = TILE, core: TensorCore = HOPPER) -> Tensor:
    """a [M, K], b [N, K] -> a b^T float32 [M, N], promoted to an FP32 sum every `promote` elements (NEVER: not at all).

    The promotion adds round to nearest even, on the CUDA cores. Raises ValueError unless promote is a multiple of 32.
    """
    return _promoted(a, b, promote, core, lambda out, partial, start: out + partial)


def scaled_gemm(
    a: Tensor, a_s: Tensor, b: Tensor, b_s: Tensor, promote: int = TILE, core: TensorCore = HOPPER,
    fused: bool = False,
) -> Tensor:  # fmt: skip
    """a [M, K] with a_s [M, ceil(K/128)], b [N, K] with b_s [ceil(N/128), ceil(K/128)] -> float32 [M, N].

    DeepSeek-V3 report fig. 7: each partial sum is multiplied by both scales when it is promoted (product of the scales,
    product with the partial sum and addition each rounded to FP32; fused: the last two are one multiply-add, as in our
    kernels). b_s may have a row a row of b, as in weight gradients: the partial sum is multiplied by one and
    the other. Raises ValueError unless promote divides 128.
    """
    if promote == NEVER or TILE % promote:
        raise ValueError(f"scales change every {TILE} elements, so promote divides {TILE}; got {promote}")
    spread = b_s if len(b_s) == len(b) else b_s.repeat_interleave(TILE, 0)[: b.shape[0]]

    def add(out: Tensor, partial: Tensor, start: int) -> Tensor:
        rows, columns = a_s[:, start // TILE, None], spread[None, :, start // TILE]
        partial, factor = (partial * rows, columns) if len(b_s) == len(b) else (partial, rows * columns)
        # In float64 the product is exact, and the sum is rounded far below float32 before it is rounded to that.
        return (partial.double() * factor.double() + out.double()).float() if fused else out + partial * factor

    return _promoted(a, b, promote, core, add)


def _promoted(
    a: Tensor, b: Tensor, promote: int, core: TensorCore, add: Callable[[Tensor, Tensor, int], Tensor]
) -> Tensor:
    if promote % core.products or promote < 0:
        raise ValueError(f"promote is a multiple of {core.products}, or {NEVER} for never; got {promote}")
    out = torch.zeros(a.shape[0], b.shape[0], device=a.device)
    for k in range(0, a.shape[1], promote or max(a.shape[1], 1)):
        part = slice(k, k + promote if promote else None)
        out = add(out, wgmma(a[:, part], b[:, part], core=core), k)
    return out


@dataclass(frozen=True)
class Probe:
    """An input that tells one rule from another: products (a, b) of successive steps and the register expected.

    The operands a step does not name are zero.
    """

    name: str
    steps: tuple[tuple[tuple[float, float], ...], ...]
    joins: float
    after: float

    def operands(self) -> tuple[Tensor, Tensor]:
        """a and b, e4m3 [1, 32 * steps]."""
        filled = [[*step, *[(0.0, 0.0)] * (HOPPER.products - len(step))] for step in self.steps]
        flat = torch.tensor([pair for step in filled for pair in step])
        return flat[:, 0][None].to(torch.float8_e4m3fn), flat[:, 1][None].to(torch.float8_e4m3fn)


_ONE, _BIT13, _BIT14 = (1.0, 1.0), (2.0**-6, 2.0**-7), (2.0**-7, 2.0**-7)
PROBES = (
    Probe("1 + 2^-13 in one step survives", ((_ONE, _BIT13),), 1 + 2.0**-13, 1 + 2.0**-13),
    Probe("1 + 2^-14 in one step does not", ((_ONE, _BIT14),), 1.0, 1.0),
    Probe("1 + 31 x 2^-14 in one step is 1", ((_ONE, *[_BIT14] * 31),), 1.0, 1.0),
    Probe("1 - 2^-14 in one step is 1: cut toward zero", ((_ONE, (-(2.0**-7), 2.0**-7)),), 1.0, 1.0),
    Probe("1, then 2^-13 in the next step survives", ((_ONE,), (_BIT13,)), 1 + 2.0**-13, 1 + 2.0**-13),
    Probe("1, then 2^-14 in the next step does not", ((_ONE,), (_BIT14,)), 1.0, 1.0),
    Probe("1, then 32 x 2^-14: lost if the accumulator joins", ((_ONE,), (_BIT14,) * 32), 1.0, 1 + 2.0**-9),
)
"""What a chip is asked to settle the model; all but the last are the same under both readings."""


def ask(
    multiply: Callable[[Tensor, Tensor], Tensor], side: int = 64, device: str = "cpu"
) -> dict[str, tuple[str, ...]]:
    """Put the PROBES to a product and see which readings ("joins", "after") each answer agrees with: () is neither.

    multiply: e4m3 a [side, 128], b [side, 128] -> a b^T float32, unscaled and not promoted within 128, for instance
    the FP8 kernel of this package on a card with scales of 1. Every output of a probe must be the same to count.
    """
    answers = {}
    for probe in PROBES:
        a, b = (torch.nn.functional.pad(x.float(), (0, TILE - x.shape[1])) for x in probe.operands())
        got = multiply(*(x.to(torch.float8_e4m3fn).expand(side, -1).contiguous().to(device) for x in (a, b)))
        readings = {JOINS: probe.joins, AFTER: probe.after}
        answers[probe.name] = tuple(name for name, value in readings.items() if bool((got == value).all()))
    return answers
