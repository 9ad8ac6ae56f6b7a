"""The gate's gradient, the loss-free bias and the sequence-wise balance loss."""

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("hypothesis")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from numerics.layers.gate import Gate, _Choose, affinities, balance_loss  # noqa: E402
from numerics.reference.compare import gate as hold  # noqa: E402
from tests.numerics.layers import tiny  # noqa: E402


def weights_by_the_paper(logits, idx, shape):
    """Differentiable weights of a given choice, written with torch's own operations."""
    a = affinities(logits, shape.score).gather(1, idx.long())
    return shape.route_scale * (a / a.sum(1, keepdim=True) if shape.score == "sigmoid" else a)


@pytest.mark.parametrize("shape", [tiny.V3, tiny.V2], ids=lambda s: s.name)
def test_gradient_of_the_weights(shape):
    torch.manual_seed(0)
    mine = torch.randn(40, shape.experts).requires_grad_()
    other = mine.detach().double().requires_grad_()
    idx, weights = _Choose.apply(mine, torch.randn(8) * 0.1 if shape.score == "sigmoid" else None, shape)
    expected = weights_by_the_paper(other, idx, shape)
    hold(weights.detach(), expected.detach(), 1e-6, gain_tolerance=1e-6)
    dy = torch.randn_like(weights)
    weights.backward(dy)
    expected.backward(dy.double())
    torch.testing.assert_close(mine.grad.double(), other.grad, rtol=1e-5, atol=1e-6)


def test_sigmoid_weights_sum_to_the_scale_and_softmax_weights_do_not():
    torch.manual_seed(0)
    x = torch.randn(30, tiny.V3.hidden)
    v3, v2 = Gate(tiny.config(tiny.V3))(x).weights.sum(1), Gate(tiny.config(tiny.V2))(x).weights.sum(1)
    torch.testing.assert_close(v3, torch.full((30,), 2.5))
    assert (v2 < 16.0).all() and v2.std() > 0.01


def test_at_most_so_many_groups():
    torch.manual_seed(0)
    shape = tiny.V3
    idx = Gate(tiny.config(shape))(torch.randn(200, shape.hidden)).idx
    groups = [set(row) for row in (idx // (shape.experts // shape.groups)).tolist()]
    assert max(map(len, groups)) == shape.groups_per_token


def test_bias_moves_by_the_sign_of_the_load():
    gate = Gate(tiny.config(tiny.V3, bias_speed=0.01))
    gate.load.copy_(torch.tensor([0.0, 1, 2, 3, 4, 5, 6, 3]))  # mean 3
    gate.update_bias()
    torch.testing.assert_close(gate.bias, 0.01 * torch.tensor([1.0, 1, 1, 0, -1, -1, -1, 0]))
    assert gate.load.abs().max() == 0


def test_only_training_counts_load():
    gate = Gate(tiny.config(tiny.V3))
    x = torch.randn(10, tiny.V3.hidden)
    gate(x)
    gate(x)
    assert gate.load.sum() == 2 * 10 * 3
    gate.eval()(x)
    assert gate.load.sum() == 2 * 10 * 3


def test_the_bias_evens_out_a_skewed_load():
    torch.manual_seed(0)
    gate = Gate(tiny.config(tiny.V3, bias_speed=0.02))
    favourite = gate.weight[0].detach()
    x = torch.randn(256, tiny.V3.hidden) + 2 * favourite / favourite.norm() ** 2  # its logit rises by 2 for every token
    spread = []
    for _ in range(60):
        gate(x)
        spread.append(float(gate.load.max() / gate.load.mean()))
        gate.update_bias()
    assert spread[0] > 2.0 and max(spread[-5:]) < 1.3


def test_v2_has_no_bias():
    gate = Gate(tiny.config(tiny.V2))
    gate(torch.randn(10, tiny.V2.hidden))
    gate.update_bias()
    assert gate.bias is None and gate.load.abs().max() == 0


def literal_balance_loss(logits, score, k, alpha):
    """Equations 17 to 20, one sequence, one expert, one token at a time."""
    total = 0.0
    for sequence in logits:
        s = affinities(sequence, score)
        length, experts = s.shape
        for i in range(experts):
            chosen = sum(int(i in s[t].topk(k).indices) for t in range(length))
            f = experts / (k * length) * chosen
            total = total + alpha * f * sum(s[t, i] / s[t].sum() for t in range(length)) / length
    return total / len(logits)


@pytest.mark.parametrize("score", ["sigmoid", "softmax"])
def test_balance_loss_is_the_equations(score):
    torch.manual_seed(0)
    mine = torch.randn(2, 9, 6, dtype=torch.float64).requires_grad_()
    other = mine.detach().clone().requires_grad_()
    a, b = balance_loss(mine, score, 2, 0.5), literal_balance_loss(other, score, 2, 0.5)
    torch.testing.assert_close(a, b)
    a.backward()
    b.backward()
    torch.testing.assert_close(mine.grad, other.grad)


@settings(max_examples=30, deadline=None)
@given(experts=st.integers(2, 12), seed=st.integers(0, 999), data=st.data())
def test_even_load_costs_alpha_and_collapse_more(experts, seed, data):
    k = data.draw(st.integers(1, experts))
    torch.manual_seed(seed)
    even = torch.stack([torch.randn(experts).roll(0)] * experts)
    even = torch.stack([row.roll(i) for i, row in enumerate(even)])[None]
    assert abs(float(balance_loss(even, "sigmoid", k, 1.0)) - 1.0) < 1e-5
    same = even[:, :1].expand_as(even)
    assert float(balance_loss(same, "sigmoid", k, 1.0)) >= 1.0 - 1e-5
