"""Emulated recipes against the kernels' own FP8, and each against what it changes."""

import pytest

torch = pytest.importorskip("torch")

from numerics import ops  # noqa: E402
from numerics.layers.emulated import RECIPES, UNPROMOTED, V3  # noqa: E402
from numerics.layers.kept import Plain  # noqa: E402
from numerics.layers.precision import Precision  # noqa: E402
from numerics.layers.products import dgrad, fprop, grouped_dgrad, grouped_fprop, grouped_wgrad, operand, wgrad  # noqa: E402
from numerics.reference.compare import END_TO_END, gate, relative_error  # noqa: E402

FP8 = Precision.FP8
M, N, K = 256, 128, 384


@pytest.fixture
def tensors():
    torch.manual_seed(0)
    return torch.randn(M, K).bfloat16(), torch.randn(N, K) * 0.02, torch.randn(M, N).bfloat16()


def three(tensors, precision):
    x, w, dy = tensors
    return (
        fprop(operand(x, precision), w, precision), dgrad(operand(dy, precision), w, precision),
        wgrad(Plain(dy), Plain(x), precision),
    )  # fmt: skip


def test_v3_emulated_is_v3(tensors):
    """What BF16 adds to the rounded values and FP32 sums leave out is a tenth of what FP8 itself costs."""
    for found, wanted in zip(three(tensors, V3), three(tensors, FP8), strict=True):
        assert relative_error(found, wanted) < 0.1 * END_TO_END


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_is_fp8_of_the_exact_product(tensors, name):
    x, w, dy = tensors
    exact = x.double() @ w.double().t(), dy.double() @ w.double(), dy.double().t() @ x.double()
    for found, wanted in zip(three(tensors, RECIPES[name]), exact, strict=True):
        assert 0.01 < relative_error(found, wanted) < 2 * END_TO_END


def test_gradients_in_e5m2_change_gradients_alone(tensors):
    one, other = three(tensors, V3), three(tensors, RECIPES["E5M2 gradients"])
    assert torch.equal(one[0], other[0])
    _, w, dy = tensors
    exact = dy.double() @ w.double()
    assert relative_error(other[1], exact) > 1.3 * relative_error(one[1], exact)


def test_outliers_cost_a_scale_a_tensor_most():
    """A channel far larger than the rest pushes a tensor into E4M3's subnormals; tiles keep it to theirs."""
    torch.manual_seed(0)
    x, w = torch.randn(M, K), torch.randn(N, K)
    x[:, 0] *= 30000
    w[:, 0] = 0
    exact = x.double() @ w.double().t()
    fine, coarse = (relative_error(fprop(operand(x, p), w, p), exact) for p in (V3, RECIPES["a scale a tensor"]))
    assert fine < END_TO_END and coarse > 2 * fine


@pytest.mark.parametrize("name", RECIPES)
def test_by_expert(name):
    precision = RECIPES[name]
    torch.manual_seed(2)
    layout = ops.layout(torch.tensor([[0]] * 5 + [[2]] * 140), 3)
    x, dy, w = torch.randn(145, K).bfloat16(), torch.randn(145, N).bfloat16(), torch.randn(3, N, K) * 0.02
    rows, d = ops.permute(x, layout), ops.permute(dy, layout)
    y, dx = grouped_fprop(Plain(rows), w, layout, precision), grouped_dgrad(Plain(d), w, layout, precision)
    dw = grouped_wgrad(Plain(d), Plain(rows), layout, precision)
    for expert, here, span in ((0, slice(0, 5), slice(0, 5)), (2, slice(5, 145), slice(128, 268))):
        gate(y[span], x[here].double() @ w[expert].double().t(), 2 * END_TO_END, gain_tolerance=0.03)
        gate(dx[span], dy[here].double() @ w[expert].double(), 2 * END_TO_END, gain_tolerance=0.03)
        assert relative_error(dw[expert], dy[here].double().t() @ x[here].double()) < 2 * END_TO_END
    assert dw[1].abs().max() == 0


def test_what_is_not_promoted_has_a_scale_a_row(tensors):
    """A row's largest element decides for all of it: 128 elements far below the rest are lost."""
    x, w, _ = tensors
    x = x.clone()
    x[:, 128:] *= 2.0**-16
    w = w.clone()
    w[:, :128] = 0
    exact = x.double() @ w.double().t()
    assert relative_error(fprop(operand(x, UNPROMOTED), w, UNPROMOTED), exact) > 0.2
    assert relative_error(fprop(operand(x, V3), w, V3), exact) < END_TO_END
