"""Cross-entropy and AdamW as kernels against torch's own, in FP32 so that the interpreter's BF16 does not matter."""

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

from numerics.kernels import adamw as adamw_kernels  # noqa: E402
from numerics.kernels import loss as kernels  # noqa: E402
from numerics.reference import adamw as adamw_reference  # noqa: E402
from numerics.reference import loss as reference  # noqa: E402
from tests.numerics import interpreter  # noqa: E402

interpreter.install()


@pytest.mark.parametrize("module", [kernels, reference])
@pytest.mark.parametrize("vocabulary", [61, 5000])
def test_cross_entropy(module, vocabulary):
    torch.manual_seed(0)
    logits, targets = torch.randn(7, vocabulary) * 4, torch.randint(0, vocabulary, (7,))
    other = logits.double().requires_grad_()
    wanted = torch.nn.functional.cross_entropy(other, targets, reduction="none")
    wanted.mean().backward()
    found = module.cross_entropy(logits, targets)
    torch.testing.assert_close(found.double(), wanted.detach(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(logits.double(), other.grad, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("module", [adamw_kernels, adamw_reference])
def test_adamw_is_torchs(module):
    torch.manual_seed(0)
    w, decay, rate = torch.randn(1500), 0.1, 1e-2
    theirs = torch.nn.Parameter(w.clone())
    optimizer = torch.optim.AdamW([theirs], lr=rate, betas=(0.9, 0.95), eps=1e-8, weight_decay=decay)
    m, v = torch.zeros_like(w), torch.zeros_like(w)
    for step in range(1, 5):
        g = torch.randn_like(w)
        theirs.grad = g * 0.5
        optimizer.step()
        scalars = torch.tensor([rate, 1 / (1 - 0.9**step), 1 / (1 - 0.95**step), 0.5])
        module.adamw(w, g, m, v, scalars, (0.9, 0.95), 1e-8, decay)
        assert g.abs().max() == 0
    torch.testing.assert_close(w, theirs.detach(), rtol=1e-5, atol=1e-6)


def test_moments_in_bf16_are_the_fp32_ones_rounded_once():
    torch.manual_seed(0)
    w, g = torch.randn(64), torch.randn(64)
    scalars = torch.tensor([0.1, 10.0, 20.0, 1.0])
    states = []
    for kind in (torch.float32, torch.bfloat16):
        m, v = torch.zeros(64, dtype=kind), torch.zeros(64, dtype=kind)
        one = w.clone()
        adamw_reference.adamw(one, g.clone(), m, v, scalars, (0.9, 0.95), 1e-8, 0.0)
        states.append((one, m, v))
    assert torch.equal(states[0][0], states[1][0])
    assert torch.equal(states[0][1].bfloat16(), states[1][1]) and torch.equal(states[0][2].bfloat16(), states[1][2])
