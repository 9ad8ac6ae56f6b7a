"""SwiGLU: the reference against autograd, the kernels against the reference."""

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

from numerics.kernels import swiglu as kernels  # noqa: E402
from numerics.reference import compare  # noqa: E402
from numerics.reference import swiglu as reference  # noqa: E402
from numerics.reference.casts import dequantize_rows, quantize_rows  # noqa: E402
from tests.numerics import interpreter  # noqa: E402

interpreter.install()
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SHAPES = [(37, 256), (1, 128), (130, 384)]
RAGGED = [(5, 200), (33, 6)]
SCALE_ULP = 16
"""exp(x) is 2^(x log2 e) on the device, whose product is rounded: |x| / ln 2 half-ulps, so 6 ulp at x = -8, and as much
again for the exponential, the sum and the quotient."""
BOUNDARY = 2e-4
"""Share of codes that an ulp in the exponential may push over a rounding boundary (the boundary's width is 2^-23 of a
code's 2^-4, so 1e-6 is expected; a wrong operand moves more than a tenth of them)."""


def operands(rows: int, half: int, dtype: "torch.dtype" = torch.bfloat16) -> tuple:
    torch.manual_seed(rows)
    x = 2 * torch.randn(rows, 2 * half)
    return torch.randn(rows, half).to(dtype), x.to(dtype)


def near(actual: tuple, expected: tuple) -> None:
    """Scales to SCALE_ULP; codes equal but for a few that lie on a boundary, and those neighbours."""
    (q, s), (q_expected, s_expected) = [[t.cpu() for t in pair] for pair in (actual, expected)]
    compare.gate_ulp(s, s_expected, SCALE_ULP, "scales")
    compare.gate_ulp(q, q_expected, 1, "codes")
    assert compare.bitwise(q, q_expected) <= max(1, BOUNDARY * q.numel())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_reference_is_torch(dtype: "torch.dtype") -> None:
    dy, x = operands(9, 20, torch.float32)
    leaf = x.to(dtype).requires_grad_()
    y = torch.nn.functional.silu(leaf[:, :20]) * leaf[:, 20:]
    y.backward(dy.to(dtype))
    torch.testing.assert_close(reference.swiglu(x), y.detach().float(), rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(reference.swiglu_backward(dy, x), leaf.grad.float(), rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize("shape", SHAPES + RAGGED)
def test_forward_and_backward(shape: tuple[int, int]) -> None:
    dy, x = operands(*shape)
    compare.gate_ulp(kernels.swiglu(x.to(DEVICE)).cpu(), reference.swiglu(x))
    compare.gate_ulp(kernels.swiglu_backward(dy.to(DEVICE), x.to(DEVICE)).cpu(), reference.swiglu_backward(dy, x))


@pytest.mark.parametrize("power_of_two", [False, True])
@pytest.mark.parametrize("shape", SHAPES + RAGGED)
@pytest.mark.parametrize("name", ["swiglu_quantize", "swiglu_quantize_columns"])
def test_forward_with_cast(name: str, shape: tuple[int, int], power_of_two: bool) -> None:
    _, x = operands(*shape)
    near(getattr(kernels, name)(x.to(DEVICE), power_of_two), getattr(reference, name)(x, power_of_two))


@pytest.mark.parametrize("power_of_two", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_backward_with_cast(shape: tuple[int, int], power_of_two: bool) -> None:
    dy, x = operands(*shape)
    actual = kernels.swiglu_backward_quantize(dy.to(DEVICE), x.to(DEVICE), power_of_two)
    near(actual, reference.swiglu_backward_quantize(dy, x, power_of_two))


@pytest.mark.parametrize("shape", SHAPES + RAGGED)
def test_backward_of_weighed_rows(shape: tuple[int, int]) -> None:
    dy, x = operands(*shape)
    by_row = torch.rand(shape[0])
    found = [t.cpu() for t in kernels.swiglu_backward_weighed(*(t.to(DEVICE) for t in (dy, x, by_row)))]
    dx, act, dots = reference.swiglu_backward_weighed(dy, x, by_row)
    compare.gate_ulp(found[0], dx)
    compare.gate_ulp(found[1], act)
    size = (dy.float() * reference.swiglu(x).float()).abs().sum(1)
    assert ((found[2] - dots).abs() <= 2.0**-8 * size).all()  # an ulp of BF16 in the activation


@pytest.mark.parametrize("shape", SHAPES + RAGGED)
def test_backward_that_writes_the_activation_too(shape: tuple[int, int]) -> None:
    dy, x = operands(*shape)
    y, dx = kernels.swiglu_forward_backward(dy.to(DEVICE), x.to(DEVICE))
    compare.gate_ulp(y.cpu(), reference.swiglu(x))
    compare.gate_ulp(dx.cpu(), reference.swiglu_backward(dy, x))


@pytest.mark.parametrize("shape", [*SHAPES, *RAGGED, (3, 5000)])
def test_gradient_of_the_gates_weight(shape: tuple[int, int]) -> None:
    dy, x = operands(*shape)
    y = x[:, : shape[1]]
    found = kernels.gate_weight_gradient(dy.to(DEVICE), y.to(DEVICE)).cpu()
    expected = reference.gate_weight_gradient(dy, y)
    weight = torch.ones(shape[0], requires_grad=True)
    (weight[:, None] * y.float() * dy.float()).sum().backward()
    torch.testing.assert_close(expected, weight.grad, rtol=1e-5, atol=1e-4)
    size = (dy.float() * y.float()).abs().sum(1)
    assert found.dtype == torch.float32 and ((found - expected).abs() <= size * 64 * 2.0**-24).all()


def test_extremes() -> None:
    """A gate of -88 and below: the exponential overflows, the product is a signed zero; large gates pass through."""
    x = torch.tensor([[-1e4, -200.0, -88.9, 0.0, 88.9, 1e4] + [1.0] * 6]).bfloat16()
    compare.gate_ulp(kernels.swiglu(x.to(DEVICE)).cpu(), reference.swiglu(x))
    gradient = kernels.swiglu_backward(torch.ones(1, 6).bfloat16().to(DEVICE), x.to(DEVICE)).cpu()
    compare.gate_ulp(gradient, reference.swiglu_backward(torch.ones(1, 6).bfloat16(), x))
    assert torch.isfinite(gradient).all()


def test_fused_is_closer_than_separate() -> None:
    """What the fusion changes: no rounding to BF16 between."""
    _, x = operands(256, 128)
    exact = torch.nn.functional.silu(x[:, :128].double()) * x[:, 128:].double()
    fused = dequantize_rows(*kernels.swiglu_quantize(x.to(DEVICE)), torch.float32).cpu()
    separate = dequantize_rows(*quantize_rows(reference.swiglu(x)), torch.float32)
    assert compare.relative_error(fused, exact) <= compare.relative_error(separate, exact) * 1.001
    compare.gate(fused, exact, tolerance=0.03)


def test_rows_may_be_strided() -> None:
    dy, x = operands(8, 128)
    wide = torch.cat([x, x], dim=1).to(DEVICE)[:, :256]
    compare.gate_ulp(kernels.swiglu(wide).cpu(), reference.swiglu(x))
    compare.gate_ulp(kernels.swiglu_backward(dy.to(DEVICE), wide).cpu(), reference.swiglu_backward(dy, x))


@pytest.mark.parametrize("module", [kernels, reference])
def test_errors(module) -> None:
    with pytest.raises(ValueError, match="even number of columns"):
        module.swiglu(torch.zeros(2, 3, device=DEVICE))
    with pytest.raises(ValueError, match="multiples of 128; got 6"):
        module.swiglu_backward_quantize(torch.zeros(2, 6, device=DEVICE), torch.zeros(2, 12, device=DEVICE))


def test_nothing_to_do() -> None:
    x = torch.empty(0, 256, dtype=torch.bfloat16, device=DEVICE)
    assert kernels.swiglu(x).shape == (0, 128)
    assert kernels.swiglu_backward(x[:, :128], x).shape == (0, 256)
    assert kernels.swiglu_quantize_columns(x)[0].shape == (128, 0)
