"""Heads of latent attention: kernels against the reference; the backward pass against autograd."""

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

from numerics.kernels import heads as kernels  # noqa: E402
from numerics.reference import compare  # noqa: E402
from numerics.reference import heads as reference  # noqa: E402
from numerics.reference.rope import rope_tables, yarn_frequencies  # noqa: E402
from tests.numerics import interpreter  # noqa: E402

interpreter.install()
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SHAPES = [(2, 11, 3, 16, 8, 12), (1, 5, 2, 64, 32, 64), (1, 3, 1, 5, 2, 7)]
"""B, S, H, and elements of a head: n not turned, r turned, v of values."""


def operands(shape: tuple[int, ...], dtype: "torch.dtype" = torch.bfloat16) -> tuple:
    b, s, h, n, r, v = shape
    torch.manual_seed(n)
    tables = rope_tables(torch.arange(s), yarn_frequencies(r))
    q, kv, latent = torch.randn(b, s, h, n + r), torch.randn(b, s, h, n + v), torch.randn(b, s, 4 + r)
    moved = [t.to(dtype).to(DEVICE) for t in (q, kv, latent)]
    return moved[0], moved[1], moved[2][..., 4:], *(t.to(DEVICE) for t in tables)


def test_backward_is_autograds() -> None:
    """The shared key's gradient is the sum of the heads'; q's and k's parts come back where they were."""
    q, kv, shared, cos, sin = operands(SHAPES[0], torch.float32)
    leaves = [x.double().clone().requires_grad_() for x in (q, kv, shared)]
    out = reference.split_heads(leaves[0].clone(), *leaves[1:], cos.double(), sin.double())
    torch.manual_seed(0)
    upstream = [torch.randn_like(x) for x in out]
    torch.autograd.backward(out, upstream)
    found = reference.split_heads_backward(*(x.float() for x in upstream), cos, sin)
    for mine, leaf in zip(found, leaves, strict=True):
        torch.testing.assert_close(mine, leaf.grad.float(), rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_forward(shape: tuple[int, ...]) -> None:
    q, kv, shared, cos, sin = operands(shape)
    expected = reference.split_heads(q.cpu().clone(), kv.cpu(), shared.cpu(), cos.cpu(), sin.cpu())
    found = kernels.split_heads(q, kv, shared, cos, sin)
    assert found[0].data_ptr() == q.data_ptr()
    for a, b in zip(found, expected, strict=True):
        compare.gate_bitwise(a.cpu(), b)


@pytest.mark.parametrize("shape", SHAPES)
def test_backward(shape: tuple[int, ...]) -> None:
    q, kv, _, cos, sin = operands(shape)
    n, r = shape[3:5]
    dk, dv = torch.randn(*q.shape, device=DEVICE).bfloat16(), kv[..., n:].contiguous()
    moved = [t.cpu() for t in (dk, dv, cos, sin)]
    expected = reference.split_heads_backward(q.cpu().clone(), *moved)
    found = kernels.split_heads_backward(q, dk, dv, cos, sin)
    compare.gate_bitwise(found[0].cpu(), expected[0])
    compare.gate_bitwise(found[1].cpu(), expected[1])
    # The FP32 sum over heads may round to the BF16 neighbour: an ulp of the sum, which its turn mixes with another.
    size = dk[..., n:].float().abs().sum(2).cpu()
    assert ((found[2].cpu().float() - expected[2].float()).abs() <= 2.0**-7 * size.amax(-1, keepdim=True)).all()
    assert found[2].shape == (*shape[:2], r)


def test_odd_widths_are_refused() -> None:
    q, kv, _, _, _ = operands((1, 3, 2, 8, 4, 8))
    cos = torch.ones(3, 3, device=DEVICE)
    with pytest.raises(ValueError, match="power of two of rotary elements"):
        kernels.split_heads(q, kv, torch.zeros(1, 3, 6, device=DEVICE).bfloat16(), cos, cos)
