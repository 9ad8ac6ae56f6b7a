"""Cross-entropy with its gradient in the logits' place, against torch's."""

import pytest

torch = pytest.importorskip("torch")
from torch.nn.functional import cross_entropy, rms_norm  # noqa: E402

from numerics.layers.config import Precision  # noqa: E402
from numerics.layers.head import Head  # noqa: E402
from numerics.layers.norm import RMSNorm  # noqa: E402
from numerics.reference.compare import PRODUCT, gate  # noqa: E402
from tests.numerics.layers import tiny  # noqa: E402


def run(precision):
    torch.manual_seed(0)
    c = tiny.config(precision=precision)
    head, norm = Head(c), tiny.disturb(RMSNorm(c.shape.hidden, c.eps))
    x = torch.randn(70, c.shape.hidden).to(precision.dtype).requires_grad_()
    targets = torch.randint(0, c.shape.vocabulary, (70,))
    loss, _ = head.loss(x, norm, targets)
    (3 * loss).backward()
    y, w, n = (t.detach().double().requires_grad_() for t in (x, head.project.weight, norm.weight))
    expected = cross_entropy(rms_norm(y, (c.shape.hidden,), n, c.eps) @ w.t(), targets)
    (3 * expected).backward()
    return loss, expected, ((x.grad, y.grad), (head.project.weight.grad, w.grad), (norm.weight.grad, n.grad))


def test_fp32():
    loss, expected, gradients = run(Precision.FP32)
    torch.testing.assert_close(loss.double(), expected, rtol=1e-6, atol=0)
    for found, wanted in gradients:
        gate(found, wanted, 1e-5, gain_tolerance=1e-5)


@pytest.mark.parametrize("precision", [Precision.BF16, Precision.FP8])
def test_low_precision_is_bf16(precision):
    """Norm's output, weight, logits and their gradient are each rounded to BF16 once: 2 gates' worth in a row."""
    loss, expected, gradients = run(precision)
    assert abs(loss / expected - 1) < PRODUCT
    for found, wanted in gradients:
        gate(found, wanted, 3 * PRODUCT)


def test_fp8_training_does_not_quantise_the_head():
    assert all(torch.equal(a, b) for (a, _), (b, _) in zip(run(Precision.BF16)[2], run(Precision.FP8)[2], strict=True))
