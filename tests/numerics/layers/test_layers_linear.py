"""The FP8 linear layer as an autograd module: its gradients are its three products, and its cache is FP8."""

import pytest

torch = pytest.importorskip("torch")

from numerics.layers.config import Precision  # noqa: E402
from numerics.layers.kept import Plain  # noqa: E402
from numerics.layers.linear import Linear  # noqa: E402
from numerics.layers.norm import RMSNorm  # noqa: E402
from numerics.layers.products import dgrad, operand, wgrad  # noqa: E402
from numerics.reference.compare import END_TO_END, gate  # noqa: E402
from tests.numerics.layers import saved  # noqa: E402

T, K, N = 200, 256, 130


def run(precision, again=False):
    torch.manual_seed(0)
    layer, norm = Linear(K, N, precision, 0.05), RMSNorm(K, 1e-6)
    x = torch.randn(2, T // 2, K, dtype=precision.dtype).requires_grad_()
    normed, kept = norm.normed(x.view(T, K))
    y = layer(normed.view_as(x), kept if again else None)
    dy = torch.randn_like(y)
    y.backward(dy)
    return layer, x, y, dy, normed.detach()


@pytest.mark.parametrize("precision", list(Precision))
def test_shapes_types_and_masters(precision):
    layer, x, y, _, _ = run(precision)
    assert y.shape == (2, T // 2, N) and y.dtype == precision.dtype
    assert layer.weight.dtype == layer.weight.grad.dtype == torch.float32
    assert x.grad.dtype == x.dtype


def test_fp8_gradients_are_the_two_products():
    layer, _, _, dy, x = run(Precision.FP8)
    flat = dy.view(T, N)
    assert torch.equal(layer.weight.grad, wgrad(Plain(flat), operand(x, Precision.FP8), Precision.FP8))
    gate(layer.weight.grad, flat.double().t() @ x.double(), END_TO_END * 1.25)
    dx = dgrad(operand(flat, Precision.FP8), layer.weight.detach(), Precision.FP8)
    gate(dx, flat.double() @ layer.weight.detach().double(), END_TO_END)


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.BF16])
def test_running_the_norm_again_changes_no_bit(precision):
    kept, again = run(precision), run(precision, again=True)
    assert torch.equal(kept[0].weight.grad, again[0].weight.grad)
    assert torch.equal(kept[1].grad, again[1].grad)


def test_the_cache_is_codes_and_scales():
    layer = Linear(K, N, Precision.FP8, 0.05)
    x = torch.randn(T, K).bfloat16().requires_grad_()
    with saved.Count(layer) as count:
        layer(x)
    assert count.bytes == T * (K + 4 * K // 128)


def test_second_derivatives_are_refused():
    layer = Linear(K, N, Precision.FP32, 0.05)
    x = torch.randn(T, K).requires_grad_()
    (dx,) = torch.autograd.grad(layer(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        dx.sum().backward()
