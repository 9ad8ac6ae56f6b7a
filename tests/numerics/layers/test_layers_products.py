"""The three products against the products of their dequantised operands, and against FP64 products of the originals."""

import pytest

torch = pytest.importorskip("torch")

from numerics import ops  # noqa: E402
from numerics.layers.config import Precision  # noqa: E402
from numerics.layers.kept import Plain  # noqa: E402
from numerics.layers.products import (  # noqa: E402
    dgrad,
    fprop,
    grouped_dgrad,
    grouped_fprop,
    grouped_wgrad,
    operand,
    wgrad,
)
from numerics.reference.compare import END_TO_END, PRODUCT, GateError, gate, relative_error, rounding_bias  # noqa: E402

FP8 = Precision.FP8
M, N, K = 150, 200, 384
"""Ragged in tokens and outputs."""


@pytest.fixture
def tensors():
    torch.manual_seed(0)
    return torch.randn(M, K).bfloat16(), torch.randn(N, K) * 0.02, torch.randn(M, N).bfloat16()


def blocks(w):
    return ops.dequantize_blocks(*ops.quantize_blocks(w), torch.float32).double()


def rows(x):
    return ops.dequantize_rows(*ops.quantize_rows(x), torch.float32).double()


def columns(x):
    return ops.dequantize_rows(*ops.quantize_columns(x), torch.float32).double()


def test_fprop(tensors):
    x, w, _ = tensors
    y = fprop(operand(x, FP8), w, FP8)
    assert y.dtype == torch.bfloat16
    gate(y, rows(x) @ blocks(w).t(), PRODUCT)
    gate(y, x.double() @ w.double().t(), END_TO_END)


def test_dgrad(tensors):
    _, w, dy = tensors
    dx = dgrad(operand(dy, FP8), w, FP8)
    gate(dx, rows(dy) @ blocks(w), PRODUCT)
    gate(dx, dy.double() @ w.double(), END_TO_END)


def test_wgrad_recasts_what_was_cached_in_fp8(tensors):
    x, _, dy = tensors
    dw = wgrad(Plain(dy), operand(x, FP8), FP8)
    assert dw.dtype == torch.float32
    gate(dw, columns(dy) @ columns(rows(x).float()).t(), PRODUCT)
    # x is rounded twice here, 1x128 and then 128x1: sqrt(1 + 2) / sqrt(2) of the error of two single roundings
    gate(dw, dy.double().t() @ x.double(), END_TO_END * 1.25)
    assert relative_error(wgrad(Plain(dy), Plain(x), FP8), dw) > 0.01


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.BF16])
def test_plain_products(tensors, precision):
    x, w, dy = tensors
    d = precision.dtype
    tolerance = 1e-6 if precision is Precision.FP32 else PRODUCT
    gate(fprop(operand(x, precision), w, precision), x.double() @ w.to(d).double().t(), tolerance)
    gate(dgrad(operand(dy, precision), w, precision), dy.double() @ w.to(d).double(), tolerance)
    dw = wgrad(Plain(dy), operand(x, precision), precision)
    assert dw.dtype == torch.float32
    gate(dw, dy.double().t() @ x.double(), 1e-6)


def test_no_bias_on_non_negative_data():
    torch.manual_seed(1)
    x, w, dy = torch.rand(M, K).bfloat16(), torch.rand(N, K), torch.rand(M, N).bfloat16()
    for found, expected in (
        (fprop(operand(x, FP8), w, FP8), x.double() @ w.double().t()),
        (dgrad(operand(dy, FP8), w, FP8), dy.double() @ w.double()),
        (wgrad(Plain(dy), Plain(x), FP8), dy.double().t() @ x.double()),
        (wgrad(Plain(dy), operand(x, FP8, power_of_two=True), FP8), dy.double().t() @ x.double()),
    ):
        assert abs(rounding_bias(found, expected)) < 1e-3


def test_a_second_cast_is_biased_unless_scales_are_powers_of_two():
    """Where the column's grid is a little wider than the row's, a code rounds to itself and grows by the ratio."""
    torch.manual_seed(1)
    x = torch.rand(1024, K).bfloat16()
    once = rounding_bias(ops.dequantize_rows(*operand(x, FP8).columns(), torch.float32).t(), x)
    exact = rounding_bias(ops.dequantize_rows(*operand(x, FP8, power_of_two=True).columns(), torch.float32).t(), x)
    assert 0.004 < once < 0.008
    assert abs(exact) < 1e-3


@pytest.mark.parametrize("fault", ["row", "scale", "tile"])
def test_faults_are_caught(tensors, fault):
    x, w, _ = tensors
    y = fprop(operand(x, FP8), w, FP8)
    if fault == "row":
        y[7] = 0
    elif fault == "scale":
        y *= 1.03
    else:
        a = operand(x, FP8)
        s = a.s.clone()
        s[:, 1] = a.s[:, 0]
        y = fprop(a._replace(s=s), w, FP8)
    with pytest.raises(GateError):
        gate(y, rows(x) @ blocks(w).t(), PRODUCT)


@pytest.fixture
def grouped():
    """Four experts: none, few, more than a tile, one row."""
    torch.manual_seed(2)
    idx = torch.tensor([[1]] * 5 + [[2]] * 140 + [[3]])
    layout = ops.layout(idx, 4)
    x, dy = torch.randn(len(idx), K).bfloat16(), torch.randn(len(idx), N).bfloat16()
    return layout, ops.permute(x, layout), torch.randn(4, N, K) * 0.02, ops.permute(dy, layout)


SPANS = [slice(0, 0), slice(0, 128), slice(128, 384), slice(384, 512)]
"""Padded rows of the four experts."""


@pytest.mark.parametrize("precision", list(Precision))
def test_grouped_equals_one_product_an_expert(grouped, precision):
    layout, x, w, dy = grouped
    x, dy = x.to(precision.dtype), dy.to(precision.dtype)
    a, d = operand(x, precision), operand(dy, precision)
    y, dx = grouped_fprop(a, w, layout, precision), grouped_dgrad(d, w, layout, precision)
    dw = grouped_wgrad(Plain(dy), a, layout, precision)
    assert dw[0].abs().max() == 0 and y.shape == (layout.rows, N) and dx.shape == (layout.rows, K)
    for expert, span in enumerate(SPANS):
        if span.start < span.stop:
            one, d_one = operand(x[span], precision), operand(dy[span], precision)
            assert torch.equal(y[span], fprop(one, w[expert], precision))
            assert torch.equal(dx[span], dgrad(d_one, w[expert], precision))
            assert torch.equal(dw[expert], wgrad(Plain(dy[span]), one, precision))
