"""Mixture layers in BF16 and FP8 against a plain FP64 mixture; what is dispatched; idle and crowded experts."""

import pytest

torch = pytest.importorskip("torch")
from torch.nn.functional import silu  # noqa: E402

from numerics import ops  # noqa: E402
from numerics.layers.config import Precision  # noqa: E402
from numerics.layers.experts import MixtureOfExperts, _Experts, dispatch, weigh  # noqa: E402
from numerics.layers.feedforward import FeedForward  # noqa: E402
from numerics.layers.kept import Plain  # noqa: E402
from numerics.layers.products import operand  # noqa: E402
from numerics.reference.compare import GateError, relative_error  # noqa: E402
from tests.numerics.layers import tiny  # noqa: E402

T, H, WIDTH, E, K = 160, 256, 128, 4, 2
TOLERANCE = {Precision.FP32: 1e-5, Precision.BF16: 8e-3, Precision.FP8: 0.08}
"""Of outputs and gradients. BF16: four roundings of 2^-9 in a row and a sum of pairs. FP8: two products in a row, each
0.037 and the second with an input that is 0.037 off (0.064), and for gradients a third."""


def inputs(seed=0):
    torch.manual_seed(seed)
    idx = torch.stack([torch.randperm(E)[:K] for _ in range(T)])
    w_in, w_out = torch.randn(E, 2 * WIDTH, H) * 0.06, torch.randn(E, H, WIDTH) * 0.09
    return torch.randn(T, H), torch.rand(T, K) + 0.5, idx, w_in, w_out


def exact(x, weights, idx, w_in, w_out):
    """One token and one expert at a time, the gate's weight on the expert's output as in eq. 12."""
    y = torch.zeros_like(x)
    for e in range(len(w_in)):
        token, choice = torch.where(idx == e)
        gate_, up = (x[token] @ w_in[e].t()).chunk(2, 1)
        y = y.index_add(0, token, (silu(gate_) * up) @ w_out[e].t() * weights[token, choice, None])
    return y


def compared(precision, given, recompute=True):
    """Pairs of ours and the exact: output, then gradients of x, weights, w_in, w_out."""
    x, weights, idx, w_in, w_out = given
    x = x.to(precision.dtype)
    mine = [t.clone().requires_grad_() for t in (x, weights, w_in, w_out)]
    other = [t.double().requires_grad_() for t in (x, weights, w_in, w_out)]
    y = _Experts.apply(mine[0], mine[1], idx.int(), mine[2], mine[3], precision, recompute)
    z = exact(other[0], other[1], idx, other[2], other[3])
    dy = torch.randn_like(z).to(precision.dtype)
    y.backward(dy)
    z.backward(dy.double())
    return [(y.detach(), z.detach()), *((a.grad, b.grad) for a, b in zip(mine, other, strict=True))]


@pytest.mark.parametrize("precision", list(Precision))
@pytest.mark.parametrize("recompute", [True, False])
def test_output_and_gradients(precision, recompute):
    tolerance = TOLERANCE[precision]
    for index, (found, expected) in enumerate(compared(precision, inputs(), recompute)):
        if index == 2:  # of the gate's weights: rows of two numbers, each a sum over 128
            assert relative_error(found, expected) < tolerance
        else:
            tiny.hold(found, expected, tolerance, name=f"{precision} {index}")


@pytest.mark.parametrize("precision", list(Precision))
def test_idle_and_crowded_experts(precision):
    x, weights, _, w_in, w_out = inputs()
    idx = torch.tensor([[2, 0]]).expand(T, K).clone()
    pairs = compared(precision, (x, weights, idx, w_in, w_out))
    for found, expected in (pairs[0], pairs[1]):
        tiny.hold(found, expected, TOLERANCE[precision])
    for found, _ in pairs[3:]:
        assert found[1].abs().max() == 0 and found[3].abs().max() == 0 and found[2].abs().max() > 0


def test_dispatched_scales_are_powers_of_two_and_travel_with_their_row():
    x, _, idx, _, _ = inputs()
    layout = ops.layout(idx, E)
    a = operand(x.bfloat16(), Precision.FP8, power_of_two=True)
    rows = dispatch(a, layout)
    assert torch.equal(torch.log2(a.s), torch.log2(a.s).round())
    for token, choice in ((0, 0), (17, 1), (T - 1, 0)):
        row = layout.row_of_pair[token, choice]
        assert torch.equal(rows.q[row].float(), a.q[token].float()) and torch.equal(rows.s[row], a.s[token])
    assert rows.value().count_nonzero(1).bool().sum() == T * K


def test_both_dispatches_carry_power_of_two_scales(monkeypatch):
    scales, permute = [], ops.permute

    def spy(x, layout):
        if x.dtype == torch.float32:
            scales.append(x)
        return permute(x, layout)

    monkeypatch.setattr(ops, "permute", spy)
    compared(Precision.FP8, inputs())
    assert [s.shape for s in scales] == [(T, H // 128)] * 3  # x, dy, and x again for the weight gradient
    assert all(torch.equal(torch.log2(s), torch.log2(s).round()) for s in scales)


def test_weighing_the_scales_is_weighing_the_values():
    torch.manual_seed(0)
    act, by_row = torch.randn(128, WIDTH).bfloat16(), torch.rand(128)
    a = operand(act, Precision.FP8)._replace(dtype=torch.float32)
    torch.testing.assert_close(weigh(a, by_row).value(), a.value() * by_row[:, None])
    assert torch.equal(weigh(Plain(act), by_row).value(), act * by_row[:, None].bfloat16())


def test_a_mixture_is_its_shared_and_routed_parts():
    torch.manual_seed(0)
    layer = MixtureOfExperts(tiny.config(tiny.V3))
    x = torch.randn(20, tiny.V3.hidden)
    y, choice = layer(x)
    routed = _Experts.apply(x, choice.weights, choice.idx, layer.gate_up, layer.down, Precision.FP32, True)
    torch.testing.assert_close(y, routed + layer.shared(x))
    assert layer.shared.down.shape[1] == tiny.V3.shared_experts * tiny.V3.expert_intermediate


@pytest.mark.parametrize("precision", list(Precision))
@pytest.mark.parametrize("recompute", [True, False])
def test_feed_forward(precision, recompute):
    torch.manual_seed(0)
    layer = FeedForward(tiny.config(precision=precision, recompute=recompute), 160)
    mine = torch.randn(90, tiny.V3.hidden).to(precision.dtype).requires_grad_()
    x, w_in, w_out = (t.detach().double().requires_grad_() for t in (mine, layer.gate_up, layer.down))
    gate_, up = (x @ w_in.t()).chunk(2, 1)
    y, z = layer(mine), (silu(gate_) * up) @ w_out.t()
    dy = torch.randn_like(y)
    y.backward(dy)
    z.backward(dy.double())
    tiny.hold(y, z, TOLERANCE[precision])
    for found, expected in ((mine.grad, x.grad), (layer.gate_up.grad, w_in.grad), (layer.down.grad, w_out.grad)):
        tiny.hold(found, expected, TOLERANCE[precision])


@pytest.mark.parametrize("fault", ["scale", "row"])
def test_faults_are_caught(fault):
    found, expected = compared(Precision.FP8, inputs())[0]
    if fault == "scale":
        found = found * 1.03
    else:
        found[5] = 0
    with pytest.raises((AssertionError, GateError)):
        tiny.hold(found, expected, TOLERANCE[Precision.FP8])
