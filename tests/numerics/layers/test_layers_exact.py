"""FP32 products in BF16 pieces: as close to the exact product as FP32's own, which fewer pieces are not."""

import pytest

torch = pytest.importorskip("torch")

from numerics.layers import exact  # noqa: E402
from numerics.layers.linear import linear  # noqa: E402
from numerics.layers.precision import Precision  # noqa: E402

T, N, K = 64, 12, 256


@pytest.fixture
def operands():
    torch.manual_seed(0)
    return torch.randn(T, K).bfloat16(), torch.randn(N, K), torch.randn(T, N)


def error(found, wanted):
    return float((found.double() - wanted).abs().max() / wanted.abs().max())


def test_three_pieces_are_the_number(operands):
    _, w, _ = operands
    parts = exact.pieces(w)
    assert torch.equal(sum(part.double() for part in parts), w.double())


def test_products_are_fp32s(operands):
    x, w, dy = operands
    assert error(exact.fprop(x, w), x.double() @ w.double().t()) < 5e-7
    assert error(exact.wgrad(dy, x), dy.double().t() @ x.double()) < 5e-7
    assert exact.dgrad(dy, w).dtype == torch.bfloat16
    assert error(exact.dgrad(dy, w), dy.double() @ w.double()) < 2.0**-8


def test_two_pieces_would_not_do(operands, monkeypatch):
    x, w, _ = operands
    whole = exact.pieces
    monkeypatch.setattr(exact, "pieces", lambda t: (*whole(t)[:2], torch.zeros_like(whole(t)[2])))
    assert error(exact.fprop(x, w), x.double() @ w.double().t()) > 5e-7


def test_a_layer_takes_them_where_they_suit(operands, monkeypatch):
    """On a CPU never; forced, the layer's output and gradients are those of the FP32 product."""
    x, w, dy = operands
    results = []
    for suits in (exact.suits, lambda t: t.dtype == torch.bfloat16):
        monkeypatch.setattr(exact, "suits", suits)
        leaf, weight = x.clone().requires_grad_(), w.clone().requires_grad_()
        y = linear(leaf, weight, Precision.FP32)
        y.backward(dy)
        results.append((y.detach(), leaf.grad, weight.grad))
    for plain, mine in zip(*results, strict=True):
        assert mine.dtype == plain.dtype
        torch.testing.assert_close(mine, plain, rtol=2.0**-7 if plain.dtype == torch.bfloat16 else 1e-5, atol=1e-4)
