"""RMSNorm: the reference against torch and autograd, the kernels against the reference."""

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

from numerics.kernels import norm as kernels  # noqa: E402
from numerics.reference import compare  # noqa: E402
from numerics.reference import norm as reference  # noqa: E402
from tests.numerics import interpreter  # noqa: E402

interpreter.install()
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SHAPES = [(1, 128), (13, 200), (6, 1536), (3, 7168), (9, 1)]
SUM_ULP = 64
"""float32 sums of the same numbers in another order: sqrt(n) ulp for random signs, 64 for n = 4,096."""


def operands(rows: int, columns: int, dtype: "torch.dtype" = torch.bfloat16) -> tuple:
    torch.manual_seed(columns)
    x, dy = torch.randn(rows, columns) * torch.exp(torch.randn(rows, 1)), torch.randn(rows, columns)
    return dy.to(dtype), x.to(dtype), (1 + 0.1 * torch.randn(columns)).to(dtype)


def test_reference_is_torch() -> None:
    dy, x, w = operands(7, 24, torch.float32)
    leaf, weight = x.double().requires_grad_(), w.double().requires_grad_()
    expected = torch.nn.functional.rms_norm(leaf, (24,), weight, 1e-6)
    expected.backward(dy.double())
    y, rstd = reference.rmsnorm(x, w, 1e-6)
    dx, dw = reference.rmsnorm_backward(dy, x, w, rstd)
    torch.testing.assert_close(y, expected.detach().float(), rtol=2e-6, atol=1e-6)
    torch.testing.assert_close(dx, leaf.grad.float(), rtol=2e-6, atol=2e-6)
    torch.testing.assert_close(dw, weight.grad.float(), rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_forward(shape: tuple[int, int]) -> None:
    _, x, w = operands(*shape)
    y, rstd = kernels.rmsnorm(x.to(DEVICE), w.to(DEVICE))
    expected, rstd_expected = reference.rmsnorm(x, w)
    compare.gate_ulp(y.cpu(), expected)
    compare.gate_ulp(rstd.cpu(), rstd_expected, 4)


@pytest.mark.parametrize("programs", [None, 1, 4])
@pytest.mark.parametrize("shape", SHAPES)
def test_backward(shape: tuple[int, int], programs: int | None) -> None:
    dy, x, w = operands(*shape)
    _, rstd = reference.rmsnorm(x, w)
    moved = [t.to(DEVICE) for t in (dy, x, w, rstd)]
    dx, dw = kernels.rmsnorm_backward(*moved, programs=programs)
    dx_expected, dw_expected = reference.rmsnorm_backward(dy, x, w, rstd)
    # Where a gradient nearly cancels an ulp of BF16 says nothing: the bound is relative to the row.
    size = dx_expected.float().abs().amax(dim=1, keepdim=True)
    assert ((dx.cpu().float() - dx_expected.float()).abs() <= size * 2.0**-8).all()
    scale = (dy.float() * x.float() * rstd[:, None]).abs().sum(dim=0)
    assert ((dw.cpu() - dw_expected).abs() <= SUM_ULP * 2.0**-24 * scale).all()
    if shape[1] >= 128:
        compare.gate(dx.cpu(), dx_expected, name="dx")


@pytest.mark.parametrize("shape", SHAPES)
def test_forward_with_the_residual_added(shape: tuple[int, int]) -> None:
    residual, x, w = operands(*shape)
    found = kernels.add_rmsnorm(x.to(DEVICE), residual.to(DEVICE), w.to(DEVICE))
    total, y, rstd = reference.add_rmsnorm(x, residual, w)
    assert torch.equal(total, x + residual), "one rounding, as torch's own sum"
    compare.gate_bitwise(found[0].cpu(), total)
    compare.gate_ulp(found[1].cpu(), y)
    compare.gate_ulp(found[2].cpu(), rstd, 4)


@pytest.mark.parametrize("streams", [1, 2, 3, 4])
@pytest.mark.parametrize("shape", SHAPES)
def test_backward_of_several_streams(shape: tuple[int, int], streams: int) -> None:
    """Gradients of several consumers before the norm, and of the residual after it."""
    residual, x, w = operands(*shape)
    dy = torch.stack([residual.roll(i + 1, 0) for i in range(streams)])
    rstd = reference.rmsnorm(x, w)[1]
    dx, dw = kernels.rmsnorm_backward(*(t.to(DEVICE) for t in (dy, x, w, rstd, residual)))
    expected, dw_expected = reference.rmsnorm_backward(dy, x, w, rstd, residual)
    size = (dy.float().abs().sum(0) * rstd[:, None]).amax(1, keepdim=True) + residual.float().abs()
    assert ((dx.cpu().float() - expected.float()).abs() <= 2 * size * 2.0**-8).all()
    scale = (dy.float().abs().sum(0) * (x.float() * rstd[:, None]).abs()).sum(dim=0)
    assert ((dw.cpu() - dw_expected).abs() <= SUM_ULP * 2.0**-24 * scale).all()
    if shape[1] >= 128:
        compare.gate(dx.cpu(), expected, name="dx")


def test_streams_of_the_reference_are_autograds() -> None:
    """y goes to two consumers, and x + residual to the next layer too."""
    g, x, w = operands(7, 24, torch.float32)
    leaf = x.double().requires_grad_()
    y = torch.nn.functional.rms_norm(leaf, (24,), w.double(), 1e-6)
    (y * g + y * (2 * g) + leaf * g.flip(0)).sum().backward()
    rstd = reference.rmsnorm(x, w)[1]
    dx, _ = reference.rmsnorm_backward(torch.stack([g, 2 * g]), x, w, rstd, g.flip(0))
    torch.testing.assert_close(dx, leaf.grad.float(), rtol=2e-6, atol=1e-5)


def test_weight_gradient_does_not_depend_on_timing() -> None:
    dy, x, w = operands(50, 256)
    arguments = [t.to(DEVICE) for t in (dy, x, w, reference.rmsnorm(x, w)[1])]
    first = kernels.rmsnorm_backward(*arguments, programs=7)[1]
    assert torch.equal(first, kernels.rmsnorm_backward(*arguments, programs=7)[1])


@pytest.mark.parametrize("damage", ["row", "scale"])
def test_the_gate_catches(damage: str) -> None:
    _, x, w = operands(32, 256)
    y, _ = reference.rmsnorm(x, w)
    wrong = y.clone()
    wrong[7] *= 0 if damage == "row" else 1.03
    with pytest.raises(compare.GateError):
        compare.gate(wrong, y)


def test_rounding_has_no_bias() -> None:
    torch.manual_seed(0)
    x, w = torch.rand(32, 512).bfloat16(), torch.ones(512).bfloat16()
    exact = x.double() * torch.rsqrt(x.double().square().mean(dim=1, keepdim=True) + 1e-6)
    compare.gate(kernels.rmsnorm(x.to(DEVICE), w.to(DEVICE))[0].cpu(), exact, bias=2e-4)


def test_zeros_and_strides() -> None:
    x = torch.zeros(3, 512, dtype=torch.bfloat16, device=DEVICE)[:, 128:384]
    y, rstd = kernels.rmsnorm(x, torch.ones(256, device=DEVICE), 1e-6)
    assert not y.any() and torch.allclose(rstd.cpu(), torch.full((3,), 1e3))
    empty = kernels.rmsnorm_backward(x[:0], x[:0], torch.ones(256, device=DEVICE), rstd[:0])
    assert empty[0].shape == (0, 256) and not empty[1].any()
