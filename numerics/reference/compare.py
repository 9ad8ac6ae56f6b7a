"""How two tensors differ, and gates that say whether that is acceptable.

A relative Frobenius error alone gates nothing: one zeroed row in 4,096 moves it by 1.6 %, a scale 3 % off hides under
FP8's own 3.7 %, and truncation instead of rounding is invisible in it. So `gate` looks at every row and every column
by itself, at the gain (the factor that a wrong scale leaves behind) and, on non-negative data, at the signed bias.

All figures are computed in float64. Tensors of any shape are read as matrices [everything else, last dimension].
NaN equals NaN here, whatever its sign and payload; zeros of both signs are equal in value but differ bitwise.
"""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

PRODUCT = 2.5e-3
"""Gate of a matrix product against the float64 product of its dequantised operands: rounding the result to bfloat16
costs at most 2^-9 = 1.95e-3 of an element (1.66e-3 rms), and FP8 sums promoted every 128 add 1.3e-4 (`hopper`)."""
END_TO_END = 0.045
"""Gate of an FP8 matrix product against the product of the unquantised operands, random data: 0.037 is FP8's own."""
GAIN = 0.01
"""Largest acceptable factor beyond 1 on the whole result: a third of the 3 % scale error that must be caught."""
SLACK = 5.0
"""Standard deviations that one row's figures may lie beyond those of the whole (a row of n values: 1/sqrt(n) each)."""
SHORTEST = 16
"""Rows and columns with fewer values have no meaningful relative error of their own."""

_INTEGER = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class GateError(AssertionError):
    """A comparison that did not pass; its text gives every reason with figures."""


@dataclass(frozen=True)
class Verdict:
    """What a gate found: the reasons against (none: passed) and the figures that it looked at."""

    name: str
    failures: tuple[str, ...]
    figures: dict[str, float] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        return not self.failures

    def __str__(self) -> str:
        figures = ", ".join(f"{key} {value:.3g}" for key, value in self.figures.items())
        return f"{self.name}: {'passed' if self.passed else '; '.join(self.failures)} ({figures})"


def codes(x: Tensor) -> Tensor:
    """The bits of a tensor as int64, with one pattern for all NaNs."""
    if not x.is_floating_point():
        return x.long()
    width = 8 * x.element_size()
    bits = x.contiguous().view(_INTEGER[x.element_size()]).long()
    bits = bits & ((1 << width) - 1) if width < 64 else bits
    return torch.where(torch.isnan(x.float() if width < 32 else x), -1, bits)


def bitwise(actual: Tensor, expected: Tensor) -> int:
    """Number of elements whose bits differ. Raises GateError when shape or type differ."""
    _alike(actual, expected, same_type=True)
    return int((codes(actual) != codes(expected)).sum())


def ulp(actual: Tensor, expected: Tensor) -> Tensor:
    """Distance in representable values (int64, elementwise), both tensors of one floating type; NaN only meets NaN.

    Signed zeros are 0 apart. A NaN on one side only is 2^62 apart.
    """
    _alike(actual, expected, same_type=True)
    one, other = _ordered(actual), _ordered(expected)
    lone = torch.isnan(actual.double()) != torch.isnan(expected.double())
    both = torch.isnan(actual.double()) & torch.isnan(expected.double())
    return torch.where(lone, 1 << 62, torch.where(both, 0, (one - other).abs()))


def _ordered(x: Tensor) -> Tensor:
    """Integers in the order of the values: magnitude bits, negated below zero."""
    bits = x.contiguous().view(_INTEGER[x.element_size()]).long()
    magnitude = bits & ((1 << (8 * x.element_size() - 1)) - 1)
    return torch.where(torch.signbit(x.double()), -magnitude, magnitude)


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """Frobenius norm of the difference over that of the expected. To be reported; it gates nothing alone."""
    return float(_relative(_matrix(actual) - _matrix(expected), _matrix(expected), (0, 1)))


def _relative(difference: Tensor, expected: Tensor, dims: tuple[int, ...]) -> Tensor:
    """Of what lies along `dims`; what is expected to be zero gives 0 if it is, else inf."""
    noise, signal = difference.square().sum(dims).sqrt(), expected.square().sum(dims).sqrt()
    return torch.where(noise == 0, 0.0, noise / signal)


def gain(actual: Tensor, expected: Tensor) -> float:
    """The factor c for which c * expected is nearest to actual, less 1: what a wrong scale leaves behind."""
    return float(_gains(_matrix(actual), _matrix(expected), (0, 1)))


def _gains(actual: Tensor, expected: Tensor, dims: tuple[int, ...]) -> Tensor:
    signal = expected.square().sum(dims)
    return torch.where(signal == 0, 0.0, ((actual - expected) * expected).sum(dims) / signal)


def rounding_bias(actual: Tensor, expected: Tensor) -> float:
    """Signed mean error over the mean, of non-negative data: 0 for rounding to nearest, negative for truncation.

    Raises ValueError on negative expected values, where errors of both signs cancel and the figure says nothing.
    """
    wanted = _matrix(expected)
    if bool((wanted < 0).any()):
        raise ValueError("a rounding bias is of non-negative data; the expected values hold negative ones")
    total = float(wanted.sum())
    return float((_matrix(actual) - wanted).sum()) / total if total else 0.0


def gate(
    actual: Tensor, expected: Tensor, tolerance: float = PRODUCT, bias: float | None = None, name: str = "gate",
    raises: bool = True, gain_tolerance: float = GAIN,
) -> Verdict:  # fmt: skip
    """Hold `actual` against `expected`. Raises GateError on failure, or returns the verdict with raises=False.

    tolerance: of the whole's relative error; a row or column of n >= 16 values may reach tolerance * (1 + 5/sqrt(n)),
        and none may be zero (or not) where it should not (or should) be.
    gain_tolerance: of the whole's factor; a row or column may reach gain_tolerance + 5 * tolerance / sqrt(n).
    bias: largest |rounding_bias|, checked when given (non-negative data only).
    NaN and infinities must stand where expected; the figures leave them out.
    """
    _alike(actual, expected, same_type=False)
    failures = _special_values(actual, expected)
    here = torch.isfinite(actual.double()) & torch.isfinite(expected.double())
    a, e = (_matrix(torch.where(here, x.double(), 0.0)) for x in (actual, expected))
    figures = {"relative error": relative_error(a, e), "gain": gain(a, e)}
    failures += _over("relative error", figures["relative error"], tolerance)
    failures += _over("gain", abs(figures["gain"]), gain_tolerance)
    for axis, (x, y) in {"row": (a, e), "column": (a.t(), e.t())}.items():
        failures += _lines(axis, x, y, tolerance, gain_tolerance, figures)
    if bias is not None:
        figures["bias"] = rounding_bias(a, e)
        failures += _over("bias", abs(figures["bias"]), bias)
    return _settle(Verdict(name, tuple(failures), figures), raises)


def gate_bitwise(actual: Tensor, expected: Tensor, name: str = "bitwise", raises: bool = True) -> Verdict:
    """Every bit equal (NaNs count as equal); the figures say how many are not and where the first is."""
    differ = bitwise(actual, expected)
    failures = ()
    if differ:
        first = tuple((codes(actual) != codes(expected)).nonzero()[0].tolist())
        values = f"{actual[first].item()!r} for {expected[first].item()!r}"
        failures = (f"{differ} of {actual.numel()} elements differ, first at {list(first)}: {values}",)
    return _settle(Verdict(name, failures, {"differing": float(differ)}), raises)


def gate_ulp(actual: Tensor, expected: Tensor, limit: int = 1, name: str = "ulp", raises: bool = True) -> Verdict:
    """No element more than `limit` representable values away."""
    worst = int(ulp(actual, expected).max()) if actual.numel() else 0
    failures = (f"{worst} ulp is over {limit}",) if worst > limit else ()
    return _settle(Verdict(name, failures, {"ulp": float(worst)}), raises)


def _settle(verdict: Verdict, raises: bool) -> Verdict:
    if raises and not verdict.passed:
        raise GateError(str(verdict))
    return verdict


def _lines(
    axis: str, actual: Tensor, expected: Tensor, tolerance: float, gain_tolerance: float, figures: dict[str, float]
) -> list[str]:
    """Failures of single rows (of the transposed matrix: columns), the worst of each kind; its figures are added."""
    wrong = (actual == 0).all(1) != (expected == 0).all(1)
    if actual.numel() and bool(wrong.any()):
        return [f"{axis} {int(wrong.nonzero()[0])} is all zero on one side only ({int(wrong.sum())} such)"]
    n = actual.shape[1]
    if n < SHORTEST or not actual.shape[0]:
        return []
    deviation = SLACK / math.sqrt(n)
    errors = _relative(actual - expected, expected, (1,))
    gains = _gains(actual, expected, (1,)).abs()
    figures[f"worst {axis}"], figures[f"worst {axis} gain"] = float(errors.max()), float(gains.max())
    failures = _over(f"{axis} {int(errors.argmax())} error", float(errors.max()), tolerance * (1 + deviation))
    return failures + _over(
        f"{axis} {int(gains.argmax())} gain", float(gains.max()), gain_tolerance + tolerance * deviation
    )


def _over(what: str, value: float, limit: float) -> list[str]:
    """One failure when value exceeds limit (or is NaN)."""
    return [] if value <= limit else [f"{what} {value:.3g} is over {limit:.3g}"]


def _special_values(actual: Tensor, expected: Tensor) -> list[str]:
    """Failures where NaN or an infinity stands on one side only."""
    a, e = actual.double(), expected.double()
    nan = torch.isnan(a) != torch.isnan(e)
    infinite = (torch.isinf(a) | torch.isinf(e)) & (a != e) & ~nan
    counts = [("NaN", int(nan.sum())), ("infinity", int(infinite.sum()))]
    return [f"{kind} at {count} places on one side only" for kind, count in counts if count]


def _alike(actual: Tensor, expected: Tensor, same_type: bool) -> None:
    if actual.shape != expected.shape:
        raise GateError(f"shapes differ: {list(actual.shape)} for {list(expected.shape)}")
    if same_type and actual.dtype != expected.dtype:
        raise GateError(f"types differ: {actual.dtype} for {expected.dtype}")


def _matrix(x: Tensor) -> Tensor:
    """float64 [everything else, last dimension]."""
    return x.double().reshape(-1, x.shape[-1]) if x.dim() else x.double().reshape(1, 1)
