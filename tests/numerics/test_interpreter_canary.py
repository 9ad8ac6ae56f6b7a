"""One canary for each repair of the interpreter: it sings (passes) while Triton is wrong.

A canary that fails means that Triton fixed the defect: delete that entry of `interpreter.REPAIRS` and its canary.
"""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
triton = pytest.importorskip("triton")

import triton.language as tl  # noqa: E402

from tests.numerics import interpreter  # noqa: E402

interpreter.install()
pytestmark = pytest.mark.skipif(not interpreter.active(), reason="kernels run on a GPU here, not in the interpreter")

FIXED = "Triton fixed this: delete the repair from tests/numerics/interpreter.py, and this canary"
SHIPPED, REPAIRED = "shipped", "repaired"


@triton.jit
def _convert(x, y, n: tl.constexpr):
    i = tl.arange(0, n)
    tl.store(y + i, tl.load(x + i).to(y.dtype.element_ty))


@triton.jit
def _arithmetic(x, y, n: tl.constexpr, kind: tl.constexpr):
    i = tl.arange(0, n)
    a = tl.load(x + i)
    if kind == "add":
        a = a + a
    elif kind == "fma":
        a = tl.fma(a, a, a)
    elif kind == "less":
        b = tl.load(x + (n - 1 - i))
        a = tl.where(a < b, a, b)
    elif kind == "maximum":
        a = tl.maximum(a, 0.5)
    elif kind == "minimum":
        a = tl.minimum(a, 0.5)
    elif kind == "clamp":
        a = tl.clamp(a, -1.0, 1.0)
    tl.store(y + i, a)


@triton.jit
def _dot(a, b, c, n: tl.constexpr):
    i = tl.arange(0, n)
    place = i[:, None] * n + i[None, :]
    tl.store(c + place, tl.dot(tl.load(a + place), tl.load(b + place)))


def convert(x: "torch.Tensor", dtype: "torch.dtype") -> "torch.Tensor":
    y = torch.empty_like(x, dtype=dtype)
    _convert[(1,)](x, y, x.numel())
    return y


def arithmetic(x: "torch.Tensor", kind: str) -> "torch.Tensor":
    y = torch.empty_like(x)
    _arithmetic[(1,)](x, y, x.numel(), kind)
    return y


def right(one: "torch.Tensor", other: "torch.Tensor") -> bool:
    return torch.equal(torch.nan_to_num(one.float(), nan=12345.0), torch.nan_to_num(other.float(), nan=12345.0))


def sings(check) -> None:
    """`check` is false as Triton ships and true when repaired."""
    with interpreter.unrepaired():
        try:
            shipped = check()
        except Exception:
            shipped = False
    assert check(), "the repair itself is wrong"
    assert not shipped, FIXED


CONVERSIONS = {
    "carry into the next binade": [31.6, 15.9, -62.5, 0.0149],
    "ties to even": [17.0, 21.0, 1.0625, 1.1875],
    "overflow": [449.0, 480.0, 1e9, -600.0],
    "inf": [float("inf"), float("-inf"), 1.0, 2.0],
    "NaN": [float("nan"), 1.0, 2.0, 3.0],
}


@pytest.mark.parametrize("name", CONVERSIONS)
def test_float32_to_e4m3(name: str) -> None:
    x = torch.tensor(CONVERSIONS[name])
    expected = x.clamp(-448, 448).to(torch.float8_e4m3fn)
    sings(lambda: right(convert(x, torch.float8_e4m3fn), expected))


def test_cast_is_rne() -> None:
    """float32 to bfloat16 truncates."""
    x = torch.tensor([1.0 + 2.0**-8 + 2.0**-12, -1.01, 3.14159, float("nan")])
    sings(lambda: right(convert(x, torch.bfloat16), x.bfloat16()))


@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "float8_e5m2"])
def test_fp8_special_values_load(dtype: str) -> None:
    """e4m3 NaN loads as 480, e5m2 inf as 65536."""
    codes = torch.arange(256).to(torch.uint8).view(getattr(torch, dtype))
    sings(lambda: right(convert(codes, torch.float32), codes.float()))


@pytest.mark.parametrize("kind", ["add", "fma", "less"])
def test_bfloat16_arithmetic(kind: str) -> None:
    x = torch.tensor([1.5, -2.25, 0.375, -7.0], dtype=torch.bfloat16)
    expected = {"add": x + x, "fma": x * x + x, "less": torch.minimum(x, x.flip(0))}[kind]
    sings(lambda: right(arithmetic(x, kind), expected))


def test_bfloat16_sum_is_refused() -> None:
    """Not a repair but a refusal: on the device the result depends on the order of bfloat16 additions."""

    x, y = torch.ones(4, dtype=torch.bfloat16), torch.zeros(1)
    with pytest.raises(Exception, match="sum bf16 in fp32"):
        _sum[(1,)](x, y, 4)
    with interpreter.unrepaired():
        _sum[(1,)](x, y, 4)
    assert y.item() != 4, FIXED


@triton.jit
def _sum(x, y, n: tl.constexpr):
    tl.store(y, tl.sum(tl.load(x + tl.arange(0, n)), axis=0).to(tl.float32))


@pytest.mark.parametrize("dtype", ["bfloat16", "float8_e4m3fn"])
def test_dot(dtype: str) -> None:
    """bfloat16 operands are read as bit patterns, FP8 NaN as 480."""
    a = torch.eye(16).to(getattr(torch, dtype))
    b = torch.arange(256).view(16, 16).float()
    if dtype == "float8_e4m3fn":
        b = torch.where(b == 7, torch.nan, b.clamp(max=8))
    b = b.to(a.dtype)

    def check() -> bool:
        c = torch.empty(16, 16)
        _dot[(1,)](a, b, c, 16)
        return right(c, a.float() @ b.float())

    sings(check)


@pytest.mark.parametrize("kind", ["maximum", "minimum", "clamp"])
def test_nan_gives_way(kind: str) -> None:
    """max.f32 and min.f32 return the operand that is a number; tl.clamp is min(max(x, low), high)."""
    x = torch.tensor([float("nan"), 0.25, 0.75, -3.0])
    expected = {
        "maximum": torch.tensor([0.5, 0.5, 0.75, 0.5]),
        "minimum": torch.tensor([0.5, 0.25, 0.5, -3.0]),
        "clamp": torch.tensor([-1.0, 0.25, 0.75, -1.0]),
    }[kind]
    sings(lambda: right(arithmetic(x, kind), expected))


def test_fma_rounds_once() -> None:
    a = np.float32(1 + 2.0**-12)
    x = torch.full((4,), float(a))
    once = float(np.float32(float(a) * float(a) + float(a)))
    twice = float(np.float32(np.float32(a * a) + a))
    product = float(a) * float(a)
    assert once != twice or product != float(np.float32(product))
    assert right(arithmetic(x, "fma"), torch.full((4,), once))


def test_overflow_is_silent() -> None:
    """numpy warns, and pytest here makes RuntimeWarning an error."""
    x = torch.full((4,), 3e38)

    def check() -> bool:
        return bool(torch.isinf(arithmetic(x, "add")).all())

    sings(check)


def test_autotune_needs_no_driver() -> None:
    x = torch.ones(8)

    def check() -> bool:
        y = torch.zeros(8)
        tuned = triton.autotune(configs=[triton.Config({"n": 8}), triton.Config({"n": 4})], key=["x"])(_convert)
        tuned[(1,)](x, y)
        return right(x, y)

    sings(check)


def test_exhaustive_casts_are_right_once_repaired() -> None:
    """Every FP8 code and, for e4m3, every midpoint and its float32 neighbours."""
    codes = torch.arange(0x7E).to(torch.uint8).view(torch.float8_e4m3fn).float()
    middle = (codes[1:] + codes[:-1]) / 2
    near = torch.cat([middle, torch.nextafter(middle, torch.tensor(0.0)), torch.nextafter(middle, torch.tensor(1e9))])
    x = torch.cat([near, -near])
    x = torch.nn.functional.pad(x, (0, 1024 - x.numel()))
    assert right(convert(x, torch.float8_e4m3fn), x.clamp(-448, 448).to(torch.float8_e4m3fn))
